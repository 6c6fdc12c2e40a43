//! Who may import whom (ARCHITECTURE.md, "The dependency rule"), read from `cargo metadata` and the sources.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Our crates, and which of ours each may depend on outside its tests.
const RULE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("bgp", &[]),
    ("heartbeat", &[]),
    ("ipam", &[]),
    ("netlink", &[]),
    ("telemetry", &[]),
    ("allocator", &["api", "ipam", "telemetry"]),
    ("agent", &["api", "bgp", "heartbeat", "netlink", "telemetry"]),
];

/// Crates that only one place may name.
const HIDDEN: &[(&str, &str)] = &[
    ("zettabgp", "crates/bgp/src/wire"),
    ("rtnetlink", "crates/netlink/src"),
    ("netlink_packet_route", "crates/netlink/src"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Package name → names of its dependencies that are not only for tests.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().unwrap().iter();
            let normal = dependencies.filter(|d| d["kind"].is_null()).map(|d| text(&d["name"]));
            (text(&package["name"]), normal.collect())
        })
        .collect()
}

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

#[test]
fn our_crates_import_only_what_the_rule_allows() {
    let found = dependencies();
    let ours: BTreeSet<&str> = RULE.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in RULE {
        let imports = found.get(*name).unwrap_or_else(|| panic!("no package called {name}"));
        let forbidden: Vec<_> = imports
            .iter()
            .filter(|import| ours.contains(import.as_str()) && !allowed.contains(&import.as_str()))
            .collect();
        assert!(forbidden.is_empty(), "{name} imports {forbidden:?}, but may import only {allowed:?}");
    }
}

#[test]
fn the_api_and_the_core_know_neither_client_nor_runtime() {
    let found = dependencies();
    assert!(!found["api"].contains("tokio"), "api imports tokio");
    for name in ["kube", "k8s-openapi"] {
        for ours in ["bgp", "heartbeat", "netlink"] {
            assert!(!found[ours].contains(name), "{ours} imports {name}");
        }
    }
}

#[test]
fn hidden_crates_are_named_in_one_place() {
    let root = root();
    let mut files = Vec::new();
    sources(&root.join("crates"), &mut files);
    assert!(files.len() > 10, "found only {} sources below {}", files.len(), root.display());
    for (hidden, place) in HIDDEN {
        let strangers: Vec<_> = files
            .iter()
            .filter(|file| !file.starts_with(root.join(place)))
            .filter(|file| {
                let text = fs::read_to_string(file).unwrap();
                text.lines()
                    .any(|line| line.contains(&format!("{hidden}::")) && !line.trim_start().starts_with("//"))
            })
            .collect();
        assert!(strangers.is_empty(), "{hidden} may be named only in {place}, but is in {strangers:?}");
    }
}
