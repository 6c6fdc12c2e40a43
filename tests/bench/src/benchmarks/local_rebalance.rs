//! One of twenty nodes with a thousand local addresses loses its power: which addresses move, and how long it takes until
//! the last one of its has another node.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{secs, until};
use serde_json::json;

use super::{Benchmark, Entry};
use crate::{
    context::Context,
    control,
    figure::Sample,
    subnet::{Agents, Subnet},
};

pub(super) const ENTRY: Entry = Entry {
    name: "local_rebalance",
    also: &[],
    about: "one of 20 nodes with 1,000 local addresses dies: only its addresses move",
    prepare,
};

/// The bar speaks of fifty: so many agents do not get ready in time on two busy processors. The election of fifty is a
/// test of the agent's.
const NODES: u8 = 20;
const SERVICES: u16 = 1000;
const GROUP: &str = "many";
/// Without a move for so long, nothing moves any more.
const SETTLED: Duration = Duration::from_secs(3);

struct LocalRebalance {
    addresses: Vec<IpAddr>,
    subnet: Subnet,
}

/// Which node has each address.
type Holders = BTreeMap<IpAddr, String>;

fn prepare(context: &Context) -> Result<Box<dyn Benchmark>> {
    context.program("lbnodeagent", "agent")?;
    let subnet = Subnet::build(NODES)?;
    subnet.create_group_v6(GROUP, SERVICES)?;
    let services = (0..SERVICES).map(|number| {
        json!({
            "metadata": {
                "name": format!("s{number}"), "namespace": "default",
                "annotations": { "purelb.io/service-group": GROUP },
            },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": "none" }, "ports": [{ "port": 80 }],
                "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"],
            },
        })
    });
    subnet.with_client(|client| control::create_services(client, services))?;
    let addresses = (0..SERVICES).map(|host| Ipv6Addr::new(0xfd00, 0x30, 1, 0, 0, 0, 1, host).into());
    let rebalance = LocalRebalance { addresses: addresses.collect(), subnet };
    // Until all know all others addresses still move.
    until("addresses that stay where they are", secs(120), || {
        let before = rebalance.wait_all_held()?;
        thread::sleep(SETTLED);
        ensure!(rebalance.wait_all_held()? == before, "some moved within {SETTLED:?}");
        Ok(())
    })?;
    Ok(Box::new(rebalance))
}

impl LocalRebalance {
    /// Waits until every address is on exactly one node.
    fn wait_all_held(&self) -> Result<Holders> {
        let holders = until(format!("{SERVICES} addresses on one node each"), secs(300), || {
            let mut holders = Holders::new();
            let mut twice = 0_usize;
            for node in &self.subnet.topology.nodes {
                let shown = node.namespace.ip_show(&["-6", "-brief", "address", "show", "dev", "eth0"])?;
                let found = shown
                    .split_whitespace()
                    .filter_map(|word| word.split('/').next()?.parse::<IpAddr>().ok());
                for address in found.filter(|address| self.addresses.contains(address)) {
                    twice += usize::from(holders.insert(address, node.name.clone()).is_some());
                }
            }
            ensure!(
                holders.len() == self.addresses.len() && twice == 0,
                "{} are, {twice} on two",
                holders.len()
            );
            Ok(holders)
        });
        Ok(holders?)
    }
}

impl Benchmark for LocalRebalance {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let before = self.wait_all_held()?;
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        before.values().for_each(|node| *counts.entry(node).or_default() += 1);
        let (most, fewest) = (counts.values().max().copied(), counts.values().min().copied());
        let victim = counts.iter().max_by_key(|(_, count)| **count).map(|(node, _)| (*node).to_owned());
        let victim = victim.context("somebody has an address")?;
        let start = Instant::now();
        self.subnet.lose_power(&mut Agents, &victim)?;
        self.subnet.wipe(&Agents, &victim)?;
        let after = self.wait_all_held()?;
        let took = start.elapsed();
        let moved = before.iter().filter(|(address, node)| after.get(address) != Some(*node));
        let (own, others): (Vec<_>, Vec<_>) = moved.partition(|(_, node)| **node == victim);
        self.subnet.boot(&mut Agents, &victim)?;
        until("every address where it was before", secs(120), || {
            let now = self.wait_all_held()?;
            ensure!(now == before, "some are not");
            Ok(())
        })?;
        // Exact below 2^53.
        let count = |value: Option<usize>| value.unwrap_or_default() as f64;
        Ok(vec![
            Sample::ceiling("local_rebalance_moved_of_others", count(Some(others.len())), "addresses", 0.0),
            Sample::note("local_rebalance_moved_of_its_own", count(Some(own.len())), "addresses"),
            Sample::note("local_rebalance_took", took.as_secs_f64(), "s until all were seen elsewhere"),
            Sample::note("local_rebalance_most_at_a_node", count(most), "addresses"),
            Sample::note("local_rebalance_fewest_at_a_node", count(fewest), "addresses"),
        ])
    }
}
