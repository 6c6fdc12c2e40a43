//! Small programs that the lab runs inside its namespaces, each a subcommand of the binary `lab`: what stands for
//! a pod, what carries the API server's port across namespaces, and what measures a client's view.

pub mod echo;
pub mod probe;
pub mod proxy;

use std::path::PathBuf;

use crate::{Error, Result};

/// The folder that holds this build's binaries: that of the current executable, or the one above it for a
/// test, which cargo puts into `deps`.
///
/// # Errors
/// When the system does not say where the current executable is.
pub fn binaries_folder() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(Error::io("finding the current executable"))?;
    let folder = own.parent().unwrap_or(&own);
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// The path of one of this build's binaries.
///
/// # Errors
/// When it is not built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = binaries_folder()?.join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Error::Missing {
        what: path.display().to_string(),
        advice: "build it with `cargo build -p apiserver -p allocator -p agent -p lab -p ipam-file`".into(),
    })
}
