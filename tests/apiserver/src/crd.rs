//! CustomResourceDefinitions: the rules of the kind, and the resource that each of them serves.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::kinds::custom::Custom;
use crate::kinds::{Generation, Kind, names};
use crate::object::{self, default_to, list_at, str_at};
use crate::refusal::Cause;
use crate::registry::{Resource, ResourceId, SchemaSource, View, api_version};
use crate::schema::{self, Schema, Type};
use crate::stamp;
use crate::store::{Collection, Key, Stored};
use crate::table::{Column, Columns, JsonPath};
use crate::verbs::{Api, Target};

/// Keeps a CRD until its objects are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

/// The kind CustomResourceDefinition.
#[derive(Debug)]
pub(crate) struct Definition;

impl Kind for Definition {
    fn default(&self, object: &mut Value) {
        let spec = object::child_mut(object, "spec");
        default_to(spec, "conversion", json!({"strategy": "None"}));
        let names = object::child_mut(spec, "names");
        let kind = names["kind"].as_str().unwrap_or_default().to_owned();
        default_to(names, "singular", kind.to_lowercase());
        default_to(names, "listKind", format!("{kind}List"));
    }

    fn prepare_create(&self, object: &mut Value) {
        let stored: Vec<Value> =
            versions(object).filter(|v| v["storage"] == true).map(|v| v["name"].clone()).collect();
        object["status"] = json!({"conditions": null, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": stored});
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = validate_names(new);
        causes.extend(validate_versions(new));
        if let Some(old) = old {
            for path in [
                &["spec", "group"][..],
                &["spec", "scope"],
                &["spec", "names", "kind"],
                &["spec", "names", "plural"],
            ] {
                if object::at(new, path) != object::at(old, path) {
                    causes.push(Cause::invalid(path.join("."), object::at(new, path), "field is immutable"));
                }
            }
        }
        causes
    }

    fn generation(&self) -> Generation {
        Generation::Spec
    }
}

fn versions(crd: &Value) -> impl Iterator<Item = &Value> {
    list_at(crd, &["spec", "versions"]).iter()
}

fn validate_names(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &crd["spec"];
    let (group, plural) = (str_at(spec, &["group"]), str_at(spec, &["names", "plural"]));
    let wanted = format!("{plural}.{group}");
    if object::name(crd) != wanted {
        let text = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &json!(object::name(crd)), text));
    }
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if let Some(fault) = names::dns_subdomain(group) {
        causes.push(Cause::invalid("spec.group", &json!(group), &fault));
    } else if !group.contains('.') {
        let text = "should be a domain with at least one dot";
        causes.push(Cause::invalid("spec.group", &json!(group), text));
    }
    let scopes = ["Cluster", "Namespaced"];
    if spec["scope"].is_null() {
        causes.push(Cause::required("spec.scope", ""));
    } else if !scopes.iter().any(|s| spec["scope"] == *s) {
        causes.push(Cause::not_supported("spec.scope", &spec["scope"], &scopes));
    }
    for field in ["plural", "kind"] {
        let name = str_at(spec, &["names", field]);
        if name.is_empty() {
            causes.push(Cause::required(format!("spec.names.{field}"), ""));
        } else if let Some(fault) = names::dns_1035_label(&name.to_lowercase()) {
            causes.push(Cause::invalid(format!("spec.names.{field}"), &json!(name), &fault));
        }
    }
    if spec["conversion"]["strategy"] != "None" {
        let text = "the in-memory API server has no webhook conversion, only None";
        causes.push(Cause::invalid("spec.conversion.strategy", &spec["conversion"]["strategy"], text));
    }
    causes
}

fn validate_versions(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let storage = versions(crd).filter(|v| v["storage"] == true).count();
    if storage != 1 {
        let text = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &crd["spec"]["versions"], text));
    }
    for (i, version) in versions(crd).enumerate() {
        let at = format!("spec.versions[{i}]");
        for (j, column) in list_at(version, &["additionalPrinterColumns"]).iter().enumerate() {
            if let Err(fault) = JsonPath::parse(str_at(column, &["jsonPath"])) {
                let field = format!("{at}.additionalPrinterColumns[{j}].jsonPath");
                causes.push(Cause::invalid(field, &column["jsonPath"], &fault));
            }
        }
        if !version["subresources"]["scale"].is_null() {
            let text = "the in-memory API server does not serve scale of custom resources";
            causes.push(Cause::forbidden(format!("{at}.subresources.scale"), text));
        }
        // A single version's schema is reported where it was before there were versions.
        let path = match list_at(crd, &["spec", "versions"]).len() {
            1 => "spec.validation.openAPIV3Schema".to_owned(),
            _ => format!("{at}.schema.openAPIV3Schema"),
        };
        let root = &version["schema"]["openAPIV3Schema"];
        if root.is_null() {
            causes.push(Cause::required(path, "schemas are required"));
            continue;
        }
        match schema::parse(root, &path) {
            Ok(parsed) if parsed.ty != Type::Object => {
                causes.push(Cause::invalid(
                    format!("{path}.type"),
                    &root["type"],
                    "must be object at the root",
                ));
            }
            Ok(parsed) => causes.extend(schema::structural_faults(&parsed, &path)),
            Err(fault) => causes.push(Cause::invalid(fault.path, &fault.value, &fault.message)),
        }
    }
    causes
}

/// Serves the resource of a new or changed CRD, if its names are free, and says so in its status.
pub(crate) fn on_change(api: &Api, stored: &Stored) {
    let crd = &stored.value;
    if object::is_terminating(crd) {
        return;
    }
    let conflict = name_conflict(api, crd);
    if conflict.is_none() {
        register(api, crd);
    }
    let Some(target) = definition_target(api, object::name(crd)) else { return };
    api.rewrite(&target, &mut |value| settle_status(value, conflict.as_ref()));
}

/// A name that another CRD of the group has already, and what kind of name it is.
fn name_conflict(api: &Api, crd: &Value) -> Option<(&'static str, String)> {
    let taken_by = |field: &str, wanted: &str| {
        let others = definitions(api);
        others.iter().any(|other| {
            let names = &other.value["status"]["acceptedNames"];
            let listed = list_at(names, &[field]).iter().any(|n| n == wanted);
            other.value["spec"]["group"] == crd["spec"]["group"]
                && object::name(&other.value) != object::name(crd)
                && (names[field] == wanted || listed)
        })
    };
    let names = &crd["spec"]["names"];
    for (field, kind) in
        [("plural", "Plural"), ("singular", "Singular"), ("kind", "Kind"), ("listKind", "ListKind")]
    {
        let wanted = str_at(names, &[field]);
        if taken_by(field, wanted) {
            return Some((kind, wanted.to_owned()));
        }
    }
    let short =
        list_at(names, &["shortNames"]).iter().filter_map(Value::as_str).find(|n| taken_by("shortNames", n));
    short.map(|name| ("ShortNames", name.to_owned()))
}

fn definitions(api: &Api) -> Vec<Arc<Stored>> {
    definition_target(api, "").map(|t| t.resource.objects.snapshot("").objects).unwrap_or_default()
}

fn settle_status(crd: &mut Value, conflict: Option<&(&'static str, String)>) {
    let conditions = match conflict {
        None => {
            crd["status"]["acceptedNames"] = crd["spec"]["names"].clone();
            [
                ("NamesAccepted", "True", "NoConflicts".to_owned(), "no conflicts found".to_owned()),
                (
                    "Established",
                    "True",
                    "InitialNamesAccepted".into(),
                    "the initial names have been accepted".into(),
                ),
            ]
        }
        Some((kind, name)) => [
            ("NamesAccepted", "False", format!("{kind}Conflict"), format!("\"{name}\" is already in use")),
            ("Established", "False", "NotAccepted".to_owned(), "not all names are accepted".to_owned()),
        ],
    };
    for (kind, status, reason, message) in conditions {
        set_condition(crd, json!({"type": kind, "status": status, "reason": reason, "message": message}));
    }
}

/// Sets a condition; its transition time moves only with its status.
fn set_condition(crd: &mut Value, mut condition: Value) {
    let status = object::child_mut(crd, "status");
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(list) = object::list_mut(status, &["conditions"]) else { return };
    let there = list.iter_mut().find(|c| c["type"] == condition["type"]);
    let since = there
        .as_ref()
        .filter(|c| c["status"] == condition["status"])
        .map(|c| c["lastTransitionTime"].clone());
    condition["lastTransitionTime"] = since.unwrap_or_else(|| json!(stamp::now_secs()));
    match there {
        Some(there) => *there = condition,
        None => list.push(condition),
    }
}

fn definition_target(api: &Api, name: &str) -> Option<Target> {
    let resource = api.registry.table().find("apiextensions.k8s.io", "v1", "customresourcedefinitions")?;
    Some(Target { resource, namespace: String::new(), name: name.to_owned(), status: false })
}

/// Stops serving the resource of a removed CRD.
pub(crate) fn on_removal(api: &Api, stored: &Stored) {
    let spec = &stored.value["spec"];
    api.registry.remove(str_at(spec, &["group"]), str_at(spec, &["names", "plural"]), &[]);
    // Its names are free for those of the group that wait for them.
    for other in definitions(api).iter().filter(|o| o.value["spec"]["group"] == spec["group"]) {
        on_change(api, other);
    }
}

/// The collection behind a CRD, if it is served.
pub(crate) fn instances(api: &Api, crd: &Value) -> Option<Arc<Resource>> {
    let (group, plural) = (str_at(crd, &["spec", "group"]), str_at(crd, &["spec", "names", "plural"]));
    let table = api.registry.table();
    table.resources.iter().find(|r| r.id.group == group && r.id.plural == plural).cloned()
}

/// The CRD of a custom resource, and the resource of CRDs.
pub(crate) fn of_resource(api: &Api, resource: &Resource) -> Option<(Arc<Resource>, Arc<Stored>)> {
    let name = format!("{}.{}", resource.id.plural, resource.id.group);
    let definitions = definition_target(api, &name)?.resource;
    let crd = definitions.objects.get(&Key::new("", &name))?;
    Some((definitions, crd))
}

fn register(api: &Api, crd: &Value) {
    let objects = instances(api, crd).map_or_else(
        || Arc::new(Collection::new(api.revisions.clone(), api.options.history)),
        |resource| resource.objects.clone(),
    );
    let group = str_at(crd, &["spec", "group"]);
    let stored_as = versions(crd)
        .find(|v| v["storage"] == true)
        .map(|v| api_version(group, str_at(v, &["name"])))
        .unwrap_or_default();
    let served: Vec<Resource> = versions(crd)
        .filter(|v| v["served"] == true)
        .filter_map(|version| resource(crd, version, objects.clone(), &stored_as))
        .collect();
    let kept: Vec<String> = served.iter().map(|r| r.id.version.clone()).collect();
    api.registry.remove(group, str_at(crd, &["spec", "names", "plural"]), &kept);
    api.registry.add(served);
}

/// The resource of one version; the CRD was validated before it was stored.
fn resource(crd: &Value, version: &Value, objects: Arc<Collection>, stored_as: &str) -> Option<Resource> {
    let spec = &crd["spec"];
    let names = &spec["names"];
    let raw = version["schema"]["openAPIV3Schema"].clone();
    let mut parsed: Schema = schema::parse(&raw, "").ok()?;
    // Validated against ObjectMeta, not against what the CRD may say about it.
    parsed.properties.retain(|name, _| !matches!(name.as_str(), "apiVersion" | "kind" | "metadata"));
    let parsed = Arc::new(parsed);
    let has_status = version["subresources"]["status"].is_object();
    let id = ResourceId {
        group: str_at(spec, &["group"]).to_owned(),
        version: str_at(version, &["name"]).to_owned(),
        plural: str_at(names, &["plural"]).to_owned(),
    };
    let strings =
        |field: &str| list_at(names, &[field]).iter().filter_map(|s| s.as_str().map(str::to_owned)).collect();
    let api_version = api_version(&id.group, &id.version);
    Some(Resource {
        kind: str_at(names, &["kind"]).to_owned(),
        list_kind: str_at(names, &["listKind"]).to_owned(),
        singular: str_at(names, &["singular"]).to_owned(),
        short_names: strings("shortNames"),
        categories: strings("categories"),
        namespaced: spec["scope"] == "Namespaced",
        has_status,
        schema: SchemaSource::Custom(parsed.clone(), Arc::new(raw)),
        rules: Arc::new(Custom { schema: parsed, has_status }),
        objects,
        view: if api_version == stored_as { View::Same } else { View::OtherVersion },
        stored_as: stored_as.to_owned(),
        columns: columns(version),
        selectable: selectable(version),
        id,
    })
}

fn selectable(version: &Value) -> Vec<String> {
    let fields = list_at(version, &["selectableFields"]).iter();
    fields.map(|f| str_at(f, &["jsonPath"]).trim_start_matches('.').to_owned()).collect()
}

fn columns(version: &Value) -> Columns {
    let text = |column: &Value, field: &str| str_at(column, &[field]).to_owned();
    let own = list_at(version, &["additionalPrinterColumns"]).iter().filter_map(|c| {
        let column = Column {
            name: text(c, "name"),
            ty: text(c, "type"),
            format: text(c, "format"),
            description: text(c, "description"),
            priority: c["priority"].as_i64().unwrap_or_default(),
        };
        Some((column, JsonPath::parse(str_at(c, &["jsonPath"])).ok()?))
    });
    let fixed = |name: &str, ty: &str, format: &str, path: &str| {
        let column = Column {
            name: name.to_owned(),
            ty: ty.to_owned(),
            format: format.to_owned(),
            description: String::new(),
            priority: 0,
        };
        (column, JsonPath::parse(path).expect("it is a path"))
    };
    let mut all = vec![fixed("Name", "string", "name", ".metadata.name")];
    let before = all.len();
    all.extend(own);
    if all.len() == before {
        all.push(fixed("Age", "date", "", ".metadata.creationTimestamp"));
    }
    Columns::Custom(all)
}
