//! What every benchmark is given: where the programs under test are.

use std::path::PathBuf;

use anyhow::{Result, bail};

/// Surroundings of this process.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// The folder of this binary; the programs under test were built into it, too.
    programs: PathBuf,
}

impl Context {
    /// Looks next to this binary.
    pub(crate) fn look() -> Result<Self> {
        let own = std::env::current_exe()?;
        let Some(programs) = own.parent() else { bail!("{} has no folder", own.display()) };
        Ok(Self { programs: programs.to_owned() })
    }

    /// The path of a program under test, or how to build it.
    pub(crate) fn program(&self, name: &str, package: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        if !path.exists() {
            bail!("{} is missing: cargo build --release -p {package}", path.display());
        }
        Ok(path)
    }

    /// Where JSON goes: `target/bench`.
    pub(crate) fn results(&self) -> PathBuf {
        self.programs.parent().unwrap_or(&self.programs).join("bench")
    }
}
