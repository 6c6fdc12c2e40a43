//! What the BGP benchmarks share: a veth pair between two namespaces, the messages of a raw speaker, and the
//! receiver that all speakers are measured at.
//!
//! It is no BGP implementation: it knows just enough of RFC 4271 and RFC 4760 to hold a session with a speaker
//! that behaves.

use std::net::{IpAddr, SocketAddr, TcpStream};

use anyhow::{Context as _, Result};
use socket2::{Domain, Socket, Type};

mod feeder;
mod messages;
mod pair;
mod sink;

pub(crate) use feeder::{Feeder, Flood, discard_input, handshake};
pub(crate) use messages::{Family, Messages};
pub(crate) use pair::{End, Pair};
pub(crate) use sink::{Receipt, Sink};

/// Where BGP speakers listen.
pub(crate) const BGP_PORT: u16 = 179;

/// Dials a speaker from an address.
pub(crate) fn connect(source: IpAddr, to: IpAddr) -> Result<TcpStream> {
    let to = SocketAddr::new(to, BGP_PORT);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&to.into()).with_context(|| format!("connecting to {to}"))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}
