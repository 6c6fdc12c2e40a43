//! Create and update. Everything is computed on values; the store is asked once, at the end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Api, FieldValidation, Target, WriteOptions, Written};
use crate::kinds::{self, Generation, Reservation, metadata};
use crate::managed::{self, Writer};
use crate::object;
use crate::refusal::{Cause, Refusal};
use crate::registry::{Resource, View};
use crate::stamp;
use crate::store::{Key, Stored};

/// How often an update without resourceVersion is tried against a moving object.
const ATTEMPTS: usize = 16;

impl Api {
    /// Stores the object a client sent.
    pub(crate) fn create(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Refusal> {
        let (value, warnings) = self.decode(target, body, options.field_validation)?;
        // Only the new API insists on its own clock.
        if target.resource.view == View::Events && value["eventTime"].is_null() {
            let cause = Cause::required("eventTime", "");
            return Err(Refusal::invalid("", "Event", object::name(&value), vec![cause]));
        }
        self.create_decoded(target, value, options, &Writer::update(options, target), warnings)
    }

    pub(super) fn create_decoded(
        &self,
        target: &Target,
        mut new: Value,
        options: &WriteOptions,
        writer: &Writer,
        warnings: Vec<String>,
    ) -> Result<Written, Refusal> {
        let resource = &target.resource;
        self.stamp_new(target, &mut new)?;
        resource.rules.default(&mut new);
        managed::track(&mut new, None, writer, resource);
        resource.rules.prepare_create(&mut new);
        let mut causes = metadata::validate(&new, |name| resource.rules.name_fault(name));
        refuse(resource, &new, &causes)?;
        let held = resource
            .rules
            .reserve(&mut new, None, options.dry_run)
            .map_err(|c| invalid(resource, &new, c))?;
        causes.extend(resource.rules.validate(&new, None));
        if let Err(refusal) = refuse(resource, &new, &causes) {
            give_back(held);
            return Err(refusal);
        }
        if options.dry_run {
            return dry_run_create(resource, new, held, warnings);
        }
        match resource.objects.create(new) {
            Ok(object) => {
                keep(held);
                self.after_write(resource, &object, None);
                Ok(Written { object, created: true, warnings })
            }
            Err(moved) => {
                give_back(held);
                let name = moved.0.as_ref().map(|o| object::name(&o.value).to_owned()).unwrap_or_default();
                Err(Refusal::already_exists(&resource.id.group, &resource.id.plural, &name))
            }
        }
    }

    /// Fills the metadata that only the server writes, and checks where the object is to live.
    fn stamp_new(&self, target: &Target, new: &mut Value) -> Result<(), Refusal> {
        let resource = &target.resource;
        if !object::resource_version(new).is_empty() {
            // The real server answers exactly so, without a reason.
            return Err(Refusal::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        place(target, new)?;
        let prefix = object::str_at(new, &["metadata", "generateName"]).to_owned();
        if object::name(new).is_empty() && !prefix.is_empty() {
            object::meta_mut(new).insert("name".into(), json!(stamp::generated_name(&prefix)));
        }
        if resource.namespaced {
            self.check_namespace(target, new)?;
        }
        let definition = if resource.is_custom() { crate::crd::of_resource(self, resource) } else { None };
        if definition.is_some_and(|(_, crd)| object::is_terminating(&crd.value)) {
            let mut refusal = Refusal::method_not_allowed();
            refusal.message = "create not allowed while custom resource definition is terminating".to_owned();
            return Err(refusal);
        }
        object::put(new, "apiVersion", json!(resource.stored_as));
        object::put(new, "kind", json!(resource.kind));
        tidy_metadata(new);
        let meta = object::meta_mut(new);
        for field in
            ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"]
        {
            meta.shift_remove(field);
        }
        meta.insert("uid".into(), json!(stamp::uuid()));
        meta.insert("creationTimestamp".into(), json!(stamp::now_secs()));
        if resource.rules.generation() != Generation::Absent {
            meta.insert("generation".into(), json!(1));
        }
        Ok(())
    }

    fn check_namespace(&self, target: &Target, new: &Value) -> Result<(), Refusal> {
        let namespaces = self.namespaces();
        let Some(namespace) = namespaces.get(&Key::new("", &target.namespace)) else {
            return Err(Refusal::not_found("", "namespaces", &target.namespace));
        };
        if !object::is_terminating(&namespace.value) {
            return Ok(());
        }
        let name = object::name(new);
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            target.namespace
        );
        let id = &target.resource.id;
        let mut refusal = Refusal::forbidden(&id.group, &id.plural, name, &why);
        refusal.causes = vec![Cause {
            reason: "NamespaceTerminating",
            field: "metadata.namespace".into(),
            message: format!("namespace {} is being terminated", target.namespace),
        }];
        Err(refusal)
    }

    /// Replaces an object with the one a client sent; some kinds are created when absent.
    pub(crate) fn update(
        &self,
        target: &Target,
        body: Value,
        options: &WriteOptions,
    ) -> Result<Written, Refusal> {
        let (sent, warnings) = self.decode(target, body, options.field_validation)?;
        let writer = Writer::update(options, target);
        let creates = target.resource.rules.creates_on_update() && !target.status;
        if creates
            && target.resource.objects.get(&target.key()).is_none()
            && object::resource_version(&sent).is_empty()
        {
            return self.create_decoded(target, sent, options, &writer, warnings);
        }
        let mut written =
            self.modify(target, options, &writer, true, &mut |_| Ok((sent.clone(), Vec::new())))?;
        written.warnings.extend(warnings);
        Ok(written)
    }

    /// The read-modify-write loop behind PUT and PATCH. `edit` makes the proposed object out of the current
    /// one; both are in stored form.
    pub(super) fn modify(
        &self,
        target: &Target,
        options: &WriteOptions,
        writer: &Writer,
        is_put: bool,
        edit: &mut Edit<'_>,
    ) -> Result<Written, Refusal> {
        for _ in 0..ATTEMPTS {
            let old = self.get(target)?;
            let (mut new, warnings) = edit(&old.value)?;
            let conditional = self.settle_identity(target, &mut new, &old, is_put)?;
            let held = self.settle_content(target, &mut new, &old.value, options, writer)?;
            let done = self.store_change(target, options, old, new, held);
            match done {
                Ok(object) => return Ok(Written { object, created: false, warnings }),
                Err(()) if conditional => break,
                Err(()) => {}
            }
        }
        Err(Refusal::modified(&target.resource.id.group, &target.resource.id.plural, &target.name))
    }

    /// Name, uid, resourceVersion and the server's own metadata. Returns whether the write depends on the
    /// resourceVersion the client saw.
    fn settle_identity(
        &self,
        target: &Target,
        new: &mut Value,
        old: &Stored,
        is_put: bool,
    ) -> Result<bool, Refusal> {
        let resource = &target.resource;
        let id = &resource.id;
        place(target, new)?;
        object::put(new, "apiVersion", json!(resource.stored_as));
        object::put(new, "kind", json!(resource.kind));
        let uid = object::uid(&old.value);
        if !object::uid(new).is_empty() && object::uid(new) != uid && !is_put {
            let cause = Cause::invalid("metadata.uid", &json!(object::uid(new)), "field is immutable");
            return Err(invalid(resource, new, vec![cause]));
        }
        if !object::uid(new).is_empty() && object::uid(new) != uid {
            let why = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {uid}",
                object::uid(new)
            );
            return Err(Refusal::conflict(&id.group, &id.plural, &target.name, &why));
        }
        let seen = object::resource_version(new).to_owned();
        if seen.is_empty() && is_put && !resource.rules.updates_unconditionally() {
            let cause =
                Cause::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
            // Named by its resource here, by its kind elsewhere: so does the real server.
            return Err(Refusal::invalid(&id.group, &id.plural, &target.name, vec![cause]));
        }
        let conditional = !seen.is_empty() && seen != "0";
        if conditional && seen != old.revision.to_string() {
            return Err(Refusal::modified(&id.group, &id.plural, &target.name));
        }
        tidy_metadata(new);
        for field in [
            "uid",
            "creationTimestamp",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "generation",
            "selfLink",
        ] {
            let kept = old.value["metadata"][field].clone();
            object::put(object::child_mut(new, "metadata"), field, kept);
        }
        object::meta_mut(new).insert("resourceVersion".into(), json!(old.revision.to_string()));
        Ok(conditional && is_put)
    }

    /// Defaults, what may change, validity, reservations, generation, managed fields.
    fn settle_content(
        &self,
        target: &Target,
        new: &mut Value,
        old: &Value,
        options: &WriteOptions,
        writer: &Writer,
    ) -> Result<Held, Refusal> {
        let resource = &target.resource;
        let rules = &resource.rules;
        rules.default(new);
        managed::track(new, Some(old), writer, resource);
        let mut causes = metadata::validate_update(new, old);
        let mut held = None;
        if target.status {
            rules.prepare_status(new, old);
            causes.extend(metadata::validate(new, |name| rules.name_fault(name)));
            causes.extend(rules.validate_status(new, old));
        } else {
            rules.prepare_update(new, old);
            causes.extend(metadata::validate(new, |_| None));
            held = rules.reserve(new, Some(old), options.dry_run).map_err(|c| invalid(resource, new, c))?;
            causes.extend(rules.validate(new, Some(old)));
        }
        let outcome = refuse(resource, new, &causes).map(|()| {
            let changed =
                !target.status && kinds::content_changed(rules.generation(), resource.has_status, new, old);
            if changed {
                let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
                object::meta_mut(new).insert("generation".into(), json!(generation));
            }
        });
        match outcome {
            Ok(()) => Ok(held),
            Err(refusal) => {
                give_back(held);
                Err(refusal)
            }
        }
    }

    fn store_change(
        &self,
        target: &Target,
        options: &WriteOptions,
        old: Arc<Stored>,
        new: Value,
        held: Held,
    ) -> Result<Arc<Stored>, ()> {
        let resource = &target.resource;
        if managed::is_same(&new, &old.value) {
            give_back(held);
            return Ok(old);
        }
        if options.dry_run {
            keep(held);
            return Ok(Arc::new(Stored::detached(new)));
        }
        if super::delete::is_ready_to_go(&new) {
            give_back(held);
            let gone = resource.objects.remove(&target.key(), old.revision).map_err(|_| ())?;
            self.after_removal(resource, &gone);
            return Ok(Arc::new(Stored::detached(new)));
        }
        match resource.objects.replace(&target.key(), old.revision, new) {
            Ok(object) => {
                keep(held);
                self.after_write(resource, &object, Some(&old));
                Ok(object)
            }
            Err(_) => {
                give_back(held);
                Err(())
            }
        }
    }

    /// Decodes an object that a patch produced.
    pub(super) fn decode_patched(
        &self,
        target: &Target,
        patched: Value,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), Refusal> {
        self.decode(target, patched, validation)
    }
}

/// Makes the proposed object, and warnings, out of the current one.
pub(super) type Edit<'e> = dyn FnMut(&Value) -> Result<(Value, Vec<String>), Refusal> + 'e;

type Held = Option<Box<dyn Reservation>>;

fn keep(held: Held) {
    if let Some(held) = held {
        held.keep();
    }
}

fn give_back(held: Held) {
    if let Some(held) = held {
        held.give_back();
    }
}

fn dry_run_create(
    resource: &Resource,
    new: Value,
    held: Held,
    warnings: Vec<String>,
) -> Result<Written, Refusal> {
    keep(held);
    let taken = resource.objects.get(&Key::of(&new)).is_some();
    if taken {
        return Err(Refusal::already_exists(&resource.id.group, &resource.id.plural, object::name(&new)));
    }
    Ok(Written { object: Arc::new(Stored::detached(new)), created: true, warnings })
}

/// Puts the object where the request says; a body that says otherwise is refused.
fn place(target: &Target, new: &mut Value) -> Result<(), Refusal> {
    let namespace = object::namespace(new).to_owned();
    if target.resource.namespaced {
        if !namespace.is_empty() && namespace != target.namespace {
            return Err(Refusal::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        object::meta_mut(new).insert("namespace".into(), json!(target.namespace));
    } else {
        object::meta_mut(new).shift_remove("namespace");
    }
    let name = object::name(new).to_owned();
    if !target.name.is_empty() {
        if !name.is_empty() && name != target.name {
            return Err(Refusal::bad_request(format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                target.name
            )));
        }
        object::meta_mut(new).insert("name".into(), json!(target.name));
    }
    Ok(())
}

/// Empty maps and lists of the metadata mean absent.
fn tidy_metadata(value: &mut Value) {
    let meta = object::meta_mut(value);
    meta.retain(|_, v| match v {
        Value::Object(m) => !m.is_empty(),
        Value::Array(a) => !a.is_empty(),
        Value::Null => false,
        _ => true,
    });
}

fn invalid(resource: &Resource, value: &Value, causes: Vec<Cause>) -> Refusal {
    Refusal::invalid(&resource.id.group, &resource.kind, object::name(value), causes)
}

fn refuse(resource: &Resource, value: &Value, causes: &[Cause]) -> Result<(), Refusal> {
    if causes.is_empty() { Ok(()) } else { Err(invalid(resource, value, causes.to_vec())) }
}
