//! LBNodeAgents: which of them is for this node, what it says of the dummy interface, and which interfaces it
//! selects for local addresses.

use std::collections::BTreeMap;

use api::{LBNodeAgentSpec, Refusal, lb_node_agent::InterfaceAddressConfig, selector_matches};
use netlink::{Addressing, Lifetime};

use regex::Regex;

use crate::{facts::subnets::anchored, key::ObjectKey};

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
}

impl Default for Selection {
    fn default() -> Selection {
        Selection { local: LocalInterface::Default, more: Vec::new() }
    }
}

/// The interfaces that an LBNodeAgent selects.
pub fn selection(spec: &LBNodeAgentSpec) -> Result<Selection, Refusal> {
    let Some(local) = &spec.local else { return Ok(Selection::default()) };
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

/// Reads an LBNodeAgent, or names the field that keeps it from being used.
pub fn parse(spec: &LBNodeAgentSpec, default_interface: &str) -> Result<DummyConfig, Refusal> {
    let Some(local) = &spec.local else { return Ok(DummyConfig::new(default_interface)) };
    selection(spec)?;
    if local.garp_config.as_ref().is_some_and(|config| *config != Default::default()) {
        return Err(Refusal::unsupported("spec.local.garpConfig"));
    }
    let addresses = local.address_config.clone().unwrap_or_default();
    if addresses.local_interface.is_some() {
        return Err(Refusal::unsupported("spec.local.addressConfig.localInterface"));
    }
    let mut config = DummyConfig::new(&local.dummy_interface);
    if let Some(dummy) = addresses.dummy_interface {
        addressing(&mut config.addressing, &dummy)?;
    }
    Ok(config)
}

fn addressing(addressing: &mut Addressing, config: &InterfaceAddressConfig) -> Result<(), Refusal> {
    let path = "spec.local.addressConfig.dummyInterface";
    // Limited lifetimes need someone who renews them: that comes with local pools.
    if config.valid_lifetime.is_some_and(|secs| secs != 0) {
        return Err(Refusal::unsupported(format!("{path}.validLifetime")));
    }
    if config.preferred_lifetime.is_some_and(|secs| secs != 0) {
        return Err(Refusal::unsupported(format!("{path}.preferredLifetime")));
    }
    addressing.no_prefix_route = config.no_prefix_route.unwrap_or(addressing.no_prefix_route);
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
            ("local: {addressConfig: {dummyInterface: {validLifetime: 0}}}", "kube-lb0"),
        ] {
            let config = parse(&spec(yaml), "kube-lb9").unwrap();
            assert_eq!(config, DummyConfig::new(interface), "{yaml}");
        }
        let config =
            parse(&spec("local: {addressConfig: {dummyInterface: {noPrefixRoute: false}}}"), "kube-lb0");
        assert!(!config.unwrap().addressing.no_prefix_route);
    }

    #[test]
    fn fields_that_do_nothing_yet_are_refused_by_name() {
        for (yaml, path) in [
            ("local: {garpConfig: {count: 5}}", "spec.local.garpConfig"),
            ("local: {addressConfig: {localInterface: {}}}", "spec.local.addressConfig.localInterface"),
            (
                "local: {addressConfig: {dummyInterface: {validLifetime: 300}}}",
                "spec.local.addressConfig.dummyInterface.validLifetime",
            ),
        ] {
            let refusal = parse(&spec(yaml), "kube-lb0").unwrap_err();
            assert_eq!((refusal.reason, refusal.path.as_str()), ("UnsupportedField", path));
        }
    }

    #[test]
    fn interfaces_are_selected_by_default_route_by_pattern_and_by_name() {
        let matching = |pattern: &str| LocalInterface::Matching(pattern.to_owned());
        for (yaml, local, more) in [
            ("{}", LocalInterface::Default, &[][..]),
            ("local: {localInterface: default, interfaces: [eth1]}", LocalInterface::Default, &["eth1"]),
            ("local: {localInterface: 'eth[0-9]+'}", matching("eth[0-9]+"), &[]),
        ] {
            let selection = selection(&spec(yaml)).unwrap();
            let named: Vec<&str> = selection.more.iter().map(String::as_str).collect();
            assert_eq!((&selection.local, &named[..]), (&local, more), "{yaml}");
            parse(&spec(yaml), "kube-lb0").unwrap();
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
