//! What stands for a Deployment in a cluster without controllers: an HTTP server a pod on the nodes it is scaled
//! to, and the EndpointSlices that the endpoint slice controller would write for them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use serde_json::{Value, json};

use crate::{Error, Host, Kubectl, PATIENCE, Process, Result, Run, Topology, helpers, until};

/// How an endpoint of a pod is published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// `ready` and `serving`.
    Ready,
    /// `terminating` but still `serving`: the pod finishes what it has.
    Draining,
    /// Neither ready nor serving.
    NotReady,
}

/// The pods behind one Service.
#[derive(Debug)]
pub struct Workload {
    namespace: String,
    service: String,
    port: u16,
    addresses: Vec<IpAddr>,
    pods: BTreeMap<String, Pod>,
}

#[derive(Debug)]
struct Pod {
    process: Process,
    number: u8,
    readiness: Readiness,
}

impl Workload {
    /// No pods yet, for the Service `namespace/service` whose `port` is served on these load balancer
    /// addresses.
    pub fn new(namespace: &str, service: &str, port: u16, addresses: &[IpAddr]) -> Self {
        Self {
            namespace: namespace.to_owned(),
            service: service.to_owned(),
            port,
            addresses: addresses.to_owned(),
            pods: BTreeMap::new(),
        }
    }

    /// Starts a ready pod on a node; one that runs there becomes ready again.
    ///
    /// # Errors
    /// When the port is taken on the node.
    pub fn start(&mut self, run: &Run, topology: &Topology, node: &str) -> Result<()> {
        if let Some(pod) = self.pods.get_mut(node) {
            pod.readiness = Readiness::Ready;
            return Ok(());
        }
        let host =
            topology.host(node).ok_or_else(|| Error::unmet(format!("the lab has no machine {node}")))?;
        let number = (1..)
            .zip(&topology.nodes)
            .find_map(|(number, other)| (other.name == node).then_some(number))
            .ok_or_else(|| Error::unmet(format!("{node} is not a node")))?;
        let process = self.serve(run, host)?;
        self.pods.insert(node.to_owned(), Pod { process, number, readiness: Readiness::Ready });
        Ok(())
    }

    fn serve(&self, run: &Run, host: &Host) -> Result<Process> {
        let pod = self.pod_name(&host.name);
        let mut command = host.namespace.command(helpers::binary("lab")?);
        command.args(["echo", "--node", &host.name, "--pod", &pod]);
        for address in &self.addresses {
            command.args(["--listen", &SocketAddr::new(*address, self.port).to_string()]);
        }
        let name = format!("pod-{}-{pod}", self.namespace);
        let mut process = Process::spawn(&name, command, run.log(&name))?;
        until(format!("{pod} to listen"), PATIENCE, || {
            process.check_running()?;
            let listening = crate::command::run(host.namespace.command("ss").args(["-Hltn"]))?;
            let missing = self.addresses.iter().find(|address| {
                let at = SocketAddr::new(**address, self.port).to_string();
                !listening.lines().any(|line| line.split_whitespace().nth(3) == Some(at.as_str()))
            });
            missing.map_or(Ok(()), |address| Err(Error::unmet(format!("nothing listens on {address}"))))
        })?;
        Ok(process)
    }

    fn pod_name(&self, node: &str) -> String {
        format!("{}-{node}", self.service)
    }

    /// Changes how the pod of a node is published.
    pub fn set_readiness(&mut self, node: &str, readiness: Readiness) {
        if let Some(pod) = self.pods.get_mut(node) {
            pod.readiness = readiness;
        }
    }

    /// Ends the pod of a node.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn stop(&mut self, node: &str) -> Result<()> {
        self.pods.remove(node).map_or(Ok(()), |mut pod| pod.process.kill())
    }

    /// Writes the EndpointSlices, one a family, as the pods are now.
    ///
    /// # Errors
    /// When the API server refuses them.
    pub fn publish(&self, kubectl: &Kubectl) -> Result<()> {
        let items = [true, false].map(|v4| self.endpoint_slice(v4));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items });
        kubectl.apply(&list.to_string()).map(drop)
    }

    fn endpoint_slice(&self, v4: bool) -> Value {
        let family = if v4 { "IPv4" } else { "IPv6" };
        let endpoints = self.pods.iter().map(|(node, pod)| {
            let (ready, serving, terminating) = match pod.readiness {
                Readiness::Ready => (true, true, false),
                Readiness::Draining => (false, true, true),
                Readiness::NotReady => (false, false, false),
            };
            let number = pod.number;
            // In a cluster this is the pod's own address; the lab's pods live in their node's namespace.
            let address =
                if v4 { format!("10.244.{number}.10") } else { format!("fd00:10:244:{number}::10") };
            json!({
                "addresses": [address],
                "conditions": { "ready": ready, "serving": serving, "terminating": terminating },
                "nodeName": node,
                "targetRef": { "kind": "Pod", "namespace": self.namespace, "name": self.pod_name(node) },
            })
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": format!("{}-{}", self.service, family.to_lowercase()),
                "labels": {
                    "kubernetes.io/service-name": self.service,
                    "endpointslice.kubernetes.io/managed-by": "lab",
                },
            },
            "addressType": family,
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{ "name": "", "protocol": "TCP", "port": self.port }],
        })
    }
}
