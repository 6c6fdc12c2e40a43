//! What holders and claimants of addresses say to each other: payloads of heartbeats, which authenticate them, repeat
//! them until they arrive, and say whom they are from.
//!
//! Layout: version (1 octet), kind (1), number of IPv4 addresses (2, big-endian), number of IPv6 addresses (2), number
//! of the request (4), then the addresses of 4 and of 16 octets. Nothing may follow. A message that does not fit is
//! split.
//!
//! Requests are numbered, and what is released says for which: an agent that stood still in the middle of a hand-over
//! finds answers to what it asked long ago, and must not take them for the answer to what it asks now.

use std::net::IpAddr;

/// Octets that a payload has at most.
pub const LIMIT: usize = 1200;

/// The number of a request that there was not: see [`Message::Released`].
pub const NO_REQUEST: u32 = 0;

const VERSION: u8 = 2;
const HEADER_OCTETS: usize = 10;

const REQUEST: u8 = 1;
const RELEASED: u8 = 2;
const HOLDING: u8 = 3;

/// A message about addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The sender is elected for these and sees that the receiver answers for them: give them up. With the number of
    /// this request, which is not [`NO_REQUEST`].
    Request(u32, Vec<IpAddr>),
    /// The sender answers for these no more, because it was asked by the request of this number. With [`NO_REQUEST`]: it
    /// does not hold them, and says nothing of who does.
    Released(u32, Vec<IpAddr>),
    /// The sender holds these: if the receiver does, too, one of them is wrong.
    Holding(Vec<IpAddr>),
}

/// Why octets are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Fewer octets than announced, or more.
    #[error("a message about addresses has another length than it says")]
    Length,
    /// Not ours.
    #[error("version {0} of messages about addresses: this agent knows version {VERSION}")]
    Version(u8),
    /// Unknown.
    #[error("kind {0} of messages about addresses: expected 1, 2 or 3")]
    Kind(u8),
}

impl Message {
    /// The addresses.
    pub fn addresses(&self) -> &[IpAddr] {
        match self {
            Message::Request(_, all) | Message::Released(_, all) | Message::Holding(all) => all,
        }
    }

    /// Payloads of at most [`LIMIT`] octets that together say the same; none where there are no addresses.
    pub fn encode(&self) -> Vec<Vec<u8>> {
        let kind = match self {
            Message::Request(number, _) => (REQUEST, *number),
            Message::Released(number, _) => (RELEASED, *number),
            Message::Holding(_) => (HOLDING, NO_REQUEST),
        };
        let mut payloads = Vec::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for address in self.addresses() {
            let octets = if address.is_ipv4() { 4 } else { 16 };
            if HEADER_OCTETS + v4.len() + v6.len() + octets > LIMIT {
                payloads.push(payload(kind, &v4, &v6));
                v4.clear();
                v6.clear();
            }
            match address {
                IpAddr::V4(address) => v4.extend(address.octets()),
                IpAddr::V6(address) => v6.extend(address.octets()),
            }
        }
        if !(v4.is_empty() && v6.is_empty()) {
            payloads.push(payload(kind, &v4, &v6));
        }
        payloads
    }

    /// Reads a payload. IPv4 addresses come first, otherwise the order is kept.
    ///
    /// # Errors
    /// Another version, an unknown kind, or another length than the counts say.
    pub fn decode(octets: &[u8]) -> Result<Message, MessageError> {
        let (header, rest) = octets.split_first_chunk::<HEADER_OCTETS>().ok_or(MessageError::Length)?;
        let [version, kind, a, b, c, d, number @ ..] = *header;
        if version != VERSION {
            return Err(MessageError::Version(version));
        }
        let v4_octets = usize::from(u16::from_be_bytes([a, b])) * 4;
        let v6_octets = usize::from(u16::from_be_bytes([c, d])) * 16;
        let (v4, v6) = rest.split_at_checked(v4_octets).ok_or(MessageError::Length)?;
        if v6.len() != v6_octets || octets.len() > LIMIT {
            return Err(MessageError::Length);
        }
        let v4 = v4.as_chunks::<4>().0.iter().map(|octets| IpAddr::from(*octets));
        let v6 = v6.as_chunks::<16>().0.iter().map(|octets| IpAddr::from(*octets));
        let addresses = v4.chain(v6).collect();
        match kind {
            REQUEST => Ok(Message::Request(u32::from_be_bytes(number), addresses)),
            RELEASED => Ok(Message::Released(u32::from_be_bytes(number), addresses)),
            HOLDING => Ok(Message::Holding(addresses)),
            kind => Err(MessageError::Kind(kind)),
        }
    }
}

fn payload((kind, number): (u8, u32), v4: &[u8], v6: &[u8]) -> Vec<u8> {
    let count = |octets: usize| u16::try_from(octets).expect("no more than fit in a payload").to_be_bytes();
    let mut payload = Vec::with_capacity(HEADER_OCTETS + v4.len() + v6.len());
    payload.extend([VERSION, kind]);
    payload.extend(count(v4.len() / 4));
    payload.extend(count(v6.len() / 16));
    payload.extend(number.to_be_bytes());
    payload.extend(v4);
    payload.extend(v6);
    payload
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, number: u32, addresses: Vec<IpAddr>) -> Message {
        match kind {
            REQUEST => Message::Request(number, addresses),
            RELEASED => Message::Released(number, addresses),
            _ => Message::Holding(addresses),
        }
    }

    #[test]
    fn a_message_is_written_as_described() {
        let addresses = vec!["fd00::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
        let payloads = Message::Released(0x0102_0304, addresses).encode();
        let mut expected = vec![2, 2, 0, 1, 0, 1, 1, 2, 3, 4, 192, 0, 2, 1, 0xfd];
        expected.extend([0; 14]);
        expected.push(1);
        assert_eq!(payloads, [expected]);
        assert!(Message::Request(1, Vec::new()).encode().is_empty(), "nothing to say");
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for (octets, expected) in [
            (&[][..], MessageError::Length),
            (&[2, 1, 0, 0, 0, 0, 0, 0, 1], MessageError::Length),
            (&[1, 1, 0, 0, 0, 0, 0, 0, 0, 1], MessageError::Version(1)),
            (&[2, 9, 0, 0, 0, 0, 0, 0, 0, 1], MessageError::Kind(9)),
            (&[2, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 2, 3], MessageError::Length),
            (&[2, 1, 0, 1, 0, 0, 0, 0, 0, 1, 1, 2, 3, 4, 5], MessageError::Length),
            (&[2, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1], MessageError::Length),
        ] {
            assert_eq!(Message::decode(octets), Err(expected), "{octets:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again_whole_and_in_bounds(
            kind in REQUEST..=HOLDING,
            number in any::<u32>(),
            v4 in proptest::collection::vec(any::<[u8; 4]>(), 0..700),
            v6 in proptest::collection::vec(any::<[u8; 16]>(), 0..200),
        ) {
            let addresses: Vec<IpAddr> =
                v6.into_iter().map(IpAddr::from).chain(v4.into_iter().map(IpAddr::from)).collect();
            let mut read = Vec::new();
            for payload in message(kind, number, addresses.clone()).encode() {
                prop_assert!(payload.len() <= LIMIT);
                let part = Message::decode(&payload).unwrap();
                prop_assert_eq!(&part, &message(kind, number, part.addresses().to_vec()));
                read.extend_from_slice(part.addresses());
            }
            let (mut read, mut addresses) = (read, addresses);
            read.sort();
            addresses.sort();
            prop_assert_eq!(read, addresses);
        }

        #[test]
        fn any_octets_are_read_or_refused(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(message) = Message::decode(&octets) {
                prop_assert_eq!(message.addresses().is_empty(), octets.len() == HEADER_OCTETS);
            }
        }
    }
}
