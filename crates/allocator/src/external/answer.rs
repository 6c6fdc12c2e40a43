//! What a provider says, judged: nothing of it is believed that could harm another Service, and every status code
//! means one of three things.

use std::net::IpAddr;

use api::IpFamily;
use tonic::{Code, Status};

use super::{Ask, External, Want};
use crate::{
    inputs::{Groups, Word},
    select::Problem,
    waiting::Wait,
};

/// Longest message of a provider that is passed on, in characters.
const MESSAGE_LIMIT: usize = 300;

/// What a status code means for whoever waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Nothing is free; something may be later.
    Exhausted,
    /// The request is not to the provider's liking: its owner, or whoever configures the provider, has to act.
    Refused,
    /// The provider is not there or not well; what became of the call is unknown.
    Unwell,
}

/// What a status code means.
pub fn meaning(code: Code) -> Meaning {
    match code {
        Code::ResourceExhausted => Meaning::Exhausted,
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => Meaning::Refused,
        Code::Ok
        | Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::Aborted
        | Code::Internal
        | Code::DataLoss => Meaning::Unwell,
    }
}

/// A refusal as its owner reads it.
pub fn problem(ask: &Ask, external: &External, status: &Status) -> Problem {
    let group = &ask.group;
    let provider = &external.provider;
    let text = text(status);
    match meaning(status.code()) {
        Meaning::Exhausted => Problem {
            reason: "exhausted",
            message: format!(
                "the IPAM provider {provider} of ServiceGroup {group} is exhausted: it has nothing free: {text}"
            ),
            wait: Some(Wait::Room(group.clone(), family(ask))),
        },
        Meaning::Refused => Problem {
            reason: "provider_refused",
            message: format!("the IPAM provider {provider} of ServiceGroup {group} refuses: {text}"),
            wait: Some(Wait::Group(group.clone())),
        },
        Meaning::Unwell => unwell(group, external, &text),
    }
}

/// Nobody can be served because the provider is not there. Says the same as long as the reason is the same.
pub fn unwell(group: &Word, external: &External, why: &str) -> Problem {
    Problem {
        reason: "provider_unavailable",
        message: format!(
            "the IPAM provider {} of ServiceGroup {group} does not serve on {}: {why}; the Service is served when \
             it does",
            external.provider, external.socket
        ),
        wait: Some(Wait::Provider(group.clone())),
    }
}

/// Which family's room is waited for; of two the first, since either is as good as the other.
fn family(ask: &Ask) -> IpFamily {
    match &ask.want {
        Want::Families(families) => families.first().copied().unwrap_or(IpFamily::IPv4),
        Want::Addresses(addresses) => addresses.first().map_or(IpFamily::IPv4, |a| IpFamily::of(*a)),
    }
}

/// A status in words, of sane length: the code where it says nothing, and no control characters.
pub fn text(status: &Status) -> String {
    let message = status.message().trim();
    if message.is_empty() {
        return format!("{:?}", status.code());
    }
    let mut text: String = message.chars().filter(|c| !c.is_control()).take(MESSAGE_LIMIT).collect();
    if message.chars().count() > MESSAGE_LIMIT {
        text.push('…');
    }
    text
}

/// The addresses of an answer, or what is wrong with them. `held` is what the Service has from the group already:
/// a provider may name it again.
pub fn check(
    ask: &Ask,
    answered: &[String],
    held: &[IpAddr],
    groups: &Groups,
) -> Result<Vec<IpAddr>, String> {
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(answered.len().min(4));
    // More than this no question can be answered with; a flood is not worth reading.
    for text in answered.iter().take(16) {
        let address = parse(text)?;
        if addresses.contains(&address) {
            return Err(format!("{address} twice"));
        }
        if let Some(group) = groups.of_address(address) {
            return Err(format!("{address}, which is in a pool of ServiceGroup {}", group.name));
        }
        addresses.push(address);
    }
    match &ask.want {
        Want::Addresses(wanted) => {
            if let Some(missing) = wanted.iter().find(|address| !addresses.contains(address)) {
                return Err(format!("{} where {missing} was asked for", listed(&addresses)));
            }
            addresses.retain(|address| !held.contains(address) || wanted.contains(address));
            if let Some(stranger) = addresses.iter().find(|address| !wanted.contains(address)) {
                return Err(format!("{stranger}, which was not asked for"));
            }
        }
        Want::Families(wanted) => {
            addresses.retain(|address| !held.contains(address));
            let is_wanted = |address: &IpAddr| wanted.contains(&IpFamily::of(*address));
            if let Some(stranger) = addresses.iter().find(|address| !is_wanted(address)) {
                return Err(format!("{stranger}, which is of no family that was asked for"));
            }
            let count = |family| addresses.iter().filter(|a| IpFamily::of(**a) == family).count();
            if let Some(family) = wanted.iter().find(|family| count(**family) > 1) {
                return Err(format!("{}, of which one {family} address is enough", listed(&addresses)));
            }
            let missing = wanted.iter().find(|family| count(**family) == 0);
            if let Some(family) = missing.filter(|_| ask.all || addresses.is_empty()) {
                return Err(format!("{} and no {family} address", listed(&addresses)));
            }
        }
    }
    Ok(addresses)
}

/// One address that a Service can be reached at.
fn parse(text: &str) -> Result<IpAddr, String> {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
    let address: IpAddr = text.parse().map_err(|_| format!("{shown:?}, which is no IP address"))?;
    let is_unusable = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    if is_unusable || address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err(format!("{address}, which no Service can have"));
    }
    Ok(address)
}

/// An answer that is not taken, as the owner reads it.
pub fn unusable(ask: &Ask, external: &External, what: &str) -> Problem {
    Problem {
        reason: "provider_answer",
        message: format!(
            "the IPAM provider {} of ServiceGroup {} answers {what}: the answer is not used, the provider has to \
             be mended",
            external.provider, ask.group
        ),
        wait: Some(Wait::Group(ask.group.clone())),
    }
}

fn listed(addresses: &[IpAddr]) -> String {
    match addresses {
        [] => "nothing".to_owned(),
        addresses => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
