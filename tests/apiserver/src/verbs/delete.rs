//! Delete and deletecollection: preconditions, grace, finalizers, propagation.

use std::sync::Arc;

use serde_json::{Value, json};

use super::list::invalid_options;
use super::{Api, Target};
use crate::object;
use crate::refusal::{Cause, Refusal};
use crate::registry::Resource;
use crate::selectors::Selection;
use crate::stamp;
use crate::store::{Key, Stored};

/// `metav1.DeleteOptions`, from query and body.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    /// Do everything but delete.
    pub dry_run: bool,
    /// Seconds a pod may take.
    pub grace_secs: Option<i64>,
    /// `Background`, `Foreground` or `Orphan`.
    pub propagation: Option<String>,
    /// The uid the object must have.
    pub uid: Option<String>,
    /// The resourceVersion the object must have.
    pub resource_version: Option<String>,
}

/// What a delete did.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; this was its last state.
    Gone(Arc<Stored>),
    /// The object waits for finalizers or its grace period.
    Waiting(Arc<Stored>),
}

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Whether nothing keeps a terminating object any more.
pub(crate) fn is_ready_to_go(value: &Value) -> bool {
    let grace = value["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or_default();
    let kept_by_spec =
        value["kind"] == "Namespace" && !object::list_at(value, &["spec", "finalizers"]).is_empty();
    object::is_terminating(value) && object::finalizers(value).is_empty() && grace == 0 && !kept_by_spec
}

impl Api {
    /// Deletes the addressed object, or begins to.
    pub(crate) fn delete(&self, target: &Target, options: &DeleteOptions) -> Result<Deleted, Refusal> {
        check_policy(options)?;
        loop {
            let old = self.get(target)?;
            check_preconditions(target, &old, options)?;
            let marked = marked(&target.resource, &old.value, options);
            let gone = is_ready_to_go(&marked);
            if options.dry_run {
                return Ok(Deleted::Gone(old));
            }
            if gone {
                if let Ok(gone) = target.resource.objects.remove(&target.key(), old.revision) {
                    self.after_removal(&target.resource, &gone);
                    return Ok(Deleted::Gone(gone));
                }
            } else if marked == old.value {
                return Ok(Deleted::Waiting(old));
            } else if let Ok(kept) = target.resource.objects.replace(&target.key(), old.revision, marked) {
                self.after_write(&target.resource, &kept, Some(&old));
                return Ok(Deleted::Waiting(kept));
            }
        }
    }

    /// Deletes everything selected in a namespace; returns what was selected.
    pub(crate) fn delete_collection(
        &self,
        target: &Target,
        selection: &Selection,
        options: &DeleteOptions,
    ) -> Result<Vec<Arc<Stored>>, Refusal> {
        let mut selected = target.resource.objects.snapshot(&target.namespace).objects;
        selected.retain(|o| selection.matches(&o.value));
        for object in &selected {
            let Key { namespace, name } = Key::of(&object.value);
            let one = Target { namespace, name, ..target.clone() };
            match self.delete(&one, options) {
                Err(refusal) if refusal.code != 404 => return Err(refusal),
                _ => {}
            }
        }
        Ok(selected)
    }
}

fn check_policy(options: &DeleteOptions) -> Result<(), Refusal> {
    match options.propagation.as_deref() {
        None | Some("Background" | "Foreground" | "Orphan") => Ok(()),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            let fault = Cause::not_supported("propagationPolicy", &json!(other), &supported);
            Err(invalid_options("DeleteOptions", fault))
        }
    }
}

fn check_preconditions(target: &Target, old: &Stored, options: &DeleteOptions) -> Result<(), Refusal> {
    let record = &old.value;
    let checks = [
        ("UID", &options.uid, object::uid(record)),
        ("ResourceVersion", &options.resource_version, object::resource_version(record)),
    ];
    for (what, wanted, there) in checks {
        if let Some(wanted) = wanted.as_deref().filter(|w| *w != there) {
            let why = format!(
                "the {what} in the precondition ({wanted}) does not match the {what} in record ({there}). The object might have been {}",
                if what == "UID" { "deleted and then recreated" } else { "modified" }
            );
            return Err(Refusal::conflict(
                &target.resource.id.group,
                &target.resource.kind,
                &target.name,
                &why,
            ));
        }
    }
    Ok(())
}

/// The object with its deletion asked for.
fn marked(resource: &Resource, old: &Value, options: &DeleteOptions) -> Value {
    let mut new = old.clone();
    let grace = grace_secs(resource, old, options);
    let shorter = old["metadata"]["deletionGracePeriodSeconds"].as_i64().is_none_or(|g| grace < g);
    if !object::is_terminating(old) || shorter {
        let meta = object::meta_mut(&mut new);
        if !meta.contains_key("deletionTimestamp") {
            meta.insert("deletionTimestamp".into(), json!(stamp::secs_from_now(grace)));
            if let Some(generation) = meta.get("generation").and_then(Value::as_i64) {
                meta.insert("generation".into(), json!(generation + 1));
            }
        }
        if resource.kind != "Namespace" {
            meta.insert("deletionGracePeriodSeconds".into(), json!(grace));
        }
    }
    let finalizer = match options.propagation.as_deref() {
        _ if resource.kind == "CustomResourceDefinition" => Some(crate::crd::CLEANUP),
        Some("Foreground") => Some(FOREGROUND),
        Some("Orphan") => Some(ORPHAN),
        _ => None,
    };
    if let Some(finalizer) = finalizer
        && !object::finalizers(&new).contains(&finalizer)
    {
        let list = object::meta_mut(&mut new).entry("finalizers").or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(json!(finalizer));
        }
    }
    if resource.kind == "Namespace" {
        new["status"]["phase"] = json!("Terminating");
    }
    new
}

/// Only pods on a node have a grace period: their kubelet ends it.
fn grace_secs(resource: &Resource, old: &Value, options: &DeleteOptions) -> i64 {
    let on_node = !object::str_at(old, &["spec", "nodeName"]).is_empty();
    let over = ["Failed", "Succeeded"].iter().any(|p| old["status"]["phase"] == *p);
    if resource.kind != "Pod" || resource.is_custom() || !on_node || over {
        return 0;
    }
    let own = old["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(30);
    options.grace_secs.unwrap_or(own).max(0)
}
