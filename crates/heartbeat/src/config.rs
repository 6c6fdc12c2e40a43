//! What a group is run with, and what it says of its own member.

use std::{fmt, net::SocketAddr, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

use crate::key::Keys;

/// A node's name. Cheap to clone.
pub type Name = Arc<str>;

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Shortest interval that can be said.
pub const MIN_INTERVAL: Duration = Duration::from_millis(10);
/// Longest interval that makes sense.
pub const MAX_INTERVAL: Duration = Duration::from_secs(10);
/// Fewest heartbeats that may be missed: one lost datagram must not count.
pub const MIN_MULTIPLIER: u8 = 2;

/// How a group is run. All members should be run alike, but each says its own values, and is judged by them.
#[derive(Clone, Debug)]
pub struct Config {
    interval: Duration,
    multiplier: u8,
    pub(crate) keys: Keys,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConfigError {
    #[error("an interval of {0:?}: expected {MIN_INTERVAL:?} to {MAX_INTERVAL:?}, in whole milliseconds")]
    Interval(Duration),
    #[error("a multiplier of {0}: expected {MIN_MULTIPLIER} to 255 heartbeats that may be missed")]
    Multiplier(u8),
}

impl Config {
    /// `interval` between heartbeats, `multiplier` missed ones are a suspicion.
    ///
    /// # Errors
    ///
    /// When one of them is out of its range.
    pub fn new(interval: Duration, multiplier: u8, keys: Keys) -> Result<Config, ConfigError> {
        let is_whole = interval.subsec_nanos().is_multiple_of(1_000_000);
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) || !is_whole {
            return Err(ConfigError::Interval(interval));
        }
        if multiplier < MIN_MULTIPLIER {
            return Err(ConfigError::Multiplier(multiplier));
        }
        Ok(Config { interval, multiplier, keys })
    }

    /// Between two heartbeats.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Missed heartbeats that are a suspicion.
    pub fn multiplier(&self) -> u8 {
        self.multiplier
    }

    /// From the last sign of life to a suspicion.
    pub fn detection_time(&self) -> Duration {
        self.interval * u32::from(self.multiplier)
    }

    /// How long the other watchers have to say that they hear a member which is suspected.
    pub fn confirmation_time(&self) -> Duration {
        self.interval / 2
    }

    /// How often something is said again that was not answered yet.
    pub(crate) fn pace(&self) -> Duration {
        self.interval / 10
    }
}

/// The member that a group is run by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Local {
    /// What all members of the group call it: the subnet, as text.
    pub group: String,
    /// The node's name.
    pub name: Name,
    /// Address and port that it sends from and is sent to.
    pub address: SocketAddr,
    /// The interface's link-layer address, for others to know whose answer they hear.
    pub mac: Mac,
    /// Tells this process from earlier ones of the node: the wall clock at its start, in microseconds, and larger
    /// than theirs.
    pub boot: u64,
}

/// A member as datagrams name it: the first octets of the SHA-256 of its name. Also its place in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub [u8; 8]);

impl Id {
    /// Of a node's name.
    pub fn of(name: &str) -> Id {
        Id(*Sha256::digest(name).first_chunk().expect("a hash has 32 octets"))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

/// A group as datagrams name it.
pub(crate) fn group_id(group: &str) -> [u8; 4] {
    *Sha256::digest(group).first_chunk().expect("a hash has 32 octets")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_refused_with_what_would() {
        let keys = Keys::parse(b"a key of 16 octets").unwrap();
        let new = |millis, multiplier| Config::new(Duration::from_millis(millis), multiplier, keys.clone());
        assert_eq!(new(100, 5).unwrap().detection_time(), Duration::from_millis(500));
        assert!(new(9, 5).unwrap_err().to_string().contains("expected 10ms to 10s"));
        assert!(matches!(new(10_001, 5), Err(ConfigError::Interval(_))));
        let odd = Config::new(Duration::from_micros(10_500), 5, keys.clone());
        assert!(matches!(odd, Err(ConfigError::Interval(_))));
        assert_eq!(new(100, 1).unwrap_err(), ConfigError::Multiplier(1));
    }
}
