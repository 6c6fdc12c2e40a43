//! One run of the lab: its unique name, its folder, its namespaces, and the promise that nothing of it stays.
//!
//! Everything a run makes can be found by its name: namespaces are called `<run>-<host>`, every program runs in
//! one of them, every file is below the run's folder. So a run can be removed by anyone who knows the name: by
//! its owner at the end, on panic and on a signal, by `lab down`, and by the next run when the owner was killed.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, Once, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use crate::{Error, Namespace, Result, command, until};

/// Where runs keep their folders, whatever `TMPDIR` says: a run has to be found by other processes.
const RUNS: &str = "/run/purelb-lab";
const PREFIX: &str = "plb-";

/// The runs that this process must remove when it is told to end.
static ACTIVE: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Held for reading while a namespace or a program is being made, for writing by the removal that ends this
/// process: so that nothing appears behind its back.
static MAKING: RwLock<()> = RwLock::new(());

/// To be held while something is made that a run has to remove.
pub(crate) fn making() -> RwLockReadGuard<'static, ()> {
    MAKING.read().unwrap_or_else(PoisonError::into_inner)
}

/// A run of the lab. Dropping it removes everything, unless it was told to [`keep`](Run::keep).
#[derive(Debug)]
pub struct Run {
    name: String,
    folder: PathBuf,
    keep: bool,
}

impl Run {
    /// Starts a run under a name nobody uses, after removing what killed runs left behind.
    ///
    /// # Errors
    /// Without root, or when its folder cannot be made.
    pub fn start() -> Result<Self> {
        if !geteuid().is_root() {
            return Err(Error::Unsupported(
                "the lab builds network namespaces and needs root: run it with sudo".into(),
            ));
        }
        handle_signals();
        fs::create_dir_all(RUNS).map_err(Error::path(RUNS))?;
        sweep()?;
        loop {
            let name = format!("{PREFIX}{:04x}", rand::random::<u16>());
            let folder = Path::new(RUNS).join(&name);
            match fs::create_dir(&folder) {
                Ok(()) => return Self::claim(name, folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::path(&folder)(error)),
            }
        }
    }

    fn claim(name: String, folder: PathBuf) -> Result<Self> {
        active().insert(name.clone());
        let run = Self { name, folder, keep: false };
        // In one step: a run whose owner file is there but empty would look like one without an owner.
        fs::write(run.folder.join("owner.new"), own_identity()?).map_err(Error::path(&run.folder))?;
        fs::rename(run.folder.join("owner.new"), run.folder.join("owner"))
            .map_err(Error::path(&run.folder))?;
        // FRR's daemons run as their own user and need to reach their files.
        fs::set_permissions(&run.folder, fs::Permissions::from_mode(0o755))
            .map_err(Error::path(&run.folder))?;
        fs::create_dir(run.folder.join("logs")).map_err(Error::path(&run.folder))?;
        Ok(run)
    }

    /// The unique name, `plb-3fa9` for example.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of everything this run writes.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the output of a program called `name` goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.join("logs").join(format!("{name}.log"))
    }

    /// Creates a namespace of this run.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn namespace(&self, host: &str) -> Result<Namespace> {
        Namespace::create(format!("{}-{host}", self.name))
    }

    /// Leaves everything running when this process ends; `lab down NAME` removes it.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn keep(&mut self) -> Result<()> {
        fs::write(self.folder.join("kept"), "").map_err(Error::path(&self.folder))?;
        self.keep = true;
        active().remove(&self.name);
        Ok(())
    }

    /// The ends of all logs, for the message that says why something failed.
    pub fn log_tails(&self, lines: usize) -> String {
        let mut logs = fs::read_dir(self.folder.join("logs"))
            .map(|entries| entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>())
            .unwrap_or_default();
        logs.sort();
        let tails = logs.iter().filter_map(|log| {
            let tail = crate::process::tail(log, lines);
            let name = log.file_stem()?.to_string_lossy().into_owned();
            (!tail.is_empty()).then(|| format!("--- {name} ---\n{tail}\n"))
        });
        tails.collect()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.log_tails(20));
        }
        if let Err(error) = remove(&self.name) {
            eprintln!("{} could not be removed completely: {error}", self.name);
        }
        active().remove(&self.name);
    }
}

fn active() -> std::sync::MutexGuard<'static, BTreeSet<String>> {
    ACTIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes this process's runs when it is interrupted or asked to end, then ends it.
fn handle_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
            let Ok(signal) = runtime.and_then(|runtime| runtime.block_on(ending_signal())) else { return };
            let _nothing_more = MAKING.write().unwrap_or_else(PoisonError::into_inner);
            let names = active().clone();
            for name in &names {
                if let Err(error) = remove(name) {
                    eprintln!("{name} could not be removed completely: {error}");
                }
            }
            eprintln!("interrupted; everything of this run is removed");
            std::process::exit(128 + signal);
        });
    });
}

async fn ending_signal() -> io::Result<i32> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(2),
        _ = terminate.recv() => Ok(15),
        _ = hangup.recv() => Ok(1),
    }
}

/// The names of all runs on this machine, those of which only namespaces are left among them.
///
/// # Errors
/// When the folder of runs or the namespaces cannot be listed.
pub fn list() -> Result<BTreeSet<String>> {
    let folders = match fs::read_dir(RUNS) {
        Ok(entries) => {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::path(RUNS)(error)),
    };
    let namespaces = namespaces()?;
    let prefixes = namespaces.iter().filter_map(|name| name.get(..PREFIX.len() + 4)).map(str::to_owned);
    Ok(folders.into_iter().chain(prefixes).filter(|name| is_run_name(name)).collect())
}

fn is_run_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|hex| hex.len() == 4 && hex.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Ends every program of a run, removes its namespaces and its folder. Removing twice is fine.
///
/// # Errors
/// When the name is none of a run, or something resists.
pub fn remove(name: &str) -> Result<()> {
    if !is_run_name(name) {
        return Err(Error::unmet(format!("{name} is not the name of a run, which looks like {PREFIX}3fa9")));
    }
    let namespaces = namespaces_of(name)?;
    let mut ended = BTreeSet::new();
    until(format!("the programs of {name} to end"), Duration::from_secs(10), || {
        let running = running_in(&namespaces)?;
        for pid in &running {
            // Gone meanwhile is as good.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        ended.extend(&running);
        if running.is_empty() { Ok(()) } else { Err(Error::unmet(format!("pids {running:?} are running"))) }
    })?;
    for namespace in &namespaces {
        let deleted = command::run(Command::new("ip").args(["netns", "del", namespace]));
        // Another process may be sweeping the same run.
        if Path::new("/run/netns").join(namespace).exists() {
            deleted?;
        }
    }
    remove_frr_leftovers(&ended);
    match fs::remove_dir_all(Path::new(RUNS).join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::path(name)(error)),
        _ => Ok(()),
    }
}

fn namespaces() -> Result<Vec<String>> {
    let listed = command::run(Command::new("ip").args(["netns", "list"]))?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    Ok(names.filter(|name| name.starts_with(PREFIX)).map(str::to_owned).collect())
}

fn namespaces_of(run: &str) -> Result<Vec<String>> {
    let prefix = format!("{run}-");
    Ok(namespaces()?.into_iter().filter(|name| name.starts_with(&prefix)).collect())
}

/// The processes whose namespace is one of these. A zombie, which has none any more, does not count.
fn running_in(namespaces: &[String]) -> Result<BTreeSet<i32>> {
    use std::os::unix::fs::MetadataExt;
    let inodes = namespaces
        .iter()
        .filter_map(|name| fs::metadata(format!("/run/netns/{name}")).ok())
        .map(|metadata| metadata.ino())
        .collect::<BTreeSet<_>>();
    let processes = fs::read_dir("/proc").map_err(Error::path("/proc"))?.flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let inside = pids.filter(|pid| {
        fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|metadata| inodes.contains(&metadata.ino()))
    });
    Ok(inside.collect())
}

/// FRR's daemons keep a folder for crash logs under their process id and never remove it.
fn remove_frr_leftovers(pids: &BTreeSet<i32>) {
    for daemon in ["zebra", "staticd", "bgpd", "bfdd"] {
        for pid in pids {
            let _ = fs::remove_dir_all(format!("/var/tmp/frr/{daemon}.{pid}"));
        }
    }
}

/// Removes the runs whose owner is gone without having removed or kept them.
fn sweep() -> Result<()> {
    for name in list()? {
        let folder = Path::new(RUNS).join(&name);
        let owner = fs::read_to_string(folder.join("owner"));
        // A folder without an owner file is a run that starts at this moment. The folder comes before the first
        // namespace and goes after the last: namespaces without it belong to nobody.
        let is_orphan = owner.map_or_else(|_| !folder.exists(), |owner| !is_alive(&owner));
        if is_orphan && !folder.join("kept").exists() {
            remove(&name)?;
        }
    }
    Ok(())
}

/// This process as "pid start-time": a process id alone comes back sooner or later.
fn own_identity() -> Result<String> {
    let pid = std::process::id();
    let started = start_time(pid).ok_or_else(|| Error::parse("/proc/self/stat", "no start time"))?;
    Ok(format!("{pid} {started}"))
}

fn is_alive(identity: &str) -> bool {
    let mut words = identity.split_whitespace();
    let pid = words.next().and_then(|word| word.parse::<u32>().ok());
    pid.and_then(start_time).is_some_and(|started| words.next() == Some(started.as_str()))
}

fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may contain spaces and brackets; fields are counted after it. Start time is field 22.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_one_with_another_start_time_is_not() {
        let own = own_identity().unwrap();
        assert!(is_alive(&own), "{own}");
        assert!(!is_alive(&format!("{} 1", std::process::id())));
        assert!(!is_alive(""));
    }

    #[test]
    fn only_names_of_runs_can_be_removed() {
        assert!(is_run_name("plb-3fa9"));
        for name in ["", "plb-", "plb-../..", "plb-3fa", "plb-3fa99", "kl-3fa9"] {
            assert!(!is_run_name(name), "{name}");
        }
        assert!(remove("plb-../..").is_err());
    }

    #[test]
    fn two_runs_coexist_and_leave_nothing() {
        let (one, two) = (Run::start().unwrap(), Run::start().unwrap());
        let namespace = one.namespace("node1").unwrap();
        two.namespace("node1").unwrap();
        let mut sleep = namespace.command("sleep");
        sleep.arg("1000");
        let mut process = crate::Process::spawn("sleep", sleep, one.log("sleep")).unwrap();
        let (name, other) = (one.name().to_owned(), two.name().to_owned());
        drop(one);
        assert!(process.exit_status().unwrap().is_some(), "the program ended with the run");
        assert_eq!(namespaces_of(&name).unwrap(), Vec::<String>::new());
        assert!(!Path::new(RUNS).join(&name).exists());
        assert_eq!(namespaces_of(&other).unwrap(), [format!("{other}-node1")]);
        drop(two);
        assert_eq!(namespaces_of(&other).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_panic_removes_the_run() {
        let name = Mutex::new(String::new());
        let outcome = std::panic::catch_unwind(|| {
            let run = Run::start().unwrap();
            run.namespace("node1").unwrap();
            run.name().clone_into(&mut name.lock().unwrap());
            panic!("a failing test");
        });
        assert!(outcome.is_err());
        assert_eq!(namespaces_of(&name.lock().unwrap()).unwrap(), Vec::<String>::new());
    }
}
