//! `metadata.managedFields`: who owns which field, kept on every write, and the conflicts and removals that
//! server-side apply derives from it.

mod set;
mod walk;

use serde_json::{Value, json};

use crate::object;
use crate::refusal::{Cause, Refusal, Subject};
use crate::registry::{Resource, SchemaSource};
use crate::schema::{Schema, builtin};
use crate::stamp;
use crate::verbs::{Target, WriteOptions};
use set::Set;

/// Who writes, and how.
#[derive(Debug, Clone)]
pub(crate) struct Writer {
    manager: String,
    subresource: &'static str,
    /// The fields of an applied configuration; `None` for other writes.
    applied: Option<Set>,
}

impl Writer {
    /// A writer that is not an applier.
    pub(crate) fn update(options: &WriteOptions, target: &Target) -> Self {
        let subresource = if target.status { "status" } else { "" };
        Self { manager: options.manager.clone(), subresource, applied: None }
    }

    /// An applier of a configuration.
    pub(crate) fn apply(options: &WriteOptions, target: &Target, applied: &Value) -> Self {
        let mut writer = Self::update(options, target);
        let schema = Tree::of(&target.resource);
        writer.applied = Some(schema.fields(applied, writer.hidden(&target.resource)));
        writer
    }

    fn operation(&self) -> &'static str {
        if self.applied.is_some() { "Apply" } else { "Update" }
    }

    /// The parts of an object that this writer cannot write, and so does not own.
    fn hidden(&self, resource: &Resource) -> &'static [&'static str] {
        match (self.subresource, resource.has_status) {
            ("status", _) if resource.is_custom() => &["spec", "metadata"],
            ("status", _) => &["spec"],
            (_, true) => &["status"],
            _ => &[],
        }
    }
}

/// An entry of `managedFields`.
#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: String,
    fields: Set,
}

impl Entry {
    fn is_by(&self, writer: &Writer) -> bool {
        self.manager == writer.manager
            && self.operation == writer.operation()
            && self.subresource == writer.subresource
    }

    fn read(json: &Value) -> Self {
        let text = |field: &str| object::str_at(json, &[field]).to_owned();
        Self {
            manager: text("manager"),
            operation: text("operation"),
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: Set::from_json(&json["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut json = json!({
            "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "time": self.time, "fieldsType": "FieldsV1", "fieldsV1": self.fields.to_json(),
        });
        if !self.subresource.is_empty() {
            json["subresource"] = json!(self.subresource);
        }
        json
    }
}

/// The schema of a whole object: of custom resources, the metadata's is that of all objects.
struct Tree<'r> {
    schema: &'r Schema,
    is_custom: bool,
}

impl<'r> Tree<'r> {
    fn of(resource: &'r Resource) -> Self {
        Self { schema: resource.schema.get(), is_custom: matches!(resource.schema, SchemaSource::Custom(..)) }
    }

    fn meta() -> Option<&'static Schema> {
        Some(builtin::definition("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"))
    }

    /// Runs `walk` on the metadata and on the rest, each with its schema.
    fn fields(&self, value: &Value, without: &[&str]) -> Set {
        let mut value = walk::manageable(value, without);
        if value["metadata"].as_object().is_some_and(serde_json::Map::is_empty) {
            object::put(&mut value, "metadata", Value::Null);
        }
        if !self.is_custom {
            return walk::fields(&value, Some(self.schema));
        }
        let mut rest = value.clone();
        object::put(&mut rest, "metadata", Value::Null);
        let mut all = walk::fields(&rest, Some(self.schema));
        let below = walk::fields(&value["metadata"], Self::meta());
        all.insert("f:metadata".to_owned(), set::Node { owned: false, below });
        all
    }

    fn compare(&self, old: &Value, new: &Value, without: &[&str]) -> walk::Difference {
        let (old, new) = (walk::manageable(old, without), walk::manageable(new, without));
        if !self.is_custom {
            return walk::compare(&old, &new, Some(self.schema));
        }
        let without_meta = |v: &Value| {
            let mut rest = v.clone();
            object::put(&mut rest, "metadata", Value::Null);
            rest
        };
        let mut all = walk::compare(&without_meta(&old), &without_meta(&new), Some(self.schema));
        let empty = json!({});
        let meta = |v: &'_ Value| v.get("metadata").cloned().unwrap_or_else(|| empty.clone());
        let below = walk::compare(&meta(&old), &meta(&new), Self::meta());
        all.changed.insert("f:metadata".to_owned(), set::Node { owned: false, below: below.changed });
        all.removed.insert("f:metadata".to_owned(), set::Node { owned: false, below: below.removed });
        all
    }

    fn merge(&self, live: &mut Value, applied: &Value) {
        if !self.is_custom {
            return walk::merge(live, applied, Some(self.schema));
        }
        let mut rest = applied.clone();
        object::put(&mut rest, "metadata", Value::Null);
        walk::merge(live, &rest, Some(self.schema));
        walk::merge(object::child_mut(live, "metadata"), &applied["metadata"], Self::meta());
    }

    fn remove(&self, value: &mut Value, gone: &Set, kept: &Set) {
        if !self.is_custom {
            return walk::remove(value, gone, kept, Some(self.schema));
        }
        let part = |set: &Set, meta: bool| {
            Set(set
                .0
                .iter()
                .filter(|(e, _)| (*e == "f:metadata") == meta)
                .map(|(e, n)| (e.clone(), n.clone()))
                .collect())
        };
        walk::remove(value, &part(gone, false), &part(kept, false), Some(self.schema));
        let below = |set: &Set| set.0.get("f:metadata").map(|n| n.below.clone()).unwrap_or_default();
        walk::remove(object::child_mut(value, "metadata"), &below(gone), &below(kept), Self::meta());
    }
}

fn entries(value: &Value) -> Vec<Entry> {
    object::list_at(value, &["metadata", "managedFields"]).iter().map(Entry::read).collect()
}

/// Members that are there from the beginning, so that writing them is not owning them as a whole.
const BORN_WITH: &[&[&str]] = &[
    &["metadata"],
    &["spec"],
    &["status"],
    &["status", "loadBalancer"],
    &["spec", "template"],
    &["spec", "template", "metadata"],
    &["spec", "template", "spec"],
    &["spec", "strategy"],
    &["spec", "updateStrategy"],
    &["spec", "names"],
    &["involvedObject"],
    &["source"],
];

/// What an object is before its creation.
fn newborn(new: &Value, is_custom: bool) -> Value {
    let mut born = json!({});
    let count = if is_custom { 1 } else { BORN_WITH.len() };
    for path in BORN_WITH.iter().take(count).filter(|p| object::at(new, p).is_object()) {
        path.iter().fold(&mut born, |at, step| object::child_mut(at, step));
    }
    born
}

/// Notes the writer as owner of what it changed (or applied), and nobody as owner of what is gone. To be
/// called on the object as its writer wants it, before the kind's rules change it.
pub(crate) fn track(new: &mut Value, old: Option<&Value>, writer: &Writer, resource: &Resource) {
    let reset = object::list_at(new, &["metadata", "managedFields"]);
    let is_reset = matches!(reset, [only] if only.as_object().is_some_and(serde_json::Map::is_empty));
    let untracked = old.is_some_and(|old| object::at(old, &["metadata", "managedFields"]).is_null());
    if is_reset || (untracked && writer.applied.is_none()) {
        // A client gave up the list; it begins again with the first apply.
        object::meta_mut(new).shift_remove("managedFields");
        return;
    }
    let tree = Tree::of(resource);
    let born = old.map_or_else(|| newborn(new, tree.is_custom), Value::clone);
    let difference = tree.compare(&born, new, writer.hidden(resource));
    let before = old.map(entries).unwrap_or_default();
    let wrote = !difference.changed.is_empty() || !difference.removed.is_empty();
    let mut all = before.clone();
    let own = all.iter().position(|e| e.is_by(writer)).unwrap_or_else(|| {
        all.push(Entry {
            manager: writer.manager.clone(),
            operation: writer.operation().to_owned(),
            api_version: resource.api_version(),
            subresource: writer.subresource.to_owned(),
            time: String::new(),
            fields: Set::default(),
        });
        all.len() - 1
    });
    for (i, entry) in all.iter_mut().enumerate() {
        entry.fields.subtract(&difference.removed);
        if i != own {
            entry.fields.subtract(&difference.changed);
        }
    }
    match &writer.applied {
        Some(applied) => all[own].fields = applied.clone(),
        None => all[own].fields.unite(difference.changed),
    }
    all.retain(|e| !e.fields.is_empty());
    for entry in &mut all {
        // The writer's own time moves with every change of the object, the others' with their fields.
        let moves = wrote && entry.is_by(writer);
        let same = before.iter().find(|b| {
            b.manager == entry.manager
                && b.operation == entry.operation
                && b.subresource == entry.subresource
                && b.fields == entry.fields
                && !moves
        });
        entry.time = same.map_or_else(stamp::now_secs, |b| b.time.clone());
    }
    all.sort_by(|a, b| {
        let key = |e: &Entry| (e.operation.clone(), e.time.clone(), e.manager.clone(), e.subresource.clone());
        key(a).cmp(&key(b))
    });
    let written: Vec<Value> = all.iter().map(Entry::write).collect();
    let meta = object::meta_mut(new);
    if written.is_empty() {
        meta.shift_remove("managedFields");
    } else {
        meta.insert("managedFields".to_owned(), Value::Array(written));
    }
}

/// The live object with a configuration applied: merged, and without what the same manager applied before
/// and no longer does, unless others own it. Fails on conflicts, unless forced.
pub(crate) fn applied(
    live: &Value,
    configuration: &Value,
    writer: &Writer,
    resource: &Resource,
    force: bool,
) -> Result<Value, Refusal> {
    let tree = Tree::of(resource);
    let mut merged = live.clone();
    let mut configuration = configuration.clone();
    for part in writer.hidden(resource) {
        object::put(&mut configuration, part, Value::Null);
    }
    tree.merge(&mut merged, &configuration);
    let all = entries(live);
    if !force {
        refuse_conflicts(
            &all,
            &tree.compare(live, &merged, &[]).changed,
            writer,
            resource,
            object::name(live),
        )?;
    }
    let now = writer.applied.clone().unwrap_or_default();
    let mut gone = all.iter().find(|e| e.is_by(writer)).map(|e| e.fields.clone()).unwrap_or_default();
    gone.subtract_exactly(&now);
    let mut kept = now;
    for entry in all.iter().filter(|e| !e.is_by(writer)) {
        kept.unite(entry.fields.clone());
    }
    tree.remove(&mut merged, &gone, &kept);
    Ok(merged)
}

fn refuse_conflicts(
    all: &[Entry],
    changed: &Set,
    writer: &Writer,
    resource: &Resource,
    name: &str,
) -> Result<(), Refusal> {
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for entry in all.iter().filter(|e| !e.is_by(writer)) {
        let paths = entry.fields.common(changed).paths();
        if paths.is_empty() {
            continue;
        }
        let how = match entry.operation.as_str() {
            "Apply" => String::new(),
            _ => format!(" using {}", entry.api_version),
        };
        let sub = if entry.subresource.is_empty() { "" } else { " with subresource \"status\"" };
        let message = format!("conflict with \"{}\"{sub}{how}", entry.manager);
        for path in &paths {
            causes.push(Cause {
                reason: "FieldManagerConflict",
                field: path.clone(),
                message: message.clone(),
            });
        }
        match paths.as_slice() {
            [one] => lines.push(format!("{message}: {one}")),
            many => lines.push(format!("{message}:\n- {}", many.join("\n- "))),
        }
    }
    if causes.is_empty() {
        return Ok(());
    }
    let plural = if causes.len() == 1 { "conflict" } else { "conflicts" };
    let message = format!("Apply failed with {} {plural}: {}", causes.len(), lines.join("\n"));
    let mut refusal = Refusal::conflict(&resource.id.group, &resource.id.plural, name, "");
    *refusal.subject = Subject::default();
    refusal.message = message;
    refusal.causes = causes;
    Err(refusal)
}

/// Whether two states differ in nothing but their revision.
pub(crate) fn is_same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return new == old };
    let meta_is_same = |a: &Value, b: &Value| {
        let (Some(a), Some(b)) = (a.as_object(), b.as_object()) else { return a == b };
        let differs = |x: &serde_json::Map<String, Value>, y: &serde_json::Map<String, Value>| {
            x.iter().any(|(name, value)| name != "resourceVersion" && y.get(name) != Some(value))
        };
        !differs(a, b) && !differs(b, a)
    };
    new.len() == old.len()
        && new.iter().all(|(name, value)| match old.get(name) {
            Some(before) if name == "metadata" => meta_is_same(value, before),
            before => before == Some(value),
        })
}
