//! The matrix in words: a Markdown table of what came of every cell, as printed and as kept in `docs/interop.md`.

use std::path::Path;

use crate::{
    CELLS, KINDS, Kind,
    record::{Outcome, read},
};

/// What stands above the table.
const HEAD: &str = "\
# Interoperability

Written by `make interop`: what the BGP speaker does with the routers of other projects, each cell played with the real
router in network namespaces, judged by the router's own view and by a capture that `tshark` decodes. Where a router
cannot do something, the number leads to the reason below the table.
";

/// The beginning of the line with names and versions.
const COLUMNS: &str = "| what is shown |";

/// What stands before a measurement in a cell.
const MEASURED: &str = "<sub>";

/// The matrix of one test run.
#[derive(Debug)]
pub struct Report {
    /// The whole document.
    pub document: String,
    /// `router::cell` of every cell that should have passed and did not.
    pub short: Vec<String>,
}

impl Report {
    /// From the records of this test run.
    pub fn of_this_run(records: &Path) -> Self {
        let versions = KINDS.iter().map(|kind| (kind.version)().unwrap_or_else(|error| error.to_string()));
        let titles = KINDS.iter().zip(versions).map(|(kind, version)| format!("{} {version}", kind.title));
        let titles = titles.collect::<Vec<_>>().join(" | ");
        let mut lines = vec![HEAD.to_owned(), format!("{COLUMNS} {titles} |")];
        lines.push(format!("|---|{}", ":-:|".repeat(KINDS.len())));
        let (mut short, mut reasons) = (Vec::new(), Vec::new());
        for (cell, title) in CELLS {
            let marks = KINDS.iter().map(|kind| mark(records, kind, cell, &mut short, &mut reasons));
            lines.push(format!("| {title} | {} |", marks.collect::<Vec<_>>().join(" | ")));
        }
        let numbered = (1..).zip(&reasons).map(|(number, reason)| format!("{number}. {reason}"));
        if !reasons.is_empty() {
            lines.push(String::new());
        }
        lines.extend(numbered);
        Self { document: lines.join("\n") + "\n", short }
    }
}

/// What stands in a cell; one that fell short, and the reason of one that cannot be, are noted.
fn mark(
    records: &Path,
    kind: &Kind,
    cell: &str,
    short: &mut Vec<String>,
    reasons: &mut Vec<String>,
) -> String {
    if let Some((_, reason)) = kind.lacks.iter().find(|(lacking, _)| *lacking == cell) {
        let reason = format!("{}: {reason}", kind.title);
        let known = reasons.iter().position(|known| *known == reason);
        let at = known.unwrap_or(reasons.len());
        if known.is_none() {
            reasons.push(reason);
        }
        return format!("({})", at + 1);
    }
    let outcome = read(records, kind, cell);
    if !matches!(outcome, Outcome::Passed(_)) {
        short.push(format!("{}::{cell}", kind.name));
    }
    match outcome {
        Outcome::Passed(note) if note.is_empty() => "✓".to_owned(),
        Outcome::Passed(note) => format!("✓ {MEASURED}{note}</sub>"),
        Outcome::Failed => "✗".to_owned(),
        Outcome::Missing => "?".to_owned(),
    }
}

/// The document without what differs between runs that are equally right: versions, and what was measured.
pub fn without_versions(document: &str) -> Vec<String> {
    let lines = document.lines().filter(|line| !line.starts_with(COLUMNS));
    let unmeasured = |cell: &str| cell.split(MEASURED).next().unwrap_or_default().trim().to_owned();
    lines.map(|line| line.split('|').map(unmeasured).collect::<Vec<_>>().join("|")).collect()
}
