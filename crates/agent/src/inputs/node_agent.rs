//! LBNodeAgents: which of them is for this node, what it says of the dummy interface, which interfaces it selects
//! for local addresses, and how these are put there and made known.

use std::{collections::BTreeMap, net::IpAddr};

use api::{
    LBNodeAgentSpec, Refusal,
    lb_node_agent::{InterfaceAddressConfig, LocalInterfaces},
    selector_matches,
};
use netlink::{Addressing, Lifetime};
use regex::Regex;

use crate::{claim::Announcing, facts::subnets::anchored, key::ObjectKey};

/// Lifetime of a local address where nothing else is said: renewed long before it ends, and over before anybody
/// wonders where the address of a dead agent comes from.
const LOCAL_LIFETIME_SECS: u32 = 300;
/// Shorter ones could end between two renewals on a busy node.
const LEAST_LIFETIME_SECS: u32 = 60;

/// How remote addresses are put on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DummyConfig {
    /// Interface; created where it is absent.
    pub interface: String,
    /// Flags and lifetime of the addresses.
    pub addressing: Addressing,
}

impl DummyConfig {
    /// What holds while no LBNodeAgent says otherwise: permanent addresses, and no route to their prefix, since
    /// an aggregate gets a blackhole route instead.
    pub fn new(interface: impl Into<String>) -> DummyConfig {
        let addressing = Addressing { no_prefix_route: true, no_dad: true, lifetime: Lifetime::Permanent };
        DummyConfig { interface: interface.into(), addressing }
    }
}

/// The interfaces of local addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// `localInterface`.
    pub local: LocalInterface,
    /// `interfaces`, by name.
    pub more: Vec<String>,
}

/// `localInterface`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalInterface {
    /// That of the default route with the lowest metric.
    Default,
    /// Those whose names the regular expression matches, from end to end.
    Matching(String),
    /// None: it is not known which the user wants.
    Unknown,
}

impl Default for Selection {
    fn default() -> Selection {
        Selection { local: LocalInterface::Default, more: Vec::new() }
    }
}

fn selection(local: &LocalInterfaces) -> Result<Selection, Refusal> {
    let interface = match local.local_interface.as_str() {
        "default" => LocalInterface::Default,
        pattern => {
            Regex::new(&anchored(pattern)).map_err(|_| {
                let message = format!(
                    "{pattern:?} is not a regular expression: expected default, or one for interface names as eth[0-9]+"
                );
                Refusal::invalid("spec.local.localInterface", message)
            })?;
            LocalInterface::Matching(pattern.to_owned())
        }
    };
    Ok(Selection { local: interface, more: local.interfaces.clone() })
}

/// How local addresses are put on this node's interfaces and made known there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalConfig {
    /// Flags of the addresses, and the lifetime of IPv4 ones.
    pub addressing: Addressing,
    /// Lifetime of IPv6 ones.
    pub ipv6_lifetime: Lifetime,
    /// `garpConfig`.
    pub announcing: Announcing,
}

impl Default for LocalConfig {
    /// Addresses that go by themselves when nobody renews them, and no second route to their subnet.
    fn default() -> LocalConfig {
        let lifetime =
            Lifetime::Limited { valid_secs: LOCAL_LIFETIME_SECS, preferred_secs: LOCAL_LIFETIME_SECS };
        LocalConfig {
            addressing: Addressing { no_prefix_route: true, no_dad: false, lifetime },
            ipv6_lifetime: deprecated(LOCAL_LIFETIME_SECS),
            announcing: Announcing::default(),
        }
    }
}

impl LocalConfig {
    /// How this address is put on its interface.
    pub const fn addressing_of(&self, address: IpAddr, no_dad: bool) -> Addressing {
        let lifetime = match address {
            IpAddr::V4(_) => self.addressing.lifetime,
            IpAddr::V6(_) => self.ipv6_lifetime,
        };
        Addressing { no_dad: no_dad && address.is_ipv6(), lifetime, ..self.addressing }
    }
}

/// RFC 6724 §5, rule 3: no source of new connections where there is another one. The kernel would take the newest
/// address of its scope, which is a Service's and moves on with it.
const fn deprecated(valid: u32) -> Lifetime {
    Lifetime::Limited { valid_secs: if valid == 0 { u32::MAX } else { valid }, preferred_secs: 0 }
}

/// What an LBNodeAgent says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentConfig {
    /// Of the interface of remote addresses.
    pub dummy: DummyConfig,
    /// Of the interfaces of local addresses.
    pub selection: Selection,
    /// Of local addresses.
    pub local: LocalConfig,
}

impl AgentConfig {
    /// What holds while no LBNodeAgent says otherwise.
    pub fn new(default_interface: &str) -> AgentConfig {
        AgentConfig {
            dummy: DummyConfig::new(default_interface),
            selection: Selection::default(),
            local: LocalConfig::default(),
        }
    }
}

impl AgentConfig {
    /// What holds where the LBNodeAgent is refused and none was good before: no local address goes anywhere, since the
    /// interface of the default route may be the one that it was meant to spare.
    pub fn without_local(default_interface: &str) -> AgentConfig {
        let selection = Selection { local: LocalInterface::Unknown, more: Vec::new() };
        AgentConfig { selection, ..AgentConfig::new(default_interface) }
    }
}

/// Reads an LBNodeAgent, or names the field that keeps it from being used.
pub fn parse(spec: &LBNodeAgentSpec, default_interface: &str) -> Result<AgentConfig, Refusal> {
    let mut config = AgentConfig::new(default_interface);
    let Some(local) = &spec.local else { return Ok(config) };
    config.selection = selection(local)?;
    config.dummy.interface.clone_from(&local.dummy_interface);
    if let Some(garp) = &local.garp_config {
        config.local.announcing = Announcing::from(garp);
    }
    let addresses = local.address_config.clone().unwrap_or_default();
    let preferred = addresses.local_interface.as_ref().and_then(|said| said.preferred_lifetime);
    for (field, said, addressing) in [
        ("localInterface", addresses.local_interface, &mut config.local.addressing),
        ("dummyInterface", addresses.dummy_interface, &mut config.dummy.addressing),
    ] {
        if let Some(said) = said {
            set_addressing(addressing, &said, &format!("spec.local.addressConfig.{field}"))?;
        }
    }
    let lifetime = config.local.addressing.lifetime;
    config.local.ipv6_lifetime = match (lifetime, preferred.unwrap_or(0)) {
        (Lifetime::Permanent, 0) => deprecated(0),
        (Lifetime::Limited { valid_secs, .. }, 0) => deprecated(valid_secs),
        (lifetime, _) => lifetime,
    };
    Ok(config)
}

fn set_addressing(
    addressing: &mut Addressing,
    said: &InterfaceAddressConfig,
    path: &str,
) -> Result<(), Refusal> {
    addressing.no_prefix_route = said.no_prefix_route.unwrap_or(addressing.no_prefix_route);
    let valid = said.valid_lifetime.unwrap_or(match addressing.lifetime {
        Lifetime::Permanent => 0,
        Lifetime::Limited { valid_secs, .. } => valid_secs,
    });
    let preferred = said.preferred_lifetime.unwrap_or(valid);
    if valid != 0 && valid < LEAST_LIFETIME_SECS {
        let message =
            format!("{valid} is too short to be renewed: expected 0 for ever, or at least 60 seconds");
        return Err(Refusal::invalid(format!("{path}.validLifetime"), message));
    }
    if valid != 0 && preferred > valid {
        let message = format!("expected 0 to {valid} seconds, which is validLifetime");
        return Err(Refusal::invalid(format!("{path}.preferredLifetime"), message));
    }
    addressing.lifetime = match (valid, preferred) {
        (0, 0) => Lifetime::Permanent,
        (0, preferred) => Lifetime::Limited { valid_secs: u32::MAX, preferred_secs: preferred },
        (valid, preferred) => Lifetime::Limited { valid_secs: valid, preferred_secs: preferred },
    };
    Ok(())
}

/// The LBNodeAgent for a node with these labels: one with a selector that matches beats one without, then the
/// first by namespace and name.
pub fn select<'a>(
    agents: impl IntoIterator<Item = (&'a ObjectKey, &'a LBNodeAgentSpec)>,
    labels: &BTreeMap<String, String>,
) -> Option<(&'a ObjectKey, &'a LBNodeAgentSpec)> {
    agents
        .into_iter()
        .filter(|(_, spec)| spec.node_selector.as_ref().is_none_or(|s| selector_matches(s, labels)))
        .min_by_key(|(key, spec)| (spec.node_selector.is_none(), *key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(yaml: &str) -> LBNodeAgentSpec {
        serde_norway::from_str(yaml).unwrap()
    }

    #[test]
    fn defaults_are_accepted_and_the_dummy_interface_is_taken() {
        for (yaml, interface) in [
            ("{}", "kube-lb9"),
            ("local: {}", "kube-lb0"),
            ("local: {dummyInterface: lb7, localInterface: default, garpConfig: {}}", "lb7"),
            ("local: {addressConfig: {dummyInterface: {validLifetime: 0}, localInterface: {}}}", "kube-lb0"),
        ] {
            let config = parse(&spec(yaml), "kube-lb9").unwrap();
            assert_eq!(config, AgentConfig::new(interface), "{yaml}");
        }
        let config =
            parse(&spec("local: {addressConfig: {dummyInterface: {noPrefixRoute: false}}}"), "kube-lb0");
        assert!(!config.unwrap().dummy.addressing.no_prefix_route);
        let local = LocalConfig::default().addressing;
        assert_eq!(local.lifetime, Lifetime::Limited { valid_secs: 300, preferred_secs: 300 });
        assert!(local.no_prefix_route);
    }

    #[test]
    fn lifetimes_and_flags_are_those_of_each_kind_of_interface() {
        let limited = |valid_secs, preferred_secs| Lifetime::Limited { valid_secs, preferred_secs };
        for (said, lifetime) in [
            ("{validLifetime: 600}", limited(600, 600)),
            ("{validLifetime: 600, preferredLifetime: 60}", limited(600, 60)),
            ("{validLifetime: 600, preferredLifetime: 0}", limited(600, 0)),
            ("{validLifetime: 0}", Lifetime::Permanent),
            ("{validLifetime: 0, preferredLifetime: 60}", limited(u32::MAX, 60)),
        ] {
            for kind in ["localInterface", "dummyInterface"] {
                let config =
                    parse(&spec(&format!("local: {{addressConfig: {{{kind}: {said}}}}}")), "x").unwrap();
                let both = (config.local.addressing.lifetime, config.dummy.addressing.lifetime);
                let untouched = (limited(300, 300), Lifetime::Permanent);
                let expected = match kind {
                    "localInterface" => (lifetime, untouched.1),
                    _ => (untouched.0, lifetime),
                };
                assert_eq!(both, expected, "{kind} {said}");
            }
        }
        let config =
            parse(&spec("local: {addressConfig: {localInterface: {preferredLifetime: 30}}}"), "x").unwrap();
        assert_eq!(config.local.addressing.lifetime, limited(300, 30));
    }

    #[test]
    fn a_local_ipv6_address_is_deprecated_unless_its_owner_says_how_long_it_is_preferred() {
        let limited = |valid_secs, preferred_secs| Lifetime::Limited { valid_secs, preferred_secs };
        for (said, lifetime) in [
            ("{}", limited(300, 0)),
            ("{noPrefixRoute: false}", limited(300, 0)),
            ("{validLifetime: 600}", limited(600, 0)),
            ("{validLifetime: 0}", limited(u32::MAX, 0)),
            ("{validLifetime: 0, preferredLifetime: 0}", limited(u32::MAX, 0)),
            ("{preferredLifetime: 0}", limited(300, 0)),
            ("{preferredLifetime: 30}", limited(300, 30)),
            ("{validLifetime: 0, preferredLifetime: 60}", limited(u32::MAX, 60)),
        ] {
            let yaml = format!("local: {{addressConfig: {{localInterface: {said}}}}}");
            let local = parse(&spec(&yaml), "x").unwrap().local;
            assert_eq!(local.addressing_of("fd00:1::50".parse().unwrap(), true).lifetime, lifetime, "{said}");
        }
        let of_ipv4 = LocalConfig::default().addressing_of("192.0.2.50".parse().unwrap(), true);
        assert_eq!((of_ipv4.lifetime, of_ipv4.no_dad), (limited(300, 300), false));
    }

    /// By the kernel, in a network namespace of this thread.
    #[test]
    fn the_node_starts_no_connection_from_a_local_ipv6_address() {
        use nix::sched::{CloneFlags, unshare};
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let test = async {
            let commands = "ip link set lo up; ip link add eth0 type veth peer name far; ip link set far up
                 ip link set eth0 up; ip addr add fd00:1::7/64 dev eth0 nodad; ip -6 route add default dev eth0";
            assert!(std::process::Command::new("sh").args(["-ec", commands]).status().unwrap().success());
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            let netlink = netlink::Netlink::open().unwrap();
            for (said, vip) in [("{}", "fd00:1::50/64"), ("{validLifetime: 0}", "fd00:1::51/128")] {
                let yaml = format!("local: {{addressConfig: {{localInterface: {said}}}}}");
                let local = parse(&spec(&yaml), "x").unwrap().local;
                let vip: ipnet::IpNet = vip.parse().unwrap();
                for _ in 0..2 {
                    // Added, then renewed.
                    netlink.add_address(index, vip, local.addressing_of(vip.addr(), true)).await.unwrap();
                    for to in ["[2001:db8::1]:9", "[fd00:1::99]:9"] {
                        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
                        socket.connect(to).unwrap();
                        let source = socket.local_addr().unwrap().ip();
                        assert_eq!(source, "fd00:1::7".parse::<IpAddr>().unwrap(), "{said} {vip} {to}");
                    }
                }
            }
        };
        let thread = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }

    #[test]
    fn lifetimes_that_cannot_be_are_refused_by_name() {
        for (said, field) in [
            ("{validLifetime: 59}", "validLifetime"),
            ("{validLifetime: 60, preferredLifetime: 61}", "preferredLifetime"),
            ("{preferredLifetime: 301}", "preferredLifetime"),
        ] {
            let yaml = format!("local: {{addressConfig: {{localInterface: {said}}}}}");
            let refusal = parse(&spec(&yaml), "x").unwrap_err();
            let path = format!("spec.local.addressConfig.localInterface.{field}");
            assert_eq!((refusal.reason, refusal.path), ("Invalid", path), "{said}");
        }
    }

    #[test]
    fn announcements_are_made_as_garp_config_says() {
        let config =
            parse(&spec("local: {garpConfig: {count: 5, initialDelay: 1s, verifyBeforeSend: false}}"), "x");
        let announcing = config.unwrap().local.announcing;
        assert_eq!((announcing.count, announcing.initial_delay.as_secs()), (5, 1));
        assert!(announcing.enabled && !announcing.verify_before_send);
    }

    #[test]
    fn interfaces_are_selected_by_default_route_by_pattern_and_by_name() {
        let matching = |pattern: &str| LocalInterface::Matching(pattern.to_owned());
        for (yaml, local, more) in [
            ("{}", LocalInterface::Default, &[][..]),
            ("local: {localInterface: default, interfaces: [eth1]}", LocalInterface::Default, &["eth1"]),
            ("local: {localInterface: 'eth[0-9]+'}", matching("eth[0-9]+"), &[]),
        ] {
            let selection = parse(&spec(yaml), "kube-lb0").unwrap().selection;
            let named: Vec<&str> = selection.more.iter().map(String::as_str).collect();
            assert_eq!((&selection.local, &named[..]), (&local, more), "{yaml}");
        }
        let refusal = parse(&spec("local: {localInterface: 'eth['}"), "kube-lb0").unwrap_err();
        assert_eq!(refusal.path, "spec.local.localInterface");
        assert!(refusal.message.contains("expected default"), "{refusal}");
    }

    #[test]
    fn a_specific_agent_beats_a_catch_all_then_the_name_decides() {
        let agents: BTreeMap<ObjectKey, LBNodeAgentSpec> = [
            ("a", "{}"),
            ("b", "nodeSelector: {matchLabels: {rack: x}}"),
            ("c", "nodeSelector: {matchLabels: {rack: x}}"),
        ]
        .map(|(name, yaml)| (ObjectKey::new("purelb-system", name), spec(yaml)))
        .into();
        let chosen = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            select(&agents, &labels).map(|(key, _)| key.name().to_owned())
        };
        assert_eq!(chosen(&[("rack", "x")]).as_deref(), Some("b"));
        assert_eq!(chosen(&[]).as_deref(), Some("a"));
        assert!(select(&BTreeMap::new(), &BTreeMap::new()).is_none());
    }
}
