//! What came of the cells of one test run, kept in files: each cell is a process of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use lab::{Error, Result};

use crate::Kind;

/// What came of a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It held; with what was measured, where something was.
    Passed(String),
    /// It did not.
    Failed,
    /// Nobody has run it in this test run.
    Missing,
}

/// The folder of this test run's records: nextest gives the run a name.
fn folder(records: &Path) -> PathBuf {
    records.join("interop").join(env::var("NEXTEST_RUN_ID").unwrap_or_else(|_| "by-hand".into()))
}

/// Records a cell, with what stands behind its mark.
///
/// # Errors
/// When the file cannot be written or the router does not say its version.
pub fn write(records: &Path, kind: &Kind, cell: &str, result: &Result<()>, note: &str) -> Result<()> {
    let folder = folder(records).join(kind.name);
    fs::create_dir_all(&folder).map_err(Error::path(&folder))?;
    let text = if result.is_ok() { format!("passed {note}") } else { "failed".to_owned() };
    fs::write(folder.join(cell), text).map_err(Error::path(&folder))
}

/// What came of a cell in this test run.
pub fn read(records: &Path, kind: &Kind, cell: &str) -> Outcome {
    match fs::read_to_string(folder(records).join(kind.name).join(cell)) {
        Ok(text) => match text.strip_prefix("passed ") {
            Some(note) => Outcome::Passed(note.to_owned()),
            None => Outcome::Failed,
        },
        Err(_) => Outcome::Missing,
    }
}

/// Forgets this test run.
pub fn remove(records: &Path) {
    // What is not there is forgotten already.
    let _ = fs::remove_dir_all(folder(records));
}
