//! The BGP speaker against routers of other projects: a matrix of routers and abilities.
//!
//! A column is a folder of `tests/interop/routers`: how a router is configured (a template), started and asked
//! (`router.rs`), and what it cannot do (`lacks.txt`, with the reasons). `build.rs` finds them; nothing lists them.
//! A row is a line of `cells.txt` and a function of [`cells`]. Each cell has two network namespaces, a router and a
//! speaker of its own, asks the router for its view, and has its whole capture decoded by `tshark`.
//!
//! This crate speaks no BGP: the speaker is `bgp`, the namespaces and processes are those of `lab`.

pub mod cells;
mod link;
mod plan;
pub mod record;
pub mod report;
pub mod router;
mod scene;
mod speaker;
mod template;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

use lab::{Error, Result, Run};

pub use link::{Link, Muted};
pub use plan::{Dials, Plan};
pub use router::{CELLS, KINDS, Kind};
pub use scene::Scene;

/// What a cell stands on: the kind of router, and the run that everything of it belongs to.
#[derive(Debug)]
pub struct Ground {
    /// The kind of router.
    pub kind: &'static Kind,
    /// Removed at the end, on panic, and on a signal.
    pub run: Run,
    /// The program that announces as a process of its own.
    pub announcer: PathBuf,
    note: RefCell<Option<String>>,
}

impl Ground {
    /// Has something stand in the matrix behind the mark: what was measured.
    pub fn note(&self, note: String) {
        self.note.replace(Some(note));
    }
}

/// Runs one cell and records what came of it below `records`. `announcer` is the program of that name.
///
/// # Panics
/// When the cell fails, while its run still exists: so the ends of all logs are printed.
pub fn run(records: &Path, announcer: &Path, router: &str, cell: &str, body: fn(&Ground) -> Result<()>) {
    let kind = Kind::named(router);
    let prepare = || {
        let (run, announcer) = (Run::start()?, announcer.to_owned());
        Ok::<_, Error>(Ground { kind, run, announcer, note: RefCell::default() })
    };
    let ground = prepare().unwrap_or_else(|error| panic!("{router}: {error}"));
    let result = body(&ground);
    let note = ground.note.take().unwrap_or_default();
    if let Err(error) = record::write(records, kind, cell, &result, &note) {
        panic!("the record of {router} {cell}: {error}");
    }
    if let Err(error) = result {
        panic!("{} {cell}: {error}", kind.title);
    }
}
