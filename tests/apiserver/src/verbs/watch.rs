//! Watches: a stream of lines read from the collection's history, woken by its newest event. A watcher that
//! falls behind the bounded history gets 410, so a slow client costs nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, Interval};

use super::list::{ListOptions, expired, invalid_options, parse_version};
use super::{Api, Target};
use crate::present::Form;
use crate::refusal::{Cause, Refusal};
use crate::selectors::Selection;
use crate::store::{Event, EventKind, Stored, event_line};
use crate::{object, view};

/// How many events are taken out of the history at once.
const BATCH: usize = 256;

/// Watches not longer than this end without a bookmark.
const SHORT: Duration = Duration::from_secs(2);

/// What a watch asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct WatchOptions {
    /// Selection and resourceVersion.
    pub list: ListOptions,
    /// `allowWatchBookmarks`
    pub bookmarks: bool,
    /// `sendInitialEvents`
    pub initial_events: Option<bool>,
    /// `timeoutSeconds`
    pub timeout: Option<Duration>,
    /// How objects are shown.
    pub form: Form,
}

/// A running watch; yields encoded lines.
#[derive(Debug)]
pub(crate) struct Watch {
    target: Target,
    selection: Selection,
    form: Form,
    place: u64,
    revision: u64,
    pending: VecDeque<Bytes>,
    newest: watch::Receiver<u64>,
    ends: Option<Instant>,
    bookmarks: Option<Interval>,
    over: bool,
    /// Whether a bookmark is sent at the end.
    last_words: bool,
    /// Only events younger than this are sent; it may lie in the future.
    after: u64,
    first_row: bool,
}

impl Api {
    /// Begins a watch.
    pub(crate) fn watch(&self, target: &Target, options: &WatchOptions) -> Result<Watch, Refusal> {
        let objects = &target.resource.objects;
        check_initial(options)?;
        let wanted = parse_version(&options.list.resource_version)?;
        let newest = objects.subscribe();
        let starts_with_list =
            wanted == 0 && options.initial_events != Some(false) || options.initial_events == Some(true);
        let (initial, place) = if starts_with_list {
            let (snapshot, place) = objects.snapshot_and_place(&target.namespace);
            (Some(snapshot), place)
        } else if wanted == 0 {
            (None, objects.snapshot_and_place(&target.namespace).1)
        } else {
            (None, objects.place_after(wanted).map_err(|too_old| expired(wanted, &too_old))?)
        };
        let revision = initial.as_ref().map_or(wanted, |s| s.revision);
        let mut watch = Watch {
            target: target.clone(),
            selection: options.list.selection.clone(),
            form: options.form,
            place,
            revision,
            pending: VecDeque::new(),
            newest,
            ends: options.timeout.map(|t| Instant::now() + t),
            bookmarks: options.bookmarks.then(|| bookmark_clock(self.options.bookmark_every)),
            over: false,
            last_words: options.bookmarks && options.timeout.is_some_and(|t| t > SHORT),
            after: wanted,
            first_row: true,
        };
        if let Some(snapshot) = initial {
            for object in snapshot.objects {
                if watch.selects(&object) {
                    let line = watch.object_line(EventKind::Added, &object);
                    watch.pending.push_back(line);
                }
            }
            if options.initial_events == Some(true) && options.bookmarks {
                watch.push_bookmark(true);
            }
        }
        Ok(watch)
    }
}

fn bookmark_clock(every: Duration) -> Interval {
    let mut clock = tokio::time::interval_at(Instant::now() + every, every);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    clock
}

fn check_initial(options: &WatchOptions) -> Result<(), Refusal> {
    let given = options.list.version_match.as_str();
    let why = match (options.initial_events, given) {
        (Some(_), "NotOlderThan") | (None, "") => return Ok(()),
        (Some(_), _) => "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        (None, _) => "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
    };
    Err(invalid_options("ListOptions", Cause::forbidden("resourceVersionMatch", why)))
}

impl Watch {
    /// The next line; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.pending.pop_front() {
                return Some(line);
            }
            if self.over {
                return None;
            }
            // Mark seen before reading, so that an event added meanwhile wakes us again.
            self.newest.borrow_and_update();
            if self.read_history() {
                continue;
            }
            self.sleep().await;
        }
    }

    /// Takes what is new out of the history. Returns whether there was anything to look at.
    fn read_history(&mut self) -> bool {
        match self.target.resource.objects.events_from(self.place, BATCH) {
            Ok((events, revision)) => {
                self.place += events.len() as u64;
                self.revision = revision;
                for event in &events {
                    if let Some(line) = self.event(event) {
                        self.pending.push_back(line);
                    }
                }
                !events.is_empty()
            }
            Err(too_old) => {
                let status = expired(self.revision, &too_old).to_status();
                self.pending.push_back(event_line("ERROR", status.to_string().as_bytes()));
                self.over = true;
                true
            }
        }
    }

    async fn sleep(&mut self) {
        let ends = self.ends;
        let end = async move {
            match ends {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let bookmarks = &mut self.bookmarks;
        let tick = async move {
            match bookmarks {
                Some(clock) => clock.tick().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.newest.changed() => self.over |= changed.is_err(),
            () = end => {
                if self.last_words {
                    self.push_bookmark(false);
                }
                self.over = true;
            }
            _ = tick => self.push_bookmark(false),
        }
    }

    fn selects(&self, object: &Stored) -> bool {
        self.in_scope(&object.value) && (self.selection.is_everything() || self.selected(object))
    }

    fn in_scope(&self, value: &Value) -> bool {
        let namespace = &self.target.namespace;
        let name = &self.target.name;
        (namespace.is_empty() || object::namespace(value) == namespace)
            && (name.is_empty() || object::name(value) == name)
    }

    fn selected(&self, object: &Stored) -> bool {
        match view::converted(&self.target.resource, object) {
            Some(value) => self.selection.matches(&value),
            None => self.selection.matches(&object.value),
        }
    }

    /// What the watcher sees of an event: entering the selection is ADDED, leaving it DELETED.
    fn event(&mut self, event: &Arc<Event>) -> Option<Bytes> {
        if !self.in_scope(&event.object.value) || event.object.revision <= self.after {
            return None;
        }
        if self.selection.is_everything() {
            if self.form == Form::Object && self.target.resource.view == crate::registry::View::Same {
                return Some(event.line());
            }
            return Some(self.object_line(event.kind, &event.object));
        }
        let now = event.kind != EventKind::Deleted && self.selected(&event.object);
        let before = event.previous.as_ref().is_some_and(|p| self.selected(p));
        match (before, now) {
            (false, true) => Some(self.object_line(EventKind::Added, &event.object)),
            (true, true) => Some(self.object_line(EventKind::Modified, &event.object)),
            (true, false) => {
                // The last state that was selected, at the revision of the change.
                let previous = event.previous.as_ref()?;
                let mut value = previous.value.clone();
                let revision = event.object.revision.to_string();
                object::meta_mut(&mut value).insert("resourceVersion".into(), json!(revision));
                Some(self.object_line(EventKind::Deleted, &Stored::detached(value)))
            }
            (false, false) => None,
        }
    }

    fn object_line(&mut self, kind: EventKind, object: &Stored) -> Bytes {
        let resource = &self.target.resource;
        if self.form == Form::Object {
            return match view::converted(resource, object) {
                Some(value) => event_line(kind.word(), value.to_string().as_bytes()),
                None => event_line(kind.word(), &object.json),
            };
        }
        let shown = self.form.one(resource, object, std::mem::take(&mut self.first_row));
        event_line(kind.word(), shown.to_string().as_bytes())
    }

    /// A bookmark at the newest revision, behind all events up to it.
    fn push_bookmark(&mut self, initial_events_end: bool) {
        if !initial_events_end {
            self.read_history();
        }
        let resource = &self.target.resource;
        let mut bookmark = json!({
            "kind": resource.kind, "apiVersion": resource.api_version(),
            "metadata": {"resourceVersion": self.revision.to_string(), "creationTimestamp": null},
        });
        if initial_events_end {
            bookmark["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.pending.push_back(event_line("BOOKMARK", bookmark.to_string().as_bytes()));
    }
}
