//! The table of built-in resources.

use std::sync::Arc;

use super::{Resource, ResourceId, SchemaSource, View, api_version};
use crate::kinds::service::{Pools, Service};
use crate::kinds::{Kind, Plain, apps, cluster, network, pod};
use crate::store::{Collection, Revisions};
use crate::table::Columns;

struct Row {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    in_all: bool,
    namespaced: bool,
    has_status: bool,
    definition: &'static str,
    selectable: &'static [&'static str],
}

const CORE: &str = "io.k8s.api.core.v1.";
const APPS: &str = "io.k8s.api.apps.v1.";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("", "Namespace", "namespaces", &["ns"], false, false, true, CORE, &["status.phase"]),
    row("", "Service", "services", &["svc"], true, true, true, CORE, &["spec.clusterIP", "spec.type"]),
    row("", "Node", "nodes", &["no"], false, false, true, CORE, &["spec.unschedulable"]),
    row("", "Pod", "pods", &["po"], true, true, true, CORE, &["spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork", "status.phase", "status.podIP", "status.nominatedNodeName"]),
    row("", "Secret", "secrets", &[], false, true, false, CORE, &["type"]),
    row("", "ConfigMap", "configmaps", &["cm"], false, true, false, CORE, &[]),
    row("", "Endpoints", "endpoints", &["ep"], false, true, false, CORE, &[]),
    row("", "Event", "events", &["ev"], false, true, false, CORE, &["involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid", "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason", "reportingComponent", "source", "type"]),
    row("", "ServiceAccount", "serviceaccounts", &["sa"], false, true, false, CORE, &[]),
    row("events.k8s.io", "Event", "events", &["ev"], false, true, false, "io.k8s.api.events.v1.", &["regarding.kind", "regarding.namespace", "regarding.name", "regarding.uid", "regarding.apiVersion", "regarding.resourceVersion", "regarding.fieldPath", "reason", "reportingController", "type"]),
    row("apps", "Deployment", "deployments", &["deploy"], true, true, true, APPS, &[]),
    row("apps", "DaemonSet", "daemonsets", &["ds"], true, true, true, APPS, &[]),
    row("apps", "ReplicaSet", "replicasets", &["rs"], true, true, true, APPS, &["status.replicas"]),
    row("discovery.k8s.io", "EndpointSlice", "endpointslices", &[], false, true, false, "io.k8s.api.discovery.v1.", &[]),
    row("coordination.k8s.io", "Lease", "leases", &[], false, true, false, "io.k8s.api.coordination.v1.", &[]),
    row("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions", &["crd", "crds"], false, false, true, "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.", &[]),
];

#[allow(clippy::too_many_arguments, reason = "a table's row")]
const fn row(
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    in_all: bool,
    namespaced: bool,
    has_status: bool,
    definition: &'static str,
    selectable: &'static [&'static str],
) -> Row {
    Row { group, version: "v1", kind, plural, short, in_all, namespaced, has_status, definition, selectable }
}

/// Builds them, with empty collections.
pub(crate) fn resources(revisions: &Revisions, history: usize, pools: &Arc<Pools>) -> Vec<Resource> {
    let mut built: Vec<Resource> = Vec::new();
    for row in ROWS {
        let events = row.group == "events.k8s.io";
        let core_events = built.iter().find(|r| events && r.id.plural == "events").map(|r| r.objects.clone());
        let objects = core_events.unwrap_or_else(|| Arc::new(Collection::new(revisions.clone(), history)));
        built.push(resource(row, rules(row.group, row.kind, pools), objects, events));
    }
    built
}

fn resource(row: &Row, rules: Arc<dyn Kind>, objects: Arc<Collection>, events: bool) -> Resource {
    let name = format!("{}{}", row.definition, row.kind);
    let definition = crate::schema::builtin::interned(&name).expect("every row names a definition");
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
    Resource {
        id: ResourceId { group: row.group.into(), version: row.version.into(), plural: row.plural.into() },
        kind: row.kind.into(),
        list_kind: if row.kind == "Endpoints" { "EndpointsList".into() } else { format!("{}List", row.kind) },
        singular: row.kind.to_lowercase(),
        short_names: strings(row.short),
        categories: if row.in_all { vec!["all".into()] } else { Vec::new() },
        namespaced: row.namespaced,
        has_status: row.has_status,
        schema: SchemaSource::Builtin(definition),
        rules,
        objects,
        stored_as: if events { "v1".into() } else { api_version(row.group, row.version) },
        view: if events { View::Events } else { View::Same },
        columns: Columns::builtin(row.kind),
        selectable: strings(row.selectable),
    }
}

fn rules(group: &str, kind: &str, pools: &Arc<Pools>) -> Arc<dyn Kind> {
    match (group, kind) {
        ("", "Namespace") => Arc::new(cluster::Namespace),
        ("", "Service") => Arc::new(Service::new(pools.clone())),
        ("", "Node") => Arc::new(cluster::Node),
        ("", "Pod") => Arc::new(pod::Pod),
        ("", "Secret") => Arc::new(cluster::Secret),
        ("", "ConfigMap") => Arc::new(cluster::ConfigMap),
        (_, "Event") => Arc::new(network::Event),
        (_, "Deployment") => {
            Arc::new(apps::Workload { has_replicas: true, counters: &[], defaults: apps::deployment })
        }
        (_, "DaemonSet") => Arc::new(apps::Workload {
            has_replicas: false,
            counters: &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
            ],
            defaults: apps::daemon_set,
        }),
        (_, "ReplicaSet") => Arc::new(apps::Workload {
            has_replicas: true,
            counters: &["replicas"],
            defaults: apps::replica_set,
        }),
        (_, "EndpointSlice") => Arc::new(network::EndpointSlice),
        (_, "Lease") => Arc::new(network::Lease),
        (_, "CustomResourceDefinition") => Arc::new(crate::crd::Definition),
        (_, kind) => Arc::new(Plain { creates_on_update: kind == "Endpoints" }),
    }
}
