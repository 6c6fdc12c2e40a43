//! Settings: defaults, then a file, then the environment (`PURELB_*`), then the command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use api::{
    GoDuration,
    names::{INSTALL_NAMESPACE, METRICS_PORT, PURELB},
};
use clap::{Parser, Subcommand};
use serde::Deserialize;
use telemetry::LogFormat;

/// What a command line can say.
#[derive(Debug, Parser)]
#[command(name = "lbnodeagent", version, about = "PureLB's node agent: addresses and routes of this node")]
pub struct CommandLine {
    /// What to do; without it, the agent runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A YAML file with settings, in snake_case as in the environment without PURELB_
    #[arg(long, global = true, env = "PURELB_CONFIG")]
    pub config: Option<PathBuf>,
    /// Name of this node [env: PURELB_NODE_NAME]
    #[arg(long, global = true)]
    node_name: Option<String>,
    /// Namespace of ServiceGroups, LBNodeAgents, BGPPeers and BGPNodeStatuses [env: PURELB_NAMESPACE]
    #[arg(long)]
    namespace: Option<String>,
    /// Interface for the addresses of remote pools [env: PURELB_DUMMY_INTERFACE]
    #[arg(long)]
    dummy_interface: Option<String>,
    /// TCP port on which BGP peers are awaited: passive ones, and with --bgp-listen others [env: PURELB_BGP_PORT]
    #[arg(long)]
    bgp_port: Option<u16>,
    /// Awaits BGP peers that are not passive, too: true or false [env: PURELB_BGP_LISTEN]
    #[arg(long)]
    bgp_listen: Option<bool>,
    /// Address and port of /metrics, /healthz and /readyz [env: PURELB_METRICS_ADDRESS]
    #[arg(long)]
    metrics_address: Option<SocketAddr>,
    /// What to log, as info or info,bgp=debug [env: PURELB_LOG_FILTER]
    #[arg(long)]
    log_filter: Option<String>,
    /// text or json [env: PURELB_LOG_FORMAT]
    #[arg(long)]
    log_format: Option<String>,
    /// On SIGTERM: withdraw (for good), keep (addresses stay, another agent follows), or auto, which is what the Node and
    /// the DaemonSet say [env: PURELB_ON_SHUTDOWN]
    #[arg(long)]
    on_shutdown: Option<String>,
}

/// What the program can do beside running.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Prints what a node would hold and announce, from recorded objects; touches nothing
    Plan {
        /// A JSON list: kubectl get services,endpointslices,nodes,servicegroups,bgppeers,lbnodeagents,leases -A -o json
        #[arg(long)]
        inputs: PathBuf,
    },
}

/// The shortest time between two announcements of an address that is only held.
const LEAST_GARP_REFRESH: Duration = Duration::from_secs(1);

/// Who waits longer is killed before it has withdrawn anything.
const MOST_DRAIN_WAIT: Duration = Duration::from_secs(60);

/// What to do on SIGTERM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnShutdown {
    /// What the Node and the agent's DaemonSet say: see [`crate::shutdown::decide`].
    Auto,
    /// Routes are marked as about to leave, then sessions end with Cease/Administrative Shutdown and addresses are
    /// removed.
    Withdraw,
    /// Sessions end the graceful-restart way, addresses stay for the next agent.
    Keep,
}

/// How the agent runs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Settings {
    /// Name of this node.
    pub node_name: String,
    /// UID of this pod; empty where it is none.
    pub pod_uid: String,
    /// Namespace of our own objects.
    pub namespace: String,
    /// Name of the DaemonSet in that namespace that this agent is of; empty where it is of none.
    pub daemon_set: String,
    /// With `PureLB`, Services without a class are ours.
    pub default_announcer: String,
    /// Interface for the addresses of remote pools, where no LBNodeAgent says otherwise.
    pub dummy_interface: String,
    /// Port on which peers are awaited.
    pub bgp_port: u16,
    /// Whether peers are awaited while none is passive: a CNI that speaks BGP may need the port.
    pub bgp_listen: bool,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    pub metrics_address: SocketAddr,
    /// A filter of `tracing`.
    pub log_filter: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// How long an address stays when no endpoint on this node serves it any more.
    pub linger: GoDuration,
    /// How long a route with policy Local may wait for kube-proxy; 0s: not at all.
    pub kube_proxy_wait: GoDuration,
    /// How long a change of endpoints is waited out before a route's link bandwidth follows.
    pub weight_damping: GoDuration,
    /// What to do on SIGTERM.
    pub on_shutdown: OnShutdown,
    /// How long routers have to take other ways before an agent that ends for good withdraws its routes; 0s: none.
    pub drain_wait: GoDuration,
    /// Local addresses are announced once more each so often, as long as they are held; 0s: not at all.
    pub garp_refresh: GoDuration,
    /// Between two heartbeats.
    pub heartbeat_interval: GoDuration,
    /// Heartbeats that may be missed before the others are asked.
    pub heartbeat_multiplier: u8,
    /// UDP port of heartbeats, the same on all nodes.
    pub heartbeat_port: u16,
    /// File with the keys of heartbeats, one a line; empty: there are none, and no heartbeats.
    pub heartbeat_key_file: String,
}

impl Settings {
    /// Merges everything.
    pub fn load(line: &CommandLine) -> anyhow::Result<Settings> {
        let environment = config::Environment::with_prefix("PURELB").prefix_separator("_").try_parsing(false);
        Settings::merge(line, environment)
    }

    fn merge(line: &CommandLine, environment: config::Environment) -> anyhow::Result<Settings> {
        let mut builder = config::Config::builder()
            .set_default("node_name", "")?
            .set_default("pod_uid", "")?
            .set_default("namespace", INSTALL_NAMESPACE)?
            .set_default("daemon_set", "")?
            .set_default("default_announcer", PURELB)?
            .set_default("dummy_interface", "kube-lb0")?
            .set_default("bgp_port", 179)?
            .set_default("bgp_listen", false)?
            .set_default("metrics_address", format!("[::]:{METRICS_PORT}"))?
            .set_default("log_filter", "info")?
            .set_default("log_format", "text")?
            .set_default("linger", "5s")?
            .set_default("kube_proxy_wait", "2s")?
            .set_default("weight_damping", "10s")?
            .set_default("on_shutdown", "auto")?
            .set_default("drain_wait", "2s")?
            .set_default("garp_refresh", "0s")?
            .set_default("heartbeat_interval", "100ms")?
            .set_default("heartbeat_multiplier", 5)?
            .set_default("heartbeat_port", 7473)?
            .set_default("heartbeat_key_file", "")?;
        if let Some(path) = &line.config {
            builder = builder.add_source(config::File::from(path.as_path()).format(config::FileFormat::Yaml));
        }
        let settings: Settings = builder
            .add_source(environment)
            .set_override_option("node_name", line.node_name.clone())?
            .set_override_option("namespace", line.namespace.clone())?
            .set_override_option("dummy_interface", line.dummy_interface.clone())?
            .set_override_option("bgp_port", line.bgp_port)?
            .set_override_option("bgp_listen", line.bgp_listen)?
            .set_override_option("metrics_address", line.metrics_address.map(|address| address.to_string()))?
            .set_override_option("log_filter", line.log_filter.clone())?
            .set_override_option("log_format", line.log_format.clone())?
            .set_override_option("on_shutdown", line.on_shutdown.clone())?
            .build()
            .and_then(config::Config::try_deserialize)
            .context("reading the settings")?;
        anyhow::ensure!(
            !settings.node_name.is_empty(),
            "the name of this node is not set: pass --node-name, or PURELB_NODE_NAME from spec.nodeName"
        );
        let refresh = settings.garp_refresh;
        anyhow::ensure!(
            settings.garp_refresh().is_none_or(|refresh| refresh >= LEAST_GARP_REFRESH),
            "PURELB_GARP_REFRESH is {refresh}: expected 0s, which is off, or 1s or more"
        );
        let drain = settings.drain_wait;
        anyhow::ensure!(
            drain.0 <= MOST_DRAIN_WAIT,
            "PURELB_DRAIN_WAIT is {drain}: expected 1m or less, and below the pod's terminationGracePeriodSeconds"
        );
        Ok(settings)
    }

    /// After how long a local address that is held is announced once more, and again; `None`: not at all.
    pub fn garp_refresh(&self) -> Option<Duration> {
        Some(self.garp_refresh.0).filter(|refresh| !refresh.is_zero())
    }

    /// How heartbeats are run; `None` where there is no key, which is said: then only Leases say who lives.
    ///
    /// # Errors
    ///
    /// Interval or multiplier cannot work. A key that cannot be read is none.
    pub fn heartbeats(&self) -> anyhow::Result<Option<heartbeat::Config>> {
        let interval = self.heartbeat_interval.0;
        let config = |keys| {
            heartbeat::Config::new(interval, self.heartbeat_multiplier, keys)
                .context("reading PURELB_HEARTBEAT_INTERVAL and PURELB_HEARTBEAT_MULTIPLIER")
        };
        let file = &self.heartbeat_key_file;
        let keys = if file.is_empty() {
            Err("PURELB_HEARTBEAT_KEY_FILE is not set".to_owned())
        } else {
            let text = std::fs::read(file).map_err(|error| format!("{file} cannot be read: {error}"));
            text.and_then(|text| heartbeat::Keys::parse(&text).map_err(|error| format!("{file}: {error}")))
        };
        match keys {
            Ok(keys) => config(keys).map(Some),
            Err(error) => {
                tracing::error!(
                    error,
                    "NO HEARTBEATS: that a node died is seen only when its Lease ends, after up to 50 s. Mount a Secret \
                     with a key of 16 characters or more, the same on all nodes, and name the file"
                );
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Settings> {
        let line = CommandLine::try_parse_from([&["lbnodeagent"], arguments].concat())?;
        let variables = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let source = config::Environment::with_prefix("PURELB").prefix_separator("_").source(Some(variables));
        Settings::merge(&line, source)
    }

    #[test]
    fn defaults_suit_a_pod_that_knows_its_node() {
        let settings = load(&[], &[("PURELB_NODE_NAME", "n1")]).unwrap();
        assert_eq!((settings.node_name.as_str(), settings.namespace.as_str()), ("n1", "purelb-system"));
        assert_eq!(settings.metrics_address, "[::]:7472".parse().unwrap());
        assert_eq!((settings.bgp_port, settings.on_shutdown), (179, OnShutdown::Auto));
        assert_eq!(settings.drain_wait, GoDuration::from_secs(2));
        assert!(!settings.bgp_listen, "a CNI may need the port");
        assert!(load(&[], &[("PURELB_NODE_NAME", "n1"), ("PURELB_BGP_LISTEN", "true")]).unwrap().bgp_listen);
    }

    #[test]
    fn announcements_are_repeated_only_where_it_is_asked_for_and_not_too_often() {
        let run = |value| load(&["--node-name", "n1"], &[("PURELB_GARP_REFRESH", value)]);
        assert_eq!(load(&["--node-name", "n1"], &[]).unwrap().garp_refresh(), None);
        assert_eq!(run("0s").unwrap().garp_refresh(), None);
        assert_eq!(run("1m").unwrap().garp_refresh(), Some(Duration::from_mins(1)));
        let error = run("999ms").unwrap_err().to_string();
        assert!(error.contains("999ms: expected 0s"), "{error}");
    }

    #[test]
    fn routers_are_waited_for_no_longer_than_a_pod_lives() {
        let run = |value| load(&["--node-name", "n1"], &[("PURELB_DRAIN_WAIT", value)]);
        assert_eq!(run("0s").unwrap().drain_wait.0, Duration::ZERO);
        let error = run("61s").unwrap_err().to_string();
        assert!(error.contains("expected 1m or less"), "{error}");
    }

    #[test]
    fn the_command_line_beats_the_environment_which_beats_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "namespace: file\ndummy_interface: file\nlinger: 9s\n").unwrap();
        let settings = load(
            &["--config", file.path().to_str().unwrap(), "--namespace", "line", "--node-name", "n1"],
            &[("PURELB_NAMESPACE", "environment"), ("PURELB_DUMMY_INTERFACE", "environment")],
        )
        .unwrap();
        assert_eq!((settings.namespace.as_str(), settings.dummy_interface.as_str()), ("line", "environment"));
        assert_eq!(settings.linger, GoDuration::from_secs(9));
    }

    #[test]
    fn heartbeats_need_a_key_that_can_be_read_and_values_that_work() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "a key of more than 16 characters\n").unwrap();
        let path = file.path().to_str().unwrap();
        let run = |key: &str, variable: &str, value: &str| {
            let environment = [("PURELB_HEARTBEAT_KEY_FILE", key), (variable, value)];
            load(&["--node-name", "n1"], &environment).unwrap().heartbeats()
        };
        let config = run(path, "PURELB_LINGER", "5s").unwrap().unwrap();
        assert_eq!(config.detection_time(), std::time::Duration::from_millis(500));
        let slow = run(path, "PURELB_HEARTBEAT_INTERVAL", "1s").unwrap().unwrap();
        assert_eq!(slow.detection_time(), std::time::Duration::from_secs(5));
        let error = run(path, "PURELB_HEARTBEAT_INTERVAL", "1ms").unwrap_err();
        assert!(format!("{error:#}").contains("expected 10ms to 10s"), "{error:#}");
        assert!(run("", "PURELB_LINGER", "5s").unwrap().is_none());
        assert!(run("/nonexistent/key", "PURELB_LINGER", "5s").unwrap().is_none());
        std::fs::write(file.path(), "short").unwrap();
        assert!(run(path, "PURELB_LINGER", "5s").unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(load(&[], &[]).unwrap_err().to_string().contains("--node-name"));
        for (variable, value) in [
            ("PURELB_BGP_PORT", "x"),
            ("PURELB_BGP_LISTEN", "x"),
            ("PURELB_ON_SHUTDOWN", "x"),
            ("PURELB_LINGER", "5"),
        ] {
            assert!(load(&["--node-name", "n1"], &[(variable, value)]).is_err(), "{variable}");
        }
    }
}
