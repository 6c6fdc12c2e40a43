//! This node: labels, addresses, and whether it may announce at all.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use api::names::label::EXCLUDE_FROM_LOAD_BALANCERS;
use k8s_openapi::api::core::v1::Node;

/// What the agent has to know of its Node. Heartbeats don't change it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInput {
    /// Name.
    pub name: String,
    /// UID, for owner references.
    pub uid: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// First InternalIP of IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// First InternalIP of IPv6 that is global.
    pub ipv6: Option<Ipv6Addr>,
}

impl NodeInput {
    /// Labelled so that it announces nothing.
    pub fn is_excluded(&self) -> bool {
        self.labels.contains_key(EXCLUDE_FROM_LOAD_BALANCERS)
    }
}

/// Reads a Node.
pub fn parse(node: &Node) -> NodeInput {
    let mut input = NodeInput {
        name: node.metadata.name.clone().unwrap_or_default(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        ipv4: None,
        ipv6: None,
    };
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    for address in addresses.into_iter().flatten().filter(|address| address.type_ == "InternalIP") {
        match address.address.parse() {
            Ok(IpAddr::V4(ip)) => input.ipv4 = input.ipv4.or(Some(ip)),
            Ok(IpAddr::V6(ip)) if !ip.is_unicast_link_local() => input.ipv6 = input.ipv6.or(Some(ip)),
            _ => {}
        }
    }
    input
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_gives_its_first_internal_address_of_each_family() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "uid": "u", "labels": {"rack": "a"}},
            "status": {"addresses": [
                {"type": "Hostname", "address": "n1"},
                {"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "InternalIP", "address": "fe80::1"},
                {"type": "InternalIP", "address": "2001:db8::1"},
                {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "InternalIP", "address": "192.0.2.2"},
            ]},
        }))
        .unwrap();
        let input = parse(&node);
        assert_eq!(input.ipv4, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(input.ipv6, Some("2001:db8::1".parse().unwrap()));
        assert!(!input.is_excluded());
    }

    #[test]
    fn the_label_excludes_whatever_its_value() {
        let node: Node = serde_json::from_value(
            json!({"metadata": {"name": "n1", "labels": {EXCLUDE_FROM_LOAD_BALANCERS: ""}}}),
        )
        .unwrap();
        assert!(parse(&node).is_excluded());
    }
}
