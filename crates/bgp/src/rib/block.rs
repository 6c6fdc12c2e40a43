//! Blocks: 64 prefixes of one length side by side, which differ in their last six bits only. Pools are handed out in
//! order, so that most blocks are full, and whatever is done to a route is done to all 64 of a block at once.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::types::Family;

/// A block's place in the Loc-RIB. It stays the same while any route in it exists or any peer still has one.
pub(crate) type Block = u32;

/// Some of the 64 prefixes of a block: bit `i` stands for the one `i` places behind the first.
pub(crate) type Members = u64;

/// How many prefixes a block has, in bits of their number.
const SIZE_BITS: u32 = 6;

/// A prefix as a number: its bits without the host bits, so that neighbours differ by one.
pub(super) trait Number: Copy + Eq + Into<u128> {
    /// The number so many places further on.
    fn plus(self, places: u16) -> Option<Self>;
}

impl Number for u32 {
    #[inline]
    fn plus(self, places: u16) -> Option<u32> {
        self.checked_add(places.into())
    }
}

impl Number for u128 {
    #[inline]
    fn plus(self, places: u16) -> Option<u128> {
        self.checked_add(places.into())
    }
}

#[inline]
pub(super) fn number_v4(net: Ipv4Net) -> u32 {
    net.addr().to_bits().checked_shr(32 - u32::from(net.prefix_len())).unwrap_or(0)
}

#[inline]
pub(super) fn number_v6(net: Ipv6Net) -> u128 {
    net.addr().to_bits().checked_shr(128 - u32::from(net.prefix_len())).unwrap_or(0)
}

/// Which 64 prefixes a block is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) family: Family,
    length: u8,
    /// What their numbers have in common, in two halves, which take less room than one whole.
    high: u64,
    low: u64,
}

impl Key {
    fn new(family: Family, length: u8, number: u128) -> Key {
        let common = number >> SIZE_BITS;
        Key { family, length, high: (common >> 64) as u64, low: common as u64 }
    }

    /// The block of a prefix, and which of its members it is. Host bits mean nothing.
    pub(super) fn of(prefix: &IpNet) -> (Key, Members) {
        let number = match *prefix {
            IpNet::V4(net) => number_v4(net).into(),
            IpNet::V6(net) => number_v6(net),
        };
        let key = Key::new(Family::of(prefix), prefix.prefix_len(), number);
        (key, 1 << place_of(number))
    }

    /// The blocks of so many prefixes in a row, and which members of each they are.
    #[inline]
    pub(super) fn of_range(
        family: Family,
        length: u8,
        first: u128,
        count: u16,
    ) -> impl Iterator<Item = (Key, Members)> {
        let mut number = first;
        let mut left = u32::from(count);
        std::iter::from_fn(move || {
            let place = place_of(number);
            let taken = left.min((1 << SIZE_BITS) - place);
            let ones = Members::MAX.checked_shr((1 << SIZE_BITS) - taken)?;
            let key = Key::new(family, length, number);
            left -= taken;
            number = number.wrapping_add(taken.into());
            Some((key, ones << place))
        })
    }

    /// The first of the 64.
    pub(super) fn first(&self) -> IpNet {
        let number = (u128::from(self.high) << 64 | u128::from(self.low)) << SIZE_BITS;
        match self.family {
            Family::Ipv4Unicast => {
                let bits = (number as u32).checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), self.length).into()
            }
            Family::Ipv6Unicast => {
                let bits = number.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), self.length).into()
            }
        }
    }

    /// The one so many places behind it.
    pub(super) fn nth(&self, place: u32) -> IpNet {
        let place = u128::from(place);
        match self.first() {
            IpNet::V4(net) => {
                let step = (place as u32).checked_shl(32 - u32::from(self.length)).unwrap_or(0);
                Ipv4Net::new_assert(Ipv4Addr::from_bits(net.addr().to_bits() | step), self.length).into()
            }
            IpNet::V6(net) => {
                let step = place.checked_shl(128 - u32::from(self.length)).unwrap_or(0);
                Ipv6Net::new_assert(Ipv6Addr::from_bits(net.addr().to_bits() | step), self.length).into()
            }
        }
    }

    /// Our own prefixes are the keys, so nobody outside chooses them to collide.
    #[inline]
    pub(super) fn hash(&self) -> u32 {
        const FACTORS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];
        let kind = u64::from(self.length) << 1 | self.family as u64;
        let high = (self.high ^ kind.rotate_right(8)).wrapping_mul(FACTORS[0]);
        let product = u128::from(self.low ^ high.rotate_left(32)) * u128::from(FACTORS[1]);
        ((product >> 64) as u64 ^ product as u64) as u32
    }
}

fn place_of(number: u128) -> u32 {
    number as u32 & ((1 << SIZE_BITS) - 1)
}

/// The places of the members.
#[inline]
pub(super) fn places(members: Members) -> impl Iterator<Item = u32> {
    let mut left = members;
    std::iter::from_fn(move || {
        let place = (left != 0).then(|| left.trailing_zeros())?;
        left &= left - 1;
        Some(place)
    })
}

/// The same without its first so many members.
pub(super) fn without_first(members: Members, count: u32) -> Members {
    (0..count).fold(members, |left, _| left & left.saturating_sub(1))
}

/// How many members.
pub(super) fn count(members: Members) -> usize {
    members.count_ones() as usize
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::IpAddr};

    use proptest::prelude::*;

    use super::*;

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<u32>(), 0_u8..=32);
        let v6 = (any::<u128>(), 0_u8..=128);
        prop_oneof![
            v4.prop_map(|(bits, length)| Ipv4Net::new_assert(Ipv4Addr::from_bits(bits), length).into()),
            v6.prop_map(|(bits, length)| Ipv6Net::new_assert(Ipv6Addr::from_bits(bits), length).into()),
        ]
    }

    proptest! {
        #[test]
        fn a_prefix_is_found_again_in_its_block(net in net()) {
            let (key, members) = Key::of(&net);
            prop_assert_eq!(members.count_ones(), 1);
            prop_assert_eq!(key.nth(members.trailing_zeros()), net.trunc());
            prop_assert!(members.trailing_zeros() > 0 || key.first() == net.trunc());
        }

        #[test]
        fn prefixes_in_a_row_are_the_members_of_blocks_in_a_row(first: u32, count: u16) {
            let first = first.min(u32::MAX - u32::from(count));
            let net = |number: u32| IpNet::from(Ipv4Net::new_assert(Ipv4Addr::from_bits(number), 32));
            let expected = (first..first + u32::from(count)).map(net);
            let found = Key::of_range(Family::Ipv4Unicast, 32, first.into(), count)
                .flat_map(|(key, members)| places(members).map(move |place| key.nth(place)));
            prop_assert!(found.eq(expected));
        }

        #[test]
        fn the_first_members_can_be_left_out(members: u64, n in 0_u32..70) {
            let expected = places(members).skip(n as usize).fold(0, |all, place| all | 1 << place);
            prop_assert_eq!(without_first(members, n), expected);
        }
    }

    #[test]
    fn neighbouring_blocks_and_lengths_have_different_hashes() {
        for text in ["10.0.0.0", "fd00::"] {
            let first: IpAddr = text.parse().unwrap();
            let nets = (0..4096_u32).map(|number| match first {
                IpAddr::V4(v4) => IpNet::new(Ipv4Addr::from_bits(v4.to_bits() + number * 64).into(), 32),
                IpAddr::V6(v6) => {
                    IpNet::new(Ipv6Addr::from_bits(v6.to_bits() + u128::from(number) * 64).into(), 128)
                }
            });
            let lengths = (7..=32).map(|length| IpNet::new(first, length));
            let all = nets.chain(lengths).map(|net| Key::of(&net.unwrap()).0.hash() & 0xf_ffff);
            let distinct = all.collect::<BTreeSet<_>>().len();
            assert!(distinct > 4085, "{distinct} different hashes of 20 bits for 4,122 blocks from {text}");
        }
    }
}
