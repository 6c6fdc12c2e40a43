//! The matrix: a test for each cell of each router, made by `build.rs` from the folders, and the table at the end.

use std::path::Path;

use interop::{
    Ground, record,
    report::{Report, without_versions},
};
use lab::Result;

/// Where the cells of one test run leave what came of them.
const RECORDS: &str = env!("CARGO_TARGET_TMPDIR");

/// The document in the repository.
const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/interop.md");

include!(concat!(env!("OUT_DIR"), "/tests.rs"));

fn run(router: &str, cell: &str, body: fn(&Ground) -> Result<()>) {
    interop::run(Path::new(RECORDS), Path::new(env!("CARGO_BIN_EXE_announcer")), router, cell, body);
}

/// Runs behind all cells (`.config/nextest.toml`) and shows what came of them. `INTEROP_WRITE=1` writes the
/// document; else it has to be what this run found.
#[test]
fn the_document_shows_what_every_cell_of_this_run_found() {
    let report = Report::of_this_run(Path::new(RECORDS));
    record::remove(Path::new(RECORDS));
    println!("{}", report.document);
    assert!(report.short.is_empty(), "these cells did not pass in this run: {:?}", report.short);
    if std::env::var_os("INTEROP_WRITE").is_some() {
        std::fs::write(DOCUMENT, &report.document).unwrap();
    }
    let kept = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        without_versions(&kept) == without_versions(&report.document),
        "docs/interop.md differs from what this run found: write it with `make interop`"
    );
}
