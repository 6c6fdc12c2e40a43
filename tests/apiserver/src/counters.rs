//! How many requests of which kind were made: what tests ask for "no writes when nothing changed".

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::faults::{Call, Matcher};

/// Request counts by verb, resource and client.
#[derive(Debug, Default)]
pub struct Counters(Mutex<BTreeMap<Call, u64>>);

impl Counters {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Call, u64>> {
        self.0.lock().expect("no code panics while it holds the counters")
    }

    /// Counts a call; which object it was about is not kept.
    pub(crate) fn count(&self, call: &Call) {
        let key = Call { namespace: String::new(), name: String::new(), ..call.clone() };
        *self.lock().entry(key).or_default() += 1;
    }

    /// How many calls a matcher selects (its namespace and name are not looked at).
    pub fn total(&self, matcher: &Matcher) -> u64 {
        let matcher = Matcher { namespace: None, name: None, ..matcher.clone() };
        self.lock().iter().filter(|(call, _)| matcher.matches(call)).map(|(_, n)| n).sum()
    }

    /// All counts.
    pub fn all(&self) -> Vec<(Call, u64)> {
        self.lock().iter().map(|(call, n)| (call.clone(), *n)).collect()
    }

    /// Starts again from nothing.
    pub fn reset(&self) {
        self.lock().clear();
    }
}
