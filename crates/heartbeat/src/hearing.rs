//! What was heard of a member: which of its processes speaks, and which of its datagrams were taken. Outlives the
//! membership, so that a recording of a member that went and came back is worth nothing.

use std::cmp::Ordering;

use crate::wire::Dropped;

/// Datagrams that may overtake each other; what is older is refused.
const WINDOW: u64 = 64;

/// Processes of a member that are remembered as over.
const RETIRED: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hearing {
    boot: Option<u64>,
    retired: Vec<u64>,
    /// The highest sequence number, and those below it as bits.
    highest: u64,
    taken: u64,
}

/// What a datagram is to what was heard before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// It begins a process, which is not the first one.
    pub(crate) is_restart: bool,
    /// Nothing later was heard: what it says of its sender is how things are.
    pub(crate) is_newest: bool,
}

impl Hearing {
    /// The process that was heard last.
    pub(crate) fn boot(&self) -> Option<u64> {
        self.boot
    }

    /// Whether a process is over, because a later one was heard.
    pub(crate) fn is_over(&self, boot: u64) -> bool {
        self.retired.contains(&boot)
    }

    /// Whether a datagram may be taken. `is_dead`: nothing says any more that the process heard last is running, so
    /// that one with a smaller number (a clock was set back) may be its successor.
    pub(crate) fn check(&self, boot: u64, sequence: u64, is_dead: bool) -> Result<(), Dropped> {
        let Some(last) = self.boot else { return Ok(()) };
        match boot.cmp(&last) {
            Ordering::Equal if self.is_taken(sequence) => Err(Dropped::Replayed),
            Ordering::Equal => Ok(()),
            _ if self.is_over(boot) => Err(Dropped::Boot),
            Ordering::Less if !is_dead => Err(Dropped::Boot),
            _ => Ok(()),
        }
    }

    fn is_taken(&self, sequence: u64) -> bool {
        match self.highest.checked_sub(sequence) {
            None => false,
            Some(0) => true,
            Some(behind) => behind > WINDOW || self.taken & bit(behind) != 0,
        }
    }

    /// Takes a datagram that was checked.
    pub(crate) fn take(&mut self, boot: u64, sequence: u64) -> Place {
        if self.boot != Some(boot) {
            let before = self.boot.replace(boot);
            if let Some(before) = before {
                if self.retired.len() == RETIRED {
                    self.retired.remove(0);
                }
                self.retired.push(before);
            }
            (self.highest, self.taken) = (sequence, 0);
            return Place { is_restart: before.is_some(), is_newest: true };
        }
        match sequence.checked_sub(self.highest) {
            Some(ahead) => {
                let shifted = u32::try_from(ahead).ok().and_then(|ahead| self.taken.checked_shl(ahead));
                self.taken = shifted.unwrap_or(0) | if ahead <= WINDOW { bit(ahead) } else { 0 };
                self.highest = sequence;
                Place { is_restart: false, is_newest: true }
            }
            None => {
                self.taken |= bit(self.highest - sequence);
                Place { is_restart: false, is_newest: false }
            }
        }
    }
}

/// The bit of the number that is so far behind the highest: from 1 to [`WINDOW`].
fn bit(behind: u64) -> u64 {
    match behind {
        1..=WINDOW => 1 << (behind - 1),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn each_number_is_taken_once_and_only_old_ones_are_refused_unseen(numbers in vec(0_u64..300, 1..200)) {
            let (mut hearing, mut seen) = (Hearing::default(), BTreeSet::new());
            for number in numbers {
                let highest = seen.last().copied().unwrap_or(0);
                let is_taken = hearing.check(7, number, false).is_ok();
                prop_assert_eq!(is_taken, !seen.contains(&number) && number + WINDOW >= highest);
                if is_taken {
                    let place = hearing.take(7, number);
                    prop_assert_eq!(place.is_newest, number >= highest);
                    seen.insert(number);
                }
            }
        }
    }

    #[test]
    fn an_older_process_is_refused_while_the_newer_lives_and_one_that_is_over_for_ever() {
        let mut hearing = Hearing::default();
        assert!(!hearing.take(5, 1).is_restart);
        assert!(hearing.take(9, 1).is_restart);
        assert_eq!(hearing.check(5, 99, false), Err(Dropped::Boot));
        assert_eq!(hearing.check(5, 99, true), Err(Dropped::Boot), "it was seen to be replaced");
        assert_eq!(hearing.check(7, 1, false), Err(Dropped::Boot));
        assert_eq!(hearing.check(7, 1, true), Ok(()), "a clock was set back");
        hearing.take(7, 1);
        assert_eq!(hearing.check(9, 99, true), Err(Dropped::Boot));
        assert_eq!(hearing.check(10, 1, false), Ok(()));
    }

    #[test]
    fn the_largest_numbers_break_nothing() {
        let mut hearing = Hearing::default();
        hearing.take(1, 0);
        assert_eq!(hearing.check(1, u64::MAX, false), Ok(()));
        hearing.take(1, u64::MAX);
        assert_eq!(hearing.check(1, u64::MAX, false), Err(Dropped::Replayed));
        assert_eq!(hearing.check(1, 0, false), Err(Dropped::Replayed));
        assert_eq!(hearing.check(1, u64::MAX - WINDOW, false), Ok(()));
    }
}
