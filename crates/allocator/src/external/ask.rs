//! What the decision would ask a provider, and what it makes of the answer. No I/O, no clock.

use std::{cell::RefCell, net::IpAddr, sync::Arc};

use api::{IpFamily, names::annotation};

use crate::{
    inputs::{Group, Groups, Service, Word, service::FamilyPolicy},
    select::Problem,
    waiting::Wait,
};

/// What a Service wants of a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// One address of each.
    Families(Vec<IpFamily>),
    /// These very addresses.
    Addresses(Vec<IpAddr>),
}

/// A question to a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Whose provider.
    pub group: Word,
    /// What is wanted.
    pub want: Want,
    /// All of it or nothing; else one family is better than none.
    pub all: bool,
    /// `purelb.io/allow-shared-ip`.
    pub sharing_key: Option<Word>,
}

impl Ask {
    /// How many addresses are wanted.
    pub fn len(&self) -> usize {
        match &self.want {
            Want::Families(families) => families.len(),
            Want::Addresses(addresses) => addresses.len(),
        }
    }

    /// Whether nothing is wanted.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The question.
    pub ask: Ask,
    /// What was given.
    pub given: Vec<IpAddr>,
    /// Why that is not everything.
    pub problem: Option<Problem>,
}

/// What a provider has given to the Service that is decided about; collects what it has to be asked.
///
/// A question is collected and not returned, because the decision may well go on without an answer: with
/// PreferDualStack the second family is no reason to stop, but it is to be asked for.
#[derive(Debug, Default)]
pub struct Provided {
    answer: Option<Answer>,
    wanted: RefCell<Wanted>,
}

#[derive(Debug, Default)]
struct Wanted {
    ask: Option<Ask>,
    is_unmet: bool,
}

impl Provided {
    /// With the answer to the question of the decision before this one.
    pub fn new(answer: Option<Answer>) -> Provided {
        Provided { answer, wanted: RefCell::default() }
    }

    /// What has to be asked before the Service can be decided about.
    pub fn into_ask(self) -> Option<Ask> {
        let wanted = self.wanted.into_inner();
        wanted.ask.filter(|_| wanted.is_unmet)
    }

    /// One address of a family.
    pub fn pick(&self, service: &Service, group: &Group, family: IpFamily) -> Result<IpAddr, Problem> {
        let mut wanted = self.wanted.borrow_mut();
        let ask =
            wanted.ask.get_or_insert_with(|| ask(service, group, Want::Families(needed(service, group))));
        if let Want::Families(families) = &mut ask.want
            && !families.contains(&family)
        {
            families.push(family);
        }
        let answer = self.answer_of(group).filter(|answer| match &answer.ask.want {
            Want::Families(families) => families.contains(&family),
            Want::Addresses(_) => false,
        });
        let Some(answer) = answer else {
            wanted.is_unmet = true;
            return Err(unanswered(group));
        };
        let given = answer.given.iter().copied().find(|address| IpFamily::of(*address) == family);
        given.ok_or_else(|| answer.problem.clone().unwrap_or_else(|| unanswered(group)))
    }

    /// These very addresses.
    pub fn exactly(&self, service: &Service, group: &Group, addresses: &[IpAddr]) -> Result<(), Problem> {
        let want = Want::Addresses(addresses.to_vec());
        let Some(answer) = self.answer_of(group).filter(|answer| answer.ask.want == want) else {
            *self.wanted.borrow_mut() = Wanted { ask: Some(ask(service, group, want)), is_unmet: true };
            return Err(unanswered(group));
        };
        answer.problem.clone().map_or(Ok(()), Err)
    }

    fn answer_of(&self, group: &Group) -> Option<&Answer> {
        self.answer.as_ref().filter(|answer| answer.ask.group == group.name)
    }
}

/// What is certain to be wanted as soon as anything is: with RequireDualStack each family that is not there yet, in
/// one question, because one without the other is of no use.
fn needed(service: &Service, group: &Group) -> Vec<IpFamily> {
    let facts = &service.facts;
    if facts.policy != FamilyPolicy::RequireDualStack {
        return Vec::new();
    }
    let is_from_group = facts.brand.allocated_from.as_deref() == Some(&*group.name);
    let is_there = |family| is_from_group && facts.ingress.iter().any(|ip| IpFamily::of(*ip) == family);
    facts.families.iter().filter(|family| !is_there(*family)).collect()
}

fn ask(service: &Service, group: &Group, want: Want) -> Ask {
    Ask {
        group: group.name.clone(),
        all: service.facts.policy != FamilyPolicy::PreferDualStack || matches!(want, Want::Addresses(_)),
        want,
        sharing_key: service.facts.requests.sharing_key.clone(),
    }
}

/// Nobody reads this: whoever would have to be told gets the question answered first.
fn unanswered(group: &Group) -> Problem {
    Problem {
        reason: "provider",
        message: format!("the IPAM provider of ServiceGroup {} has not answered yet", group.name),
        wait: Some(Wait::Provider(group.name.clone())),
    }
}

/// The external group that very addresses are to be asked of: the one that the owner names, or the one that serves
/// the Service anyway where no group of ours has the addresses.
pub fn group_of_addresses<'a>(
    service: &Service,
    addresses: &[IpAddr],
    groups: &'a Groups,
    by_name: impl FnOnce() -> Result<&'a Arc<Group>, Problem>,
) -> Result<Option<&'a Arc<Group>>, Problem> {
    let requests = &service.facts.requests;
    let named = requests.owners_group();
    let ours = addresses.iter().find_map(|address| Some((address, groups.of_address(*address)?)));
    if named.is_none() && ours.is_some() {
        return Ok(None);
    }
    let is_external = |name: &Word| groups.get(name).is_some_and(|group| group.external.is_some());
    let group = match by_name() {
        Ok(group) if group.external.is_some() => group,
        // Named and external, but not for this namespace.
        Err(problem) if named.is_some_and(is_external) => return Err(problem),
        Ok(_) | Err(_) => return Ok(None),
    };
    match ours {
        None => Ok(Some(group)),
        Some((address, other)) => {
            let message = format!(
                "{address} is in a pool of ServiceGroup {}, not with the IPAM provider of {}: ask for another \
                 address, or name {} with the annotation {}",
                other.name,
                group.name,
                other.name,
                annotation::SERVICE_GROUP
            );
            let wait = Some(Wait::Group(group.name.clone()));
            Err(Problem { reason: "address_outside", message, wait })
        }
    }
}
