//! What the chart permits the allocator is what it does: every request of a story in which it does everything is
//! granted, and nothing is granted that it never uses.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;

use apiserver::{Action, Cut, Fault, Matcher};
use kube::api::DeleteParams;
use serde::Deserialize;
use serde_json::json;

use support::{AGENT, Cluster, within};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

#[derive(Deserialize)]
struct Rules {
    rules: Vec<Rule>,
}

/// API group, resource and verb.
type Grants = BTreeSet<(String, String, String)>;

/// What the roles of a template grant. Rules are plain YAML; what stands around them is not.
fn granted(template: &str) -> Grants {
    let roles = template.split("\n---\n").filter(|part| part.contains("\nrules:\n"));
    let rules = roles.flat_map(|role| {
        let from = role.find("rules:\n").unwrap();
        serde_norway::from_str::<Rules>(&role[from..]).unwrap().rules
    });
    let mut grants = Grants::new();
    for rule in rules {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let grant = |verb: &String| (group.clone(), resource.clone(), verb.clone());
                grants.extend(rule.verbs.iter().map(grant));
            }
        }
    }
    grants
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chart_grants_the_allocator_what_it_uses_and_nothing_else() {
    let cluster = Cluster::start().await;
    let onlink = json!({"local": {"v4pool": {"pool": "198.51.100.0/29", "subnet": "198.51.100.0/29"}}});
    cluster.group("onlink", onlink).await;
    let first = cluster.allocator("a").await;
    // A traffic policy that is reset, a status, and events.
    let local = json!({"externalTrafficPolicy": "Local"});
    cluster.service("local", json!({"purelb.io/service-group": "onlink"}), local).await;
    cluster.served("local").await;
    cluster.event("local", "LocalOverridden").await;
    // The same event again: a series.
    let lost = json!({"purelb.io/service-group": "missing"});
    cluster.service("lost", lost, json!({})).await;
    cluster.event("lost", "AllocationFailed").await;
    let named = |group: &str| json!({"metadata": {"annotations": {"purelb.io/service-group": group}}});
    cluster.patch("lost", named("default")).await;
    cluster.served("lost").await;
    cluster.patch("lost", named("missing")).await;
    let series = Matcher::verb("patch").on("events").from_client(AGENT);
    let total = |matcher: &Matcher| cluster.server.counters().total(matcher);
    within("an event is told again", async || (total(&series) > 0).then_some(())).await;
    // A write that comes too late for no reason that could be seen: the Service is looked at.
    let matcher = Matcher::verb("patch").on("services/status").named("late");
    let action = Action::Refuse { code: 409, retry_after_secs: None };
    cluster.server.faults().add(Fault { matcher, action, times: Some(1), skip: 0 });
    cluster.plain("late").await;
    cluster.served("late").await;
    cluster.services().delete("late", &DeleteParams::default()).await.unwrap();
    let groups = cluster.groups();
    within("the group counts", async || {
        (groups.get("default").await.ok()?.status?.allocated_ipv4 == 1).then_some(())
    })
    .await;
    // The Lease: given back, and taken up by the next.
    first.stop().await;
    let second = cluster.allocator("b").await;
    within("the next decides", async || (second.metric("purelb_allocator_leader") > 0.0).then_some(())).await;
    cluster.server.faults().partition(Cut::Refuse, Vec::new());
    within("the Lease is lost", async || (second.metric("purelb_allocator_leader") == 0.0).then_some(()))
        .await;
    cluster.server.faults().heal();
    cluster.plain("again").await;
    cluster.served("again").await;

    let calls = cluster.server.counters().all();
    let ours = calls.into_iter().map(|(call, _)| call).filter(|call| call.client == AGENT);
    let used: Grants = ours.map(|call| (call.group, call.resource, call.verb)).collect();
    let granted = granted(include_str!("../../../charts/purelb/templates/allocator.yaml"));
    let text = |grants: &Grants, others: &Grants| {
        let more = grants.difference(others);
        more.map(|(group, resource, verb)| format!("{verb} {resource}.{group}")).collect::<Vec<_>>()
    };
    assert_eq!(text(&used, &granted), [""; 0], "used and not granted");
    assert_eq!(text(&granted, &used), [""; 0], "granted and not used");
}
