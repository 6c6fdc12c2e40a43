//! A lab that is interrupted removes itself; one that is killed is removed by the next.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    process::{Child, Command, Stdio},
};

use lab::{Error, Run, helpers::binary, require, run, secs, until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Starts the demo, and waits until it has built its machines. Returns the name of its run, too.
fn start_demo() -> (Child, String) {
    let mut command = Command::new(binary("lab").unwrap());
    let child = command.arg("demo").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let owner = format!("{} ", child.id());
    let name = until("the machines of the demo", secs(20), || {
        let names = run::list()?;
        let is_own = |name: &&String| {
            let text = fs::read_to_string(format!("/run/purelb-lab/{name}/owner"));
            text.is_ok_and(|text| text.starts_with(&owner))
        };
        let name = names.iter().find(is_own).ok_or_else(|| Error::unmet("no run"))?;
        require!(namespaces(name) >= 4, "{} namespaces", namespaces(name));
        Ok::<_, Error>(name.clone())
    });
    (child, name.unwrap())
}

fn namespaces(run: &str) -> usize {
    let names = fs::read_dir("/run/netns").unwrap().flatten().map(|entry| entry.file_name());
    names.filter(|name| name.to_string_lossy().starts_with(&format!("{run}-"))).count()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn a_lab_that_is_told_to_end_removes_everything_first() {
    for how in [Signal::SIGINT, Signal::SIGTERM] {
        let (mut child, name) = start_demo();
        signal(&child, how);
        assert!(!child.wait().unwrap().success());
        assert_eq!(namespaces(&name), 0, "after {how}");
        assert!(!run::list().unwrap().contains(&name), "after {how}");
    }
}

#[test]
fn what_a_killed_lab_left_is_removed_by_the_next_one() {
    let (mut child, name) = start_demo();
    signal(&child, Signal::SIGKILL);
    child.wait().unwrap();
    assert_ne!(namespaces(&name), 0);
    drop(Run::start().unwrap());
    assert_eq!(namespaces(&name), 0);
    assert!(!run::list().unwrap().contains(&name));
}
