//! What goes when something else goes: dependents of a deleted owner, contents of a deleted namespace, the
//! addresses of a deleted Service, the resource of a deleted CRD. Found by index, done by one background task.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::object;
use crate::registry::Resource;
use crate::store::{Collection, Key, Stored};
use crate::verbs::delete::DeleteOptions;
use crate::verbs::{Api, Target};

/// Work for the background task.
#[derive(Debug)]
enum Job {
    /// An owner is gone: look at what it owned.
    OwnerGone(String),
    /// An object names an owner that does not exist: look at it.
    Orphan(Address),
    /// An object waits for its dependents.
    Foreground(Address),
    /// A namespace is to be emptied.
    Namespace(String),
}

/// A resource's plural and group (enough to find it again in the table) and an object's key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Address {
    group: String,
    plural: String,
    key: Key,
}

#[derive(Debug, Default)]
struct Index {
    living: HashSet<String>,
    by_owner: HashMap<String, HashSet<Address>>,
}

/// The index and the task's inbox.
#[derive(Debug)]
pub(crate) struct Garbage {
    index: Mutex<Index>,
    jobs: mpsc::UnboundedSender<Job>,
    inbox: Mutex<Option<mpsc::UnboundedReceiver<Job>>>,
}

impl Default for Garbage {
    fn default() -> Self {
        let (jobs, inbox) = mpsc::unbounded_channel();
        Self { index: Mutex::default(), jobs, inbox: Mutex::new(Some(inbox)) }
    }
}

impl Garbage {
    fn lock(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().expect("no code panics while it holds the index")
    }

    // The task lives as long as the server; a send after its end has nobody to act for.
    fn send(&self, job: Job) {
        let _ = self.jobs.send(job);
    }
}

fn owners(value: &Value) -> Vec<&str> {
    object::list_at(value, &["metadata", "ownerReferences"])
        .iter()
        .filter_map(|o| o["uid"].as_str())
        .collect()
}

fn address(resource: &Resource, value: &Value) -> Address {
    Address { group: resource.id.group.clone(), plural: resource.id.plural.clone(), key: Key::of(value) }
}

impl Api {
    /// The collection of namespaces.
    pub(crate) fn namespaces(&self) -> Arc<Collection> {
        self.registry.table().find("", "v1", "namespaces").expect("namespaces are built in").objects.clone()
    }

    /// To be called after every stored change.
    pub(crate) fn after_write(&self, resource: &Arc<Resource>, new: &Stored, old: Option<&Stored>) {
        let value = &new.value;
        let mut index = self.garbage.lock();
        if old.is_none() {
            index.living.insert(object::uid(value).to_owned());
        }
        let before = old.map(|o| owners(&o.value)).unwrap_or_default();
        let after = owners(value);
        if before != after {
            let at = address(resource, value);
            for gone in before.iter().filter(|o| !after.contains(o)) {
                if let Some(set) = index.by_owner.get_mut(*gone) {
                    set.remove(&at);
                }
            }
            for owner in &after {
                index.by_owner.entry((*owner).to_owned()).or_default().insert(at.clone());
            }
            if !after.is_empty() && after.iter().all(|o| !index.living.contains(*o)) {
                self.garbage.send(Job::Orphan(at));
            }
        }
        drop(index);
        if object::is_terminating(value) {
            if resource.kind == "Namespace" {
                self.garbage.send(Job::Namespace(object::name(value).to_owned()));
            } else if !object::finalizers(value).is_empty() {
                self.garbage.send(Job::Foreground(address(resource, value)));
            }
        }
        if resource.kind == "CustomResourceDefinition" {
            crate::crd::on_change(self, new);
        }
    }

    /// To be called after every removal.
    pub(crate) fn after_removal(&self, resource: &Arc<Resource>, gone: &Stored) {
        let value = &gone.value;
        let uid = object::uid(value);
        let at = address(resource, value);
        let mut index = self.garbage.lock();
        index.living.remove(uid);
        for owner in owners(value) {
            if let Some(set) = index.by_owner.get_mut(owner) {
                set.remove(&at);
                if set.is_empty() {
                    index.by_owner.remove(owner);
                }
            }
        }
        let has_dependents = index.by_owner.contains_key(uid);
        drop(index);
        resource.rules.release(value);
        if has_dependents {
            self.garbage.send(Job::OwnerGone(uid.to_owned()));
        }
        let namespace = self.namespaces().get(&Key::new("", &at.key.namespace));
        if namespace.is_some_and(|n| object::is_terminating(&n.value)) {
            self.garbage.send(Job::Namespace(at.key.namespace));
        }
        if resource.kind == "CustomResourceDefinition" {
            crate::crd::on_removal(self, gone);
        } else if resource.is_custom()
            && let Some((definitions, crd)) = crate::crd::of_resource(self, resource)
            && object::is_terminating(&crd.value)
        {
            self.garbage.send(Job::Foreground(address(&definitions, &crd.value)));
        }
    }

    /// Runs the background task until the server's end.
    pub(crate) async fn collect_garbage(self: Arc<Self>) {
        let inbox = self.garbage.inbox.lock().expect("nobody panics while holding the inbox").take();
        let Some(mut inbox) = inbox else { return };
        while let Some(job) = inbox.recv().await {
            match job {
                Job::OwnerGone(uid) => self.on_owner_gone(&uid),
                Job::Orphan(at) => self.on_orphan(&at),
                Job::Foreground(at) => self.on_waiting(&at),
                Job::Namespace(name) => self.on_namespace(&name),
            }
            tokio::task::yield_now().await;
        }
    }

    fn target(&self, at: &Address) -> Option<Target> {
        let table = self.registry.table();
        let resource =
            table.resources.iter().find(|r| r.id.group == at.group && r.id.plural == at.plural)?.clone();
        Some(Target {
            resource,
            namespace: at.key.namespace.clone(),
            name: at.key.name.clone(),
            status: false,
        })
    }

    fn on_owner_gone(&self, uid: &str) {
        let dependents: Vec<Address> =
            self.garbage.lock().by_owner.get(uid).into_iter().flatten().cloned().collect();
        for dependent in dependents {
            self.on_orphan(&dependent);
        }
    }

    /// Deletes an object none of whose owners lives; drops references to dead owners otherwise.
    fn on_orphan(&self, at: &Address) {
        let Some(target) = self.target(at) else { return };
        let Ok(object) = self.get(&target) else { return };
        let owners = owners(&object.value);
        let index = self.garbage.lock();
        let alive = owners.iter().any(|o| index.living.contains(*o));
        drop(index);
        if owners.is_empty() || alive {
            return;
        }
        let uid = Some(object::uid(&object.value).to_owned());
        let options =
            DeleteOptions { uid, propagation: Some("Background".into()), ..DeleteOptions::default() };
        if let Err(refusal) = self.delete(&target, &options) {
            tracing::debug!(?at, %refusal, "a dependent was not deleted");
        }
    }

    /// Serves the finalizers `orphan` and `foregroundDeletion`.
    fn on_waiting(&self, at: &Address) {
        let Some(target) = self.target(at) else { return };
        let Ok(object) = self.get(&target) else { return };
        let finalizers = object::finalizers(&object.value);
        let uid = object::uid(&object.value).to_owned();
        let dependents: Vec<Address> =
            self.garbage.lock().by_owner.get(&uid).into_iter().flatten().cloned().collect();
        if finalizers.contains(&"orphan") {
            for dependent in &dependents {
                self.disown(dependent, &uid);
            }
            self.drop_finalizer(&target, "orphan");
        } else if finalizers.contains(&crate::crd::CLEANUP) {
            if self.empty_definition(&object.value) {
                self.drop_finalizer(&target, crate::crd::CLEANUP);
            }
        } else if finalizers.contains(&"foregroundDeletion") {
            for dependent in &dependents {
                if let Some(target) = self.target(dependent) {
                    let options =
                        DeleteOptions { propagation: Some("Foreground".into()), ..DeleteOptions::default() };
                    // A dependent that is gone already is as good as deleted.
                    let _ = self.delete(&target, &options);
                }
            }
            if self.garbage.lock().by_owner.contains_key(&uid) {
                self.garbage.send(Job::Foreground(at.clone()));
            } else {
                self.drop_finalizer(&target, "foregroundDeletion");
            }
        }
    }

    /// Deletes the objects of a terminating CRD; whether all are gone.
    fn empty_definition(&self, crd: &Value) -> bool {
        let Some(resource) = crate::crd::instances(self, crd) else { return true };
        for object in resource.objects.snapshot("").objects {
            let Key { namespace, name } = Key::of(&object.value);
            let target = Target { resource: resource.clone(), namespace, name, status: false };
            // One that is gone already is as good as deleted.
            let _ = self.delete(&target, &DeleteOptions::default());
        }
        resource.objects.is_empty()
    }

    fn disown(&self, at: &Address, owner: &str) {
        let Some(target) = self.target(at) else { return };
        self.rewrite(&target, &mut |value| {
            if let Some(list) = object::list_mut(value, &["metadata", "ownerReferences"]) {
                list.retain(|o| o["uid"] != owner);
            }
        });
    }

    fn drop_finalizer(&self, target: &Target, finalizer: &str) {
        self.rewrite(target, &mut |value| {
            if let Some(list) = object::list_mut(value, &["metadata", "finalizers"]) {
                list.retain(|f| f != finalizer);
            }
        });
    }

    /// Changes an object as the server itself, without the rules for clients.
    pub(crate) fn rewrite(&self, target: &Target, edit: &mut dyn FnMut(&mut Value)) {
        loop {
            let Some(old) = target.resource.objects.get(&target.key()) else { return };
            let mut new = old.value.clone();
            edit(&mut new);
            if new == old.value {
                return;
            }
            if crate::verbs::delete::is_ready_to_go(&new) {
                if let Ok(gone) = target.resource.objects.remove(&target.key(), old.revision) {
                    return self.after_removal(&target.resource, &gone);
                }
            } else if let Ok(stored) = target.resource.objects.replace(&target.key(), old.revision, new) {
                return self.after_write(&target.resource, &stored, Some(&old));
            }
        }
    }

    /// Deletes what is in a terminating namespace; when nothing is left, the namespace.
    fn on_namespace(&self, name: &str) {
        let table = self.registry.table();
        let namespaces = table.find("", "v1", "namespaces").expect("namespaces are built in");
        let mut left = 0;
        for resource in
            table.resources.iter().filter(|r| r.namespaced && r.view == crate::registry::View::Same)
        {
            for object in resource.objects.snapshot(name).objects {
                let target = Target {
                    resource: resource.clone(),
                    namespace: name.to_owned(),
                    name: object::name(&object.value).to_owned(),
                    status: false,
                };
                let options = DeleteOptions { grace_secs: Some(0), ..DeleteOptions::default() };
                let waiting =
                    matches!(self.delete(&target, &options), Ok(crate::verbs::delete::Deleted::Waiting(_)));
                left += usize::from(waiting);
            }
        }
        if left > 0 {
            return;
        }
        let target =
            Target { resource: namespaces, namespace: String::new(), name: name.to_owned(), status: false };
        self.rewrite(&target, &mut |value| {
            if object::is_terminating(value) {
                value["spec"]["finalizers"] = json!([]);
            }
        });
    }
}
