//! Conditions: their types, their reasons, and how a list of them changes.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// The object is understood and used.
pub const ACCEPTED: &str = "Accepted";
/// What the object describes works.
pub const READY: &str = "Ready";

/// Strangers answer on the wire for addresses of the object.
pub const ADDRESS_CONFLICT: &str = "AddressConflict";

/// The IPAM provider of an external group answers.
pub const PROVIDER_READY: &str = "ProviderReady";

/// IPAM providers that an external group has had before have back what they gave.
pub const FORMER_PROVIDERS_SETTLED: &str = "FormerProvidersSettled";

/// Reasons of conditions.
pub mod reason {
    /// All is well.
    pub const ACCEPTED: &str = "Accepted";
    /// A value cannot be understood or used.
    pub const INVALID: &str = "Invalid";
    /// A field that this version does not act on is set.
    pub const UNSUPPORTED_FIELD: &str = "UnsupportedField";
    /// The Secret of a password is missing, or is none that can be used.
    pub const SECRET_NOT_USABLE: &str = "SecretNotUsable";
    /// A pool overlaps with one of a group accepted before.
    pub const OVERLAP: &str = "Overlap";
    /// A live node reports strangers.
    pub const REPORTED: &str = "Reported";
    /// No live node reports strangers any more.
    pub const NOT_REPORTED: &str = "NotReported";
    /// Every matched node has an established session.
    pub const ESTABLISHED: &str = "Established";
    /// Some matched node has no established session.
    pub const NOT_ESTABLISHED: &str = "NotEstablished";
    /// The IPAM provider answers.
    pub const PROVIDER_ANSWERS: &str = "Answers";
    /// The IPAM provider cannot be reached or is not well.
    pub const PROVIDER_UNAVAILABLE: &str = "Unavailable";
    /// Every node that it is for can use the interfaces that it selects.
    pub const INTERFACES_USABLE: &str = "InterfacesUsable";
    /// A node cannot use an interface that it selects.
    pub const INTERFACE_NOT_USABLE: &str = "InterfaceNotUsable";
    /// Nothing is left to be released.
    pub const SETTLED: &str = "Settled";
    /// Releases are owed.
    pub const OWED: &str = "Owed";
    /// Services use what will have to be released.
    pub const IN_USE: &str = "InUse";
    /// No node matches.
    pub const NO_NODES: &str = "NoNodes";
}

/// A condition without its time, which [`set`] fills in.
pub fn new(
    type_: &str,
    status: bool,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
) -> Condition {
    Condition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.into(),
        observed_generation: generation,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    }
}

/// Puts `condition` in its place among `conditions`. Its transition time becomes `now` only where its status
/// differs from the one before, so that equal meaning stays equal bytes.
pub fn set(conditions: &mut Vec<Condition>, mut condition: Condition, now: Timestamp) {
    condition.last_transition_time = Time(now);
    match conditions.iter_mut().find(|known| known.type_ == condition.type_) {
        None => conditions.push(condition),
        Some(known) => {
            if known.status == condition.status {
                condition.last_transition_time = known.last_transition_time.clone();
            }
            *known = condition;
        }
    }
}

/// Whether the condition of this type is there and `True`.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(&mut conditions, new(ACCEPTED, true, reason::ACCEPTED, "", Some(1)), at(1));
        set(&mut conditions, new(ACCEPTED, true, reason::ACCEPTED, "again", Some(2)), at(2));
        assert_eq!(conditions[0].last_transition_time.0, at(1));
        assert_eq!(conditions[0].observed_generation, Some(2));
        set(&mut conditions, new(ACCEPTED, false, reason::INVALID, "", Some(3)), at(3));
        assert_eq!(conditions[0].last_transition_time.0, at(3));
        assert_eq!(conditions.len(), 1);
        assert!(!is_true(&conditions, ACCEPTED));
    }
}
