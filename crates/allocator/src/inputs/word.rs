//! What many Services have in common: names of groups, sharing keys, lists of ports. Kept once, and one pointer
//! wherever it is used: a Service has four of them.

use std::{borrow::Borrow, fmt, hash::Hash, hash::Hasher, ops::Deref};

use triomphe::ThinArc;

use super::service::Port;

/// A text that is shared.
#[derive(Clone, PartialOrd, Ord)]
pub struct Word(ThinArc<(), u8>);

impl Word {
    /// How many have it.
    pub fn holders(&self) -> usize {
        ThinArc::strong_count(&self.0)
    }
}

impl From<&str> for Word {
    fn from(text: &str) -> Word {
        Word(ThinArc::from_header_and_slice((), text.as_bytes()))
    }
}

impl From<String> for Word {
    fn from(text: String) -> Word {
        text.as_str().into()
    }
}

impl Deref for Word {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0.slice).expect("it is made of a str")
    }
}

impl AsRef<str> for Word {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Word {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Word {
    fn eq(&self, other: &Word) -> bool {
        // Nearly always the two are one.
        std::ptr::eq(self.0.ptr(), other.0.ptr()) || self.0.slice == other.0.slice
    }
}

impl Eq for Word {}

impl Hash for Word {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // As the text, by which it is looked for.
        str::hash(self, state);
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The ports of a Service, sorted, each once; shared.
#[derive(Clone)]
pub struct Ports(ThinArc<(), Port>);

impl Ports {
    /// How many have them.
    pub fn holders(&self) -> usize {
        ThinArc::strong_count(&self.0)
    }
}

impl From<Vec<Port>> for Ports {
    fn from(mut ports: Vec<Port>) -> Ports {
        ports.sort_unstable();
        ports.dedup();
        Ports(ThinArc::from_header_and_slice((), &ports))
    }
}

impl Deref for Ports {
    type Target = [Port];

    fn deref(&self) -> &[Port] {
        &self.0.slice
    }
}

impl PartialEq for Ports {
    fn eq(&self, other: &Ports) -> bool {
        std::ptr::eq(self.0.ptr(), other.0.ptr()) || self.0.slice == other.0.slice
    }
}

impl Eq for Ports {}

impl Hash for Ports {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.slice.hash(state);
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::inputs::service::Protocol;

    #[test]
    fn a_word_is_found_by_its_text_and_equal_to_another_of_the_same_text() {
        let words: HashSet<Word> = ["edge", "", "ä", "edge"].map(Word::from).into();
        assert_eq!(words.len(), 3);
        for text in ["edge", "", "ä"] {
            let word = words.get(text).unwrap();
            assert_eq!((&**word, word.to_string().as_str(), word), (text, text, &text.to_owned().into()));
        }
        assert!(!words.contains("edg") && Word::from("a") < Word::from("b"));
        assert_eq!(size_of::<Option<Word>>(), size_of::<usize>());
    }

    #[test]
    fn ports_are_sorted_and_each_once() {
        let [a, b] =
            [(Protocol::Tcp, 443), (Protocol::Tcp, 80)].map(|(protocol, port)| Port { protocol, port });
        let ports = Ports::from(vec![a, b, a]);
        assert_eq!(ports[..], [b, a]);
        assert_eq!(ports, Ports::from(vec![b, a]));
        let same = ports.clone();
        assert_eq!((ports.holders(), same == ports, size_of::<Ports>()), (2, true, size_of::<usize>()));
    }
}
