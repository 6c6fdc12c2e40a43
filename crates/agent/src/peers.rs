//! The set of peers: every BGPPeer for this node as a session, or its refusal. One bad peer never costs a good one.

use std::sync::Arc;

use api::{BGPPeerSpec, Refusal};
use bgp::config::PeerConfig;

use crate::{
    advertising::{Advertising, Classes, Everywhere},
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
    /// What all BGPPeers of the cluster say of routes, those of other nodes, too.
    pub everywhere: Arc<Everywhere>,
}

impl PeerSet {
    /// The same, where these are all BGPPeers that there are. Of one whose advertisements are refused it counts that it
    /// is there.
    #[must_use]
    pub fn among<'a>(self, specs: impl Iterator<Item = (&'a str, &'a BGPPeerSpec)>) -> PeerSet {
        let read = |spec: &BGPPeerSpec| advertisement::parse(&spec.advertisements).unwrap_or_default();
        let everywhere = specs.map(|(name, spec)| (name.to_owned(), read(spec))).collect();
        PeerSet { everywhere: Arc::new(everywhere), ..self }
    }

    /// The sessions to run, each with the export policy that the classes of the routes make. `is_leaving`: routes are
    /// marked as about to go.
    pub fn configs(&self, advertising: &Advertising, classes: &Classes, is_leaving: bool) -> Vec<PeerConfig> {
        let configs = self.peers.iter().filter_map(|peer| peer.config.as_ref().ok());
        let run = |config: &PeerConfig| PeerConfig {
            export: classes.policy(advertising, &config.name),
            graceful_shutdown: config.graceful_shutdown || is_leaving,
            ..config.clone()
        };
        configs.map(run).collect()
    }

    /// The same, but a peer whose Secret has not been read goes on as it was: adding a password is a session that comes
    /// back with it, not one that ends for good. A Secret that is not there is known to be missing soon.
    pub fn keeping(
        self,
        before: &PeerSet,
        specs: &[(&str, &BGPPeerSpec)],
        is_unread: impl Fn(&str) -> bool,
    ) -> PeerSet {
        let mut kept = self.clone();
        for (peer, (_, spec)) in kept.peers.iter_mut().zip(specs) {
            let is_awaited = spec.password_secret.as_ref().is_some_and(|secret| is_unread(&secret.name));
            let old = before.peers.iter().find(|old| old.name == peer.name && old.config.is_ok());
            if let (true, Err(_), Some(old)) = (is_awaited, &peer.config, old) {
                *peer = old.clone();
            }
        }
        // One that is new may be at an address that one of these was to leave.
        let configs: Vec<_> = kept.peers.iter().filter_map(|peer| peer.config.clone().ok()).collect();
        if PeerConfig::check_set(&configs).is_ok() { kept } else { self }
    }

    /// What the sessions to run choose routes by.
    pub fn advertising(&self) -> Advertising {
        let peers = self.peers.iter();
        Advertising::new(peers.filter_map(|p| Some((p.config.as_ref().ok()?, p.advertisements.as_slice()))))
            .among(self.everywhere.clone())
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
    PeerSet { node: Some(node.clone()), peers, everywhere: Arc::default() }
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
    use crate::inputs::secret::{Known, Password};

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
            .configs(&set.advertising(), &Classes::default(), false)
            .iter()
            .map(|config| config.name.to_string())
            .collect();
        assert_eq!(names, ["a", "d"]);
        for is_leaving in [true, false] {
            let configs = set.configs(&set.advertising(), &Classes::default(), is_leaving);
            assert!(configs.iter().all(|config| config.graceful_shutdown == is_leaving));
        }
        let refusal = set.peers[1].config.as_ref().unwrap_err();
        assert!(refusal.message.contains("BGPPeer a"), "{refusal}");
    }

    #[test]
    fn a_session_goes_on_until_the_secret_that_was_added_has_been_read() {
        let spec = |yaml: &str| -> BGPPeerSpec {
            serde_norway::from_str(&format!("{{myASN: 1, peerASN: 2, {yaml}}}")).unwrap()
        };
        let node = NodeInput::default();
        let (open, other) = (spec("peerAddress: 192.0.2.1"), spec("peerAddress: 192.0.2.2"));
        let signed = spec("peerAddress: 192.0.2.1, passwordSecret: {name: s}");
        let before = resolve(&node, &[("a", &open), ("b", &other)], Surroundings::ANYWHERE);
        let named = [
            ("a", &signed),
            ("b", &other),
            ("new", &spec("peerAddress: 192.0.2.3, passwordSecret: {name: s}")),
        ];
        let resolve = |known: Known<'_>| {
            let surroundings =
                Surroundings { password: &|name| known.key(name).map(Some), ..Surroundings::ANYWHERE };
            super::resolve(&node, &named, surroundings)
                .keeping(&before, &named, |_| matches!(known, Known::NotYet))
        };
        let unread = resolve(Known::NotYet);
        assert_eq!(unread.peers[..2], before.peers[..]);
        assert!(unread.peers[2].config.is_err(), "it has no session that could go on");
        assert!(resolve(Known::Missing).peers[0].config.is_err(), "never one without its password");
        let key = bgp::md5::Md5Key::new(b"key").unwrap();
        let read = resolve(Known::There(&Password::Key(key.clone())));
        assert_eq!(read.peers[0].config.as_ref().unwrap().md5_key, Some(key));
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
