//! Requests of a client that never stops asking, each on a new connection, while a node is drained and ends, and while the
//! pods of a Local Service are replaced node by node: how many fail.
//!
//! Routers spread connections over the nodes anew whenever there is one more or one less: a request that is under way at
//! that very moment may come to another node, which resets it, whoever drains however well. That is counted, too: the
//! longer requests take, on a busy machine say, the more of them there are.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Result, ensure};
use lab::{
    DataCentre, Error, PATIENCE, Process, Run,
    helpers::{
        self,
        probe::{attempts_since, unix_ms},
    },
    pods::{Readiness, Workload},
    require,
    router::Software,
    until,
};

use super::{Benchmark, Entry, agent_upgrade::build};
use crate::{context::Context, figure::Sample};

pub(super) const DRAIN: Entry = Entry {
    name: "drain",
    also: &[],
    about: "a node is tainted to go, and ends: requests that fail",
    prepare: |context| prepare(context, "drain", "Cluster", drain),
};

pub(super) const POD_ROLL_LOCAL: Entry = Entry {
    name: "pod_roll_local",
    also: &[],
    about: "the pods of a Local Service are replaced node by node: requests that fail",
    prepare: |context| prepare(context, "pod_roll_local", "Local", roll),
};

const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// Between two requests to an address.
const PACE_MS: &str = "10";
/// A pod lives on so long when no router sends to it any more: a request takes less.
const GRACE: Duration = Duration::from_millis(500);
/// So long the client goes on when everything is over.
const AFTERWARDS: Duration = Duration::from_secs(2);

type Story = fn(&mut DataCentre<'_>, &[IpAddr], &mut Workload, &Client) -> Result<()>;

struct Requests {
    name: &'static str,
    policy: &'static str,
    story: Story,
}

fn prepare(
    context: &Context,
    name: &'static str,
    policy: &'static str,
    story: Story,
) -> Result<Box<dyn Benchmark>> {
    for (program, package) in [("lbnodeagent", "agent"), ("allocator", "allocator"), ("lab", "lab")] {
        context.program(program, package)?;
    }
    Ok(Box::new(Requests { name, policy, story }))
}

impl Benchmark for Requests {
    fn run(&mut self) -> Result<Vec<Sample>> {
        let run = Run::start()?;
        let (mut lab, addresses) = build(&run, Software::Frr, self.policy)?;
        let mut workload = lab.deploy("default", "my-app", &addresses, &NODES)?;
        lab.wait_routes(&addresses, &NODES)?;
        let client = Client::start(&lab, &addresses)?;
        (self.story)(&mut lab, &addresses, &mut workload, &client)?;
        let (sent, failed) = client.finish()?;
        Ok(vec![
            // Exact below 2^53.
            Sample::ceiling(format!("{}_failed", self.name), failed as f64, "requests failed", 0.0),
            Sample::note(format!("{}_sent", self.name), sent as f64, "requests"),
        ])
    }
}

fn drain(
    lab: &mut DataCentre<'_>,
    addresses: &[IpAddr],
    workload: &mut Workload,
    _client: &Client,
) -> Result<()> {
    let taint = "node.cloudprovider.kubernetes.io/shutdown=:NoSchedule";
    lab.cluster.kubectl().run(&["cordon", "node1"])?;
    lab.cluster.kubectl().run(&["taint", "node", "node1", taint])?;
    lab.wait_routes(addresses, &["node2", "node3"])?;
    let status = lab.cluster.agent("node1")?.terminate(PATIENCE)?;
    ensure!(status.success(), "the agent ended with {status}");
    addresses.iter().try_for_each(|address| lab.wait_on_nodes(*address, &["node2", "node3"]))?;
    workload.stop("node1")?;
    Ok(workload.publish(lab.cluster.kubectl())?)
}

fn roll(
    lab: &mut DataCentre<'_>,
    addresses: &[IpAddr],
    workload: &mut Workload,
    client: &Client,
) -> Result<()> {
    for node in NODES {
        let others: Vec<_> = NODES.into_iter().filter(|other| *other != node).collect();
        workload.set_readiness(node, Readiness::Draining);
        workload.publish(lab.cluster.kubectl())?;
        lab.wait_routes(addresses, &others)?;
        // A pod that terminates ends what it has begun.
        client.wait_answered(unix_ms(SystemTime::now() + GRACE))?;
        workload.stop(node)?;
        workload.publish(lab.cluster.kubectl())?;
        workload.start(lab.run, &lab.topology, node)?;
        workload.publish(lab.cluster.kubectl())?;
        lab.wait_routes(addresses, &NODES)?;
    }
    Ok(())
}

/// The client.
struct Client {
    process: Process,
    out: PathBuf,
}

impl Client {
    fn start(lab: &DataCentre<'_>, addresses: &[IpAddr]) -> Result<Client> {
        let out = lab.run.folder().join("attempts");
        let mut command = lab.topology.client.namespace.command(helpers::binary("lab")?);
        command.args(["probe", "--interface", "eth1", "--patience-ms", "2000", "--pace-ms", PACE_MS]);
        command.arg("--out").arg(&out);
        for address in addresses {
            command.args(["--target", &SocketAddr::new(*address, 80).to_string()]);
        }
        let process = Process::spawn("requests", command, lab.run.log("requests"))?;
        let client = Client { process, out };
        client.wait_answered(0)?;
        Ok(client)
    }

    /// Waits until a request that began at this time or later has been answered.
    fn wait_answered(&self, since_ms: u64) -> Result<()> {
        until("an answer", PATIENCE, || {
            let attempts = attempts_since(&self.out, since_ms)?;
            require!(attempts.iter().any(|attempt| attempt.error.is_none()), "of {}", attempts.len());
            Ok::<_, Error>(())
        })?;
        Ok(())
    }

    /// How many requests there were, and how many of them failed. One of the first ones may have come too early.
    fn finish(mut self) -> Result<(usize, usize)> {
        self.wait_answered(unix_ms(SystemTime::now() + AFTERWARDS))?;
        self.process.kill()?;
        let attempts = attempts_since(&self.out, 0)?;
        let first = attempts.iter().position(|attempt| attempt.error.is_none()).unwrap_or_default();
        let failed = attempts.iter().skip(first).filter(|attempt| attempt.error.is_some());
        let failed: Vec<_> = failed.collect();
        for attempt in &failed {
            eprintln!("failed: {attempt:?}");
        }
        Ok((attempts.len() - first, failed.len()))
    }
}
