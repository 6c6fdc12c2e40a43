//! The node that answers for a local address loses its power: how long a client on the subnet gets no answer, which it
//! asks for each millisecond. The same with keepalived at its defaults, on the same nodes, one after the other.

use std::net::IpAddr;

use anyhow::{Context as _, Result};

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    figure::Sample,
    keepalived::Keepalived,
    subnet::{Agents, Announcer, Subnet},
};

pub(super) const ENTRY: Entry = Entry {
    name: "local_failover",
    also: &[],
    about: "the holder of a local address loses power: a client on the subnet without an answer; and with keepalived",
    prepare,
};

const NODES: u8 = 3;
/// Failovers of ours in a run, for each family.
const ROUNDS: usize = 3;
pub(super) const MEDIAN_MS: f64 = 600.0;
pub(super) const WORST_MS: f64 = 1000.0;

struct LocalFailover {
    version: String,
    addresses: Vec<IpAddr>,
    subnet: Subnet,
}

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("lbnodeagent", "agent")?;
    let version = Keepalived::version()?;
    let subnet = Subnet::build(NODES)?;
    let addresses = subnet.dual_stack("my-app")?;
    Ok(Box::new(LocalFailover { version, addresses, subnet }))
}

pub(super) fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "v4" } else { "v6" }
}

impl Benchmark for LocalFailover {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let mut samples = Vec::new();
        let addresses = self.addresses.clone();
        let (outages, twice) = self.subnet.watched(&addresses, |subnet| {
            let rounds = addresses.iter().flat_map(|address| [*address; ROUNDS]);
            rounds
                .map(|address| Ok((address, outage_ms(subnet, &mut Agents, address)?)))
                .collect::<Result<Vec<_>>>()
        })?;
        for (address, outage) in outages {
            let name = format!("local_failover_{}", family(address));
            samples.push(Sample::bar(&name, outage, "ms without an answer", MEDIAN_MS));
            samples.push(Sample::ceiling(format!("{name}_max"), outage, "ms without an answer", WORST_MS));
        }
        samples.push(Sample::ceiling("local_failover_two_answers", twice, "runs in which two answered", 0.0));
        let mut keepalived = Keepalived::start_all(&mut self.subnet)?;
        for address in Keepalived::ADDRESSES {
            let outage = outage_ms(&mut self.subnet, &mut keepalived, address).context("keepalived")?;
            let name = format!("local_failover_{}", family(address));
            let peer = ("keepalived", self.version.as_str());
            samples.push(Sample::peer(name, outage, "ms without an answer", peer));
        }
        keepalived.stop_all()?;
        // Its victims' cables were those of our agents, too.
        for address in &addresses {
            self.subnet.wait_holder(*address)?;
        }
        Ok(samples)
    }
}

fn outage_ms(subnet: &mut Subnet, announcer: &mut dyn Announcer, address: IpAddr) -> Result<f64> {
    Ok(subnet.fail_over(announcer, address)?.outage().as_secs_f64() * 1e3)
}
