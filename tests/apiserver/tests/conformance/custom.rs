//! Custom resources: a CRD of our own with everything in it, the project's CRDs, and bad CRDs.

use serde_json::{Value, json};

use crate::cluster::{APPLY, Cluster, JSON, MERGE, STRATEGIC};

crate::checks![
    defaults_pruning_and_nulls,
    schema_violations_name_the_field,
    rules_are_evaluated_and_transition_rules_need_an_old_value,
    generation_follows_spec_and_not_status_or_metadata,
    status_is_written_through_its_subresource_only,
    applied_lists_are_merged_by_key,
    printer_columns_are_shown,
    custom_resources_refuse_what_only_typed_ones_take,
    bad_crds_are_refused,
    names_that_are_taken_are_not_accepted,
    deleting_a_crd_deletes_its_objects,
    the_projects_crds_register_and_refuse_bad_objects,
];

/// A CRD in the check's own group.
fn definition(c: &Cluster, schema: Value) -> Value {
    let group = group(c);
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "singular": "thing", "listKind": "ThingList"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": schema},
                "additionalPrinterColumns": [
                    {"name": "Mode", "type": "string", "jsonPath": ".spec.mode"},
                    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
                    {"name": "Port", "type": "integer", "jsonPath": ".spec.port", "priority": 1},
                ],
            }],
        },
    })
}

fn schema() -> Value {
    json!({"type": "object", "properties": {
        "spec": {
            "type": "object", "required": ["port"],
            "x-kubernetes-validations": [
                {"rule": "has(self.a) != has(self.b)", "message": "exactly one of a and b must be set"},
                {"rule": "self.port >= oldSelf.port", "message": "port must not shrink"},
            ],
            "properties": {
                "port": {"type": "integer", "format": "int64", "minimum": 1, "maximum": 4294967295u32},
                "mode": {"type": "string", "enum": ["x", "y"], "default": "x"},
                "a": {"type": "string", "maxLength": 5, "pattern": "^[a-z]+$"},
                "b": {"type": "string", "format": "ipv4"},
                "timers": {"type": "object", "default": {}, "properties": {"hold": {"type": "string", "default": "90s",
                    "x-kubernetes-validations": [{"rule": "duration(self) >= duration('3s')", "message": "hold is at least 3s"}]}}},
                "list": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "string", "maxLength": 10},
                    "x-kubernetes-validations": [{"rule": "self.all(x, x.startsWith('k')) && self.exists(x, x.matches('^k[0-9]$'))"}]},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "either": {"x-kubernetes-int-or-string": true},
                "maybe": {"type": "string", "nullable": true},
            },
        },
        "status": {"type": "object", "properties": {
            "seen": {"type": "integer"},
            "conditions": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                "items": {"type": "object", "required": ["type", "status"], "properties": {"type": {"type": "string"}, "status": {"type": "string"}}}},
        }},
    }})
}

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Registers a CRD and waits until its resource is served and established; returns the path of its objects.
async fn registered(c: &Cluster, crd: &Value) -> String {
    c.post(DEFINITIONS, crd).await.ok();
    let name = crd["metadata"]["name"].as_str().unwrap();
    let (group, version) =
        (crd["spec"]["group"].as_str().unwrap(), crd["spec"]["versions"][0]["name"].as_str().unwrap());
    let plural = crd["spec"]["names"]["plural"].as_str().unwrap();
    let path = match crd["spec"]["scope"].as_str().unwrap() {
        "Namespaced" => c.group(&format!("{group}/{version}"), plural),
        _ => format!("/apis/{group}/{version}/{plural}"),
    };
    let established = async {
        loop {
            let crd = c.get(&format!("{DEFINITIONS}/{name}")).await.ok();
            let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let is = |t: &str| conditions.iter().any(|k| k["type"] == t && k["status"] == "True");
            // The real server takes a moment longer to serve it everywhere: a list must work.
            if is("Established") && is("NamesAccepted") && c.get(&path).await.status == 200 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), established)
        .await
        .expect("the CRD is established");
    path
}

async fn things(c: &Cluster) -> String {
    registered(c, &definition(c, schema())).await
}

/// Each check has its group, for names must not collide within one.
fn group(c: &Cluster) -> String {
    format!("{}.example.com", c.namespace)
}

fn thing(c: &Cluster, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{}/v1", group(c)), "kind": "Thing", "metadata": {"name": name}, "spec": spec})
}

async fn defaults_pruning_and_nulls(c: Cluster) {
    let path = things(&c).await;
    let spec = json!({"port": 1, "a": "k", "unknown": 1, "mode": null, "free": {"x": [1]}, "either": "80", "maybe": null});
    let answer = c.post(&path, &thing(&c, "t", spec)).await;
    assert_eq!(answer.warnings, [r#"299 - "unknown field \"spec.unknown\"""#]);
    let t = answer.ok();
    let wanted = json!({"port": 1, "a": "k", "mode": "x", "timers": {"hold": "90s"}, "free": {"x": [1]}, "either": "80", "maybe": null});
    assert_eq!(t["spec"], wanted);
    let strict = format!("{path}?fieldValidation=Strict");
    let status = c
        .post(&strict, &thing(&c, "u", json!({"port": 1, "a": "k", "nope": 1})))
        .await
        .refused(400, "BadRequest");
    assert!(
        status["message"].as_str().unwrap().contains("strict decoding error: unknown field \"spec.nope\"")
    );
}

async fn schema_violations_name_the_field(c: Cluster) {
    let path = things(&c).await;
    let cases = json!([
        ["spec.port", "Required value", {"a": "k"}],
        ["spec.port", "spec.port in body should be greater than or equal to 1", {"a": "k", "port": 0}],
        ["spec.port", "spec.port in body should be less than or equal to 4294967295", {"a": "k", "port": 4294967296u64}],
        ["spec.port", "spec.port in body must be of type integer: \"string\"", {"a": "k", "port": "1"}],
        ["spec.mode", "Unsupported value: \"z\": supported values: \"x\", \"y\"", {"a": "k", "port": 1, "mode": "z"}],
        ["spec.a", "Too long: may not be more than 5 bytes", {"a": "abcdef", "port": 1}],
        ["spec.a", "spec.a in body should match '^[a-z]+$'", {"a": "A", "port": 1}],
        ["spec.b", "spec.b in body must be of type ipv4: \"x\"", {"b": "x", "port": 1}],
        ["spec.list", "spec.list in body should have at least 1 items", {"a": "k", "port": 1, "list": []}],
        ["spec.list", "Too many: 4: must have at most 3 items", {"a": "k", "port": 1, "list": ["k1", "k", "k", "k"]}],
        ["spec.either", "must be of type integer,string", {"a": "k", "port": 1, "either": true}],
    ]);
    for case in cases.as_array().unwrap() {
        let answer = c.post(&path, &thing(&c, "bad", case[2].clone())).await;
        answer.invalid(case[0].as_str().unwrap(), case[1].as_str().unwrap());
    }
    let status = c.post(&path, &thing(&c, "bad", json!({"a": "k"}))).await.refused(422, "Invalid");
    assert!(
        status["message"]
            .as_str()
            .unwrap()
            .contains("some validation rules were not checked because the object was invalid")
    );
}

async fn rules_are_evaluated_and_transition_rules_need_an_old_value(c: Cluster) {
    let path = things(&c).await;
    c.post(&path, &thing(&c, "t", json!({"port": 1, "a": "k", "b": "192.0.2.1"})))
        .await
        .invalid("spec", "exactly one of a and b must be set");
    c.post(&path, &thing(&c, "t", json!({"port": 1, "a": "k", "timers": {"hold": "1s"}})))
        .await
        .invalid("spec.timers.hold", "hold is at least 3s");
    c.post(&path, &thing(&c, "t", json!({"port": 1, "a": "k", "list": ["k"]})))
        .await
        .invalid("spec.list", "failed rule: self.all(");
    c.post(&path, &thing(&c, "t", json!({"port": 5, "a": "k", "list": ["k1"]}))).await.ok();
    let shrink = json!({"spec": {"port": 4}});
    c.patch(&format!("{path}/t"), MERGE, &shrink).await.invalid("spec", "port must not shrink");
    c.patch(&format!("{path}/t"), MERGE, &json!({"spec": {"port": 6}})).await.ok();
}

async fn generation_follows_spec_and_not_status_or_metadata(c: Cluster) {
    let path = things(&c).await;
    let generation = |t: &Value| t["metadata"]["generation"].as_i64().unwrap();
    let t = c.post(&path, &thing(&c, "t", json!({"port": 1, "a": "k"}))).await.ok();
    assert_eq!(generation(&t), 1);
    let one = format!("{path}/t");
    assert_eq!(generation(&c.patch(&one, MERGE, &json!({"spec": {"port": 2}})).await.ok()), 2);
    assert_eq!(generation(&c.patch(&one, MERGE, &json!({"metadata": {"labels": {"a": "b"}}})).await.ok()), 2);
    assert_eq!(
        generation(&c.patch(&format!("{one}/status"), MERGE, &json!({"status": {"seen": 1}})).await.ok()),
        2
    );
}

async fn status_is_written_through_its_subresource_only(c: Cluster) {
    let path = things(&c).await;
    let mut body = thing(&c, "t", json!({"port": 1, "a": "k"}));
    body["status"] = json!({"seen": 7});
    assert!(c.post(&path, &body).await.ok().get("status").is_none());
    let t = c.patch(&format!("{path}/t"), MERGE, &json!({"status": {"seen": 7}})).await.ok();
    assert!(t.get("status").is_none());
    let patch = json!({"status": {"seen": 8}, "spec": {"port": 9}, "metadata": {"annotations": {"x": "y"}}});
    let t = c.patch(&format!("{path}/t/status"), MERGE, &patch).await.ok();
    assert_eq!((&t["status"]["seen"], &t["spec"]["port"]), (&json!(8), &json!(1)));
    assert!(t["metadata"].get("annotations").is_none(), "metadata of a custom resource is not /status's");
    let twice = json!({"status": {"conditions": [{"type": "R", "status": "True"}, {"type": "R", "status": "False"}]}});
    c.patch(&format!("{path}/t/status"), MERGE, &twice)
        .await
        .invalid("status.conditions[1]", "Duplicate value");
}

async fn applied_lists_are_merged_by_key(c: Cluster) {
    let path = things(&c).await;
    c.post(&path, &thing(&c, "t", json!({"port": 1, "a": "k"}))).await.ok();
    let mut last = Value::Null;
    for (manager, kind) in [("one", "Ready"), ("two", "Other")] {
        let mut body =
            json!({"apiVersion": format!("{}/v1", group(&c)), "kind": "Thing", "metadata": {"name": "t"}});
        body["status"] = json!({"conditions": [{"type": kind, "status": "True"}]});
        last = c.patch(&format!("{path}/t/status?fieldManager={manager}"), APPLY, &body).await.ok();
    }
    assert_eq!(last["status"]["conditions"].as_array().unwrap().len(), 2);
    let other = json!({"apiVersion": format!("{}/v1", group(&c)), "kind": "Thing", "metadata": {"name": "t"},
        "status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    let status =
        c.patch(&format!("{path}/t/status?fieldManager=two"), APPLY, &other).await.refused(409, "Conflict");
    let text = status["message"].as_str().unwrap();
    assert!(text.contains(".status.conditions[type=\"Ready\"].status"), "{text}");
}

async fn printer_columns_are_shown(c: Cluster) {
    let path = things(&c).await;
    c.post(&path, &thing(&c, "t", json!({"port": 1, "a": "k"}))).await.ok();
    let ready = json!({"status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]}});
    c.patch(&format!("{path}/t/status"), MERGE, &ready).await.ok();
    let table = c.get_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    let columns: Vec<(&str, i64)> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["name"].as_str().unwrap(), d["priority"].as_i64().unwrap()))
        .collect();
    assert_eq!(columns, [("Name", 0), ("Mode", 0), ("Ready", 0), ("Port", 1)]);
    assert_eq!(table["rows"][0]["cells"], json!(["t", "x", "True", 1]));
}

async fn custom_resources_refuse_what_only_typed_ones_take(c: Cluster) {
    let path = things(&c).await;
    let t = thing(&c, "t", json!({"port": 1, "a": "k"}));
    c.post(&path, &t).await.ok();
    c.patch(&format!("{path}/t"), STRATEGIC, &json!({})).await.refused(415, "UnsupportedMediaType");
    c.put(&format!("{path}/t"), &t)
        .await
        .invalid("metadata.resourceVersion", "must be specified for an update");
    c.post(&path, &json!({"metadata": {"name": "u"}, "spec": {"port": 1, "a": "k"}}))
        .await
        .refused(400, "BadRequest");
    let bad = json!([{"op": "replace", "path": "/spec/port", "value": "x"}]);
    c.patch(&format!("{path}/t"), JSON, &bad).await.invalid("spec.port", "must be of type integer");
}

async fn bad_crds_are_refused(c: Cluster) {
    let spec = |rule: &str| {
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}, "n": {"type": "integer"}},
            "x-kubernetes-validations": [{"rule": rule}]}}})
    };
    let at = "spec.validation.openAPIV3Schema";
    let rule = format!("{at}.properties[spec].x-kubernetes-validations[0].rule");
    let member = |member: Value| json!({"type": "object", "properties": {"a": member}});
    let dry = format!("{DEFINITIONS}?dryRun=All");
    for (schema, field, text) in [
        (spec("self.zzz == 1"), rule.as_str(), "undefined field 'zzz'"),
        (spec("self.a =="), rule.as_str(), "Syntax error"),
        (
            spec("self.a == 1"),
            rule.as_str(),
            "found no matching overload for '_==_' applied to '(string, int)'",
        ),
        (spec("self.a"), rule.as_str(), "must evaluate to a bool"),
        (spec("nope(self.a)"), rule.as_str(), "undeclared reference to 'nope'"),
        (
            member(json!({"type": "array"})),
            "spec.validation.openAPIV3Schema.properties[a].items",
            "Required value",
        ),
        (
            member(json!({"type": "string", "pattern": "["})),
            "spec.validation.openAPIV3Schema.properties[a].pattern",
            "must be a valid regular expression",
        ),
        (
            member(json!({"type": "string", "default": 1})),
            "spec.validation.openAPIV3Schema.properties[a].default",
            "in body must be of type string",
        ),
    ] {
        c.post(&dry, &definition(&c, schema)).await.invalid(field, text);
    }
    let mut named = definition(&c, schema());
    named["metadata"]["name"] = json!("other.example.com");
    c.post(&dry, &named).await.invalid("metadata.name", "must be spec.names.plural+\".\"+spec.group");
    for rule in [
        "isIP(self.a) && ip(self.a).family() == 4",
        "cidr(self.a).containsIP('10.0.0.1')",
        "self.n >= oldSelf.n",
        "self.a.lowerAscii() == self.a",
    ] {
        c.post(&dry, &definition(&c, spec(rule))).await.ok();
    }
}

async fn names_that_are_taken_are_not_accepted(c: Cluster) {
    let first = definition(&c, schema());
    registered(&c, &first).await;
    let mut second = first.clone();
    second["metadata"]["name"] = json!(format!("others.{}", group(&c)));
    second["spec"]["names"] =
        json!({"plural": "others", "kind": "Thing", "singular": "other", "listKind": "OtherList"});
    c.post(DEFINITIONS, &second).await.ok();
    let path = format!("{DEFINITIONS}/others.{}", group(&c));
    let condition = async |kind: &str, status: &str| {
        let settled = async {
            loop {
                let crd = c.get(&path).await.ok();
                let conditions = crd["status"]["conditions"].as_array().cloned().unwrap_or_default();
                if let Some(found) =
                    conditions.into_iter().find(|k| k["type"] == kind && k["status"] == status)
                {
                    return found;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), settled).await.expect("the condition is set")
    };
    let names = condition("NamesAccepted", "False").await;
    assert_eq!(
        (&names["reason"], &names["message"]),
        (&json!("KindConflict"), &json!("\"Thing\" is already in use"))
    );
    assert_eq!(condition("Established", "False").await["reason"], "NotAccepted");
    assert_eq!(c.get(&c.group(&format!("{}/v1", group(&c)), "others")).await.status, 404);
    c.delete(&format!("{DEFINITIONS}/things.{}", group(&c))).await.ok();
    condition("Established", "True").await;
}

async fn deleting_a_crd_deletes_its_objects(c: Cluster) {
    let crd = definition(&c, schema());
    let path = registered(&c, &crd).await;
    c.post(&path, &thing(&c, "t", json!({"port": 1, "a": "k"}))).await.ok();
    let name = crd["metadata"]["name"].as_str().unwrap();
    c.delete(&format!("{DEFINITIONS}/{name}")).await.ok();
    let gone = async {
        while c.get(&format!("{DEFINITIONS}/{name}")).await.status != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), gone).await.expect("the CRD goes");
    assert!(c.get(&path).await.body["items"].as_array().is_none_or(Vec::is_empty));
}

async fn the_projects_crds_register_and_refuse_bad_objects(c: Cluster) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/purelb/crds");
    let mut registered_kinds = Vec::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let crd: Value = serde_norway::from_str(&text).unwrap();
        registered(&c, &crd).await;
        registered_kinds.push(crd["spec"]["names"]["kind"].as_str().unwrap().to_owned());
    }
    registered_kinds.sort();
    assert_eq!(registered_kinds, ["BGPNodeStatus", "BGPPeer", "LBNodeAgent", "ServiceGroup"]);
    let peers = c.group("bgp.purelb.io/v1", "bgppeers");
    let peer = |spec: Value| json!({"apiVersion": "bgp.purelb.io/v1", "kind": "BGPPeer", "metadata": {"name": "p"}, "spec": spec});
    let both =
        json!({"myASN": 64512, "peerASN": 64513, "dynamicASN": "internal", "peerAddress": "192.0.2.1"});
    c.post(&peers, &peer(both)).await.invalid("spec", "exactly one of peerASN and dynamicASN must be set");
    c.post(&peers, &peer(json!({"myASN": 0, "peerASN": 1, "peerAddress": "192.0.2.1"})))
        .await
        .invalid("spec.myASN", "greater than or equal to 1");
    let good = c
        .post(&peers, &peer(json!({"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1"})))
        .await
        .ok();
    assert_eq!((&good["spec"]["holdTime"], &good["spec"]["peerPort"]), (&json!("90s"), &json!(179)));
    let groups = c.group("purelb.io/v2", "servicegroups");
    let service_group = |spec: Value| json!({"apiVersion": "purelb.io/v2", "kind": "ServiceGroup", "metadata": {"name": "g"}, "spec": spec});
    c.post(&groups, &service_group(json!({})))
        .await
        .invalid("spec", "exactly one of local, remote and external must be set");
    let v6 =
        json!({"local": {"v4pool": {"pool": "fd00::/64", "subnet": "fd00::/64", "aggregation": "default"}}});
    c.post(&groups, &service_group(v6)).await.refused(422, "Invalid");
    let v4 = json!({"remote": {"v4pool": {"pool": "192.0.2.0/28", "subnet": "192.0.2.0/24", "aggregation": "/32"}}});
    c.post(&groups, &service_group(v4)).await.ok();
}
