//! One Linux network namespace: a node, a router, a client, or the fabric that joins them.
//!
//! Programs start in it through `ip netns exec`, so the very commands can be repeated by hand; sockets of our
//! own are opened in it by a thread that enters it.

use std::{
    fs::{self, File},
    process::Command,
    thread,
};

use nix::sched::{CloneFlags, setns};

use crate::{Error, Result, command};

/// A network namespace that exists until it is removed by the [`Run`](crate::Run) that it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates the namespace with loopback up.
    ///
    /// # Errors
    /// When a namespace of this name exists or the user may not create one.
    pub fn create(name: impl Into<String>) -> Result<Self> {
        let namespace = Self { name: name.into() };
        let _held = crate::run::making();
        command::run(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        for (key, value) in SYSCTLS {
            namespace.sysctl(key, value)?;
        }
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// A namespace that exists already.
    pub fn existing(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    /// The name under `/run/netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs `ip` commands inside, one a line, all in one go; the first failure ends it.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn ip(&self, lines: &str) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        command::run_with_input(&mut ip, &format!("{}\n", lines.trim())).map(drop).map_err(
            |error| match error {
                Error::Command { line, status, stderr } => {
                    Error::Command { line: format!("{line} <<< {lines:?}"), status, stderr }
                }
                other => other,
            },
        )
    }

    /// Runs one `ip` query inside and returns its output.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip_show(&self, arguments: &[&str]) -> Result<String> {
        command::run(Command::new("ip").args(["-n", &self.name]).args(arguments))
    }

    /// Sets a kernel parameter of this namespace, `net.ipv4.ip_forward` for example.
    ///
    /// # Errors
    /// When the kernel has no such parameter or refuses the value.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        self.enter(|| fs::write(&path, value))?.map_err(Error::io(format!("{key}={value} in {}", self.name)))
    }

    /// Runs `work` on a thread inside the namespace: sockets opened there stay there.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join()?;
                Ok(work())
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into the namespace, for good.
    ///
    /// # Errors
    /// When there is no such namespace or the user may not enter it.
    pub fn join(&self) -> Result<()> {
        let path = format!("/run/netns/{}", self.name);
        let handle = File::open(&path).map_err(Error::path(&path))?;
        setns(handle, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Io { what: format!("entering {path}"), source: errno.into() })
    }
}

/// What a lab needs of every namespace: addresses usable at once, no reverse-path filter in the way of
/// several equal paths, and no pacing between ends that share a processor.
const SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.conf.all.rp_filter", "0"),
    ("net.ipv4.conf.default.rp_filter", "0"),
    ("net.ipv4.ping_group_range", "0 2147483647"),
    ("net.ipv4.tcp_congestion_control", "reno"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
];
