//! Which group a Service's addresses come from: the one that has the addresses that its owner asks for, else the
//! one that its owner names, else the one that serves its namespace, else `default`. Whichever it is, the
//! boundaries of namespaces must let the two together.
//!
//! Only new addresses are asked about: what a Service holds is never taken away by a boundary.

use std::{net::IpAddr, sync::Arc};

use api::names::{DEFAULT_SERVICE_GROUP, annotation};

use crate::{
    inputs::{Group, Groups, Service, Word, scope::Claims},
    waiting::Wait,
};

/// Why a Service cannot be served, in words for its owner, and what could cure it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For the metric: a short reason without variable parts.
    pub reason: &'static str,
    /// What is wrong and what would be accepted.
    pub message: String,
    /// What to wait for; `None`: only an edit of the Service can cure it.
    pub wait: Option<Wait>,
}

impl Problem {
    /// Something that only the Service's owner can mend.
    pub fn of_owner(reason: &'static str, message: String) -> Problem {
        Problem { reason, message, wait: None }
    }

    /// This and another one: the owner is told both, and what cures either is worth another look.
    pub fn and(self, other: Problem) -> Problem {
        let message = match self.message == other.message {
            true => self.message,
            false => format!("{}; {}", self.message, other.message),
        };
        Problem { reason: self.reason, message, wait: Wait::either(self.wait, other.wait) }
    }

    /// The group that it is about, as far as it is about one.
    pub fn group(&self) -> Option<&str> {
        match self.wait.as_ref()?.parts().first()? {
            Wait::Group(name) | Wait::Boundary(_, name) | Wait::Room(name, _) | Wait::Ranges(name, _) => {
                Some(name)
            }
            _ => None,
        }
    }
}

/// The group of this name, or what is wrong with that.
pub fn named<'a>(name: &str, groups: &'a Groups) -> Result<&'a Arc<Group>, Problem> {
    if let Some(group) = groups.get(name) {
        return Ok(group);
    }
    let wait = Some(Wait::Group(name.into()));
    if let Some(refusal) = groups.refusal(name) {
        let message = format!("ServiceGroup {name} is refused: {refusal}");
        return Err(Problem { reason: "no_usable_pool", message, wait });
    }
    let known = match groups.names().as_slice() {
        [] => "there is none yet".to_owned(),
        names => format!("there is {}", names.join(", ")),
    };
    let message = format!(
        "unknown pool: there is no ServiceGroup {name}: create it, or name another with the annotation {} ({known})",
        annotation::SERVICE_GROUP
    );
    Err(Problem { reason: "unknown_pool", message, wait })
}

/// The group of this name where Services of the namespace may use it, or what is wrong with that.
pub fn usable<'a>(name: &str, namespace: &str, groups: &'a Groups) -> Result<&'a Arc<Group>, Problem> {
    usable_with(name, namespace, groups.claims(namespace), groups)
}

/// The same where it is known already what groups say about the namespace.
fn usable_with<'a>(
    name: &str,
    namespace: &str,
    claims: Option<&Claims>,
    groups: &'a Groups,
) -> Result<&'a Arc<Group>, Problem> {
    let group = named(name, groups)?;
    permitted(group, namespace, claims, groups).map(|()| group)
}

/// Whether Services of the namespace may use the group: a boundary holds in both directions, and it is the
/// namespace's: one group that enforces it is enough for all that list the namespace.
fn permitted(
    group: &Group,
    namespace: &str,
    claims: Option<&Claims>,
    groups: &Groups,
) -> Result<(), Problem> {
    let name = &group.name;
    let boundary = |namespace: &Word| Wait::Boundary(namespace.clone(), name.clone());
    let mut wait = Some(boundary(&namespace.into()));
    let is_bounded = |listed: &&Word| groups.claims(listed).is_some_and(|claims| claims.is_bounded);
    let message = match claims.filter(|claims| claims.is_bounded) {
        _ if group.scope.is_enforced && !group.scope.lists(namespace) => format!(
            "namespace denied: ServiceGroup {name} serves only Services of the namespaces that it lists \
             (enforceNamespaces), and \
             {namespace} is not one of them: name another group with the annotation {}, or add the namespace to it",
            annotation::SERVICE_GROUP
        ),
        Some(claims) if !claims.has(name) => format!(
            "namespace denied: the namespace {namespace} may use only its own ServiceGroups (enforceNamespaces), and {name} is none of \
             them: expected {}",
            joined(claims.groups())
        ),
        _ if group.scope.lists(namespace) => return Ok(()),
        _ => match group.scope.namespaces().iter().find(is_bounded) {
            None => return Ok(()),
            Some(listed) => {
                wait = Wait::either(wait, Some(boundary(listed)));
                format!(
                    "namespace denied: ServiceGroup {name} serves only Services of the namespaces that it lists, since another group \
                     makes {listed} a boundary (enforceNamespaces), and {namespace} is not one of them: name another \
                     group with the annotation {}, or add the namespace to this one",
                    annotation::SERVICE_GROUP
                )
            }
        },
    };
    Err(Problem { reason: "namespace_denied", message, wait })
}

fn joined<'a>(names: impl Iterator<Item = &'a Word>) -> String {
    names.map(AsRef::as_ref).collect::<Vec<_>>().join(", ")
}

/// A group and what its choice should tell the Service's owner.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// The group.
    pub group: &'a Arc<Group>,
    /// Something that works, but hardly as meant.
    pub warning: Option<String>,
}

/// The group that a Service without addresses of its own is served from.
pub fn by_name<'a>(service: &Service, groups: &'a Groups) -> Result<Choice<'a>, Problem> {
    let namespace = service.key.namespace();
    if let Some(name) = service.facts.requests.owners_group() {
        return Ok(Choice { group: usable(name, namespace, groups)?, warning: None });
    }
    let claims = groups.claims(namespace);
    let usable = |name: &str| usable_with(name, namespace, claims, groups);
    let Some(claims) = claims else {
        return Ok(Choice { group: usable(DEFAULT_SERVICE_GROUP)?, warning: None });
    };
    if let Some(name) = claims.default_group() {
        return Ok(Choice { group: usable(name)?, warning: None });
    }
    let listed = joined(claims.groups());
    let several = format!(
        "several ServiceGroups list the namespace {namespace} ({listed}), and {} namespaceDefault",
        if claims.is_any_marked() { "more than one sets" } else { "none sets" }
    );
    let mend = format!("mark one, or name one with the annotation {}", annotation::SERVICE_GROUP);
    if claims.is_bounded && !claims.has(DEFAULT_SERVICE_GROUP) {
        let wait = Some(Wait::Boundary(namespace.into(), DEFAULT_SERVICE_GROUP.into()));
        let message = format!("{several}; the namespace may use no other: {mend}");
        return Err(Problem { reason: "ambiguous_namespace_default", message, wait });
    }
    let warning = format!("{several}, so {DEFAULT_SERVICE_GROUP} is used: {mend}");
    Ok(Choice { group: usable(DEFAULT_SERVICE_GROUP)?, warning: Some(warning) })
}

/// The one group that has all the addresses the owner asks for, which may be the one that the owner names beside
/// them.
pub fn by_addresses<'a>(
    service: &Service,
    addresses: &[IpAddr],
    groups: &'a Groups,
) -> Result<&'a Arc<Group>, Problem> {
    let group = match service.facts.requests.owners_group() {
        Some(name) => named_with(name, addresses, groups)?,
        None => holding(addresses, groups)?,
    };
    let namespace = service.key.namespace();
    permitted(group, namespace, groups.claims(namespace), groups).map(|()| group)
}

/// The group of this name, if it has all the addresses.
fn named_with<'a>(name: &Word, addresses: &[IpAddr], groups: &'a Groups) -> Result<&'a Arc<Group>, Problem> {
    let group = named(name, groups)?;
    let Some(address) = addresses.iter().find(|address| !group.contains(**address)) else { return Ok(group) };
    let message = left_out(*address, [group]).unwrap_or_else(|| {
        format!("{address} is in no pool of ServiceGroup {name}: expected one of {}", ranges(group))
    });
    Err(Problem { reason: "address_outside", message, wait: Some(Wait::Group(name.clone())) })
}

/// The group that has all the addresses.
fn holding<'a>(addresses: &[IpAddr], groups: &'a Groups) -> Result<&'a Arc<Group>, Problem> {
    let mut found: Option<&Arc<Group>> = None;
    for address in addresses {
        let Some(group) = groups.of_address(*address) else {
            let message = left_out(*address, groups.iter()).unwrap_or_else(|| {
                format!("{address} is in no pool of any ServiceGroup: expected one of {}", all_ranges(groups))
            });
            return Err(Problem { reason: "address_outside", message, wait: Some(Wait::AnyGroup) });
        };
        if let Some(other) = found.filter(|other| other.name != group.name) {
            let message = format!(
                "the addresses asked for are in two ServiceGroups, {} and {}: expected both in one",
                other.name, group.name
            );
            return Err(Problem { reason: "address_groups", message, wait: Some(Wait::AnyGroup) });
        }
        found = Some(group);
    }
    found.ok_or_else(|| Problem::of_owner("address_missing", "no address was asked for".to_owned()))
}

/// What there is to say of an address that a pool leaves out because no host can have it.
fn left_out<'a>(address: IpAddr, groups: impl IntoIterator<Item = &'a Arc<Group>>) -> Option<String> {
    let mut pools = groups.into_iter().flat_map(|group| group.pools.iter().map(move |pool| (group, pool)));
    let (group, pool) = pools.find(|(_, pool)| pool.leaves_out(address))?;
    let what = if address == pool.subnet.broadcast() && address.is_ipv4() {
        "the broadcast address"
    } else if address.is_ipv4() {
        "the network address"
    } else {
        "the Subnet-Router anycast address"
    };
    Some(format!(
        "{address} is {what} of the subnet {} of ServiceGroup {}, which no host can have: expected one of {}",
        pool.subnet,
        group.name,
        ranges(group)
    ))
}

/// The group's ranges, for messages.
fn ranges(group: &Group) -> String {
    group.ranges().map(|range| range.to_string()).collect::<Vec<_>>().join(", ")
}

fn all_ranges(groups: &Groups) -> String {
    let names = groups.names();
    let lines =
        names.iter().filter_map(|name| groups.get(name)).map(|g| format!("{} ({})", ranges(g), g.name));
    match lines.collect::<Vec<_>>() {
        lines if lines.is_empty() => "a pool of a ServiceGroup, of which there is none yet".to_owned(),
        lines => lines.join(", "),
    }
}
