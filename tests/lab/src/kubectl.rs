//! The real `kubectl`, pointed at the lab's API server and nowhere else.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::{
    Error, Result,
    command::{self, Outcome},
    until,
};

/// `kubectl` with the run's kubeconfig and its own cache.
#[derive(Debug, Clone)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    home: PathBuf,
}

impl Kubectl {
    /// For the cluster of a kubeconfig; `home` is a folder for its cache.
    pub fn new(kubeconfig: impl Into<PathBuf>, home: impl Into<PathBuf>) -> Self {
        Self { kubeconfig: kubeconfig.into(), home: home.into() }
    }

    /// The kubeconfig, to be used from the root namespace.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The command, ready to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut kubectl = Command::new("kubectl");
        kubectl.env("KUBECONFIG", &self.kubeconfig).env("HOME", &self.home);
        kubectl.env("KUBECACHEDIR", self.home.join("cache")).args(arguments);
        kubectl
    }

    /// Runs it and returns what it printed.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        command::run(&mut self.command(arguments))
    }

    /// Runs it whatever its exit status, to see a refusal.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn outcome(&self, arguments: &[&str], input: &str) -> Result<Outcome> {
        command::outcome_with_input(&mut self.command(arguments), input)
    }

    /// `kubectl apply -f -` with this text.
    ///
    /// # Errors
    /// When something of it is refused.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        command::run_with_input(&mut self.command(&["apply", "-f", "-"]), manifest)
    }

    /// Runs `kubectl get` with these words and `-o json`.
    ///
    /// # Errors
    /// When there is no such object.
    pub fn get(&self, words: &[&str]) -> Result<Value> {
        let shown = self.run(&[&["get", "-o", "json"], words].concat())?;
        serde_json::from_str(&shown)
            .map_err(|error| Error::parse(format!("kubectl get {}", words.join(" ")), error))
    }

    /// Waits until a condition holds for what `kubectl get` returns.
    ///
    /// # Errors
    /// When it does not hold in time; the last observation is the probe's.
    pub fn wait<T>(
        &self,
        what: &str,
        words: &[&str],
        timeout: Duration,
        mut probe: impl FnMut(&Value) -> Result<T>,
    ) -> Result<T> {
        until(what, timeout, || probe(&self.get(words)?))
    }
}
