//! The bars of the specification, measured: `make bench`, or `bench --only NAME`.
//!
//! Each benchmark prepares its surroundings once and runs several times; a figure is the median of the runs.
//! Figures are printed one a line (see [`figure`]) and written as JSON to `target/bench/NAME.json`. The exit
//! status is 0 only if no bar is SHORT and every benchmark could run.

mod benchmarks;
mod context;
mod control;
mod daemons;
mod figure;
mod fleet;
mod keepalived;
mod kernel_watch;
mod machine;
mod process;
mod report;
mod router_table;
mod site;
mod statistics;
mod subject;
mod subnet;
mod wire;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::{
    benchmarks::{ALL, Entry},
    context::Context,
    figure::{Figure, merge},
    machine::Machine,
};

/// Measures the bars of the specification.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Only the benchmarks of these names.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// How often each is run; the figures are medians.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// Lists the benchmarks and ends.
    #[arg(long)]
    list: bool,
    #[command(subcommand)]
    role: Option<PartOfABenchmark>,
}

/// What this program is when a benchmark starts it in a namespace.
#[derive(Debug, Subcommand)]
enum PartOfABenchmark {
    /// Who is measured on the wire.
    #[command(hide = true)]
    Subject(subject::Arguments),
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let outcome = match &arguments.role {
        None => measure(&arguments),
        Some(PartOfABenchmark::Subject(arguments)) => subject::run(arguments).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs what was asked for; whether every bar was reached.
fn measure(arguments: &Arguments) -> Result<bool> {
    let entries = select(&arguments.only)?;
    if arguments.list {
        for entry in entries {
            say(&format!("{}\n    {}", entry.names().collect::<Vec<_>>().join(", "), entry.about));
        }
        return Ok(true);
    }
    let context = Context::look()?;
    let machine = Machine::look();
    say(&machine.to_string());
    if cfg!(debug_assertions) {
        eprintln!("bench: this is a debug build, whose figures mean little: cargo build --release");
    }
    let mut all_reached = true;
    for entry in entries {
        match run(entry, &context, arguments.runs) {
            Ok(figures) => {
                figures.iter().for_each(|figure| say(&figure.to_string()));
                all_reached &= !figures.iter().any(Figure::is_short);
                report::write(&context.results(), &machine, (entry.name, entry.about), &figures)?;
            }
            Err(error) => {
                say(&format!("fail {} {}", entry.name, one_line(&error)));
                all_reached = false;
            }
        }
    }
    Ok(all_reached)
}

fn select(only: &[String]) -> Result<Vec<&'static Entry>> {
    let names = ALL.iter().flat_map(Entry::names).collect::<Vec<_>>();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no benchmark {unknown}; there are {}", names.join(", "));
    }
    let is_selected = |entry: &&Entry| {
        only.is_empty() || entry.names().any(|name| only.iter().any(|selected| selected == name))
    };
    Ok(ALL.iter().filter(is_selected).collect())
}

fn run(entry: &Entry, context: &Context, runs: u8) -> Result<Vec<Figure>> {
    eprintln!("{}: {}", entry.name, entry.about);
    let mut benchmark = (entry.prepare)(context)?;
    let mut samples = Vec::new();
    let runs = runs.min(benchmark.most_runs());
    for number in 1..=runs {
        eprintln!("{}: run {number} of {runs}", entry.name);
        samples.push(benchmark.run()?);
    }
    Ok(merge(samples))
}

fn one_line(error: &anyhow::Error) -> String {
    format!("{error:#}").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[expect(clippy::print_stdout, reason = "the figures are this program's output")]
fn say(line: &str) {
    println!("{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = select(&["bulk_1k".into()]).err().unwrap().to_string();
        assert!(
            error.starts_with("there is no benchmark bulk_1k") && error.contains("announce_10k"),
            "{error}"
        );
    }

    #[test]
    fn without_a_selection_everything_runs() {
        assert_eq!(select(&[]).unwrap().len(), ALL.len());
        assert_eq!(select(&["announce_10k".into()]).unwrap().len(), 1);
        assert_eq!(select(&["live_100k".into()]).unwrap()[0].name, "bulk_100k");
    }

    #[test]
    fn an_error_with_many_lines_becomes_one() {
        let error = anyhow::anyhow!("two\n  lines").context("reading");
        assert_eq!(one_line(&error), "reading: two lines");
    }
}
