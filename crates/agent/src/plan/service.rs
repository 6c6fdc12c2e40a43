//! The plan for one Service. Remote pools: with policy Cluster every node announces; with policy Local those
//! with endpoints, and the address outlives the route until nothing serves any more. Local pools: [`super::local`].

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use api::{IpFamily, PoolType};
use ipnet::IpNet;

use super::{
    Decision, LocalAddress, Reason, ServicePlan, Warning,
    local::plan_local,
    traits::{Traits, Weight},
};
use crate::{
    advertising::Advertising,
    inputs::{
        endpoints::Endpoints,
        group::Group,
        node::Leaving,
        overrides::annotation_of,
        service::{ServiceInput, TrafficPolicy},
    },
    local_pools::LocalPools,
};

/// What the plan depends on beside the Service.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// ServiceGroups that can be used, by name.
    pub groups: &'a HashMap<Arc<str>, Group>,
    /// What addresses of local pools are planned by.
    pub local: &'a LocalPools,
    /// Why the node is to announce nothing; its part in local pools ends with that.
    pub leaving: Option<Leaving>,
    /// Routers have had time to take other ways: routes go now, and addresses after them.
    pub is_withdrawn: bool,
    /// Endpoints of the Service; of no meaning with policy Cluster.
    pub endpoints: Endpoints,
    /// No other node has had time to announce the Service by itself, and this one does: it goes on while anything here
    /// serves.
    pub awaits_successor: bool,
    /// Whether the data path behind the address forwards, or nobody can tell.
    pub forwards: bool,
    /// Addresses that nothing serves any more, but which stay for a moment for the sake of flows in flight.
    pub lingering: &'a [IpNet],
    /// The Service's addresses of local pools as they were planned last: what no pool describes any more stays so.
    pub before: &'a [LocalAddress],
    /// What the peers choose routes by.
    pub advertising: &'a Advertising,
    /// How much of the Service's traffic this node should get.
    pub weight: Weight,
}

/// Decides for one Service.
pub fn plan_service(service: &ServiceInput, context: &Context<'_>) -> ServicePlan {
    if service.pool_type == PoolType::Local {
        return plan_local(service, context);
    }
    if let (true, Some(why)) = (context.is_withdrawn, context.leaving) {
        return withdraw(service, context, why);
    }
    let mut plan = ServicePlan::skip(Reason::NoLocalEndpoint);
    let mut reason = None;
    for address in &service.addresses {
        let network = network(*address, service, context, &mut plan.warnings);
        if let Err(why) = place(service, context, network, &mut plan) {
            reason = Some(why);
        }
    }
    plan.traits = traits(service, context, &mut plan.warnings);
    plan.decision = match reason {
        _ if !plan.routes.is_empty() => Decision::Announce,
        Some(reason) if plan.addresses.is_empty() => Decision::Skip(reason),
        Some(reason) => Decision::Hold(reason),
        None => Decision::Skip(Reason::NoLocalEndpoint),
    };
    plan
}

/// No routes any more, and addresses only for the sake of flows in flight.
fn withdraw(service: &ServiceInput, context: &Context<'_>, why: Leaving) -> ServicePlan {
    let reason = Reason::NodeLeaving(why);
    let mut plan = ServicePlan::skip(reason.clone());
    let lingering = context.lingering.iter().filter(|held| service.addresses.contains(&held.addr()));
    plan.addresses.extend(lingering);
    if !plan.addresses.is_empty() {
        plan.decision = Decision::Hold(reason);
    }
    plan
}

/// The address with its prefix length: that of its pool, or a host route where no pool has it any more.
fn network(
    address: IpAddr,
    service: &ServiceInput,
    context: &Context<'_>,
    warnings: &mut Vec<Warning>,
) -> IpNet {
    let group = context.groups.get(&service.group);
    group.and_then(|group| group.network(address)).unwrap_or_else(|| {
        let network = IpNet::from(address);
        warnings.push(Warning::OutsidePools(network));
        network
    })
}

/// What its routes are advertised by, and what the owner should know of that.
fn traits(service: &ServiceInput, context: &Context<'_>, warnings: &mut Vec<Warning>) -> Arc<Traits> {
    let traits = Traits {
        group: service.group.clone(),
        labels: service.labels.clone(),
        overrides: service.overrides.clone(),
        weight: context.weight,
    };
    warnings.extend(service.unreadable.iter().cloned().map(Warning::Unreadable));
    let forbidden = context.advertising.forbidden(&traits);
    warnings.extend(forbidden.into_iter().map(|kind| Warning::Forbidden(annotation_of(kind))));
    let unknown = context.advertising.unknown_peers(&traits);
    if context.advertising.names_nobody(&traits) {
        warnings.push(Warning::NobodyNamed(unknown.join(", ")));
    } else {
        warnings.extend(unknown.into_iter().map(|name| Warning::UnknownPeer(name.to_owned())));
    }
    // Where no peer chooses, what differs here is no difference.
    if context.advertising.is_selective() { Arc::new(traits) } else { Arc::default() }
}

/// Puts one address into the plan: held and announced, or the reason why not.
fn place(
    service: &ServiceInput,
    context: &Context<'_>,
    network: IpNet,
    plan: &mut ServicePlan,
) -> Result<(), Reason> {
    if service.policy == TrafficPolicy::Cluster {
        plan.addresses.push(network);
        plan.routes.push(network);
        return Ok(());
    }
    let network = if network.prefix_len() == network.max_prefix_len() {
        network
    } else {
        plan.warnings.push(Warning::LocalAggregate(network));
        IpNet::from(network.addr())
    };
    let counts = context.endpoints.of(IpFamily::of(network.addr()));
    if !counts.serves_here() {
        if context.lingering.contains(&network) {
            plan.addresses.push(network);
        }
        return Err(Reason::NoLocalEndpoint);
    }
    plan.addresses.push(network);
    if !counts.wants_traffic() && !context.awaits_successor {
        return Err(Reason::EndpointsTerminating);
    }
    if !context.forwards {
        return Err(Reason::WaitingForKubeProxy);
    }
    plan.routes.push(network);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::{endpoints::Counts, group};

    const READY: Counts = Counts { ready_here: 1, terminating_here: 0, ready_anywhere: 1 };
    const ELSEWHERE: Counts = Counts { ready_here: 0, terminating_here: 0, ready_anywhere: 1 };
    const LEAVING: Counts = Counts { ready_here: 0, terminating_here: 1, ready_anywhere: 1 };
    const LAST: Counts = Counts { ready_here: 0, terminating_here: 1, ready_anywhere: 0 };
    const NONE: Counts = Counts { ready_here: 0, terminating_here: 0, ready_anywhere: 0 };

    fn groups() -> HashMap<Arc<str>, Group> {
        let parse = |yaml: &str| group::parse(&serde_norway::from_str(yaml).unwrap()).unwrap();
        [
            (
                "routed".into(),
                parse(
                    "remote: {v4pool: {pool: 192.0.2.0/24, subnet: 192.0.2.0/24, aggregation: /32}, \
                     v6pool: {pool: '2001:db8::/64', subnet: '2001:db8::/64', aggregation: /128}}",
                ),
            ),
            (
                "aggregated".into(),
                parse("remote: {v4pool: {pool: 198.51.100.0/24, subnet: 198.51.100.0/24, aggregation: default}}"),
            ),
        ]
        .into()
    }

    fn service(group: &str, policy: TrafficPolicy, addresses: &[&str]) -> ServiceInput {
        ServiceInput {
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            pool_type: PoolType::Remote,
            group: group.into(),
            policy,
            health_check_node_port: None,
            labels: Default::default(),
            overrides: Default::default(),
            unreadable: vec![],
            uid: "".into(),
        }
    }

    fn plan(service: &ServiceInput, change: impl FnOnce(&mut Context<'_>)) -> ServicePlan {
        let (groups, advertising, local) = (groups(), Advertising::default(), LocalPools::default());
        let mut context = Context {
            groups: &groups,
            local: &local,
            leaving: None,
            is_withdrawn: false,
            endpoints: Endpoints { ipv4: READY, ipv6: READY },
            awaits_successor: false,
            forwards: true,
            lingering: &[],
            before: &[],
            advertising: &advertising,
            weight: Weight::default(),
        };
        change(&mut context);
        plan_service(service, &context)
    }

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn policy_cluster_announces_everywhere_whatever_the_endpoints() {
        let service = service("routed", TrafficPolicy::Cluster, &["192.0.2.1", "2001:db8::1"]);
        let plan = plan(&service, |context| {
            context.endpoints = Endpoints::default();
            context.forwards = false;
        });
        let both = nets(&["192.0.2.1/32", "2001:db8::1/128"]);
        assert_eq!((&plan.addresses, &plan.routes, plan.decision), (&both, &both, Decision::Announce));
    }

    #[test]
    fn policy_local_follows_the_endpoints() {
        let service = service("routed", TrafficPolicy::Local, &["192.0.2.1"]);
        for (what, counts, held, announced, decision) in [
            ("ready here", READY, true, true, Decision::Announce),
            ("ready elsewhere", ELSEWHERE, false, false, Decision::Skip(Reason::NoLocalEndpoint)),
            ("terminating here", LEAVING, true, false, Decision::Hold(Reason::EndpointsTerminating)),
            ("terminating everywhere", LAST, true, true, Decision::Announce),
            ("none", NONE, false, false, Decision::Skip(Reason::NoLocalEndpoint)),
        ] {
            let plan = plan(&service, |context| context.endpoints.ipv4 = counts);
            assert_eq!(plan.addresses.len(), usize::from(held), "{what}");
            assert_eq!(plan.routes.len(), usize::from(announced), "{what}");
            assert_eq!(plan.decision, decision, "{what}");
        }
    }

    #[test]
    fn a_route_stays_until_another_node_has_had_time_to_announce_but_not_where_nothing_serves() {
        let service = service("routed", TrafficPolicy::Local, &["192.0.2.1"]);
        for (counts, routes) in [(READY, 1), (LEAVING, 1), (LAST, 1), (ELSEWHERE, 0), (NONE, 0)] {
            let plan = plan(&service, |context| {
                (context.endpoints.ipv4, context.awaits_successor) = (counts, true);
            });
            assert_eq!(plan.routes.len(), routes, "{counts:?}");
        }
    }

    #[test]
    fn policy_local_judges_each_family_by_its_own_endpoints() {
        let service = service("routed", TrafficPolicy::Local, &["192.0.2.1", "2001:db8::1"]);
        let plan = plan(&service, |context| context.endpoints.ipv6 = ELSEWHERE);
        assert_eq!(plan.routes, nets(&["192.0.2.1/32"]));
        assert_eq!(plan.decision, Decision::Announce);
    }

    #[test]
    fn an_address_lingers_without_its_route_and_only_if_it_was_held() {
        let service = service("routed", TrafficPolicy::Local, &["192.0.2.1", "192.0.2.2"]);
        let lingering = nets(&["192.0.2.1/32"]);
        let groups = groups();
        let context = Context {
            groups: &groups,
            local: &LocalPools::default(),
            leaving: None,
            is_withdrawn: false,
            endpoints: Endpoints::default(),
            awaits_successor: false,
            forwards: true,
            lingering: &lingering,
            before: &[],
            advertising: &Advertising::default(),
            weight: Weight::default(),
        };
        let plan = plan_service(&service, &context);
        assert_eq!((plan.addresses, plan.routes), (lingering.clone(), vec![]));
        assert_eq!(plan.decision, Decision::Hold(Reason::NoLocalEndpoint));
    }

    #[test]
    fn the_address_is_held_while_kube_proxy_does_not_forward_yet() {
        let service = service("routed", TrafficPolicy::Local, &["192.0.2.1"]);
        let plan = plan(&service, |context| context.forwards = false);
        assert_eq!((plan.addresses.len(), plan.routes.len()), (1, 0));
        assert_eq!(plan.decision, Decision::Hold(Reason::WaitingForKubeProxy));
    }

    #[test]
    fn an_aggregate_has_the_prefix_length_of_its_pool_and_gives_way_to_a_host_route_under_policy_local() {
        let cluster = service("aggregated", TrafficPolicy::Cluster, &["198.51.100.7"]);
        assert_eq!(plan(&cluster, |_| {}).addresses, nets(&["198.51.100.7/24"]));
        let local = service("aggregated", TrafficPolicy::Local, &["198.51.100.7"]);
        let host = nets(&["198.51.100.7/32"]);
        let with_endpoints = plan(&local, |_| {});
        assert_eq!((&with_endpoints.addresses, &with_endpoints.routes), (&host, &host));
        let warning = with_endpoints.warnings[0].to_string();
        assert!(warning.contains("as 198.51.100.7/32 and not as 198.51.100.0/24"), "{warning}");
        let without = plan(&local, |context| context.endpoints.ipv4 = ELSEWHERE);
        assert_eq!((without.addresses.len(), without.routes.len()), (0, 0));
        assert_eq!(without.decision, Decision::Skip(Reason::NoLocalEndpoint));
    }

    #[test]
    fn an_address_outlives_its_pool_as_a_host_route() {
        for group in ["routed", "gone"] {
            let plan = plan(&service(group, TrafficPolicy::Cluster, &["203.0.113.1"]), |_| {});
            assert_eq!(plan.routes, nets(&["203.0.113.1/32"]));
            assert_eq!(plan.warnings, [Warning::OutsidePools("203.0.113.1/32".parse().unwrap())]);
        }
    }

    #[test]
    fn a_node_that_leaves_announces_until_routers_have_had_time_and_its_addresses_outlive_its_routes() {
        let held = nets(&["192.0.2.1/32", "192.0.2.9/32"]);
        let why = Leaving::Taint("node.kubernetes.io/out-of-service");
        let reason = || Reason::NodeLeaving(why);
        for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
            let remote = service("routed", policy, &["192.0.2.1"]);
            let leaving = |is_withdrawn, lingering: &[IpNet]| {
                let (groups, advertising, local) = (groups(), Advertising::default(), LocalPools::default());
                let context = Context {
                    groups: &groups,
                    local: &local,
                    leaving: Some(why),
                    is_withdrawn,
                    endpoints: Endpoints { ipv4: READY, ipv6: READY },
                    awaits_successor: false,
                    forwards: true,
                    lingering,
                    before: &[],
                    advertising: &advertising,
                    weight: Weight::default(),
                };
                plan_service(&remote, &context)
            };
            assert_eq!(leaving(false, &[]).decision, Decision::Announce);
            assert_eq!(leaving(true, &[]), ServicePlan::skip(reason()));
            let lingering = leaving(true, &held);
            assert_eq!((lingering.routes, lingering.addresses), (vec![], nets(&["192.0.2.1/32"])));
            assert_eq!(lingering.decision, Decision::Hold(reason()));
        }
    }
}
