//! The plan for a Service of a local pool: each address that is on a subnet of this node is held by the node that the
//! election says. The others know of it, too: who holds it until the winner asks for it keeps it that long.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::{Decision, LocalAddress, Reason, ServicePlan, Warning, service::Context};
use crate::inputs::{overrides::annotation_of, service::ServiceInput};

/// Decides for one Service. [`Decision::Announce`] where this node is to hold at least one of its addresses.
pub(super) fn plan_local(service: &ServiceInput, context: &Context<'_>) -> ServicePlan {
    let mut plan = ServicePlan::skip(Reason::NoSubnet);
    let mut reason = Reason::NoSubnet;
    for address in &service.addresses {
        if context.local.is_own(*address) {
            plan.warnings.push(Warning::OwnAddress((*address).into()));
            reason = Reason::OwnAddress;
            continue;
        }
        let Some(interface) = context.local.interface(*address) else { continue };
        let Some(winner) = context.local.winner(*address) else {
            reason = context.leaving.map_or(Reason::NoCandidate, Reason::NodeLeaving);
            continue;
        };
        let other = (!context.local.is_us(winner)).then(|| Arc::clone(winner));
        if let Some(winner) = &other {
            reason = Reason::NotElected { winner: winner.clone() };
        }
        let (address, no_dad) = shape(*address, service, context, &mut plan.warnings);
        plan.local.push(LocalAddress {
            address,
            interface: interface.name.clone(),
            index: interface.index,
            no_dad,
            other,
        });
    }
    plan.warnings.extend(without_routes(service));
    let is_elected = plan.elected().next().is_some();
    plan.decision = if is_elected { Decision::Announce } else { Decision::Skip(reason) };
    plan
}

/// All annotations about routes in one warning, whether they can be read or not.
fn without_routes(service: &ServiceInput) -> Option<Warning> {
    let readable = service.overrides.kinds().map(annotation_of);
    let unreadable = service.unreadable.iter().map(|unreadable| unreadable.annotation);
    let mut annotations: Vec<_> = readable.chain(unreadable).collect();
    annotations.sort_unstable();
    (!annotations.is_empty()).then_some(Warning::WithoutRoutes(annotations))
}

/// The prefix length of the address and whether duplicates of it are looked for: as its ServiceGroup says, else as
/// before. A ServiceGroup that is deleted or refused gives up no address, so it must not move any either: with another
/// prefix length it would be removed and claimed anew.
fn shape(
    address: IpAddr,
    service: &ServiceInput,
    context: &Context<'_>,
    warnings: &mut Vec<Warning>,
) -> (IpNet, bool) {
    let group = context.groups.get(&service.group);
    let before = context.before.iter().find(|before| before.addr() == address);
    let no_dad = match (group, before) {
        (Some(group), _) => group.skips_dad,
        (None, before) => before.is_some_and(|before| before.no_dad),
    };
    let network = group.and_then(|group| group.network(address)).unwrap_or_else(|| {
        let network = before.map_or_else(|| IpNet::from(address), |before| before.address);
        warnings.push(Warning::OutsidePools(network));
        network
    });
    (network, no_dad)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use api::PoolType;

    use super::*;
    use crate::{
        advertising::Advertising,
        inputs::{
            endpoints::Endpoints,
            group::{self, Group},
            node::Leaving,
            overrides::Overrides,
            service::TrafficPolicy,
        },
        key::ObjectKey,
        local_pools::{
            LocalPools,
            tests::{facts, interface, others},
        },
        plan::{service::plan_service, traits::Weight},
    };

    struct Case {
        groups: HashMap<Arc<str>, Group>,
        pools: LocalPools,
        leaving: Option<Leaving>,
        before: Vec<LocalAddress>,
        annotations: Vec<(&'static str, &'static str)>,
    }

    impl Case {
        fn new() -> Case {
            let spec = "local: {v4pool: {pool: 192.0.2.0/24, subnet: 192.0.2.0/24, aggregation: default}, \
                        v6pool: {pool: 'fd00:1::/120', subnet: 'fd00:1::/64', aggregation: /128}, skipIPv6DAD: true}";
            let group = group::parse(&serde_norway::from_str(spec).unwrap()).unwrap();
            let mut pools = LocalPools::default();
            pools.set_node("n1");
            pools.set_facts(facts(vec![interface("eth0", 2, &["192.0.2.7/24", "fd00:1::7/64"])]));
            Case {
                groups: [("onlink".into(), group)].into(),
                pools,
                leaving: None,
                before: vec![],
                annotations: vec![],
            }
        }

        fn others(mut self, nodes: &[&str]) -> Case {
            let nodes: Vec<_> = nodes.iter().map(|node| (*node, "192.0.2.0/24")).collect();
            self.pools.set_others(others(&nodes));
            self
        }

        fn plan(mut self, addresses: &[&str]) -> ServicePlan {
            let annotations = self.annotations.iter();
            let annotations = annotations.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
            let (overrides, unreadable) = Overrides::parse(&annotations.collect());
            let service = ServiceInput {
                addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
                pool_type: PoolType::Local,
                group: "onlink".into(),
                policy: TrafficPolicy::Cluster,
                health_check_node_port: None,
                labels: Default::default(),
                overrides: Arc::new(overrides),
                unreadable,
                uid: "".into(),
            };
            self.pools.set_service(&ObjectKey::new("x", "y"), &service.addresses);
            let context = Context {
                groups: &self.groups,
                local: &self.pools,
                leaving: self.leaving,
                is_withdrawn: false,
                endpoints: Endpoints::default(),
                awaits_successor: false,
                forwards: true,
                lingering: &[],
                before: &self.before,
                advertising: &Advertising::default(),
                weight: Weight::default(),
            };
            plan_service(&service, &context)
        }
    }

    fn local(address: &str, other: Option<&str>) -> LocalAddress {
        LocalAddress {
            address: address.parse().unwrap(),
            interface: "eth0".into(),
            index: 2,
            no_dad: true,
            other: other.map(Into::into),
        }
    }

    #[test]
    fn the_only_node_of_a_subnet_holds_with_the_prefix_of_the_pool_and_no_route_is_announced() {
        let plan = Case::new().plan(&["192.0.2.50", "fd00:1::50"]);
        assert_eq!(plan.local, [local("192.0.2.50/24", None), local("fd00:1::50/128", None)]);
        assert_eq!((plan.addresses, plan.routes, plan.decision), (vec![], vec![], Decision::Announce));
    }

    #[test]
    fn annotations_about_routes_are_one_warning_where_there_are_no_routes() {
        let mut case = Case::new();
        case.annotations = vec![("purelb.io/bgp-med", "banana"), ("purelb.io/bgp-communities", "64512:1")];
        let plan = case.plan(&["192.0.2.50"]);
        assert_eq!((plan.local.len(), plan.warnings.len()), (1, 1), "{:?}", plan.warnings);
        let text = plan.warnings[0].to_string();
        assert!(text.starts_with("purelb.io/bgp-communities, purelb.io/bgp-med: "), "{text}");
        assert!(text.contains("local pool"), "{text}");
    }

    #[test]
    fn a_node_that_is_not_elected_knows_who_is() {
        let others: Vec<String> = (2..60).map(|node| format!("n{node}")).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        let plan = Case::new().others(&others).plan(&["192.0.2.50"]);
        let winner = plan.local[0].other.clone().expect("one of so many others wins this address");
        assert!(others.contains(&&*winner));
        assert_eq!(plan.local, [local("192.0.2.50/24", Some(&winner))]);
        let text = plan.decision.to_string();
        assert!(text.starts_with("skip") && text.ends_with(&*winner), "{text}");
        assert_eq!(plan.decision, Decision::Skip(Reason::NotElected { winner }));
    }

    #[test]
    fn an_address_of_another_subnet_is_none_of_this_nodes_business() {
        let plan = Case::new().plan(&["203.0.113.1"]);
        assert_eq!(plan, ServicePlan::skip(Reason::NoSubnet));
        let both = Case::new().plan(&["203.0.113.1", "192.0.2.50"]);
        assert_eq!(
            (both.local.len(), both.decision),
            (1, Decision::Announce),
            "multi-pool: the one that is here"
        );
    }

    #[test]
    fn an_excluded_node_keeps_an_address_in_view_for_the_winner_and_lets_go_where_there_is_none() {
        let exclude = |mut case: Case| {
            case.leaving = Some(Leaving::Label);
            let interfaces = vec![interface("eth0", 2, &["192.0.2.7/24"])];
            case.pools
                .set_facts(crate::facts::subnets::NodeFacts { subnets: [].into(), ..facts(interfaces) });
            case.plan(&["192.0.2.50"])
        };
        assert_eq!(exclude(Case::new()), ServicePlan::skip(Reason::NodeLeaving(Leaving::Label)));
        let plan = exclude(Case::new().others(&["n2"]));
        assert_eq!(plan.local, [local("192.0.2.50/24", Some("n2"))]);
    }

    #[test]
    fn a_group_that_goes_or_forgets_an_address_leaves_prefix_and_flags_of_it_as_they_are() {
        let addresses = ["192.0.2.50", "fd00:1::50"];
        let before = Case::new().plan(&addresses);
        assert!(before.warnings.is_empty());
        let after = |change: fn(&mut HashMap<Arc<str>, Group>)| {
            let mut case = Case { before: before.local.clone(), ..Case::new() };
            change(&mut case.groups);
            let plan = case.plan(&addresses);
            assert_eq!(plan.warnings.len(), 2, "{:?}", plan.warnings);
            plan.local
        };
        assert_eq!(after(HashMap::clear), before.local);
        let elsewhere = |groups: &mut HashMap<Arc<str>, Group>| {
            let spec =
                "local: {v4pool: {pool: 198.51.100.0/24, subnet: 198.51.100.0/24, aggregation: default}}";
            groups.insert("onlink".into(), group::parse(&serde_norway::from_str(spec).unwrap()).unwrap());
        };
        let nets = |local: Vec<LocalAddress>| local.iter().map(|it| it.address).collect::<Vec<_>>();
        assert_eq!(nets(after(elsewhere)), nets(before.local.clone()));
        let mut unknown = Case::new();
        unknown.groups.clear();
        assert_eq!(unknown.plan(&addresses[..1]).local[0].address, "192.0.2.50/32".parse().unwrap());
    }

    #[test]
    fn the_nodes_own_address_is_not_taken_for_one_of_a_pool() {
        let plan = Case::new().plan(&["192.0.2.7"]);
        assert_eq!((plan.local.len(), plan.decision), (0, Decision::Skip(Reason::OwnAddress)));
        assert!(plan.warnings[0].to_string().contains("take it out of the pool"), "{:?}", plan.warnings);
    }
}
