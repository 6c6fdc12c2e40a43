//! The pools that Services draw from: cluster IPs of each family and node ports.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Mutex;

use ipnet::IpNet;
use rand::Rng;

/// Node ports the real server gives out by default.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30000..=32767;

/// Something held by a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Holding {
    /// A cluster IP.
    Address(IpAddr),
    /// A node port, of any protocol.
    Port(u16),
}

/// The service CIDRs cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoolsError {
    /// None, more than two, or two of one family.
    #[error("service CIDRs must be one, or one of each family, got {0:?}")]
    Families(Vec<IpNet>),
}

/// The pools.
#[derive(Debug)]
pub(crate) struct Pools {
    cidrs: Vec<IpNet>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    all: HashSet<Holding>,
    ports: usize,
}

impl Pools {
    /// Pools for one CIDR, or one of each family; the first is the default family.
    pub(crate) fn new(cidrs: Vec<IpNet>) -> Result<Self, PoolsError> {
        let dual = cidrs.len() == 2 && cidrs[0].addr().is_ipv4() != cidrs[1].addr().is_ipv4();
        if cidrs.len() != 1 && !dual {
            return Err(PoolsError::Families(cidrs));
        }
        Ok(Self { cidrs, held: Mutex::default() })
    }

    /// The families of the cluster, the default one first.
    pub(crate) fn families(&self) -> Vec<&'static str> {
        self.cidrs.iter().map(|c| if c.addr().is_ipv4() { "IPv4" } else { "IPv6" }).collect()
    }

    /// Takes a given address.
    pub(crate) fn take_address(&self, address: IpAddr) -> Result<Holding, String> {
        let Some(cidr) = self.cidrs.iter().find(|c| c.contains(&address)) else {
            return Err("the provided network does not match the current range".to_owned());
        };
        if address == cidr.network() {
            return Err(format!("the provided IP ({address}) is the network address of {cidr}"));
        }
        let holding = Holding::Address(address);
        if self.lock().all.insert(holding) {
            Ok(holding)
        } else {
            Err("provided IP is already allocated".to_owned())
        }
    }

    /// Takes a free address of a family.
    pub(crate) fn take_next_address(&self, family: &str) -> Option<Holding> {
        let v4 = family == "IPv4";
        let cidr = self.cidrs.iter().find(|c| c.addr().is_ipv4() == v4)?;
        let mut held = self.lock();
        let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len()).min(63);
        let last = (1u64 << bits).saturating_sub(if v4 { 2 } else { 1 });
        let start = rand::rng().random_range(1..=last.max(1));
        let order = (start..=last).chain(1..start);
        for offset in order {
            let holding = Holding::Address(offset_address(cidr, offset));
            if held.all.insert(holding) {
                return Some(holding);
            }
        }
        None
    }

    /// Takes a given node port.
    pub(crate) fn take_port(&self, port: u16) -> Result<Holding, String> {
        if !NODE_PORTS.contains(&port) {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                NODE_PORTS.start(),
                NODE_PORTS.end()
            ));
        }
        let mut held = self.lock();
        if !held.all.insert(Holding::Port(port)) {
            return Err("provided port is already allocated".to_owned());
        }
        held.ports += 1;
        Ok(Holding::Port(port))
    }

    /// Takes a free node port.
    pub(crate) fn take_next_port(&self) -> Option<Holding> {
        let mut held = self.lock();
        if held.ports == NODE_PORTS.len() {
            return None;
        }
        let start = rand::rng().random_range(NODE_PORTS);
        let port = (start..=*NODE_PORTS.end())
            .chain(*NODE_PORTS.start()..start)
            .find(|port| !held.all.contains(&Holding::Port(*port)))?;
        held.all.insert(Holding::Port(port));
        held.ports += 1;
        Some(Holding::Port(port))
    }

    /// Returns holdings to the pools.
    pub(crate) fn give_back(&self, holdings: &[Holding]) {
        let mut held = self.lock();
        for holding in holdings {
            let was_held = held.all.remove(holding);
            if was_held && matches!(holding, Holding::Port(_)) {
                held.ports -= 1;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Held> {
        self.held.lock().expect("no code panics while it holds the pools")
    }
}

fn offset_address(cidr: &IpNet, offset: u64) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(base) => IpAddr::V4((u32::from(base).wrapping_add(offset as u32)).into()),
        IpAddr::V6(base) => IpAddr::V6((u128::from(base).wrapping_add(u128::from(offset))).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pool_gives_out_every_address_once_and_then_none() {
        let pools = Pools::new(vec!["10.0.0.0/29".parse().unwrap()]).unwrap();
        let taken: HashSet<Holding> = std::iter::from_fn(|| pools.take_next_address("IPv4")).collect();
        assert_eq!(taken.len(), 6);
        assert!(!taken.contains(&Holding::Address("10.0.0.0".parse().unwrap())));
        assert!(!taken.contains(&Holding::Address("10.0.0.7".parse().unwrap())));
    }

    #[test]
    fn a_returned_port_can_be_taken_again() {
        let pools = Pools::new(vec!["10.0.0.0/24".parse().unwrap()]).unwrap();
        let held = pools.take_port(30080).unwrap();
        assert!(pools.take_port(30080).is_err());
        pools.give_back(&[held]);
        assert!(pools.take_port(30080).is_ok());
    }
}
