//! 256 bits: which addresses of a block are taken, or which blocks of a chunk are full.

/// How many there are.
pub(super) const LEN: u32 = 256;
const WORDS: usize = (LEN / u64::BITS) as usize;

/// Which addresses of a block are taken, or which blocks of a chunk are full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits([u64; WORDS]);

impl Bits {
    pub(super) const ALL: Bits = Bits([u64::MAX; WORDS]);

    /// Word and bit of an address.
    fn place(bits: u128) -> (usize, u64) {
        let within = bits as usize % LEN as usize;
        (within / u64::BITS as usize, 1 << (within % u64::BITS as usize))
    }

    pub(super) fn contains(&self, bits: u128) -> bool {
        let (word, bit) = Bits::place(bits);
        self.0[word] & bit != 0
    }

    /// Whether all are taken now. The others are looked at only where that can be: reading together what has just
    /// been written apart waits until all that was written before has reached the cache.
    pub(super) fn set(&mut self, bits: u128) -> bool {
        let (word, bit) = Bits::place(bits);
        let with = self.0[word] | bit;
        self.0[word] = with;
        with == u64::MAX && *self == Bits::ALL
    }

    /// Whether none is taken now.
    pub(super) fn clear(&mut self, bits: u128) -> bool {
        let (word, bit) = Bits::place(bits);
        let without = self.0[word] & !bit;
        self.0[word] = without;
        without == 0 && *self == Bits::default()
    }

    /// The lowest from `first` on that is not taken.
    pub(super) fn lowest_free(&self, first: u32) -> Option<u32> {
        let mut before = first;
        for (word, taken) in (0..).zip(self.0) {
            let free = !taken & u64::MAX.checked_shl(before).unwrap_or(0);
            if free != 0 {
                return Some(word * u64::BITS + free.trailing_zeros());
            }
            before = before.saturating_sub(u64::BITS);
        }
        None
    }

    /// How many from `first` to `last` are taken.
    pub(super) fn count(&self, first: u32, last: u32) -> u32 {
        let below = |end: u32| -> u32 {
            let words = (0..).map(|word: u32| end.saturating_sub(word * u64::BITS)).zip(self.0);
            words.map(|(bits, taken)| (taken & !u64::MAX.checked_shl(bits).unwrap_or(0)).count_ones()).sum()
        };
        below(last + 1) - below(first)
    }
}
