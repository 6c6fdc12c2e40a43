//! Ethernet addresses.

use std::fmt;

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// All stations of the wire.
    pub const BROADCAST: Mac = Mac([0xff; 6]);

    /// Whether one station has it, and not a group or nobody.
    pub const fn is_station(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_station_is_neither_a_group_nor_nobody() {
        assert!(Mac([2, 0, 0, 0, 0, 1]).is_station());
        for other in [Mac::BROADCAST, Mac([0; 6]), Mac([0x33, 0x33, 0, 0, 0, 1]), Mac([1, 0, 0x5e, 0, 0, 1])]
        {
            assert!(!other.is_station(), "{other}");
        }
        assert_eq!(Mac([2, 0, 0, 0, 0x0a, 0xff]).to_string(), "02:00:00:00:0a:ff");
    }
}
