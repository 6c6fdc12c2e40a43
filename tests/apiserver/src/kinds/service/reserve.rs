//! Cluster IPs and node ports: which are taken for a write, which are given back after it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::pools::Holding;
use super::{Pools, is_external, is_external_name, is_headless, wants_health_check_port, wants_node_ports};
use crate::kinds::Reservation;
use crate::object;
use crate::refusal::Cause;

/// What a write took, and what it will free.
#[derive(Debug, Default)]
pub(super) struct Taken {
    new: Vec<Holding>,
    unused: Vec<Holding>,
}

/// A write's reservation.
pub(super) struct Held {
    pools: Arc<Pools>,
    taken: Taken,
    dry_run: bool,
}

impl Held {
    pub(super) fn new(pools: Arc<Pools>, taken: Taken, dry_run: bool) -> Self {
        Self { pools, taken, dry_run }
    }
}

impl Reservation for Held {
    fn keep(self: Box<Self>) {
        let freed = if self.dry_run { &self.taken.new } else { &self.taken.unused };
        self.pools.give_back(freed);
    }

    fn give_back(self: Box<Self>) {
        self.pools.give_back(&self.taken.new);
    }
}

/// Everything a stored Service holds.
pub(super) fn holdings(service: &Value) -> Vec<Holding> {
    let mut held: Vec<Holding> = addresses(service).into_iter().map(Holding::Address).collect();
    let ports = object::list_at(service, &["spec", "ports"]).iter().map(|p| &p["nodePort"]);
    for port in ports.chain([&service["spec"]["healthCheckNodePort"]]) {
        if let Some(port) = port.as_u64().and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0) {
            held.push(Holding::Port(port));
        }
    }
    held.dedup();
    held
}

fn addresses(service: &Value) -> Vec<IpAddr> {
    let ips = object::list_at(service, &["spec", "clusterIPs"]);
    ips.iter().filter_map(|ip| ip.as_str()?.parse().ok()).collect()
}

/// Takes what `new` needs and `old` does not hold yet, writing it into `new`. On a fault everything taken is
/// given back.
pub(super) fn allocate(new: &mut Value, old: Option<&Value>, pools: &Pools) -> Result<Taken, Vec<Cause>> {
    let before = old.map(holdings).unwrap_or_default();
    let mut taken = Taken::default();
    let result = allocate_addresses(new, &before, pools, &mut taken)
        .and_then(|()| allocate_ports(new, &before, pools, &mut taken))
        .and_then(|()| allocate_health_check(new, &before, pools, &mut taken));
    if let Err(cause) = result {
        pools.give_back(&taken.new);
        return Err(vec![cause]);
    }
    let after = holdings(new);
    taken.unused = before.into_iter().filter(|held| !after.contains(held)).collect();
    Ok(taken)
}

fn allocate_addresses(
    new: &mut Value,
    before: &[Holding],
    pools: &Pools,
    taken: &mut Taken,
) -> Result<(), Cause> {
    if is_external_name(new) || is_headless(new) {
        return Ok(());
    }
    let families = new["spec"]["ipFamilies"].as_array().cloned().unwrap_or_default();
    let mut ips = new["spec"]["clusterIPs"].as_array().cloned().unwrap_or_default();
    for (i, family) in families.iter().enumerate() {
        let wanted = ips.get(i).and_then(Value::as_str).filter(|ip| !ip.is_empty());
        let address = match wanted {
            Some(text) => take_wanted(text, before, pools, taken).map_err(|detail| {
                let text = format!("failed to allocate IP {text}: {detail}");
                Cause::invalid("spec.clusterIPs", &new["spec"]["clusterIPs"], &text)
            })?,
            None => take_any(family.as_str().unwrap_or_default(), pools, taken)?,
        };
        let address = json!(address.to_string());
        if i < ips.len() {
            ips[i] = address;
        } else {
            ips.push(address);
        }
    }
    if let Some(first) = ips.first() {
        new["spec"]["clusterIP"] = first.clone();
    }
    new["spec"]["clusterIPs"] = Value::Array(ips);
    Ok(())
}

fn take_wanted(text: &str, before: &[Holding], pools: &Pools, taken: &mut Taken) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("failed to parse service IP \"{text}\""))?;
    if !before.contains(&Holding::Address(address)) {
        taken.new.push(pools.take_address(address)?);
    }
    Ok(address)
}

fn take_any(family: &str, pools: &Pools, taken: &mut Taken) -> Result<IpAddr, Cause> {
    match pools.take_next_address(family) {
        Some(Holding::Address(address)) => {
            taken.new.push(Holding::Address(address));
            Ok(address)
        }
        _ => Err(Cause::internal("spec.clusterIPs", "failed to allocate a serviceIP: range is full")),
    }
}

fn allocate_ports(
    new: &mut Value,
    before: &[Holding],
    pools: &Pools,
    taken: &mut Taken,
) -> Result<(), Cause> {
    if !is_external(new) {
        return Ok(());
    }
    let gives_out = wants_node_ports(new);
    let requested: HashMap<i64, u64> = object::list_at(new, &["spec", "ports"])
        .iter()
        .filter_map(|p| Some((p["port"].as_i64()?, p["nodePort"].as_u64()?)))
        .collect();
    // TCP and UDP on one port number share one node port.
    let mut by_port: HashMap<i64, u16> = HashMap::new();
    for (i, port) in object::objects_mut(new, &["spec", "ports"]).enumerate() {
        let number = port["port"].as_i64().unwrap_or_default();
        let wanted =
            port["nodePort"].as_u64().or_else(|| requested.get(&number).copied().filter(|_| gives_out));
        let node_port = match (wanted, by_port.get(&number)) {
            (Some(wanted), _) => {
                let at = format!("spec.ports[{i}].nodePort");
                Some(
                    take_port(wanted, before, pools, taken)
                        .map_err(|t| Cause::invalid(at, &json!(wanted), &t))?,
                )
            }
            (None, _) if !gives_out => None,
            (None, Some(shared)) => Some(*shared),
            (None, None) => Some(take_any_port(pools, taken)?),
        };
        if let Some(node_port) = node_port {
            by_port.insert(number, node_port);
            port["nodePort"] = json!(node_port);
        }
    }
    Ok(())
}

fn take_port(wanted: u64, before: &[Holding], pools: &Pools, taken: &mut Taken) -> Result<u16, String> {
    let port = u16::try_from(wanted).map_err(|_| "must be between 1 and 65535, inclusive".to_owned())?;
    let holding = Holding::Port(port);
    if !before.contains(&holding) && !taken.new.contains(&holding) {
        taken.new.push(pools.take_port(port)?);
    }
    Ok(port)
}

fn take_any_port(pools: &Pools, taken: &mut Taken) -> Result<u16, Cause> {
    match pools.take_next_port() {
        Some(Holding::Port(port)) => {
            taken.new.push(Holding::Port(port));
            Ok(port)
        }
        _ => Err(Cause::internal("spec.ports", "failed to allocate a nodePort: range is full")),
    }
}

fn allocate_health_check(
    new: &mut Value,
    before: &[Holding],
    pools: &Pools,
    taken: &mut Taken,
) -> Result<(), Cause> {
    if !wants_health_check_port(new) {
        return Ok(());
    }
    let port = match new["spec"]["healthCheckNodePort"].as_u64().filter(|p| *p != 0) {
        Some(wanted) => take_port(wanted, before, pools, taken).map_err(|text| {
            Cause::internal(
                "spec.healthCheckNodePort",
                &format!("failed to allocate requested HealthCheck NodePort {wanted}: {text}"),
            )
        })?,
        None => take_any_port(pools, taken)?,
    };
    new["spec"]["healthCheckNodePort"] = json!(port);
    Ok(())
}
