//! The set of peers: every BGPPeer for this node as a session, or its refusal. One bad peer never costs a good one.

use api::{BGPPeerSpec, Refusal};
use bgp::config::PeerConfig;

use crate::{
    advertising::{Advertising, Classes},
    inputs::{
        advertisement::{self, Advertisement},
        bgp_peer::{self, Surroundings},
        node::NodeInput,
    },
};

/// A BGPPeer for this node, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Peer {
    /// Name of the BGPPeer.
    pub name: String,
    /// Our AS, as configured.
    pub local_asn: u32,
    /// The router's address, as configured.
    pub address: Option<String>,
    /// The session, or why there is none.
    pub config: Result<PeerConfig, Refusal>,
    /// What it is told; empty: everything.
    pub advertisements: Vec<Advertisement>,
}

/// This node and its peers, for those who report.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PeerSet {
    /// The node; absent until it is known.
    pub node: Option<NodeInput>,
    /// By name.
    pub peers: Vec<Peer>,
}

impl PeerSet {
    /// The sessions to run, each with the export policy that the classes of the routes make.
    pub fn configs(&self, advertising: &Advertising, classes: &Classes) -> Vec<PeerConfig> {
        let configs = self.peers.iter().filter_map(|peer| peer.config.as_ref().ok());
        configs
            .map(|config| PeerConfig { export: classes.policy(advertising, &config.name), ..config.clone() })
            .collect()
    }

    /// What the sessions to run choose routes by.
    pub fn advertising(&self) -> Advertising {
        let peers = self.peers.iter();
        Advertising::new(peers.filter_map(|p| Some((p.config.as_ref().ok()?, p.advertisements.as_slice()))))
    }
}

/// Reads all peers of a node. Of several with one address the first by name is taken.
pub fn resolve(node: &NodeInput, specs: &[(&str, &BGPPeerSpec)], surroundings: Surroundings<'_>) -> PeerSet {
    let mut taken: Vec<(String, PeerConfig)> = Vec::new();
    let mut peers = Vec::with_capacity(specs.len());
    for (name, spec) in specs {
        let advertisements = advertisement::parse(&spec.advertisements);
        let config = bgp_peer::parse(name, spec, node, surroundings).and_then(|config| {
            advertisements.as_ref().map_err(Clone::clone)?;
            let rival = taken.iter().find(|(_, other): &&(_, PeerConfig)| {
                (other.address, other.scope) == (config.address, config.scope)
                    || other.contradicts_key_of(&config)
            });
            match rival {
                None => {
                    taken.push(((*name).to_owned(), config.clone()));
                    Ok(config)
                }
                Some((rival, other)) => Err(clash(rival, other, &config)),
            }
        });
        peers.push(Peer {
            name: (*name).to_owned(),
            local_asn: spec.my_asn,
            address: spec.peer_address.clone(),
            config,
            advertisements: advertisements.unwrap_or_default(),
        });
    }
    PeerSet { node: Some(node.clone()), peers }
}

/// Why there cannot be a session beside that of a BGPPeer which comes first.
fn clash(rival: &str, other: &PeerConfig, config: &PeerConfig) -> Refusal {
    if other.scope == config.scope {
        let message =
            format!("BGPPeer {rival} has the same address on this node: one session runs to an address");
        return Refusal::invalid("spec.peerAddress", message);
    }
    Refusal::invalid(
        "spec.passwordSecret",
        format!(
            "BGPPeer {rival} has the same link-local address {} on another interface and another password, which the \
             kernel cannot tell apart: give both the same password, or the routers different link-local addresses",
            config.address
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bad_peer_and_one_double_leave_the_good_ones() {
        let spec = |yaml: &str| -> BGPPeerSpec { serde_norway::from_str(yaml).unwrap() };
        let good = spec("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.1}");
        let double = spec("{myASN: 1, peerASN: 3, peerAddress: 192.0.2.1}");
        let bad = spec("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.300}");
        let other = spec("{myASN: 1, peerASN: 2, peerAddress: 192.0.2.2}");
        let specs = [("a", &good), ("b", &double), ("c", &bad), ("d", &other)];
        let set = resolve(&NodeInput::default(), &specs, Surroundings::ANYWHERE);
        let names: Vec<_> = set
            .configs(&set.advertising(), &Classes::default())
            .iter()
            .map(|config| config.name.to_string())
            .collect();
        assert_eq!(names, ["a", "d"]);
        let refusal = set.peers[1].config.as_ref().unwrap_err();
        assert!(refusal.message.contains("BGPPeer a"), "{refusal}");
    }
    #[test]
    fn one_link_local_address_on_two_interfaces_takes_one_password() {
        let spec = |interface: &str, secret: &str| -> BGPPeerSpec {
            let yaml = format!(
                "{{myASN: 1, peerASN: 2, interface: {interface}, passwordSecret: {{name: {secret}}}}}"
            );
            serde_norway::from_str(&yaml).unwrap()
        };
        let router = "fe80::1".parse().unwrap();
        let surroundings = Surroundings {
            interface_index: &|interface| interface.strip_prefix("eth")?.parse().ok(),
            router: &|_| Some(router),
            password: &|secret| Ok(Some(bgp::md5::Md5Key::new(secret.as_bytes()).unwrap())),
        };
        let (first, same, other) = (spec("eth1", "one"), spec("eth2", "one"), spec("eth3", "two"));
        let specs = [("a", &first), ("b", &same), ("c", &other)];
        let set = resolve(&NodeInput::default(), &specs, surroundings);
        let scopes: Vec<_> =
            set.peers.iter().map(|peer| peer.config.as_ref().ok().map(|config| config.scope)).collect();
        assert_eq!(scopes, [Some(1), Some(2), None]);
        let refusal = set.peers[2].config.as_ref().unwrap_err();
        assert!(refusal.message.contains("BGPPeer a has the same link-local address fe80::1"), "{refusal}");
    }
}
