//! Prefixes that lie side by side, which is how pools hand them out, and how they are written: 64 of them are one
//! value, so that what has to be looked up, compared and remembered of a prefix is done once for all of them.

use ipnet::IpNet;

/// Up to 64 prefixes of one length in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbours {
    /// The first of the row, whether it is a member or not.
    pub first: IpNet,
    /// Bit `i` is set where the prefix `i` places behind the first is a member.
    pub members: u64,
}

impl From<IpNet> for Neighbours {
    fn from(prefix: IpNet) -> Neighbours {
        Neighbours { first: prefix, members: 1 }
    }
}

impl Neighbours {
    /// Writes length and prefix of as many members as there is room for, the first ones first, and takes them out.
    /// Octets that are all host bits are left out and host bits are cleared, so that equal prefixes are equal octets.
    /// Returns how many octets and how many members that was.
    pub(super) fn put(&mut self, room: &mut [u8]) -> (usize, usize) {
        match self.first {
            IpNet::V4(net) => {
                let (first, host_bits) = (net.network().to_bits(), 32 - u32::from(net.prefix_len()));
                let nth = |place: u32| first.wrapping_add(place.checked_shl(host_bits).unwrap_or(0));
                self.put_each(net.prefix_len(), room, |place| nth(place).to_be_bytes())
            }
            IpNet::V6(net) => {
                let (first, host_bits) = (net.network().to_bits(), 128 - u32::from(net.prefix_len()));
                let nth = |place| first.wrapping_add(u128::from(place).checked_shl(host_bits).unwrap_or(0));
                self.put_each(net.prefix_len(), room, |place| nth(place).to_be_bytes())
            }
        }
    }

    #[inline]
    fn put_each<const N: usize>(
        &mut self,
        bits: u8,
        room: &mut [u8],
        nth: impl Fn(u32) -> [u8; N],
    ) -> (usize, usize) {
        let length = usize::from(bits.div_ceil(8));
        let mut rest = room;
        let mut octets = 0;
        let mut count = 0;
        while self.members != 0 && rest.len() > length {
            let whole = nth(self.members.trailing_zeros());
            if let Some((first, room)) = rest.split_first_mut() {
                *first = bits;
                if let Some(room) = room.first_chunk_mut::<N>() {
                    // A copy of fixed size is one or two moves; what is too much is overwritten by what comes next.
                    *room = whole;
                } else {
                    room[..length].copy_from_slice(&whole[..length]);
                }
            }
            rest = rest.split_at_mut(1 + length).1;
            octets += 1 + length;
            count += 1;
            self.members &= self.members - 1;
        }
        (octets, count)
    }
}

#[cfg(test)]
mod tests {
    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    use super::*;

    /// What one prefix after the other comes to.
    fn one_by_one(first: IpNet, members: u64) -> Vec<u8> {
        let mut octets = Vec::new();
        for place in (0..64_u8).filter(|place| members >> place & 1 == 1) {
            let length = usize::from(first.prefix_len().div_ceil(8));
            let mut address = match first {
                IpNet::V4(net) => net.network().octets().to_vec(),
                IpNet::V6(net) => net.network().octets().to_vec(),
            };
            // Added by hand, octet by octet.
            let bits = usize::from(first.prefix_len());
            let mut carry = u32::from(place) << (8 * address.len() - bits).rem_euclid(8);
            for octet in address[..bits.div_ceil(8)].iter_mut().rev() {
                carry += u32::from(*octet);
                *octet = u8::try_from(carry & 255).unwrap();
                carry >>= 8;
            }
            octets.push(first.prefix_len());
            octets.extend(&address[..length]);
        }
        octets
    }

    proptest! {
        #[test]
        fn neighbours_are_written_as_one_prefix_after_the_other(
            (is_v4, number, length) in (any::<bool>(), any::<u128>(), 0_u8..=128),
            members: u64,
            room in 0_usize..1200,
        ) {
            // The last six bits of the prefix are zero, as those of the first of 64 are.
            let cut = |length: u8| length.saturating_sub(6);
            let first: IpNet = if is_v4 {
                let (length, bits) = (length % 33, (number >> 96) as u32);
                let whole = Ipv4Net::new(Ipv4Net::new(bits.into(), cut(length)).unwrap().network(), length);
                whole.unwrap().into()
            } else {
                let whole = Ipv6Net::new(Ipv6Net::new(number.into(), cut(length)).unwrap().network(), length);
                whole.unwrap().into()
            };
            let members = if first.prefix_len() >= 6 { members } else { members & ((1 << (1 << first.prefix_len())) - 1) };
            let expected = one_by_one(first, members);
            let size = 1 + usize::from(first.prefix_len().div_ceil(8));
            let fits = (room / size).min(members.count_ones() as usize);
            let mut neighbours = Neighbours { first, members };
            let mut octets = vec![0; room];
            prop_assert_eq!(neighbours.put(&mut octets), (fits * size, fits));
            prop_assert_eq!(&octets[..fits * size], &expected[..fits * size]);
            prop_assert_eq!(neighbours.members.count_ones() as usize, members.count_ones() as usize - fits);
            let mut rest = vec![0; expected.len()];
            let (length, _) = neighbours.put(&mut rest);
            prop_assert_eq!(&rest[..length], &expected[fits * size..]);
        }
    }
}
