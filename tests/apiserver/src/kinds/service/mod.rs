//! Services: the one kind whose defaulting, allocation and transitions the project depends on in every
//! detail. Follows the real server's order: default, drop what the new type has no use for, carry what was
//! allocated, settle families, allocate, validate.

mod defaults;
mod families;
mod pools;
mod reserve;
mod transitions;
mod validate;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Kind, Reservation, names};
use crate::object;
use crate::refusal::Cause;

pub(crate) use pools::{Pools, PoolsError};

/// Services, with the pools they draw from.
#[derive(Debug)]
pub(crate) struct Service {
    pools: Arc<Pools>,
}

impl Service {
    /// Services that draw from `pools`.
    pub(crate) fn new(pools: Arc<Pools>) -> Self {
        Self { pools }
    }
}

impl Kind for Service {
    fn name_fault(&self, name: &str) -> Option<String> {
        // RelaxedServiceNameValidation, on since 1.36: a label of RFC 1123 rather than 1035.
        names::dns_label(name)
    }

    fn default(&self, object: &mut Value) {
        defaults::apply(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"loadBalancer": {}});
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        object::carry(new, old, "status");
        transitions::drop_unused(new, old);
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        validate::validate(new, old)
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<Cause> {
        validate::validate_status(new)
    }

    fn reserve(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Option<Box<dyn Reservation>>, Vec<Cause>> {
        transitions::carry_allocated(new, old);
        families::settle(new, old, &self.pools)?;
        let taken = reserve::allocate(new, old, &self.pools)?;
        Ok(Some(Box::new(reserve::Held::new(self.pools.clone(), taken, dry_run))))
    }

    fn release(&self, gone: &Value) {
        self.pools.give_back(&reserve::holdings(gone));
    }

    fn creates_on_update(&self) -> bool {
        true
    }
}

fn service_type(service: &Value) -> &str {
    object::str_at(service, &["spec", "type"])
}

fn is_load_balancer(service: &Value) -> bool {
    service_type(service) == "LoadBalancer"
}

fn is_external_name(service: &Value) -> bool {
    service_type(service) == "ExternalName"
}

/// Whether the type has node ports (and so an external traffic policy).
fn is_external(service: &Value) -> bool {
    matches!(service_type(service), "NodePort" | "LoadBalancer")
}

fn is_headless(service: &Value) -> bool {
    service["spec"]["clusterIP"] == "None"
        || object::list_at(service, &["spec", "clusterIPs"]).first().is_some_and(|ip| ip == "None")
}

/// Whether node ports are given out without being asked for.
fn wants_node_ports(service: &Value) -> bool {
    match service_type(service) {
        "NodePort" => true,
        "LoadBalancer" => service["spec"]["allocateLoadBalancerNodePorts"] != false,
        _ => false,
    }
}

fn wants_health_check_port(service: &Value) -> bool {
    is_load_balancer(service) && service["spec"]["externalTrafficPolicy"] == "Local"
}

fn has_selector(service: &Value) -> bool {
    service["spec"]["selector"].as_object().is_some_and(|s| !s.is_empty())
}
