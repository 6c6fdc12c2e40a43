//! Every crate that is linked into the binaries comes from crates.io, has a licence that Apache-2.0 software
//! may ship with, and is not one of those that we leave out on purpose.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{path::Path, process::Command};

use serde_json::Value;

const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Whether an SPDX expression (or the old form with slashes) can be met with allowed licences alone: every
/// part of an AND, one part of an OR.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace(['(', ')'], "").replace('/', " OR ");
    plain.split(" AND ").all(|part| part.split(" OR ").any(|name| ALLOWED.contains(&name.trim())))
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    assert!(is_allowed("MIT OR GPL-3.0"));
    assert!(is_allowed("(MIT OR Apache-2.0) AND Unicode-3.0"));
    assert!(is_allowed("MIT/Apache-2.0"));
    assert!(!is_allowed("GPL-3.0"));
    assert!(!is_allowed("MIT AND GPL-3.0"));
}

/// One TLS library: rustls with ring. These need C tools or bring a second one.
const LEFT_OUT: &[&str] = &["openssl-sys", "native-tls", "aws-lc-sys"];

/// Every package that is compiled for Linux, ours included.
fn packages() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap().clone();
    assert!(packages.len() > 100, "only {} packages found", packages.len());
    packages
}

fn names(packages: &[Value], is_stranger: impl Fn(&Value) -> bool) -> Vec<&str> {
    packages
        .iter()
        .filter(|package| is_stranger(package))
        .map(|package| package["name"].as_str().unwrap())
        .collect()
}

#[test]
fn every_crate_has_a_licence_that_may_be_shipped() {
    let packages = packages();
    let strangers = names(&packages, |package| !package["license"].as_str().is_some_and(is_allowed));
    assert!(strangers.is_empty(), "licences to look at: {strangers:?}");
}

#[test]
fn every_crate_is_ours_or_from_crates_io() {
    let packages = packages();
    let crates_io = "registry+https://github.com/rust-lang/crates.io-index";
    let strangers =
        names(&packages, |package| package["source"].as_str().is_some_and(|source| source != crates_io));
    assert!(strangers.is_empty(), "neither ours nor from crates.io: {strangers:?}");
}

#[test]
fn crates_that_are_left_out_on_purpose_stay_out() {
    let packages = packages();
    let strangers = names(&packages, |package| LEFT_OUT.contains(&package["name"].as_str().unwrap()));
    assert!(strangers.is_empty(), "left out on purpose: {strangers:?}");
}
