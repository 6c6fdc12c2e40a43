//! Texts of every Service that are nearly always of one shape, kept without a heap allocation of their own: with
//! 100,000 Services each costs megabytes.

use std::{
    fmt,
    net::IpAddr,
    ops::{Deref, DerefMut},
};

/// What fits into a [`ShortText`] as it is.
const INLINE: usize = 14;

/// A text that is nearly always short, as a `resourceVersion` is.
#[derive(Clone)]
pub struct ShortText(Short);

#[derive(Clone)]
enum Short {
    Inline(u8, [u8; INLINE]),
    /// Of one pointer, so that the usual case is small.
    Long(Box<Box<str>>),
}

impl From<&str> for ShortText {
    fn from(text: &str) -> ShortText {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                ShortText(Short::Inline(length, inline))
            }
            _ => ShortText(Short::Long(Box::new(text.into()))),
        }
    }
}

impl From<String> for ShortText {
    fn from(text: String) -> ShortText {
        text.as_str().into()
    }
}

impl Deref for ShortText {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Short::Inline(length, text) => {
                let text = text.get(..usize::from(*length)).unwrap_or_default();
                std::str::from_utf8(text).expect("it is made of a str")
            }
            Short::Long(text) => text,
        }
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &ShortText) -> bool {
        **self == **other
    }
}

impl Eq for ShortText {}

impl fmt::Display for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// `metadata.uid`: a UUID, in practice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uid(Id);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    Uuid([u8; 16]),
    Other(Box<str>),
}

impl From<&str> for Uid {
    fn from(text: &str) -> Uid {
        Uid(match u128::from_str_radix(&text.replace('-', ""), 16).map(u128::to_be_bytes) {
            // What is not written as it would be is kept as it is.
            Ok(octets) if canonical(&octets) == text => Id::Uuid(octets),
            _ => Id::Other(text.into()),
        })
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Uid {
        text.as_str().into()
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Uuid(octets) => f.write_str(&canonical(octets)),
            Id::Other(text) => f.write_str(text),
        }
    }
}

/// As RFC 9562 §4 writes it.
fn canonical(octets: &[u8; 16]) -> String {
    let mut text = format!("{:032x}", u128::from_be_bytes(*octets));
    for position in [20, 16, 12, 8] {
        text.insert(position, '-');
    }
    text
}

/// Addresses, each once, in the order in which they came: nearly always one or two.
#[derive(Clone, Default)]
pub struct Addresses(Held);

#[derive(Clone, Default)]
enum Held {
    #[default]
    Nothing,
    One([IpAddr; 1]),
    Two([IpAddr; 2]),
    More(Vec<IpAddr>),
}

impl Addresses {
    /// None.
    pub const fn new() -> Addresses {
        Addresses(Held::Nothing)
    }

    /// Adds one at the end. Whether it was not there.
    pub fn insert(&mut self, address: IpAddr) -> bool {
        match &mut self.0 {
            Held::Nothing => self.0 = Held::One([address]),
            Held::One([one]) if *one == address => return false,
            Held::One([one]) => self.0 = Held::Two([*one, address]),
            Held::Two(two) if two.contains(&address) => return false,
            Held::Two([one, two]) => self.0 = Held::More(vec![*one, *two, address]),
            Held::More(more) if more.contains(&address) => return false,
            Held::More(more) => more.push(address),
        }
        true
    }

    /// What of it is not in `others`.
    pub fn without(&self, others: &[IpAddr]) -> Addresses {
        self.iter().copied().filter(|address| !others.contains(address)).collect()
    }

    /// Takes one out. Whether it was there.
    pub fn remove(&mut self, address: IpAddr) -> bool {
        let is_there = self.contains(&address);
        if is_there {
            *self = self.without(&[address]);
        }
        is_there
    }
}

impl Deref for Addresses {
    type Target = [IpAddr];

    fn deref(&self) -> &[IpAddr] {
        match &self.0 {
            Held::Nothing => &[],
            Held::One(one) => one,
            Held::Two(two) => two,
            Held::More(more) => more,
        }
    }
}

impl DerefMut for Addresses {
    fn deref_mut(&mut self) -> &mut [IpAddr] {
        match &mut self.0 {
            Held::Nothing => &mut [],
            Held::One(one) => one,
            Held::Two(two) => two,
            Held::More(more) => more,
        }
    }
}

impl From<IpAddr> for Addresses {
    fn from(address: IpAddr) -> Addresses {
        Addresses(Held::One([address]))
    }
}

impl Extend<IpAddr> for Addresses {
    fn extend<T: IntoIterator<Item = IpAddr>>(&mut self, addresses: T) {
        for address in addresses {
            self.insert(address);
        }
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Addresses {
        let mut all = Addresses::new();
        all.extend(addresses);
        all
    }
}

impl<'a> IntoIterator for &'a Addresses {
    type Item = &'a IpAddr;
    type IntoIter = std::slice::Iter<'a, IpAddr>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Addresses {
    fn eq(&self, other: &Addresses) -> bool {
        **self == **other
    }
}

impl Eq for Addresses {}

impl PartialEq<Addresses> for &[IpAddr] {
    fn eq(&self, other: &Addresses) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ip, ips};

    #[test]
    fn addresses_stay_in_the_order_in_which_they_came_each_once() {
        let mut held = Addresses::new();
        for address in &ips("192.0.2.9 fd00::1 192.0.2.1 192.0.2.5") {
            assert!(held.insert(*address) && !held.insert(*address));
        }
        assert!(held.remove(ip("fd00::1")) && !held.remove(ip("fd00::1")));
        assert_eq!(held, ips("192.0.2.9 192.0.2.1 192.0.2.5"));
        assert!(held.remove(ip("192.0.2.9")));
        assert_eq!(held, ips("192.0.2.1 192.0.2.5"));
        assert!(size_of::<Addresses>() <= 40);
    }

    #[test]
    fn a_text_comes_out_as_it_went_in_whatever_its_length() {
        for text in ["", "7", "12345678901234", "123456789012345", "12345678901234567890123", "ä€"] {
            let short = ShortText::from(text);
            assert_eq!((&*short, short.to_string().as_str()), (text, text));
            assert_eq!(short, text.to_owned().into());
        }
        assert_ne!(ShortText::from("7"), ShortText::from("70"));
    }

    #[test]
    fn a_uid_comes_out_as_it_went_in_be_it_a_uuid_or_not() {
        for text in [
            "6f1c9a52-4c1d-4a7e-9b1e-00000001e240",
            "00000000-0000-0000-0000-000000000000",
            "6F1C9A52-4C1D-4A7E-9B1E-00000001E240",
            "6f1c9a524c1d4a7e9b1e00000001e240",
            "web",
            "",
            "+f1c9a52-4c1d-4a7e-9b1e-00000001e240",
        ] {
            assert_eq!(Uid::from(text).to_string(), text);
        }
        assert!(size_of::<Uid>() <= 24 && size_of::<ShortText>() <= 16);
    }
}
