//! What can go wrong between us and the kernel, with the step and the object named.

use std::{fmt, io};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the display says it")]
pub enum Step {
    ListLinks,
    CreateLink,
    SetLinkUp,
    SetLinkArp,
    DeleteLink,
    ListAddresses,
    AddAddress,
    DeleteAddress,
    ListRoutes,
    AddRoute,
    DeleteRoute,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::ListLinks => "listing links",
            Step::CreateLink => "creating link",
            Step::SetLinkUp => "setting up link",
            Step::SetLinkArp => "setting the ARP behaviour of link",
            Step::DeleteLink => "deleting link",
            Step::ListAddresses => "listing addresses",
            Step::AddAddress => "adding address",
            Step::DeleteAddress => "deleting address",
            Step::ListRoutes => "listing routes",
            Step::AddRoute => "adding route",
            Step::DeleteRoute => "deleting route",
        })
    }
}

/// Why a request to the kernel did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no socket to the kernel.
    #[error("opening a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The socket is gone: the runtime shuts down, or the kernel closed it.
    #[error("{step} {object}: the netlink socket is closed")]
    Closed {
        /// What was being done.
        step: Step,
        /// To what.
        object: String,
    },
    /// The kernel said no.
    #[error("{step} {object}: {source}")]
    Refused {
        /// What was being done.
        step: Step,
        /// To what.
        object: String,
        /// The kernel's errno.
        source: io::Error,
    },
    /// The kernel's tables changed during the dump, again and again (NLM_F_DUMP_INTR): what is there is
    /// unknown, nothing may be concluded to be gone.
    #[error("{step}: the kernel's table kept changing during the dump, so its content is unknown; ask again")]
    Interrupted {
        /// What was being done.
        step: Step,
    },
}

impl Error {
    /// The errno, where the kernel gave one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { source, .. } | Error::Open(source) => source.raw_os_error(),
            Error::Closed { .. } | Error::Interrupted { .. } => None,
        }
    }

    /// Whether the kernel does not know the kind of link that was to be created.
    pub(crate) fn is_unsupported(&self) -> bool {
        matches!(self.errno(), Some(libc::EOPNOTSUPP | libc::ENODEV | libc::EAFNOSUPPORT))
    }
}
