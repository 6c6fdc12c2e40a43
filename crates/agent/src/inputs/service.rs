//! Services, as far as a node agent has to know them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use api::{
    PoolType,
    names::{PURELB, annotation, is_our_class},
};
use k8s_openapi::api::core::v1::Service;

use super::overrides::{Overrides, Unreadable};

/// `spec.externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrafficPolicy {
    /// Every node forwards to every endpoint.
    Cluster,
    /// A node forwards to its own endpoints only.
    Local,
}

/// A Service that holds addresses of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceInput {
    /// Addresses of `status.loadBalancer.ingress`, in its order.
    pub addresses: Vec<IpAddr>,
    /// Where they are announced.
    pub pool_type: PoolType,
    /// ServiceGroup that gave them.
    pub group: Arc<str>,
    /// Which nodes may announce.
    pub policy: TrafficPolicy,
    /// Port on which kube-proxy says whether this node has endpoints; only with policy Local.
    pub health_check_node_port: Option<u16>,
    /// `metadata.labels`, which advertisements of BGPPeers may select by.
    pub labels: Arc<BTreeMap<String, String>>,
    /// What the owner asks for its routes.
    pub overrides: Arc<Overrides>,
    /// What of that cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// UID, for events.
    pub uid: Arc<str>,
}

/// What the agent has to know of a Service, or `None` where it is not ours or has no address of ours.
///
/// `default_announcer` is the setting of that name: with `PureLB`, Services without a class are ours.
pub fn parse(service: &Service, default_announcer: &str) -> Option<ServiceInput> {
    let spec = service.spec.as_ref()?;
    let annotations = service.metadata.annotations.as_ref()?;
    let text = |name| annotations.get(name).map(String::as_str);
    let is_ours = match spec.load_balancer_class.as_deref() {
        Some(class) => is_our_class(class),
        None => default_announcer == PURELB,
    };
    let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    if !is_load_balancer || !is_ours || text(annotation::ALLOCATED_BY) != Some(PURELB) {
        return None;
    }
    let pool_type = text(annotation::POOL_TYPE)?.parse().ok()?;
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    let addresses: Vec<IpAddr> = ingress.iter().filter_map(|entry| entry.ip.as_ref()?.parse().ok()).collect();
    if addresses.is_empty() {
        return None;
    }
    let policy = match spec.external_traffic_policy.as_deref() {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    };
    let (overrides, unreadable) = Overrides::parse(annotations);
    let port = spec.health_check_node_port.and_then(|port| u16::try_from(port).ok());
    Some(ServiceInput {
        addresses,
        pool_type,
        group: text(annotation::ALLOCATED_FROM).unwrap_or_default().into(),
        policy,
        health_check_node_port: port.filter(|port| *port != 0 && policy == TrafficPolicy::Local),
        labels: Arc::new(service.metadata.labels.clone().unwrap_or_default()),
        overrides: Arc::new(overrides),
        unreadable,
        uid: service.metadata.uid.as_deref().unwrap_or_default().into(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(change: impl FnOnce(&mut Value)) -> Service {
        let mut value = json!({
            "metadata": {"name": "web", "namespace": "default", "annotations": {
                "purelb.io/allocated-by": "PureLB",
                "purelb.io/allocated-from": "routed",
                "purelb.io/pool-type": "remote",
            }},
            "spec": {"type": "LoadBalancer"},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]}},
        });
        change(&mut value);
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_service_with_our_addresses_is_read() {
        let input = parse(&service(|_| {}), "PureLB").unwrap();
        assert_eq!(input.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!((&*input.group, input.pool_type), ("routed", PoolType::Remote));
        assert_eq!((input.policy, input.health_check_node_port), (TrafficPolicy::Cluster, None));
    }

    #[test]
    fn the_health_check_port_counts_only_with_policy_local() {
        let with = |policy: &str| {
            let service = service(|s| {
                s["spec"]["healthCheckNodePort"] = json!(30_001);
                s["spec"]["externalTrafficPolicy"] = json!(policy);
            });
            parse(&service, "PureLB").unwrap().health_check_node_port
        };
        assert_eq!(with("Local"), Some(30_001));
        assert_eq!(with("Cluster"), None);
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 7] = [
            ("another type", |s| s["spec"]["type"] = json!("ClusterIP")),
            ("another class", |s| s["spec"]["loadBalancerClass"] = json!("example.com/lb")),
            ("allocated by another", |s| {
                s["metadata"]["annotations"]["purelb.io/allocated-by"] = json!("MetalLB");
            }),
            ("no annotations", |s| s["metadata"]["annotations"] = Value::Null),
            ("no address yet", |s| s["status"] = json!({})),
            ("only a host name", |s| {
                s["status"]["loadBalancer"]["ingress"] = json!([{"hostname": "lb.example.com"}]);
            }),
            ("an unknown pool type", |s| {
                s["metadata"]["annotations"]["purelb.io/pool-type"] = json!("banana");
            }),
        ];
        for (what, change) in changes {
            assert_eq!(parse(&service(change), "PureLB"), None, "{what}");
        }
    }

    #[test]
    fn a_service_without_class_is_ours_only_by_default() {
        assert_eq!(parse(&service(|_| {}), "cilium"), None);
        for (class, is_ours) in
            [("purelb.io/purelb", true), ("purelb.io/purelbv2", true), ("other.io/lb", false)]
        {
            let named = service(|s| s["spec"]["loadBalancerClass"] = json!(class));
            assert_eq!(parse(&named, "cilium").is_some(), is_ours, "{class}");
        }
    }
}
