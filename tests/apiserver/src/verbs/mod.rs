//! What clients ask for: create, update, patch, delete, get, list, watch. One file a verb family; all of them
//! work on an [`Api`].

pub(crate) mod delete;
pub(crate) mod list;
pub(crate) mod patch;
pub(crate) mod watch;
pub(crate) mod write;

use std::sync::Arc;

use serde_json::Value;

use crate::garbage::Garbage;
use crate::refusal::Refusal;
use crate::registry::{Registry, Resource, SchemaSource};
use crate::schema;
use crate::server::Options;
use crate::store::{Key, Revisions, Stored};
use crate::view;

/// The state behind all verbs.
#[derive(Debug)]
pub(crate) struct Api {
    /// Served resources.
    pub registry: Registry,
    /// The revision counter.
    pub revisions: Revisions,
    /// Owner references and namespace contents.
    pub garbage: Garbage,
    /// Settings.
    pub options: Options,
}

/// What a request is about.
#[derive(Debug, Clone)]
pub struct Target {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Namespace; empty for cluster-scoped ones and for all namespaces.
    pub namespace: String,
    /// Object name; empty for the collection.
    pub name: String,
    /// Whether `/status` is addressed.
    pub status: bool,
}

impl Target {
    /// The addressed object's key.
    pub fn key(&self) -> Key {
        Key::new(&self.namespace, &self.name)
    }

    fn not_found(&self) -> Refusal {
        Refusal::not_found(&self.resource.id.group, &self.resource.id.plural, &self.name)
    }
}

/// What to do about fields the schema does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum FieldValidation {
    /// Drop them.
    Ignore,
    /// Drop them and warn.
    #[default]
    Warn,
    /// Refuse the object.
    Strict,
}

/// How a write is to be done.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    /// Do everything but store.
    pub dry_run: bool,
    /// Who writes, for `managedFields`.
    pub manager: String,
    /// Whether the request names the manager; otherwise it is the client's name.
    pub manager_named: bool,
    /// What to do about unknown fields.
    pub field_validation: FieldValidation,
    /// Take over fields that others manage (apply only).
    pub force: bool,
}

/// The result of a write.
#[derive(Debug)]
pub(crate) struct Written {
    /// The object.
    pub object: Arc<Stored>,
    /// Whether it is new.
    pub created: bool,
    /// For the `Warning` header.
    pub warnings: Vec<String>,
}

impl Api {
    /// Reads the object a client sent for `target`: media type is decided, kind and types are checked,
    /// unknown fields dropped. Returns it in stored form, and warnings.
    fn decode(
        &self,
        target: &Target,
        mut value: Value,
        validation: FieldValidation,
    ) -> Result<(Value, Vec<String>), Refusal> {
        let resource = &target.resource;
        if !value.is_object() {
            return Err(Refusal::bad_request("the object provided is not a JSON object"));
        }
        check_kind(resource, &value)?;
        let unknown = match &resource.schema {
            SchemaSource::Builtin(name) => {
                let definition = schema::builtin::definition(name);
                schema::decode(&mut value, definition).map_err(|e| bad_object(resource, &e))?.unknown
            }
            SchemaSource::Custom(schema, _) => {
                let meta =
                    crate::schema::builtin::definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
                let mut found = Vec::new();
                if let Some(metadata) = value.get_mut("metadata") {
                    let decoded = schema::decode(metadata, meta).map_err(|e| bad_object(resource, &e))?;
                    found.extend(decoded.unknown.iter().map(|f| format!("metadata.{f}")));
                }
                found.extend(schema::prune(&mut value, schema, true));
                found
            }
        };
        let warnings = judge_unknown(resource, unknown, validation)?;
        Ok((view::to_stored(resource, value), warnings))
    }

    /// The current state of the addressed object.
    pub(crate) fn get(&self, target: &Target) -> Result<Arc<Stored>, Refusal> {
        target.resource.objects.get(&target.key()).ok_or_else(|| target.not_found())
    }
}

fn check_kind(resource: &Resource, value: &Value) -> Result<(), Refusal> {
    let wanted = resource.api_version();
    let (version, kind) = (value["apiVersion"].as_str(), value["kind"].as_str());
    if let Some(version) = version.filter(|v| *v != wanted) {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({version}) does not match the expected API version ({wanted})"
        )));
    }
    if let Some(kind) = kind.filter(|k| *k != resource.kind) {
        return Err(Refusal::bad_request(format!(
            "the kind in the data ({kind}) does not match the expected kind ({})",
            resource.kind
        )));
    }
    if version.is_none() || kind.is_none() {
        // Typed kinds may come without; custom ones must say what they are.
        if resource.is_custom() {
            return Err(Refusal::bad_request("Object 'Kind' or 'apiVersion' is missing"));
        }
    }
    Ok(())
}

fn bad_object(resource: &Resource, fault: &str) -> Refusal {
    let (kind, version) = (&resource.kind, &resource.id.version);
    Refusal::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {fault}"))
}

fn judge_unknown(
    resource: &Resource,
    unknown: Vec<String>,
    validation: FieldValidation,
) -> Result<Vec<String>, Refusal> {
    let said: Vec<String> = unknown.iter().map(|f| format!("unknown field \"{f}\"")).collect();
    match validation {
        FieldValidation::Strict if !said.is_empty() => {
            let fault = format!("strict decoding error: {}", said.join(", "));
            Err(bad_object(resource, &fault))
        }
        FieldValidation::Warn => Ok(said),
        _ => Ok(Vec::new()),
    }
}
