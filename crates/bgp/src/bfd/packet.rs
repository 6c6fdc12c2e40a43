//! BFD Control packets: octets ↔ values (RFC 5880 §4.1), and those of the rules of §6.8.6 that need no session.
//!
//! Not here: which session a packet is for, and what it makes of it. Authentication (§4.2–§4.4) is not used, so a
//! packet that has some is dropped, as §6.8.6 says.

use std::{fmt, num::NonZeroU8, num::NonZeroU32};

use serde::{Deserialize, Serialize};

/// Octets of a packet without authentication.
pub const LENGTH: usize = 24;

/// The version that is spoken.
const VERSION: u8 = 1;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION_PRESENT: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// Session state (RFC 5880 §4.1, Sta).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum State {
    /// Held down by an operator, which is no failure.
    AdminDown,
    /// Nothing is heard, or not yet.
    #[default]
    Down,
    /// The other side is heard.
    Init,
    /// Both sides hear each other.
    Up,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a session is as it is (RFC 5880 §4.1, Diag).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Diagnostic(u8);

impl Diagnostic {
    /// Nothing to say.
    pub const NONE: Diagnostic = Diagnostic(0);
    /// Nothing was heard for the Detection Time.
    pub const CONTROL_DETECTION_TIME_EXPIRED: Diagnostic = Diagnostic(1);
    /// The other side said that the session is down.
    pub const NEIGHBOR_SIGNALED_SESSION_DOWN: Diagnostic = Diagnostic(3);
    /// An operator holds the session down.
    pub const ADMINISTRATIVELY_DOWN: Diagnostic = Diagnostic(7);

    const TEXTS: [&'static str; 9] = [
        "no diagnostic",
        "control detection time expired",
        "echo function failed",
        "neighbor signaled session down",
        "forwarding plane reset",
        "path down",
        "concatenated path down",
        "administratively down",
        "reverse concatenated path down",
    ];

    /// From the five bits of a packet.
    const fn from_bits(octet: u8) -> Diagnostic {
        Diagnostic(octet & 0x1f)
    }

    /// The number.
    pub const fn code(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Diagnostic::TEXTS.get(usize::from(self.0)).unwrap_or(&"unknown diagnostic");
        write!(f, "{text} ({})", self.0)
    }
}

/// A BFD Control packet that a session may look at. Intervals are in microseconds, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session went down last.
    pub diagnostic: Diagnostic,
    /// The sender's session state.
    pub state: State,
    /// P: the sender wants an answer with F.
    pub poll: bool,
    /// F: this answers a packet with P.
    pub is_final: bool,
    /// C: the sender's BFD does not share fate with its control plane.
    pub control_plane_independent: bool,
    /// D: Demand mode is active at the sender.
    pub demand: bool,
    /// How many packets in a row the receiver may miss.
    pub detect_mult: NonZeroU8,
    /// The sender's name for the session.
    pub my_discriminator: NonZeroU32,
    /// The receiver's name for it; `None` (0) while the sender does not know it.
    pub your_discriminator: Option<NonZeroU32>,
    /// The least interval at which the sender would like to send.
    pub desired_min_tx: u32,
    /// The least interval at which the sender can receive; 0: it wants nothing periodic at all.
    pub required_min_rx: u32,
    /// The same for Echo packets; 0: it wants none.
    pub required_min_echo_rx: u32,
}

/// Why a packet is dropped before any session is looked for (RFC 5880 §6.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PacketError {
    #[error("version {0}: expected 1")]
    Version(u8),
    #[error("the length field says {0} octets: expected at least 24, or 26 with authentication")]
    TooShort(u8),
    #[error("the length field says {0} octets, which are not there")]
    Truncated(u8),
    #[error("Detect Mult is 0")]
    ZeroDetectMult,
    #[error("the Multipoint bit is set")]
    Multipoint,
    #[error("My Discriminator is 0")]
    ZeroMyDiscriminator,
    #[error("Your Discriminator is 0 in state {0}")]
    ZeroYourDiscriminator(State),
    #[error("it is authenticated, and no authentication is configured")]
    Authenticated,
}

impl Packet {
    /// Reads a packet in the order of RFC 5880 §6.8.6. Octets behind those of the length field are passed over.
    pub fn decode(octets: &[u8]) -> Result<Packet, PacketError> {
        let Some((&[vers_diag, flags, detect_mult, length], body)) = octets.split_first_chunk() else {
            return Err(PacketError::TooShort(u8::try_from(octets.len()).unwrap_or(u8::MAX)));
        };
        if vers_diag >> 5 != VERSION {
            return Err(PacketError::Version(vers_diag >> 5));
        }
        let has_authentication = flags & AUTHENTICATION_PRESENT != 0;
        if usize::from(length) < LENGTH + if has_authentication { 2 } else { 0 } {
            return Err(PacketError::TooShort(length));
        }
        if usize::from(length) > octets.len() {
            return Err(PacketError::Truncated(length));
        }
        let detect_mult = NonZeroU8::new(detect_mult).ok_or(PacketError::ZeroDetectMult)?;
        if flags & MULTIPOINT != 0 {
            return Err(PacketError::Multipoint);
        }
        let words = read_words(body).ok_or(PacketError::Truncated(length))?;
        let [my_discriminator, your_discriminator, desired_min_tx, required_min_rx, required_min_echo_rx] =
            words;
        let my_discriminator = NonZeroU32::new(my_discriminator).ok_or(PacketError::ZeroMyDiscriminator)?;
        let your_discriminator = NonZeroU32::new(your_discriminator);
        let state = state(flags);
        if your_discriminator.is_none() && !matches!(state, State::Down | State::AdminDown) {
            return Err(PacketError::ZeroYourDiscriminator(state));
        }
        if has_authentication {
            return Err(PacketError::Authenticated);
        }
        Ok(Packet {
            diagnostic: Diagnostic::from_bits(vers_diag),
            state,
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            demand: flags & DEMAND != 0,
            detect_mult,
            my_discriminator,
            your_discriminator,
            desired_min_tx,
            required_min_rx,
            required_min_echo_rx,
        })
    }

    /// Writes the packet.
    pub fn encode(&self) -> [u8; LENGTH] {
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = (self.state as u8) << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.demand, DEMAND);
        let head = [VERSION << 5 | self.diagnostic.code(), flags, self.detect_mult.get(), LENGTH as u8];
        let words = [
            self.my_discriminator.get(),
            self.your_discriminator.map_or(0, NonZeroU32::get),
            self.desired_min_tx,
            self.required_min_rx,
            self.required_min_echo_rx,
        ];
        let mut octets = [0; LENGTH];
        let chunks = octets.chunks_exact_mut(4);
        for (chunk, word) in chunks.zip([head].into_iter().chain(words.map(u32::to_be_bytes))) {
            chunk.copy_from_slice(&word);
        }
        octets
    }
}

fn state(flags: u8) -> State {
    match flags >> 6 {
        0 => State::AdminDown,
        1 => State::Down,
        2 => State::Init,
        _ => State::Up,
    }
}

fn read_words<const N: usize>(mut body: &[u8]) -> Option<[u32; N]> {
    let mut words = [0; N];
    for word in &mut words {
        let (octets, rest) = body.split_first_chunk::<4>()?;
        *word = u32::from_be_bytes(*octets);
        body = rest;
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Version 1, Down, Detect Mult 3, 24 octets, discriminators 7 and 0, 1 s, 300 ms, no echo.
    const DOWN: [u8; LENGTH] =
        [0x20, 0x40, 3, 24, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0x04, 0x93, 0xe0, 0, 0, 0, 0];

    fn with(index: usize, octet: u8) -> Vec<u8> {
        let mut octets = DOWN.to_vec();
        octets[index] = octet;
        octets
    }

    #[test]
    fn a_packet_is_read_as_the_rfc_draws_it() {
        let packet = Packet::decode(&DOWN).unwrap();
        assert_eq!(
            (packet.state, packet.detect_mult.get(), packet.my_discriminator.get()),
            (State::Down, 3, 7)
        );
        assert_eq!((packet.desired_min_tx, packet.required_min_rx), (1_000_000, 300_000));
        assert_eq!((packet.your_discriminator, packet.required_min_echo_rx), (None, 0));
        assert!(!packet.poll && !packet.is_final && !packet.demand && !packet.control_plane_independent);
        assert_eq!(packet.encode(), DOWN);
    }

    #[test]
    fn another_version_is_dropped() {
        assert_eq!(Packet::decode(&with(0, 0x00)), Err(PacketError::Version(0)));
        assert_eq!(Packet::decode(&with(0, 0x40)), Err(PacketError::Version(2)));
    }

    #[test]
    fn a_length_below_24_or_26_with_authentication_is_dropped() {
        assert_eq!(Packet::decode(&with(3, 23)), Err(PacketError::TooShort(23)));
        let mut authenticated = with(1, 0x44);
        authenticated.extend([1, 2]);
        authenticated[3] = 25;
        assert_eq!(Packet::decode(&authenticated), Err(PacketError::TooShort(25)));
    }

    #[test]
    fn a_length_beyond_the_payload_is_dropped() {
        assert_eq!(Packet::decode(&with(3, 25)), Err(PacketError::Truncated(25)));
        for length in 0..LENGTH {
            assert!(Packet::decode(&DOWN[..length]).is_err(), "{length} octets");
        }
    }

    #[test]
    fn a_detect_mult_of_zero_is_dropped() {
        assert_eq!(Packet::decode(&with(2, 0)), Err(PacketError::ZeroDetectMult));
    }

    #[test]
    fn the_multipoint_bit_is_dropped() {
        assert_eq!(Packet::decode(&with(1, 0x41)), Err(PacketError::Multipoint));
    }

    #[test]
    fn a_my_discriminator_of_zero_is_dropped() {
        assert_eq!(Packet::decode(&with(7, 0)), Err(PacketError::ZeroMyDiscriminator));
    }

    #[test]
    fn a_your_discriminator_of_zero_is_dropped_unless_down_or_admin_down() {
        assert!(Packet::decode(&with(1, 0x00)).is_ok(), "AdminDown");
        assert!(Packet::decode(&with(1, 0x40)).is_ok(), "Down");
        for (flags, state) in [(0x80, State::Init), (0xc0, State::Up)] {
            assert_eq!(Packet::decode(&with(1, flags)), Err(PacketError::ZeroYourDiscriminator(state)));
        }
    }

    #[test]
    fn an_authenticated_packet_is_dropped_because_none_is_in_use() {
        let mut authenticated = with(1, 0x44);
        authenticated.extend([1, 2]);
        authenticated[3] = 26;
        assert_eq!(Packet::decode(&authenticated), Err(PacketError::Authenticated));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_as_it_was(octets in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(packet) = Packet::decode(&octets) {
                prop_assert_eq!(Packet::decode(&packet.encode()), Ok(packet));
            }
        }

        #[test]
        fn packets_that_are_nearly_right_never_panic(index in 0..LENGTH, octet in any::<u8>(), cut in 0..=LENGTH) {
            let octets = with(index, octet);
            if let Ok(packet) = Packet::decode(&octets[..cut]) {
                let mut expected = octets;
                expected[3] = 24;
                prop_assert_eq!(packet.encode().to_vec(), expected);
            }
        }
    }
}
