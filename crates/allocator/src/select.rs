//! Which group a Service's addresses come from.
//!
//! Namespaces as a default and as a boundary are refused in groups ([`crate::inputs::group::unsupported`]), so
//! today the annotation, the addresses or the name `default` decide.

use std::{net::IpAddr, sync::Arc};

use api::names::{DEFAULT_SERVICE_GROUP, annotation};

use crate::{
    inputs::{Group, Groups, Service},
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
}

/// The group of this name, or what is wrong with that.
pub fn named<'a>(name: &str, groups: &'a Groups) -> Result<&'a Arc<Group>, Problem> {
    if let Some(group) = groups.get(name) {
        return Ok(group);
    }
    let wait = Some(Wait::Group(name.into()));
    if let Some(refusal) = groups.refusal(name) {
        let message = format!("ServiceGroup {name} is refused: {refusal}");
        return Err(Problem { reason: "group_refused", message, wait });
    }
    let known = match groups.names().as_slice() {
        [] => "there is none yet".to_owned(),
        names => format!("there is {}", names.join(", ")),
    };
    let message = format!(
        "there is no ServiceGroup {name}: create it, or name another with the annotation {} ({known})",
        annotation::SERVICE_GROUP
    );
    Err(Problem { reason: "group_missing", message, wait })
}

/// The group that a Service without addresses of its own is served from.
pub fn by_name<'a>(service: &Service, groups: &'a Groups) -> Result<&'a Arc<Group>, Problem> {
    match &service.facts.requests.group {
        Some(name) => named(name, groups),
        None => named(DEFAULT_SERVICE_GROUP, groups),
    }
}

/// The one group that has all the addresses the owner asks for; `binding` is the group that the owner names
/// beside them.
pub fn by_addresses<'a>(
    addresses: &[IpAddr],
    binding: Option<&Arc<str>>,
    groups: &'a Groups,
) -> Result<&'a Arc<Group>, Problem> {
    if let Some(name) = binding {
        let group = named(name, groups)?;
        return match addresses.iter().find(|address| !group.contains(**address)) {
            None => Ok(group),
            Some(address) => {
                let message = format!(
                    "{address} is in no pool of ServiceGroup {name}: expected one of {}",
                    ranges(group)
                );
                Err(Problem { reason: "address_outside", message, wait: Some(Wait::Group(name.clone())) })
            }
        };
    }
    let mut found: Option<&Arc<Group>> = None;
    for address in addresses {
        let Some(group) = groups.of_address(*address) else {
            let message = format!(
                "{address} is in no pool of any ServiceGroup: expected one of {}",
                all_ranges(groups)
            );
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
