//! What can go wrong while a lab is built, watched or taken down.

use std::{io, path::PathBuf, time::Duration};

/// The result of lab operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a lab operation failed. Each text says what was attempted, where, and what came back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A command could be started but did not succeed.
    #[error("`{line}` failed ({status}): {stderr}")]
    Command {
        /// The command line, as one would type it.
        line: String,
        /// Its exit status in words.
        status: String,
        /// What it wrote to standard error (or standard output when that was empty).
        stderr: String,
    },
    /// An operating system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A condition did not come true in time.
    #[error("waited {after:.1?} for {what}; last seen: {last}")]
    TimedOut {
        /// The condition, as a noun phrase.
        what: String,
        /// How long it was waited for.
        after: Duration,
        /// The last observation that fell short.
        last: String,
    },
    /// Something answered in a form that the lab does not understand.
    #[error("cannot read the answer of {from}: {why}")]
    Parse {
        /// Who answered.
        from: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// A program or file that the lab needs is not there.
    #[error("{what} is missing: {advice}")]
    Missing {
        /// What is missing.
        what: String,
        /// What to do about it.
        advice: String,
    },
    /// An observation differs from what has to be true.
    #[error("{0}")]
    Unmet(String),
    /// The lab cannot run on this machine or for this user.
    #[error("{0}")]
    Unsupported(String),
}

impl Error {
    /// Wraps an I/O error with what was attempted.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// Wraps an I/O error with the path that was touched.
    pub fn path(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        Self::io(path.into().display().to_string())
    }

    /// Something answered in a form that the lab does not understand.
    pub fn parse(from: impl Into<String>, why: impl ToString) -> Self {
        Self::Parse { from: from.into(), why: why.to_string() }
    }

    /// An observation that falls short of a condition.
    pub fn unmet(observation: impl Into<String>) -> Self {
        Self::Unmet(observation.into())
    }
}

impl From<nix::errno::Errno> for Error {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::Io { what: "system call".into(), source: errno.into() }
    }
}

/// Returns `Err(Error::Unmet(..))` from the enclosing function unless the condition holds.
#[macro_export]
macro_rules! require {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Error::unmet(format!($($text)+)));
        }
    };
}
