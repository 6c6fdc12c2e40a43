//! The binary `lab`: the demo, the removal of runs, and the helper programs that run in namespaces.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use lab::{
    control_plane::Choice,
    demo,
    helpers::{echo, probe, proxy},
    run,
};

/// A little data centre from network namespaces, and the demo that runs in it.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows and verifies the main job: three nodes, two routers, a client.
    Demo {
        /// Leave it running to play with.
        #[arg(long)]
        keep: bool,
        /// Use this cluster instead of starting an API server.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
    /// Lists the runs on this machine.
    List,
    /// Ends and removes runs.
    Down {
        /// Their names, as `lab list` shows them.
        #[arg(required = true)]
        runs: Vec<String>,
    },
    /// Stands for a pod.
    #[command(hide = true)]
    Echo(echo::Arguments),
    /// Carries TCP connections between namespaces.
    #[command(hide = true)]
    Proxy(proxy::Arguments),
    /// Asks without end and writes down every attempt.
    #[command(hide = true)]
    Probe(probe::Arguments),
}

fn main() -> ExitCode {
    match dispatch(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "the list of runs is what was asked for")]
fn dispatch(command: Command) -> lab::Result<ExitCode> {
    match command {
        Command::Demo { keep, kubeconfig } => return demo::show(keep, Choice::from_environment(kubeconfig)),
        Command::List => run::list()?.iter().for_each(|name| println!("{name}")),
        Command::Down { runs } => runs.iter().try_for_each(|name| run::remove(name))?,
        Command::Echo(arguments) => echo::serve(arguments)?,
        Command::Proxy(arguments) => proxy::serve(arguments)?,
        Command::Probe(arguments) => probe::ask(&arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}
