//! A node that holds a local address gives it up on purpose, and gets it back: what a client on the subnet misses, which
//! asks each millisecond. The node is taken out of load balancing by its label, or its agent is ended for good.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::Pings;

use super::{Benchmark, Entry, local_failover::family};
use crate::{context::Context, figure::Sample, subnet::Subnet};

pub(super) const ENTRY: Entry = Entry {
    name: "local_handover",
    also: &[],
    about: "a node gives a local address up on purpose and gets it back: a client on the subnet without an answer",
    prepare,
};

const NODES: u8 = 3;
const LIMIT_MS: f64 = 50.0;
const PATIENCE: Duration = Duration::from_secs(30);

struct LocalHandover {
    addresses: Vec<IpAddr>,
    subnet: Subnet,
}

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("lbnodeagent", "agent")?;
    let subnet = Subnet::build(NODES)?;
    let addresses = subnet.dual_stack("my-app")?;
    Ok(Box::new(LocalHandover { addresses, subnet }))
}

impl Benchmark for LocalHandover {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let addresses = self.addresses.clone();
        let (mut samples, twice) = self.subnet.watched(&addresses, |subnet| {
            let mut samples = Vec::new();
            for address in &addresses {
                let (left, back) = drain(subnet, *address)?;
                let (stopped, started) = stop(subnet, *address)?;
                let family = family(*address);
                for (what, outage) in
                    [("drain", left), ("drain_ends", back), ("stop", stopped), ("start", started)]
                {
                    let name = format!("local_handover_{what}_{family}");
                    samples.push(Sample::bar(&name, outage, "ms without an answer", LIMIT_MS));
                    samples.push(Sample::note(format!("{name}_max"), outage, "ms without an answer"));
                }
            }
            Ok(samples)
        })?;
        samples.push(Sample::ceiling("local_handover_two_answers", twice, "runs in which two answered", 0.0));
        Ok(samples)
    }
}

/// What the client misses while `story` moves an address from one node to another.
fn missed_ms(
    subnet: &mut Subnet,
    address: IpAddr,
    story: impl FnOnce(&mut Subnet) -> Result<()>,
) -> Result<f64> {
    let pings = Pings::start(subnet.client(), address)?;
    let before = subnet.wait_holder(address)?;
    story(subnet)?;
    let after = subnet.wait_holder(address)?;
    ensure!(before != after, "{address} stays on {before}");
    pings.wait_calm(Instant::now())?;
    Ok(pings.finish()?.outage().as_secs_f64() * 1e3)
}

/// Excluded from load balancing, and included again.
fn drain(subnet: &mut Subnet, address: IpAddr) -> Result<(f64, f64)> {
    let node = subnet.wait_holder(address)?;
    let left = missed_ms(subnet, address, |subnet| {
        subnet.set_excluded(&node, true)?;
        subnet.wait_elsewhere(address, &node)
    })?;
    let back = missed_ms(subnet, address, |subnet| {
        subnet.set_excluded(&node, false)?;
        subnet.wait_at(address, &node)
    })?;
    Ok((left, back))
}

/// Ended for good, and started again.
fn stop(subnet: &mut Subnet, address: IpAddr) -> Result<(f64, f64)> {
    let node = subnet.wait_holder(address)?;
    let left = missed_ms(subnet, address, |subnet| {
        let status = subnet.cluster.agent(&node)?.terminate(PATIENCE)?;
        ensure!(status.success(), "the agent ended with {status}");
        subnet.wait_elsewhere(address, &node)
    })?;
    let back = missed_ms(subnet, address, |subnet| {
        subnet.start_agent(&node)?;
        subnet.wait_at(address, &node)
    })?;
    Ok((left, back))
}
