//! Routers that misbehave, octet by octet: each accepts connections on TCP port 179 of an address in the nodes'
//! network, follows its script, and remembers what it heard.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use lab::{Error, Host, Result};

/// AS number that the scripts claim unless they lie on purpose.
pub const ASN: u16 = 65003;

/// Types of BGP messages (RFC 4271 §4.1).
#[expect(missing_docs, reason = "the RFC's own names")]
pub mod message {
    pub const OPEN: u8 = 1;
    pub const UPDATE: u8 = 2;
    pub const NOTIFICATION: u8 = 3;
    pub const KEEPALIVE: u8 = 4;
}

/// What a hostile router does with every connection.
#[derive(Debug, Clone)]
pub enum Script {
    /// Accepts the connection and says nothing, ever.
    Silent,
    /// Answers the OPEN with these octets and nothing else.
    InsteadOfOpen(Vec<u8>),
    /// Behaves until the session is established, then sends these octets; goes on with KEEPALIVEs.
    AfterEstablished(Vec<u8>),
}

/// A message as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// Which connection, counted from 1.
    pub connection: usize,
    /// Type of the message.
    pub kind: u8,
    /// What follows the header.
    pub body: Vec<u8>,
}

/// A hostile router; it stands on a machine of the lab as long as the test runs.
#[derive(Debug)]
pub struct HostileRouter {
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl HostileRouter {
    /// Starts one on a machine, on its IPv4 address.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(host: &Host, script: Script) -> Result<Self> {
        let at = SocketAddr::new(host.addresses.v4.into(), 179);
        let bind = || TcpListener::bind(at);
        let listener = host.namespace.enter(bind)?.map_err(Error::io(format!("listening on {at}")))?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let memory = heard.clone();
        thread::spawn(move || {
            for (index, stream) in listener.incoming().flatten().enumerate() {
                let (script, memory) = (script.clone(), memory.clone());
                // A connection that the other end closes ends its thread; that is the usual end here.
                thread::spawn(move || follow(&script, stream, index + 1, &memory));
            }
        });
        Ok(Self { heard })
    }

    /// Everything heard so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The code and subcode of every NOTIFICATION heard so far.
    pub fn notifications(&self) -> Vec<(u8, u8)> {
        let heard = self.heard();
        let notifications = heard.iter().filter(|message| message.kind == message::NOTIFICATION);
        notifications.filter_map(|message| Some((*message.body.first()?, *message.body.get(1)?))).collect()
    }
}

fn follow(
    script: &Script,
    mut stream: TcpStream,
    connection: usize,
    memory: &Mutex<Vec<Heard>>,
) -> io::Result<()> {
    loop {
        let (kind, body) = read_message(&mut stream)?;
        let seen = |kind| {
            let memory = memory.lock().unwrap_or_else(PoisonError::into_inner);
            memory.iter().any(|message: &Heard| message.connection == connection && message.kind == kind)
        };
        let first_keepalive = kind == message::KEEPALIVE && !seen(message::KEEPALIVE);
        memory.lock().unwrap_or_else(PoisonError::into_inner).push(Heard { connection, kind, body });
        match (script, kind) {
            (Script::InsteadOfOpen(octets), message::OPEN) => stream.write_all(octets)?,
            (Script::AfterEstablished(_), message::OPEN) => {
                stream.write_all(&open(ASN))?;
                stream.write_all(&encode(message::KEEPALIVE, &[]))?;
            }
            (Script::AfterEstablished(octets), message::KEEPALIVE) => {
                stream.write_all(if first_keepalive { octets } else { &[] })?;
                stream.write_all(&encode(message::KEEPALIVE, &[]))?;
            }
            _ => {}
        }
    }
}

fn read_message(stream: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut header = [0; 19];
    stream.read_exact(&mut header)?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    let mut body = vec![0; length.saturating_sub(header.len())];
    stream.read_exact(&mut body)?;
    Ok((header[18], body))
}

/// A message with a correct header.
pub fn encode(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap_or(u16::MAX);
    [&[0xff; 16][..], &length.to_be_bytes(), &[kind], body].concat()
}

/// A correct OPEN without capabilities, so for IPv4 unicast alone, with a hold time of 3 s.
pub fn open(asn: u16) -> Vec<u8> {
    encode(message::OPEN, &open_body(4, asn))
}

/// The body of an OPEN with any version.
pub fn open_body(version: u8, asn: u16) -> Vec<u8> {
    let identifier = Ipv4Addr::new(192, 0, 2, 3).octets();
    [&[version][..], &asn.to_be_bytes(), &3_u16.to_be_bytes(), &identifier, &[0]].concat()
}
