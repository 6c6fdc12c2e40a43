//! What a router of the matrix can be asked and told, and where it runs. Each folder of `routers/` implements
//! [`Router`] for one kind.

use std::{collections::BTreeSet, fs, net::IpAddr, path::PathBuf, process::Command};

use bgp::{notification::Code, types::Family};
use ipnet::IpNet;
use lab::{Error, Namespace, PATIENCE, Process, Result, command, process, until};

use crate::template::Values;

include!(concat!(env!("OUT_DIR"), "/routers.rs"));

/// A kind of router: a column of the matrix.
#[derive(Debug)]
pub struct Kind {
    /// Its folder.
    pub name: &'static str,
    /// Its name for people.
    pub title: &'static str,
    /// Its version, as it says itself.
    pub version: fn() -> Result<String>,
    /// Starts one; returns when it can be asked.
    pub start: fn(Place) -> Result<Box<dyn Router>>,
    /// The cells that it cannot do, and why.
    pub lacks: &'static [(&'static str, &'static str)],
}

impl Kind {
    /// The kind with this folder.
    ///
    /// # Panics
    /// When there is none.
    pub fn named(name: &str) -> &'static Self {
        KINDS.iter().find(|kind| kind.name == name).expect("tests are made from the same folders")
    }
}

/// A route in a router's own table, in its own words made alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The global address, where there is a link-local one, too.
    pub next_hop: IpAddr,
    /// AS_PATH, nearest first.
    pub as_path: Vec<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// COMMUNITIES: `64512:1`.
    pub communities: BTreeSet<String>,
    /// EXTENDED COMMUNITIES: `rt:64512:5`.
    pub extended_communities: BTreeSet<String>,
    /// LARGE_COMMUNITIES: `64512:1:2`.
    pub large_communities: BTreeSet<String>,
}

/// A running router with one neighbour: the speaker.
pub trait Router {
    /// Whether its session with the speaker is up, in its own words otherwise.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn session_state(&self) -> Result<String>;

    /// What it has of a prefix from the speaker.
    ///
    /// # Errors
    /// When it cannot be asked or says what nobody here understands.
    fn route(&self, prefix: IpNet) -> Result<Option<Route>>;

    /// How many prefixes of a family it has from the speaker.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn prefix_count(&self, family: Family) -> Result<usize>;

    /// Whether it has seen End-of-RIB of a family.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn has_end_of_rib(&self, family: Family) -> Result<bool>;

    /// Whether it says that the speaker sent it this NOTIFICATION.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn has_received(&self, notification: Code) -> Result<bool>;

    /// Whether it says that it has sent the speaker this NOTIFICATION.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn has_sent(&self, notification: Code) -> Result<bool>;

    /// Whether it shows the text of a shutdown (RFC 9003) that the speaker sent.
    ///
    /// # Errors
    /// When it cannot be asked.
    fn has_shutdown_text(&self, text: &str) -> Result<bool>;

    /// The state of its BFD session with the speaker, in its own words.
    ///
    /// # Errors
    /// When it cannot be asked, or has none.
    fn bfd_state(&self) -> Result<String> {
        Err(Error::unmet("it speaks no BFD"))
    }

    /// Has it watch the path with BFD no longer, with its session left as it is.
    ///
    /// # Errors
    /// When it refuses.
    fn remove_bfd(&mut self) -> Result<()> {
        Err(Error::unmet("it speaks no BFD"))
    }

    /// Shuts its BFD down administratively (AdminDown).
    ///
    /// # Errors
    /// When it refuses.
    fn shut_bfd_down(&mut self) -> Result<()> {
        Err(Error::unmet("it speaks no BFD"))
    }

    /// Asks it to ask for all routes again.
    ///
    /// # Errors
    /// When it refuses.
    fn refresh(&mut self) -> Result<()>;

    /// Shuts the session down administratively, with a text for us (RFC 9003).
    ///
    /// # Errors
    /// When it refuses.
    fn shut_down(&mut self, text: &str) -> Result<()>;

    /// Ends it in an orderly way and starts it again with the same configuration.
    ///
    /// # Errors
    /// When it does not end, or not come back.
    fn restart(&mut self) -> Result<()>;

    /// The process that speaks BGP: to pause and resume.
    fn process(&mut self) -> &mut Process;
}

/// Where a router runs, and what it is told.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its namespace.
    pub namespace: Namespace,
    /// For its files: configuration, sockets.
    pub folder: PathBuf,
    /// For the outputs of its programs.
    pub logs: PathBuf,
    /// The speaker's address.
    pub speaker: IpAddr,
    /// What its template may name.
    pub values: Values,
}

impl Place {
    /// Writes a file filled in from a template, and returns its path.
    ///
    /// # Errors
    /// When the template names what there is not.
    pub fn write(&self, name: &str, template: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, self.values.fill(template)?).map_err(Error::path(&path))?;
        Ok(path)
    }

    /// A program of the router, to be started in its namespace.
    ///
    /// # Errors
    /// When it is not installed.
    pub fn program(&self, path: &str) -> Result<Command> {
        require_installed(path)?;
        Ok(self.namespace.command(path))
    }

    /// Starts a program with its log in the run's.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        Process::spawn(name, command, self.log(name))
    }

    /// Where a program's output goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    /// Whether a program has written these words.
    pub fn has_logged(&self, name: &str, words: &str) -> bool {
        process::tail(&self.log(name), usize::MAX).contains(words)
    }
}

/// Fails with advice when a program is not there.
///
/// # Errors
/// When it is not.
pub fn require_installed(path: &str) -> Result<()> {
    if std::path::Path::new(path).exists() {
        return Ok(());
    }
    Err(Error::Missing { what: path.into(), advice: "install it with tests/tools/install.sh interop".into() })
}

/// Waits until a command that asks a router succeeds.
///
/// # Errors
/// When it does not in time, or the router's process ends.
pub fn wait_answer(process: &mut Process, ask: impl Fn() -> Command) -> Result<()> {
    until(format!("{} to answer", process.name()), PATIENCE, || {
        process.check_running()?;
        command::run(&mut ask())
    })
    .map(drop)
}

/// The words behind a label at the beginning of a line.
pub fn labelled<'a>(shown: &'a str, label: &str) -> Option<&'a str> {
    shown.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim)
}
