//! Every rule of what a Service owner sees, a row each.

mod held;
mod multi;
mod namespaces;
mod new;
mod policy;
mod requests;
mod sharing;
mod strangers;

use api::names::annotation::{
    ALLOCATED_BY, ALLOCATED_FROM, ANNOUNCING_IPV4, POOL_TYPE, RE_EVALUATE, SERVICE_GROUP,
};

use super::*;
use crate::{
    engine::Engine,
    testing::{engine, groups, ips, merge, object, read, service},
};

/// Decides about a Service whose published addresses are in the books.
fn decide(engine: &mut Engine, service: &Service) -> Decision {
    decide_after(engine, service, Edge::default())
}

fn decide_after(engine: &mut Engine, service: &Service, edge: Edge) -> Decision {
    engine.sync(service);
    engine.decide(service, edge).decision
}

fn written(decision: Decision) -> Write {
    match decision {
        Decision::Write(write) => write,
        other => panic!("nothing is written: {other:?}"),
    }
}

fn refused(decision: Decision) -> Problem {
    match decision {
        Decision::Refuse(problem) => problem,
        other => panic!("not refused: {other:?}"),
    }
}

fn value<'a>(write: &'a Write, name: &str) -> Option<&'a str> {
    write.annotations.iter().find(|(known, _)| *known == name)?.1
}

fn is_removed(write: &Write, name: &str) -> bool {
    write.annotations.iter().any(|(known, value)| known == name && value.is_none())
}

const DUAL: &str = "ipFamilies: [IPv4, IPv6]";

/// A Service that has been served: `ingress` from `group`.
fn held(name: &str, ingress: &str, group: &str, pool_type: &str, changes: &str) -> Service {
    let entries: Vec<String> = ips(ingress).iter().map(|ip| format!("{{ip: '{ip}'}}")).collect();
    let mut object = object(
        name,
        &format!(
            "{{metadata: {{annotations: {{purelb.io/allocated-by: PureLB, purelb.io/allocated-from: {group}, \
             purelb.io/pool-type: {pool_type}, purelb.io/service-group: {group}}}}}, \
             status: {{loadBalancer: {{ingress: [{}]}}}}}}",
            entries.join(", ")
        ),
    );
    let patch: serde_json::Value = serde_norway::from_str(changes).unwrap_or_default();
    if !patch.is_null() {
        merge(&mut object, patch);
    }
    read(&object).unwrap()
}
