//! Discovery: which groups, versions and resources there are, in the plain and in the aggregated form.

use axum::body::Body;
use http::Response;
use serde_json::{Value, json};

use crate::http::answer;
use crate::http::path::Path;
use crate::refusal::Refusal;
use crate::registry::{Resource, Table, api_version};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What nobody serves is answered in plain text.
const NO_PAGE: &str = "404 page not found\n";

/// Answers a discovery path.
pub(crate) fn answer(table: &Table, path: &Path<'_>, accept: &str) -> Result<Response<Body>, Refusal> {
    let aggregated = wants_aggregated(accept);
    let value = match path {
        Path::CoreVersions if aggregated => return Ok(aggregated_answer(table, true)),
        Path::Groups if aggregated => return Ok(aggregated_answer(table, false)),
        Path::CoreVersions => json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
        }),
        Path::Groups => {
            let groups = table.groups().into_iter().filter(|(group, _)| !group.is_empty());
            let groups: Vec<Value> = groups.map(|(group, versions)| api_group(&group, &versions)).collect();
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
        }
        Path::Group(group) => {
            let found = table.groups().into_iter().find(|(name, _)| name == group && !name.is_empty());
            let Some((group, versions)) = found else { return Ok(answer::text(404, NO_PAGE)) };
            let mut value = json!({"kind": "APIGroup", "apiVersion": "v1"});
            for (key, member) in api_group(&group, &versions).as_object().into_iter().flatten() {
                value[key.as_str()] = member.clone();
            }
            value
        }
        Path::Resources(group, _) if table.groups().iter().all(|(name, _)| name != group) => {
            return Ok(answer::text(404, NO_PAGE));
        }
        Path::Resources(group, version) => resource_list(table, group, version)?,
        Path::Objects(_) | Path::Other => return Ok(answer::text(404, NO_PAGE)),
    };
    Ok(answer::json(200, &value))
}

/// Whether the first acceptable form is the aggregated one.
fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let has = |part: &str| range.split(';').any(|p| p.trim() == part);
        has("application/json")
            && has("as=APIGroupDiscoveryList")
            && has("v=v2")
            && has("g=apidiscovery.k8s.io")
    })
}

fn aggregated_answer(table: &Table, core: bool) -> Response<Body> {
    let groups = table.groups().into_iter().filter(|(group, _)| group.is_empty() == core);
    let items: Vec<Value> = groups
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> =
                        in_version(table, &group, version).map(aggregated_resource).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            json!({"metadata": {"name": group, "creationTimestamp": null}, "versions": versions})
        })
        .collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
    });
    answer::with_type(200, AGGREGATED, list.to_string().into())
}

fn in_version<'t>(table: &'t Table, group: &'t str, version: &'t str) -> impl Iterator<Item = &'t Resource> {
    table.resources.iter().map(AsRef::as_ref).filter(move |r| r.id.group == group && r.id.version == version)
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = json!({"group": resource.id.group, "version": resource.id.version, "kind": resource.kind});
    let mut value = json!({
        "resource": resource.id.plural, "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
    if resource.has_status {
        value["subresources"] =
            json!([{"subresource": "status", "responseKind": kind, "verbs": STATUS_VERBS}]);
    }
    value
}

fn api_group(group: &str, versions: &[String]) -> Value {
    let version = |v: &String| json!({"groupVersion": format!("{group}/{v}"), "version": v});
    let all: Vec<Value> = versions.iter().map(version).collect();
    json!({"name": group, "versions": all, "preferredVersion": all.first()})
}

fn resource_list(table: &Table, group: &str, version: &str) -> Result<Value, Refusal> {
    let mut rows = Vec::new();
    for resource in in_version(table, group, version) {
        let mut row = json!({
            "name": resource.id.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": VERBS,
        });
        if !resource.short_names.is_empty() {
            row["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            row["categories"] = json!(resource.categories);
        }
        rows.push(row);
        if resource.has_status {
            rows.push(json!({
                "name": format!("{}/status", resource.id.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind, "verbs": STATUS_VERBS,
            }));
        }
    }
    if rows.is_empty() {
        return Err(Refusal::no_such_path());
    }
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version(group, version), "resources": rows,
    }))
}
