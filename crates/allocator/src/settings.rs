//! Settings: defaults, then a file, then the environment (`PURELB_*`), then the command line.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use api::names::{INSTALL_NAMESPACE, PURELB};
use clap::Parser;
use config::{Config, ConfigError, Environment, File};
use serde::Deserialize;
use telemetry::LogFormat;

/// The command line. What is absent comes from the environment, a file, or the defaults.
#[derive(Parser, Debug, Default)]
#[command(
    name = "allocator",
    version,
    about = "Gives addresses from ServiceGroups to Services of type LoadBalancer"
)]
pub struct Arguments {
    /// YAML file of settings, in lower case with underscores, for example `default_announcer: PureLB`.
    #[arg(long, env = "PURELB_CONFIG")]
    pub config: Option<PathBuf>,
    /// Namespace of ServiceGroups and of the Lease [env: PURELB_NAMESPACE] [default: purelb-system]
    #[arg(long)]
    pub namespace: Option<String>,
    /// Services without a class are ours while this is PureLB [env: PURELB_DEFAULT_ANNOUNCER] [default: PureLB]
    #[arg(long)]
    pub default_announcer: Option<String>,
    /// Address of /metrics, /healthz and /readyz [env: PURELB_METRICS_ADDRESS] [default: [::]:7472]
    #[arg(long)]
    pub metrics_address: Option<String>,
    /// What is logged, as `info` or `info,allocator=debug` [env: PURELB_LOG_FILTER] [default: info]
    #[arg(long)]
    pub log_filter: Option<String>,
    /// How it is logged: text or json [env: PURELB_LOG_FORMAT] [default: text]
    #[arg(long)]
    pub log_format: Option<String>,
    /// Name of this replica in the Lease and in events [env: PURELB_POD_NAME] [default: the host's name]
    #[arg(long)]
    pub pod_name: Option<String>,
}

/// The settings.
#[derive(Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Namespace of ServiceGroups and of the Lease.
    pub namespace: String,
    /// Services without a class are ours while this is `PureLB`.
    pub default_announcer: String,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub metrics_address: SocketAddr,
    /// What is logged.
    pub log_filter: String,
    /// How it is logged.
    pub log_format: LogFormat,
    /// Name of this replica.
    pub pod_name: String,
    /// How long the Lease holds without being renewed.
    pub lease_duration_ms: u64,
    /// How long its holder tries to renew it before it stops all writes; shorter than `lease_duration_ms`.
    pub renew_deadline_ms: u64,
    /// How long between attempts to renew or to acquire it.
    pub retry_period_ms: u64,
    /// How many writes are under way at once.
    pub write_concurrency: usize,
}

/// Least difference between `lease_duration_ms` and `renew_deadline_ms`.
const SHORTEST_SLACK_MS: u64 = 250;

impl Settings {
    /// Reads them all. Errors name the setting.
    pub fn load(arguments: &Arguments) -> Result<Settings, ConfigError> {
        Settings::from(arguments, Environment::with_prefix("PURELB").try_parsing(true))
    }

    fn from(arguments: &Arguments, environment: Environment) -> Result<Settings, ConfigError> {
        let mut builder = Config::builder()
            .set_default("namespace", INSTALL_NAMESPACE)?
            .set_default("default_announcer", PURELB)?
            .set_default("metrics_address", format!("[::]:{}", api::names::METRICS_PORT))?
            .set_default("log_filter", "info")?
            .set_default("log_format", "text")?
            .set_default("pod_name", host_name())?
            .set_default("lease_duration_ms", 15_000)?
            .set_default("renew_deadline_ms", 10_000)?
            .set_default("retry_period_ms", 2_000)?
            .set_default("write_concurrency", 32)?;
        if let Some(path) = &arguments.config {
            builder = builder.add_source(File::from(path.as_path()));
        }
        let settings: Settings = builder
            .add_source(environment)
            .set_override_option("namespace", arguments.namespace.clone())?
            .set_override_option("default_announcer", arguments.default_announcer.clone())?
            .set_override_option("metrics_address", arguments.metrics_address.clone())?
            .set_override_option("log_filter", arguments.log_filter.clone())?
            .set_override_option("log_format", arguments.log_format.clone())?
            .set_override_option("pod_name", arguments.pod_name.clone())?
            .build()?
            .try_deserialize()?;
        settings.check()
    }

    fn check(self) -> Result<Settings, ConfigError> {
        let wrong = |text: &str| Err(ConfigError::Message(text.to_owned()));
        if self.renew_deadline_ms >= self.lease_duration_ms {
            return wrong(
                "renew_deadline_ms must be shorter than lease_duration_ms: else two replicas may write",
            );
        }
        if self.lease_duration_ms - self.renew_deadline_ms < SHORTEST_SLACK_MS {
            return wrong(
                "lease_duration_ms must be at least 250 ms longer than renew_deadline_ms: a write needs that time \
                 to arrive",
            );
        }
        if self.retry_period_ms == 0 || self.retry_period_ms >= self.renew_deadline_ms {
            return wrong("retry_period_ms must be more than 0 and shorter than renew_deadline_ms");
        }
        if self.write_concurrency == 0 {
            return wrong("write_concurrency must be at least 1");
        }
        Ok(self)
    }

    /// Whether Services without a class are ours.
    pub fn is_default_class(&self) -> bool {
        self.default_announcer == PURELB
    }

    /// See [`Settings::lease_duration_ms`].
    pub fn lease_duration(&self) -> Duration {
        Duration::from_millis(self.lease_duration_ms)
    }

    /// See [`Settings::renew_deadline_ms`].
    pub fn renew_deadline(&self) -> Duration {
        Duration::from_millis(self.renew_deadline_ms)
    }

    /// How long a request may be on its way to the API server, and how long there: what is sent in the last moment
    /// of a tenure is done with before another one begins.
    pub fn delivery(&self) -> Duration {
        (self.lease_duration() - self.renew_deadline()) * 2 / 5
    }

    /// See [`Settings::retry_period_ms`].
    pub fn retry_period(&self) -> Duration {
        Duration::from_millis(self.retry_period_ms)
    }
}

fn host_name() -> String {
    let name = std::env::var("HOSTNAME").ok().or_else(|| std::fs::read_to_string("/etc/hostname").ok());
    name.map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "allocator".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment::with_prefix("PURELB").try_parsing(true).source(Some(map))
    }

    #[test]
    fn the_command_line_beats_the_environment_which_beats_the_defaults() {
        let env = environment(&[("PURELB_NAMESPACE", "lb"), ("PURELB_DEFAULT_ANNOUNCER", "Other")]);
        let arguments = Arguments { default_announcer: Some("PureLB".into()), ..Arguments::default() };
        let settings = Settings::from(&arguments, env).unwrap();
        assert_eq!(settings.namespace, "lb");
        assert!(settings.is_default_class());
        assert_eq!(settings.metrics_address.port(), 7472);
    }

    #[test]
    fn settings_that_would_let_two_replicas_write_are_refused() {
        let env = environment(&[("PURELB_LEASE_DURATION_MS", "5000")]);
        let error = Settings::from(&Arguments::default(), env).unwrap_err().to_string();
        assert!(error.contains("renew_deadline_ms"), "{error}");
    }

    #[test]
    fn an_unreadable_setting_is_named() {
        let env = environment(&[("PURELB_LOG_FORMAT", "xml")]);
        let error = Settings::from(&Arguments::default(), env).unwrap_err().to_string();
        assert!(error.contains("xml"), "{error}");
    }
}
