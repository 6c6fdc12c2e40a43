//! What the status of an external group says beyond that of a group of ours.

use api::{
    ServiceGroupStatus,
    condition::{self, FORMER_PROVIDERS_SETTLED, PROVIDER_READY, reason},
};
use ipam::StatsResponse;
use k8s_openapi::jiff::Timestamp;

use super::External;

/// Most octets that the names of Services may take in a status: an object may have 1.5 MiB in all.
pub const RECORD_LIMIT: usize = 512 * 1024;
/// Most ranges that are shown, and the longest text of one.
const SHOWN: usize = 64;
const SHOWN_LEN: usize = 100;

/// What is known of an external group.
#[derive(Debug)]
pub struct Known<'a> {
    /// Its spec.
    pub external: &'a External,
    /// The newest figures of the provider.
    pub stats: Option<&'a StatsResponse>,
    /// Why the provider does not answer; `None` before it has been asked, too.
    pub failure: Option<&'a str>,
    /// It has answered or failed at least once.
    pub is_tried: bool,
    /// IPv4 and IPv6 addresses of the group that Services publish.
    pub held: [i64; 2],
}

/// Puts what is known into the status.
pub fn fill(status: &mut ServiceGroupStatus, known: Known<'_>, generation: Option<i64>, now: Timestamp) {
    status.ipam = Some(known.external.provider.to_string());
    [status.allocated_ipv4, status.allocated_ipv6] = known.held;
    (status.available_ipv4, status.available_ipv6) = (None, None);
    if let Some(stats) = known.stats {
        let clamp = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        (status.allocated_ipv4, status.allocated_ipv6) = (clamp(stats.in_use_v4), clamp(stats.in_use_v6));
        if stats.has_known_capacity {
            status.available_ipv4 = Some(clamp(stats.size_v4.saturating_sub(stats.in_use_v4)));
            status.available_ipv6 = Some(clamp(stats.size_v6.saturating_sub(stats.in_use_v6)));
        }
        status.addresses = stats.display_addresses.iter().take(SHOWN).map(|text| shown(text)).collect();
    }
    if !known.is_tried {
        return;
    }
    let ready = match known.failure {
        None => condition::new(
            PROVIDER_READY,
            true,
            reason::PROVIDER_ANSWERS,
            format!("{} answers on {}", known.external.provider, known.external.socket),
            generation,
        ),
        Some(why) => condition::new(
            PROVIDER_READY,
            false,
            reason::PROVIDER_UNAVAILABLE,
            format!("{} does not serve on {}: {why}", known.external.provider, known.external.socket),
            generation,
        ),
    };
    condition::set(&mut status.conditions, ready, now);
}

/// What is known of a provider that a group has had before.
#[derive(Clone, Copy, Debug)]
pub struct Former<'a> {
    /// Where it is.
    pub socket: &'a str,
    /// How many Services it may have given something to.
    pub served: usize,
    /// How many of them use it.
    pub in_use: usize,
    /// Why it does not answer.
    pub failure: Option<&'a str>,
}

impl Former<'_> {
    fn owed(&self) -> usize {
        self.served - self.in_use
    }

    fn in_words(&self) -> String {
        let mut parts = vec![format!("Services that use addresses from there: {}", self.in_use)];
        parts.push(format!("Services whose addresses have to be released there: {}", self.owed()));
        if let Some(why) = self.failure {
            parts.push(format!(
                "it does not serve: {why}; start it, or, where it never comes back, remove its entry from \
                 status.formerProviders"
            ));
        }
        format!("{}: {}", self.socket, parts.join(", "))
    }
}

/// Puts what is owed to former providers into the status. Absent until there is the first one.
pub fn fill_former(
    status: &mut ServiceGroupStatus,
    former: &[Former<'_>],
    generation: Option<i64>,
    now: Timestamp,
) {
    let settled =
        |is_so, reason, message| condition::new(FORMER_PROVIDERS_SETTLED, is_so, reason, message, generation);
    let condition = if former.is_empty() {
        if !status.conditions.iter().any(|condition| condition.type_ == FORMER_PROVIDERS_SETTLED) {
            return;
        }
        settled(
            true,
            reason::SETTLED,
            "the IPAM providers that the group has had before have all back".to_owned(),
        )
    } else {
        let reason = match former {
            _ if former.iter().any(|one| one.failure.is_some()) => reason::PROVIDER_UNAVAILABLE,
            _ if former.iter().any(|one| one.owed() > 0) => reason::OWED,
            _ => reason::IN_USE,
        };
        settled(false, reason, former.iter().map(Former::in_words).collect::<Vec<_>>().join("; "))
    };
    condition::set(&mut status.conditions, condition, now);
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_LEN).collect()
}
