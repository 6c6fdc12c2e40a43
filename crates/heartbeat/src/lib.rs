//! Who is alive in a subnet, known within half a second and at a constant price, and small messages between the
//! members.
//!
//! The core is sans-IO: a [`Group`] is given datagrams, commands and the time, and gives back datagrams, events and
//! the next timeout; it opens no socket, reads no clock and draws no random number that it was not seeded for. The
//! feature `driver` adds a socket and a clock; the feature `testing` gives groups an in-memory network and virtual
//! time instead.
//!
//! How it works: members stand in a ring by the hash of their names, and each sends its heartbeats to the next three
//! ([`ring::WATCHERS`]), which watch it. A watcher that misses some asks the member itself, then the other watchers;
//! only when nobody has heard it is it dead, and all are told. Whoever hears itself called dead says so with a higher
//! incarnation. Every datagram is authenticated with a shared key, and a sign of life only if it names the very process
//! that hears it.
//!
//! Not here: where the members come from, and what follows from a death.

mod chance;
pub mod config;
#[cfg(feature = "driver")]
pub mod driver;
pub mod group;
mod hearing;
pub mod key;
mod member;
pub mod ring;
mod stream;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod time;
pub mod wire;

pub use config::{Config, ConfigError, Id, Local, Mac, Name};
pub use group::{Event, Group, SendError};
pub use key::{KeyError, Keys};
pub use member::{Standing, State};
pub use stream::{MAX_PAYLOAD, MessageId};
pub use time::Time;
pub use wire::Dropped;
