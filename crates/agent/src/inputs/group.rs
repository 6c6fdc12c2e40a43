//! ServiceGroups: which prefix length an address has, and how it is put on an interface.

use std::net::IpAddr;

use api::{Pool, Refusal, ServiceGroupSpec};
use ipnet::IpNet;

/// The pools of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pools: Vec<Pool>,
    is_external: bool,
    /// `local.skipIPv6DAD`.
    pub skips_dad: bool,
}

/// Reads a group, or says why it can't be used. An external group has no pools: its addresses are host routes.
pub fn parse(spec: &ServiceGroupSpec) -> Result<Group, Refusal> {
    let skips_dad = spec.local.as_ref().is_some_and(|local| local.skip_ipv6_dad);
    Ok(Group { pools: spec.parse_pools()?, is_external: spec.external.is_some(), skips_dad })
}

impl Group {
    /// The address with the prefix length of the pool around it; `None` where no pool has it. A pool's subnet
    /// counts too: an address that was handed out before the pool was narrowed keeps its prefix length.
    pub fn network(&self, address: IpAddr) -> Option<IpNet> {
        let by_range = self.pools.iter().find(|pool| pool.range.contains(address));
        let by_subnet = || self.pools.iter().find(|pool| pool.subnet.contains(&address));
        let by_pool = by_range.or_else(by_subnet).map(|pool| pool.network(address));
        by_pool.or_else(|| self.is_external.then(|| IpNet::from(address)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_an_external_group_are_host_routes() {
        let spec = serde_norway::from_str("external: {provider: x, announce: remote}").unwrap();
        let group = parse(&spec).unwrap();
        for (address, network) in [("192.0.2.5", "192.0.2.5/32"), ("2001:db8::5", "2001:db8::5/128")] {
            assert_eq!(group.network(address.parse().unwrap()), Some(network.parse().unwrap()));
        }
    }

    #[test]
    fn an_address_has_the_prefix_length_of_its_pool() {
        let spec: ServiceGroupSpec = serde_norway::from_str(
            "remote: {v4pools: [{pool: 192.0.2.0/25, subnet: 192.0.2.0/24, aggregation: default}, \
             {pool: 198.51.100.0/24, subnet: 198.51.100.0/24, aggregation: /32}], \
             v6pool: {pool: '2001:db8::/64', subnet: '2001:db8::/64', aggregation: /128}}",
        )
        .unwrap();
        let group = parse(&spec).unwrap();
        for (address, network) in [
            ("192.0.2.5", Some("192.0.2.5/24")),
            ("192.0.2.200", Some("192.0.2.200/24")),
            ("198.51.100.7", Some("198.51.100.7/32")),
            ("2001:db8::7", Some("2001:db8::7/128")),
            ("203.0.113.1", None),
        ] {
            let expected = network.map(|network| network.parse::<IpNet>().unwrap());
            assert_eq!(group.network(address.parse().unwrap()), expected, "{address}");
        }
    }
}
