//! The act about `externalTrafficPolicy: Local`: routes follow the pods.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{acts, stage::Stage};
use crate::{Result, pods::Readiness};

const NAMESPACE: &str = "media";

pub(super) fn policy(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "A Local Service: the route follows the pods",
        "With externalTrafficPolicy: Local only nodes that run a ready pod announce the address. So packets arrive \
         where the pod is, and the pod sees the client's own address.",
    );
    stage.kubectl(&format!("apply -n {NAMESPACE} -f tests/lab/manifests/local.yaml"), 1)?;
    let addresses = stage.lab.wait_addresses(NAMESPACE, "my-app")?;
    // No pod yet: nobody may announce it.
    stage.lab.wait_routes(&addresses, &[])?;

    stage.narrator.plain("");
    stage.narrator.say("One pod, on node1:");
    stage.deploy(NAMESPACE, &addresses, &["node1"])?;
    show_only(stage, &addresses, "node1")?;
    stage.narrator.verified(&format!(
        "both routers have {} from node1 alone, and the pod saw the client's own address",
        addresses[0]
    ));

    stage.narrator.plain("");
    stage.narrator.say("The pod moves: a new one gets ready on node3, then the one on node1 terminates.");
    scale(stage, |workload, run, topology| workload.start(run, topology, "node3"))?;
    stage.lab.wait_routes(&addresses, &["node1", "node3"])?;
    scale(stage, |workload, _, _| {
        workload.set_readiness("node1", Readiness::Draining);
        Ok(())
    })?;
    stage.lab.wait_routes(&addresses, &["node3"])?;
    scale(stage, |workload, _, _| workload.stop("node1"))?;
    show_only(stage, &addresses, "node3")?;
    stage.narrator.verified(
        "the route was announced by node1, by node1 and node3 while both had a ready pod, and by node3 alone since \
         the pod on node1 terminates",
    );
    Ok(())
}

/// Changes the pods of the Local Service, the last that was deployed, and publishes them.
fn scale(
    stage: &mut Stage<'_>,
    change: impl FnOnce(&mut crate::pods::Workload, &crate::Run, &crate::Topology) -> Result<()>,
) -> Result<()> {
    match stage.workloads.last_mut() {
        Some(workload) => {
            change(workload, stage.lab.run, &stage.lab.topology)?;
            workload.publish(stage.lab.cluster.kubectl())
        }
        None => Ok(()),
    }
}

fn show_only(stage: &Stage<'_>, addresses: &[IpAddr], node: &str) -> Result<()> {
    stage.lab.wait_routes(addresses, &[node])?;
    for (number, router) in (1..).zip(&stage.lab.routers) {
        for address in addresses {
            stage.router_cli(router, &router.route_words(IpNet::from(*address)), 8)?;
            let answers = acts::ask_until_all_answer(stage, number, *address, &[node])?;
            stage.narrator.output(&answers, 1);
        }
    }
    Ok(())
}
