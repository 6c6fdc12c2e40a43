//! Custom resources: the rules come from their schema.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Generation, Kind};
use crate::object;
use crate::refusal::Cause;
use crate::schema::{self, Schema};

const UNCHECKED: &str = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";

/// Faults after which an object is not what the types in its rules promise.
fn keeps_rules_from_running(cause: &Cause) -> bool {
    let blocking = [
        "FieldValueRequired",
        "FieldValueTypeInvalid",
        "FieldValueNotSupported",
        "FieldValueTooLong",
        "FieldValueTooMany",
    ];
    blocking.contains(&cause.reason)
}

/// A custom resource's version.
#[derive(Debug)]
pub(crate) struct Custom {
    /// Its schema.
    pub schema: Arc<Schema>,
    /// Whether it has `/status`.
    pub has_status: bool,
}

impl Kind for Custom {
    fn default(&self, object: &mut Value) {
        schema::apply_defaults(object, &self.schema);
    }

    fn prepare_create(&self, object: &mut Value) {
        if self.has_status {
            object::put(object, "status", Value::Null);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if self.has_status {
            object::carry(new, old, "status");
        }
    }

    // Writers of a custom resource's `/status` change nothing else, metadata included.
    fn prepare_status(&self, new: &mut Value, old: &Value) {
        let status = new["status"].take();
        let version = object::resource_version(new).to_owned();
        let managed = new["metadata"]["managedFields"].clone();
        *new = old.clone();
        object::put(new, "status", status);
        let meta = object::meta_mut(new);
        meta.insert("resourceVersion".into(), json!(version));
        if !managed.is_null() {
            meta.insert("managedFields".into(), managed);
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = schema::validate(new, &self.schema, "");
        if causes.iter().any(keeps_rules_from_running) {
            if crate::cel::has_rules(&self.schema) {
                causes.push(Cause::invalid("<nil>", &Value::Null, UNCHECKED));
            }
            return causes;
        }
        causes.extend(crate::cel::evaluate(new, old, &self.schema));
        causes
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<Cause> {
        self.validate(new, Some(old))
    }

    fn generation(&self) -> Generation {
        Generation::Content
    }

    fn updates_unconditionally(&self) -> bool {
        false
    }
}
