//! What the chart permits the agents is what they do: every request of a story in which one does everything is granted,
//! and nothing is granted that it never uses. And what the chart's admission policy lets an agent write is its own. The
//! in-memory API server has no such policies: here its expressions are evaluated.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests, and what they skip is said")]

#[allow(dead_code, reason = "what other tests need of it")]
mod harness;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use api::names::annotation;
use harness::{Lab, NAMESPACE, TEST, in_namespace, output};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}

/// API group, resource and verb.
type Grants = BTreeSet<(String, String, String)>;

/// What the roles of a template grant. Rules are plain YAML but for the names of Secrets; what stands around them is not.
fn granted(template: &str) -> Grants {
    let roles = template.split("\n---\n").filter(|part| part.contains("\nrules:\n"));
    let mut grants = Grants::new();
    for role in roles {
        let lines = role.lines().skip_while(|line| *line != "rules:").skip(1);
        let plain: Vec<_> = lines.filter(|line| !line.contains("{{")).collect();
        for rule in serde_norway::from_str::<Vec<Rule>>(&plain.join("\n")).unwrap() {
            for group in &rule.api_groups {
                for resource in &rule.resources {
                    let grant = |verb: &String| (group.clone(), resource.clone(), verb.clone());
                    grants.extend(rule.verbs.iter().map(grant));
                }
            }
        }
    }
    grants
}

/// Waits until the agent has made such a request.
async fn wait_call(lab: &Lab, verb: &str, resource: &str) {
    let start = Instant::now();
    let is_it =
        |call: &apiserver::Call| call.client != TEST && call.verb == verb && call.resource == resource;
    while !lab.server.counters().all().iter().any(|(call, _)| is_it(call)) {
        assert!(start.elapsed() < Duration::from_secs(60), "the agent has not tried to {verb} {resource}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A Service with an address of a local pool on this node's subnet, as the allocator leaves it.
async fn local_service(lab: &Lab) {
    let service = json!({
        "metadata": {"name": "near", "annotations": {
            annotation::ALLOCATED_BY: "PureLB", annotation::ALLOCATED_FROM: "near", annotation::POOL_TYPE: "local",
        }},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    });
    let services = lab.services();
    services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();
    let status = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"ip": "172.30.0.77"}]}}}));
    services.patch_status("near", &PatchParams::default(), &status).await.unwrap();
}

#[test]
fn the_chart_grants_the_agents_what_they_use_and_nothing_else() {
    in_namespace(async || {
        let mut lab = Lab::start().await;
        output("ip route add default via 172.30.0.9");
        let secret = json!({
            "metadata": {"name": "md5", "namespace": NAMESPACE}, "type": "kubernetes.io/basic-auth",
            "data": {"password": "c2VjcmV0"},
        });
        let secrets = Api::<Secret>::namespaced(lab.client.clone(), NAMESPACE);
        secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
        lab.peer("signed", json!({"peerAddress": "172.30.0.8", "passwordSecret": {"name": "md5"}})).await;
        lab.node_agent(json!({"local": {"localInterface": "default"}})).await;
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("settings.yaml");
        std::fs::write(&settings, "daemon_set: lbnodeagent\n").unwrap();
        lab.start_agent(&["--config", settings.to_str().unwrap()]);
        for (verb, resource) in [
            ("watch", "secrets"),
            ("watch", "daemonsets"),
            ("update", "leases"),
            ("patch", "bgpnodestatuses/status"),
            ("patch", "bgppeers/status"),
            ("patch", "lbnodeagents/status"),
        ] {
            wait_call(&lab, verb, resource).await;
        }
        lab.service("web", "Local", &["192.0.2.7"]).await;
        wait_call(&lab, "watch", "endpointslices").await;
        local_service(&lab).await;
        wait_call(&lab, "patch", "services/status").await;
        wait_call(&lab, "create", "events").await;
        // The same said again: a series.
        for _ in 0..2 {
            lab.endpoints("web", &[("n1", true, true, false)]).await;
            lab.wait_addresses(&["192.0.2.7/32"]).await;
            lab.endpoints("web", &[]).await;
            lab.wait_addresses(&[]).await;
        }
        wait_call(&lab, "patch", "events").await;
        lab.end_agent(Signal::SIGTERM).await;
        wait_call(&lab, "delete", "leases").await;

        let calls = lab.server.counters().all();
        let ours = calls.into_iter().map(|(call, _)| call).filter(|call| call.client != TEST);
        let used: Grants = ours.map(|call| (call.group, call.resource, call.verb)).collect();
        let granted = granted(include_str!("../../../charts/purelb/templates/lbnodeagent.yaml"));
        let text = |grants: &Grants, others: &Grants| {
            let more = grants.difference(others);
            more.map(|(group, resource, verb)| format!("{verb} {resource}.{group}")).collect::<Vec<_>>()
        };
        assert_eq!(text(&used, &granted), [""; 0], "used and not granted");
        assert_eq!(text(&granted, &used), [""; 0], "granted and not used");
    });
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    match_conditions: Vec<Expression>,
    variables: Vec<Expression>,
    validations: Vec<Validation>,
}

#[derive(Deserialize)]
struct Expression {
    name: String,
    expression: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Validation {
    expression: String,
    message_expression: String,
}

/// The policy of the template, of a release in this namespace.
fn policy() -> Policy {
    #[derive(Deserialize)]
    struct Object {
        spec: Policy,
    }
    let template = include_str!("../../../charts/purelb/templates/lbnodeagent-admission.yaml");
    let named =
        template.replace("{{ .Release.Namespace }}", NAMESPACE).replace("{{ .Release.Name }}", "purelb");
    let lines: Vec<_> = named.lines().filter(|line| !line.contains("{{")).collect();
    let first = lines.split(|line| *line == "---").next().unwrap().join("\n");
    serde_norway::from_str::<Object>(&first).unwrap().spec
}

/// What it says of a request: `Err` with the message where it denies it.
fn judge(policy: &Policy, request: &Value, object: &Value) -> Result<(), String> {
    let mut context = cel::Context::default();
    context.add_variable("request", request.clone()).unwrap();
    context.add_variable("object", object.clone()).unwrap();
    let evaluate = |context: &cel::Context<'_, '_>, text: &str| {
        cel::Program::compile(text).unwrap().execute(context).unwrap().json().unwrap()
    };
    if policy.match_conditions.iter().any(|it| evaluate(&context, &it.expression) != json!(true)) {
        return Ok(());
    }
    let variables: Map<String, Value> =
        policy.variables.iter().map(|it| (it.name.clone(), evaluate(&context, &it.expression))).collect();
    context.add_variable("variables", variables).unwrap();
    let denied = policy.validations.iter().find(|it| evaluate(&context, &it.expression) != json!(true));
    denied.map_or(Ok(()), |it| {
        Err(evaluate(&context, &it.message_expression).as_str().unwrap_or_default().to_owned())
    })
}

#[test]
fn an_agent_may_write_what_is_of_its_node_and_no_other_agents_objects() {
    let policy = policy();
    let extra = json!({"authentication.kubernetes.io/node-name": ["n1"]});
    let agent = json!({"username": format!("system:serviceaccount:{NAMESPACE}:lbnodeagent"), "extra": extra});
    let judge = |user: &Value, operation: &str, resource: &str, name: &str| {
        // On creation the name is the object's; on deletion there is no object.
        let object = if operation == "DELETE" { Value::Null } else { json!({"metadata": {"name": name}}) };
        let name = if operation == "CREATE" { "" } else { name };
        let request = json!({
            "operation": operation, "name": name, "resource": {"resource": resource}, "userInfo": user,
        });
        judge(&policy, &request, &object)
    };
    for operation in ["CREATE", "UPDATE", "DELETE"] {
        for (resource, name, is_own) in [
            ("leases", "purelb-n1", true),
            ("leases", "purelb-bgppeer-status", true),
            ("leases", "purelb-n2", false),
            ("leases", "purelb-allocator", false),
            ("bgpnodestatuses", "n1", true),
            ("bgpnodestatuses", "n2", false),
        ] {
            let verdict = judge(&agent, operation, resource, name);
            assert_eq!(verdict.is_ok(), is_own, "{operation} {resource} {name}: {verdict:?}");
            assert!(verdict.err().is_none_or(|why| why.contains("of node n1") && why.contains(name)));
        }
    }
    let other = json!({"username": "system:serviceaccount:kube-system:garbage-collector", "extra": extra});
    assert_eq!(judge(&other, "DELETE", "leases", "purelb-n2"), Ok(()), "no agent");
    for unknown in
        [json!({"username": agent["username"]}), json!({"username": agent["username"], "extra": {}})]
    {
        assert_eq!(judge(&unknown, "UPDATE", "leases", "purelb-n2"), Ok(()), "a server that names no node");
    }
}
