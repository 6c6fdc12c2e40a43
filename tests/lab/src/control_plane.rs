//! The Kubernetes API server of a lab: a caller's cluster, the real `kube-apiserver` of `KUBEBUILDER_ASSETS`, or
//! the in-memory one of `tests/apiserver`, in this order.
//!
//! It is reached in two ways, each with its own kubeconfig: from the nodes over their network, and from the root
//! namespace on loopback through a `lab proxy`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    Error, Host, Kubectl, PATIENCE, Process, Result, Run, command, helpers, secs,
    topology::control_addresses, until,
};

const PORT: u16 = 6443;
const TOKEN: &str = "lab";
/// As large as kubeadm makes it: there is room for 100,000 Services.
const CLUSTER_IPS: &str = "10.96.0.0/12,fd00:10:96::/108";

/// Which control plane to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// The cluster of a kubeconfig that the caller passes on purpose.
    Kubeconfig(PathBuf),
    /// `etcd` and `kube-apiserver` from a folder (the envtest convention).
    Assets(PathBuf),
    /// The in-memory API server.
    InMemory,
}

impl Choice {
    /// The order of preference: a kubeconfig passed on purpose, `KUBEBUILDER_ASSETS`, in memory.
    pub fn from_environment(kubeconfig: Option<PathBuf>) -> Self {
        if let Some(path) = kubeconfig {
            return Self::Kubeconfig(path);
        }
        match std::env::var_os("KUBEBUILDER_ASSETS") {
            Some(folder) if !folder.is_empty() => Self::Assets(folder.into()),
            _ => Self::InMemory,
        }
    }
}

/// A running control plane.
#[derive(Debug)]
pub struct ControlPlane {
    choice: Choice,
    processes: Vec<Process>,
    nodes_kubeconfig: PathBuf,
    kubectl: Kubectl,
}

impl ControlPlane {
    /// Starts it on the machine `control` and waits until it answers on both ways.
    ///
    /// # Errors
    /// When a program is missing, ends, or does not answer in time.
    pub fn start(run: &Run, control: &Host, choice: Choice) -> Result<Self> {
        let folder = run.folder().join("control");
        fs::create_dir_all(&folder).map_err(Error::path(&folder))?;
        let address = SocketAddr::new(control_addresses().v4.into(), PORT);
        let mut processes = Vec::new();
        let (config, near) = match &choice {
            Choice::InMemory => in_memory(run, control, &folder, &mut processes)?,
            Choice::Assets(assets) => from_assets(run, control, &folder, assets, &mut processes)?,
            Choice::Kubeconfig(path) => external(run, control, path, address, &mut processes)?,
        };
        let nodes_kubeconfig = run.folder().join("nodes.kubeconfig");
        write_kubeconfig(&nodes_kubeconfig, &config, address)?;
        let kubeconfig = run.folder().join("kubeconfig");
        write_kubeconfig(&kubeconfig, &config, near)?;
        let kubectl = Kubectl::new(kubeconfig, run.folder());
        until("the API server to be ready", secs(90), || {
            processes.iter_mut().try_for_each(Process::check_running)?;
            kubectl.run(&["get", "--raw", "/readyz"])?;
            kubectl.run(&["get", "namespace", "default"])
        })?;
        Ok(Self { choice, processes, nodes_kubeconfig, kubectl })
    }

    /// What it is, in words.
    pub fn describe(&self) -> &'static str {
        match self.choice {
            Choice::Kubeconfig(_) => "the API server of your kubeconfig",
            Choice::Assets(_) => "the real kube-apiserver of KUBEBUILDER_ASSETS",
            Choice::InMemory => "an in-memory API server",
        }
    }

    /// `kubectl` for it, from the root namespace.
    pub fn kubectl(&self) -> &Kubectl {
        &self.kubectl
    }

    /// The kubeconfig for programs in the namespaces of nodes.
    pub fn nodes_kubeconfig(&self) -> &Path {
        &self.nodes_kubeconfig
    }

    /// Its programs: `apiserver` (or `etcd`, `kube-apiserver`) and the proxy, to pause or kill.
    pub fn process(&mut self, name: &str) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.name() == name)
    }
}

/// The parsed kubeconfig and the address to use from the root namespace.
type Started = (Value, SocketAddr);

fn in_memory(run: &Run, control: &Host, folder: &Path, processes: &mut Vec<Process>) -> Result<Started> {
    let written = folder.join("written.kubeconfig");
    let mut command = control.namespace.command(helpers::binary("apiserver")?);
    command.args(["--listen", &format!("0.0.0.0:{PORT}"), "--service-cidr", CLUSTER_IPS]);
    command.arg("--write-kubeconfig").arg(&written);
    processes.push(Process::spawn("apiserver", command, run.log("apiserver"))?);
    let config = until("the API server to write its kubeconfig", PATIENCE, || {
        processes.iter_mut().try_for_each(Process::check_running)?;
        read_kubeconfig(&written)
    })?;
    Ok((config, proxy_from_root(run, control, processes)?))
}

/// `etcd` and `kube-apiserver` with a fixed token for an administrator, in one namespace that nobody else sees.
fn from_assets(
    run: &Run,
    control: &Host,
    folder: &Path,
    assets: &Path,
    processes: &mut Vec<Process>,
) -> Result<Started> {
    let program = |name: &str| {
        let path = assets.join(name);
        let advice = "KUBEBUILDER_ASSETS has to be a folder with etcd and kube-apiserver".to_owned();
        if path.exists() {
            Ok(path)
        } else {
            Err(Error::Missing { what: path.display().to_string(), advice })
        }
    };
    let mut etcd = control.namespace.command(program("etcd")?);
    etcd.arg("--data-dir").arg(folder.join("etcd")).args(["--unsafe-no-fsync", "--log-level", "error"]);
    processes.push(Process::spawn("etcd", etcd, run.log("etcd"))?);
    let key = folder.join("service-account.key");
    command::run(Command::new("openssl").args(["genrsa", "-out"]).arg(&key).arg("2048"))?;
    let tokens = folder.join("tokens.csv");
    fs::write(&tokens, format!("{TOKEN},admin,admin,system:masters\n")).map_err(Error::path(&tokens))?;
    let mut server = control.namespace.command(program("kube-apiserver")?);
    server.arg("--cert-dir").arg(folder.join("certificates"));
    server.arg("--service-account-key-file").arg(&key).arg("--service-account-signing-key-file").arg(&key);
    server.arg("--token-auth-file").arg(&tokens);
    server.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--service-account-issuer=https://kubernetes.default.svc",
        &format!("--service-cluster-ip-range={CLUSTER_IPS}"),
        "--authorization-mode=RBAC",
        "--disable-admission-plugins=ServiceAccount",
        "--allow-privileged=true",
        &format!("--secure-port={PORT}"),
        &format!("--advertise-address={}", control.addresses.v4),
    ]);
    processes.push(Process::spawn("kube-apiserver", server, run.log("kube-apiserver"))?);
    // Signed by itself, for the name below among others.
    let certificate = folder.join("certificates/apiserver.crt");
    until("the API server's certificate", PATIENCE, || {
        processes.iter_mut().try_for_each(Process::check_running)?;
        crate::require!(certificate.exists(), "no {}", certificate.display());
        Ok::<_, Error>(())
    })?;
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "lab", "cluster": {
            "server": format!("https://kubernetes:{PORT}"), "certificate-authority": certificate,
        } }],
        "users": [{ "name": "admin", "user": { "token": TOKEN } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "admin" } }],
        "current-context": "lab",
    });
    Ok((config, proxy_from_root(run, control, processes)?))
}

/// Brings a cluster that the root namespace reaches to the nodes of the lab.
fn external(
    run: &Run,
    control: &Host,
    path: &Path,
    address: SocketAddr,
    processes: &mut Vec<Process>,
) -> Result<Started> {
    let config = read_kubeconfig(path)?;
    let server = config.pointer("/clusters/0/cluster/server").and_then(Value::as_str).unwrap_or_default();
    let authority = server.split("://").nth(1).unwrap_or(server).trim_end_matches('/');
    let with_port = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
        authority.to_owned()
    } else {
        format!("{authority}:443")
    };
    let mut resolved = std::net::ToSocketAddrs::to_socket_addrs(&with_port)
        .map_err(Error::io(format!("resolving {with_port} of {}", path.display())))?;
    let target = resolved.next().ok_or_else(|| Error::parse(with_port, "the name has no address"))?;
    let name = control.namespace.name();
    let arguments = ["--listen-in", name, "--listen", &address.to_string(), "--connect", &target.to_string()];
    proxy(run, control, &arguments, processes)?;
    Ok((config, target))
}

fn proxy_from_root(run: &Run, control: &Host, processes: &mut Vec<Process>) -> Result<SocketAddr> {
    let name = control.namespace.name();
    let target = SocketAddr::new(control.addresses.v4.into(), PORT).to_string();
    proxy(run, control, &["--listen", "127.0.0.1:0", "--connect-in", name, "--connect", &target], processes)
}

fn proxy(run: &Run, control: &Host, arguments: &[&str], processes: &mut Vec<Process>) -> Result<SocketAddr> {
    let ready = run.folder().join("proxy");
    let mut command = Command::new(helpers::binary("lab")?);
    command
        .arg("proxy")
        .args(arguments)
        .args(["--home", control.namespace.name()])
        .arg("--ready")
        .arg(&ready);
    let mut process = Process::spawn("proxy", command, run.log("proxy"))?;
    let address = until("the proxy to listen", PATIENCE, || {
        process.check_running()?;
        let text = fs::read_to_string(&ready).map_err(Error::path(&ready))?;
        text.parse().map_err(|error| Error::parse("the proxy", error))
    })?;
    processes.push(process);
    Ok(address)
}

fn read_kubeconfig(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).map_err(Error::path(path))?;
    let config = serde_norway::from_str::<Value>(&text)
        .map_err(|error| Error::parse(path.display().to_string(), error))?;
    match config.pointer("/clusters/0/cluster/server") {
        Some(_) => Ok(config),
        None => Err(Error::parse(path.display().to_string(), "no cluster with a server in it")),
    }
}

/// The same cluster under another address. Its certificate keeps being checked against the name that the
/// original kubeconfig has, unless that one did not check either.
fn write_kubeconfig(path: &Path, config: &Value, address: SocketAddr) -> Result<()> {
    let mut config = config.clone();
    let Some(cluster) = config.pointer_mut("/clusters/0/cluster").and_then(Value::as_object_mut) else {
        return Err(Error::parse(path.display().to_string(), "no cluster in it"));
    };
    let server = cluster.get("server").and_then(Value::as_str).unwrap_or_default().to_owned();
    let scheme = if server.starts_with("http://") { "http" } else { "https" };
    let authority = server.split("://").nth(1).unwrap_or(&server);
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']', '/']);
    let unchecked = cluster.get("insecure-skip-tls-verify").and_then(Value::as_bool).unwrap_or(false);
    if scheme == "https" && !unchecked && !cluster.contains_key("tls-server-name") {
        cluster.insert("tls-server-name".into(), host.into());
    }
    cluster.insert("server".into(), format!("{scheme}://{address}").into());
    let text = serde_norway::to_string(&config).map_err(|error| Error::parse("a kubeconfig", error))?;
    fs::write(path, text).map_err(Error::path(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_kubeconfig_checks_the_certificate_against_the_original_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let server = |server: &str| json!({ "clusters": [{ "cluster": { "server": server } }] });
        let moved = |config: Value| {
            write_kubeconfig(&path, &config, "127.0.0.1:1234".parse().unwrap()).unwrap();
            read_kubeconfig(&path).unwrap().pointer("/clusters/0/cluster").unwrap().clone()
        };
        let https = moved(server("https://api.example.org:6443"));
        assert_eq!(
            https,
            json!({ "server": "https://127.0.0.1:1234", "tls-server-name": "api.example.org" })
        );
        assert_eq!(moved(server("http://127.0.0.1:8080")), json!({ "server": "http://127.0.0.1:1234" }));
    }
}
