//! The cluster of a lab: a control plane that knows the nodes and the custom resources, the allocator, and one
//! agent a node; started the way the chart starts them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    ControlPlane, Error, Host, Kubectl, PATIENCE, Process, Result, Run, Topology, control_plane::Choice,
    helpers, require, until,
};

/// The namespace of our own objects.
pub const INSTALL_NAMESPACE: &str = "purelb-system";

/// The name of the agents' DaemonSet.
pub const DAEMON_SET: &str = "lbnodeagent";

/// A control plane with nodes, and the programs under test.
#[derive(Debug)]
pub struct Cluster {
    /// The API server.
    pub control_plane: ControlPlane,
    allocator: Option<Process>,
    agents: BTreeMap<String, Process>,
    /// What agents that are started from now on find in their environment beside that.
    pub agent_environment: BTreeMap<String, String>,
}

impl Cluster {
    /// Starts the control plane and registers the custom resources and the nodes. Nothing of ours runs yet.
    ///
    /// # Errors
    /// When the control plane does not start or refuses something.
    pub fn start(run: &Run, topology: &Topology, choice: Choice) -> Result<Self> {
        let control_plane = ControlPlane::start(run, &topology.control, choice)?;
        let kubectl = control_plane.kubectl();
        apply_custom_resources(kubectl)?;
        let namespace = json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": INSTALL_NAMESPACE },
        });
        kubectl.apply(&namespace.to_string())?;
        register_nodes(kubectl, &topology.nodes)?;
        Ok(Self {
            control_plane,
            allocator: None,
            agents: BTreeMap::new(),
            // There is no DaemonSet, so that no agent follows one that is asked to end.
            agent_environment: [("PURELB_ON_SHUTDOWN".into(), "withdraw".into())].into(),
        })
    }

    /// `kubectl` for the cluster.
    pub fn kubectl(&self) -> &Kubectl {
        self.control_plane.kubectl()
    }

    /// Starts the allocator on the control plane's machine, and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or does not get ready in time.
    pub fn start_allocator(&mut self, run: &Run, control: &Host) -> Result<()> {
        self.spawn_allocator(run, control)?;
        wait_ready(self.allocator()?, control)
    }

    /// Starts the allocator on the control plane's machine; whoever calls it waits for what it needs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn_allocator(&mut self, run: &Run, control: &Host) -> Result<()> {
        let mut command = self.program(control, "allocator")?;
        command.env("PURELB_POD_NAME", "allocator-0");
        self.allocator = Some(Process::spawn("allocator", command, run.log("allocator"))?);
        Ok(())
    }

    /// Makes agents that are started from now on those of a DaemonSet, as the chart's are, which decide by themselves how
    /// they end.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn make_daemon_set(&mut self) -> Result<()> {
        self.kubectl().apply(&daemon_set(&json!({})).to_string())?;
        for (name, value) in [("PURELB_ON_SHUTDOWN", "auto"), ("PURELB_DAEMON_SET", DAEMON_SET)] {
            self.agent_environment.insert(name.into(), value.into());
        }
        Ok(())
    }

    /// Starts the agent of one node.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_agent(&mut self, run: &Run, node: &Host) -> Result<()> {
        let mut command = self.program(node, "lbnodeagent")?;
        command.env("PURELB_NODE_NAME", &node.name);
        command.env("PURELB_HEARTBEAT_KEY_FILE", heartbeat_key(run)?).envs(&self.agent_environment);
        let name = format!("{}-agent", node.name);
        let process = Process::spawn(&name, command, run.log(&name))?;
        self.agents.insert(node.name.clone(), process);
        Ok(())
    }

    /// Waits until the agent of a node says that it is ready.
    ///
    /// # Errors
    /// When it has ended or does not get ready in time.
    pub fn wait_agent_ready(&mut self, node: &Host) -> Result<()> {
        wait_ready(self.agent(&node.name)?, node)
    }

    /// A program of ours on a machine, with the environment that the chart gives it.
    fn program(&self, host: &Host, name: &str) -> Result<Command> {
        let mut command = host.namespace.command(helpers::binary(name)?);
        command.env("KUBECONFIG", self.control_plane.nodes_kubeconfig());
        command.env("PURELB_NAMESPACE", INSTALL_NAMESPACE);
        command.env("NO_COLOR", "1");
        Ok(command)
    }

    /// The running allocator.
    ///
    /// # Errors
    /// When it was never started.
    pub fn allocator(&mut self) -> Result<&mut Process> {
        self.allocator.as_mut().ok_or_else(|| Error::unmet("the allocator was not started"))
    }

    /// The agent of a node.
    ///
    /// # Errors
    /// When it was never started.
    pub fn agent(&mut self, node: &str) -> Result<&mut Process> {
        self.agents.get_mut(node).ok_or_else(|| Error::unmet(format!("no agent was started on {node}")))
    }
}

/// The agents' DaemonSet, for nodes with these labels. Nothing acts on it but the agents themselves.
pub fn daemon_set(node_selector: &Value) -> Value {
    let labels = json!({ "app": "purelb", "component": "lbnodeagent" });
    let containers = json!([{ "name": "lbnodeagent", "image": "lbnodeagent" }]);
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": { "name": DAEMON_SET, "namespace": INSTALL_NAMESPACE },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": {
                "metadata": { "labels": labels },
                "spec": { "containers": containers, "nodeSelector": node_selector },
            },
        },
    })
}

/// Waits until every node has heard all others on so many subnets: before, the first one to hear of an address of a
/// local pool takes it, and hands it over to the elected one as soon as they know each other.
///
/// # Errors
/// When they do not hear each other in time.
pub fn wait_acquainted(run: &Run, nodes: &[Host], subnets: usize) -> Result<()> {
    nodes.iter().try_for_each(|node| {
        until(format!("{} to hear the others", node.name), PATIENCE, || {
            let path = run.log(&format!("{}-agent", node.name));
            let log = fs::read_to_string(&path).map_err(Error::path(&path))?;
            for other in nodes.iter().filter(|other| other.name != node.name) {
                let heard = format!("node={} is_ready=true", other.name);
                let lines =
                    log.lines().filter(|line| line.contains(": alive subnet=") && line.ends_with(&heard));
                require!(lines.count() >= subnets, "{} is not heard on {subnets} subnets", other.name);
            }
            Ok(())
        })
    })
}

/// The file with the key of heartbeats, as the chart's Secret is mounted.
fn heartbeat_key(run: &Run) -> Result<PathBuf> {
    let path = run.folder().join("heartbeat-key");
    fs::write(&path, "the lab's nodes sign with this key\n").map_err(Error::path(&path))?;
    Ok(path)
}

fn wait_ready(process: &mut Process, host: &Host) -> Result<()> {
    until(format!("{} to be ready", process.name()), PATIENCE, || {
        process.check_running()?;
        let url = format!("http://{}:7472/readyz", host.addresses.v4);
        crate::command::run(host.namespace.command("curl").args(["-sS", "--fail", "--max-time", "2", &url]))
    })
    .map(drop)
}

/// The root of the source tree, for the chart's files and the manifests.
pub fn source_root() -> PathBuf {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_folder.ancestors().nth(2).unwrap_or(crate_folder).to_owned()
}

/// Applies the chart's CRD files and waits until the API server serves them.
fn apply_custom_resources(kubectl: &Kubectl) -> Result<()> {
    let folder = source_root().join("charts/purelb/crds");
    let entries = fs::read_dir(&folder).map_err(Error::path(&folder))?;
    let files = entries.flatten().map(|entry| entry.path().display().to_string()).collect::<Vec<_>>();
    let arguments = files.iter().flat_map(|file| ["-f", file.as_str()]);
    // Server side: such schemas do not fit the annotation that a client-side apply keeps.
    kubectl.run(&["apply", "--server-side"].into_iter().chain(arguments).collect::<Vec<_>>())?;
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    until("kubectl to know the custom resources", PATIENCE, || {
        kubectl.run(&["get", "servicegroups,bgppeers,bgpnodestatuses", "-A"])
    })
    .map(drop)
}

/// Nodes as their kubelets would register them.
fn register_nodes(kubectl: &Kubectl, nodes: &[Host]) -> Result<()> {
    let objects = nodes.iter().map(|node| {
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": node.name,
                "labels": { "kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux" },
            },
        })
    });
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>() });
    kubectl.apply(&list.to_string())?;
    nodes.iter().try_for_each(|node| {
        let status = node_status(node).to_string();
        kubectl
            .run(&["patch", "node", &node.name, "--subresource=status", "--type=merge", "-p", &status])
            .map(drop)
    })
}

fn node_status(node: &Host) -> Value {
    json!({ "status": {
        "addresses": [
            { "type": "InternalIP", "address": node.addresses.v4 },
            { "type": "InternalIP", "address": node.addresses.v6 },
            { "type": "Hostname", "address": node.name },
        ],
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the lab says so",
            "lastHeartbeatTime": jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
            "lastTransitionTime": jiff::Timestamp::now().strftime("%FT%TZ").to_string(),
        }],
        "nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "none://0", "kernelVersion": "",
            "kubeProxyVersion": "", "kubeletVersion": "v1.33.0", "machineID": "", "operatingSystem": "linux",
            "osImage": "a network namespace", "systemUUID": "",
        },
    }})
}
