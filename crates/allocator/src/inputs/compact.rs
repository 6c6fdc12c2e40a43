//! Texts of every Service that are nearly always of one shape, kept without a heap allocation of their own: with
//! 100,000 Services each costs megabytes.

use std::{fmt, ops::Deref};

/// What fits into a [`ShortText`] as it is.
const INLINE: usize = 22;

/// A text that is nearly always short, as a `resourceVersion` is.
#[derive(Clone)]
pub struct ShortText(Short);

#[derive(Clone)]
enum Short {
    Inline(u8, [u8; INLINE]),
    Long(Box<str>),
}

impl From<&str> for ShortText {
    fn from(text: &str) -> ShortText {
        let mut inline = [0; INLINE];
        match (inline.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(room), Ok(length)) => {
                room.copy_from_slice(text.as_bytes());
                ShortText(Short::Inline(length, inline))
            }
            _ => ShortText(Short::Long(text.into())),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_out_as_it_went_in_whatever_its_length() {
        for text in ["", "7", "1234567890123456789012", "12345678901234567890123", "ä€"] {
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
        assert!(size_of::<Uid>() <= 24 && size_of::<ShortText>() <= 24);
    }
}
