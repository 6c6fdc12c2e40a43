//! What owners ask for in random histories: few names, few addresses, few keys, so that they meet.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    inputs::{
        Groups, Live,
        group::{GroupObject, Unreadable},
    },
    testing::{group_objects, groups, live},
};

pub(super) const NAMES: usize = 6;

/// The last of them are in a namespace of their own.
pub(super) fn namespace(name: usize) -> &'static str {
    if name < 4 { "ns" } else { "other" }
}

/// What an owner asks for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spec {
    pub(super) cluster_ip: bool,
    pub(super) families: Families,
    pub(super) addresses: Option<&'static str>,
    pub(super) group: Option<&'static str>,
    pub(super) key: Option<&'static str>,
    /// Ports by bit.
    pub(super) ports: u8,
    pub(super) local: bool,
    pub(super) allow_local: Option<&'static str>,
    pub(super) re_evaluate: Option<&'static str>,
    pub(super) multi_pool: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Families {
    #[default]
    V4,
    V6,
    Prefer,
    Require,
}

impl Spec {
    /// As an object's annotations and spec.
    pub(super) fn annotations(&self) -> Value {
        let mut annotations = json!({});
        let mut set = |name: &str, value: Option<&str>| {
            if let Some(value) = value {
                annotations[format!("purelb.io/{name}")] = value.into();
            }
        };
        set("addresses", self.addresses);
        set("service-group", self.group);
        set("allow-shared-ip", self.key);
        set("allow-local", self.allow_local);
        set("re-evaluate", self.re_evaluate);
        set("multi-pool", self.multi_pool);
        annotations
    }

    pub(super) fn spec(&self) -> Value {
        let (families, policy): (&[&str], _) = match self.families {
            Families::V4 => (&["IPv4"], "SingleStack"),
            Families::V6 => (&["IPv6"], "SingleStack"),
            Families::Prefer => (&["IPv4", "IPv6"], "PreferDualStack"),
            Families::Require => (&["IPv6", "IPv4"], "RequireDualStack"),
        };
        let ports = ports(self.ports);
        json!({
            "type": if self.cluster_ip { "ClusterIP" } else { "LoadBalancer" },
            "ipFamilies": families, "ipFamilyPolicy": policy, "ports": ports,
            "externalTrafficPolicy": if self.local { "Local" } else { "Cluster" },
        })
    }
}

/// Ports 80 and 81 by bit, at least one.
pub(super) fn ports(bits: u8) -> Vec<Value> {
    let bits = if bits & 3 == 0 { 1 } else { bits & 3 };
    (0..2).filter(|bit| bits >> bit & 1 == 1).map(|bit| json!({"port": 80 + bit})).collect()
}

pub(super) fn any_key() -> impl Strategy<Value = Option<&'static str>> {
    prop_oneof![4 => Just(None), 3 => Just(Some("k")), 1 => Just(Some("j"))]
}

pub(super) fn any_spec() -> impl Strategy<Value = Spec> {
    let families = prop_oneof![
        5 => Just(Families::V4), 1 => Just(Families::V6), 2 => Just(Families::Prefer), 1 => Just(Families::Require),
    ];
    let addresses = prop_oneof![
        6 => Just(None), 2 => Just(Some("192.0.2.1")), 1 => Just(Some("192.0.2.2,fd00:1::1")),
        1 => Just(Some("fd00:1::1")), 1 => Just(Some("198.51.100.1")),
        1 => Just(Some("10.9.0.1")), 1 => Just(Some("banana")),
    ];
    let group = prop_oneof![
        6 => Just(None), 1 => Just(Some("v4only")), 1 => Just(Some("onlink")), 1 => Just(Some("default")),
        1 => Just(Some("missing")), 3 => Just(Some("ext")),
    ];
    let key = any_key();
    let multi_pool = prop_oneof![
        12 => Just(None), 1 => Just(Some("true")), 1 => Just(Some("false")), 1 => Just(Some("yes")),
    ];
    let allow_local = prop_oneof![4 => Just(None), 1 => Just(Some("true")), 1 => Just(Some("ture"))];
    let re_evaluate = prop_oneof![12 => Just(None), 2 => Just(Some("true")), 1 => Just(Some("yes"))];
    let flags = (prop::bool::weighted(0.1), prop::bool::weighted(0.3));
    let words = (allow_local, re_evaluate, multi_pool);
    (families, addresses, group, key, 1_u8..4, flags, words).prop_map(
        |(families, addresses, group, key, ports, flags, words)| {
            let ((cluster_ip, local), (allow_local, re_evaluate, multi_pool)) = (flags, words);
            Spec {
                cluster_ip,
                families,
                addresses,
                group,
                key,
                ports,
                local,
                allow_local,
                re_evaluate,
                multi_pool,
            }
        },
    )
}

pub(super) const GROUPS: usize = 14;

/// The groups that there may be: so few addresses that they run out.
pub(super) fn groups_variant(variant: usize) -> Groups {
    static VARIANTS: LazyLock<Vec<Groups>> = LazyLock::new(|| (0..GROUPS).map(made_groups).collect());
    VARIANTS[variant].clone()
}

fn made_groups(variant: usize) -> Groups {
    let default = "remote: {v4pool: {pool: 192.0.2.1-192.0.2.3, subnet: 192.0.2.0/24, aggregation: /32}, \
                   v6pool: {pool: 'fd00:1::1-fd00:1::2', subnet: 'fd00:1::/64', aggregation: /128}}";
    let smaller = "remote: {v4pool: {pool: 192.0.2.2-192.0.2.3, subnet: 192.0.2.0/24, aggregation: /32}}";
    let v4only = "remote: {v4pool: {pool: 203.0.113.0/31, subnet: 203.0.113.0/24, aggregation: /32}}";
    let onlink = "local: {v4pool: {pool: 198.51.100.1-198.51.100.2, subnet: 198.51.100.0/24}}";
    let two = "v4pools: [{pool: 192.0.2.1-192.0.2.2, subnet: 192.0.2.0/24, aggregation: /32}, \
               {pool: 203.0.113.1-203.0.113.2, subnet: 203.0.113.0/24, aggregation: /32}]";
    let six = "v6pools: [{pool: 'fd00:1::1-fd00:1::2', subnet: 'fd00:1::/64', aggregation: /128}, \
               {pool: 'fd00:2::1-fd00:2::1', subnet: 'fd00:2::/64', aggregation: /128}]";
    let links = "v4pools: [{pool: 198.51.100.1-198.51.100.2, subnet: 198.51.100.0/24}, \
                 {pool: 198.51.101.1-198.51.101.2, subnet: 198.51.101.0/24}]";
    let ext = "external: {provider: p, socket: /s, announce: remote}";
    match variant {
        0 => groups(&[("default", default), ("v4only", v4only), ("onlink", onlink), ("ext", ext)]),
        1 => groups(&[("default", smaller), ("v4only", v4only), ("onlink", onlink), ("ext", ext)]),
        2 => groups(&[("v4only", v4only), ("other", default)]),
        3 => groups(&[("default", onlink), ("missing", v4only)]),
        4 => groups(&[("default", &format!("remote: {{multiPool: true, {two}}}")), ("onlink", onlink)]),
        5 => groups(&[("default", &format!("remote: {{{two}}}")), ("onlink", onlink)]),
        12 => groups(&[("default", &format!("remote: {{balancePools: true, {two}}}")), ("onlink", onlink)]),
        6 => groups(&[
            ("default", default),
            ("v4only", &format!("{{{v4only}, namespaces: [ns], enforceNamespaces: true}}")),
        ]),
        7 => groups(&[
            ("default", &format!("{{{default}, stickyFor: 1m}}")),
            ("v4only", &format!("{{{v4only}, stickyFor: 20s}}")),
        ]),
        8 => groups(&[
            ("default", &format!("{{{default}, namespaces: [ns, other]}}")),
            ("v4only", &format!("{{{v4only}, namespaces: [other], enforceNamespaces: true}}")),
            ("ext", ext),
        ]),
        9 => unreadable(
            "default",
            &[("default", default), ("v4only", v4only), ("onlink", onlink), ("ext", ext)],
        ),
        10 => unreadable("ext", &[("default", default), ("ext", ext)]),
        11 => groups(&[
            ("default", &format!("{{remote: {{multiPool: true, {two}, {six}}}, namespaces: [ns, other]}}")),
            ("onlink", &format!("local: {{multiPool: true, {links}}}")),
            ("ext", &format!("{{{ext}, namespaces: [other], namespaceDefault: true}}")),
        ]),
        _ => groups(&[]),
    }
}

/// Of these groups one that only says that the namespace `other` is its own.
fn unreadable(which: &str, specs: &[(&str, &str)]) -> Groups {
    let spec = json!({"namespaces": ["other"], "enforceNamespaces": true, "stickyFor": "9999999h"});
    let cannot_be_read = |object: GroupObject| match &*object.name == which {
        true => GroupObject { spec: Err(Unreadable::new(&spec, "too long".to_owned())), ..object },
        false => object,
    };
    let objects: Vec<GroupObject> = group_objects(specs).into_iter().map(cannot_be_read).collect();
    Groups::new(&objects)
}

pub(super) const LIVES: usize = 3;

/// What live nodes say: which subnets they are on, and who answers for what is none of theirs.
pub(super) fn live_variant(variant: usize) -> Live {
    match variant {
        0 => live("198.51.100.0/24 198.51.101.0/24", ""),
        1 => live("198.51.100.0/24", "192.0.2.2,02:00:00:00:00:01"),
        _ => live("", ""),
    }
}
