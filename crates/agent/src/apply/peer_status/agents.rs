//! The status of LBNodeAgents, and the events that go with it: whether one is understood, and what the nodes that it is
//! for make of it, as their Leases say.

use api::{
    LBNodeAgent, LBNodeAgentStatus,
    condition::{self, reason},
    names::event::{CONFIG_ERROR, CONFIGURATION_WARNING},
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp};
use kube::{
    Client, Resource, ResourceExt,
    runtime::events::{Event, EventType, Recorder, Reporter},
};

use super::{NAMED, accepted};
use crate::{apply::events::CONTROLLER, inputs::node_agent, members::Roster};

/// What its status should be.
pub(super) fn status(agent: &LBNodeAgent, roster: &Roster, now: Timestamp) -> LBNodeAgentStatus {
    let result = node_agent::parse(&agent.spec, "").map(drop);
    let generation = agent.metadata.generation;
    let mut conditions = agent.status.clone().unwrap_or_default().conditions;
    condition::set(&mut conditions, accepted(result, generation), now);
    condition::set(&mut conditions, ready(&agent.name_any(), roster, generation), now);
    LBNodeAgentStatus { conditions }
}

fn ready(name: &str, roster: &Roster, generation: Option<i64>) -> Condition {
    let new = |is_ready, reason, message: String| {
        condition::new(condition::READY, is_ready, reason, message, generation)
    };
    let uses = roster.iter().filter(|(_, member)| member.is_live).filter_map(|(node, member)| {
        let agent = member.agent.as_ref().filter(|agent| agent.name == name)?;
        Some((node, &agent.unfit))
    });
    let uses: Vec<_> = uses.collect();
    if uses.is_empty() {
        let why = "no node uses it: its nodeSelector matches none with an agent, or another LBNodeAgent comes first there";
        return new(false, reason::NO_NODES, why.to_owned());
    }
    let of = |n: usize| format!("{n} node{}", if n == 1 { "" } else { "s" });
    let faults = uses.iter().filter(|(_, unfit)| !unfit.is_empty()).map(|(node, unfit)| {
        let all: Vec<_> = unfit.iter().map(ToString::to_string).collect();
        format!("{node}: {}", all.join(", "))
    });
    let faults: Vec<_> = faults.collect();
    if faults.is_empty() {
        return new(true, reason::INTERFACES_USABLE, format!("used by {}", of(uses.len())));
    }
    let named = faults.get(..NAMED).unwrap_or(&faults).join("; ");
    let mut message = format!("of no use for local addresses on {}: {named}", of(faults.len()));
    if let more @ 1.. = faults.len().saturating_sub(NAMED) {
        message.push_str(&format!("; and on {more} more"));
    }
    new(false, reason::INTERFACE_NOT_USABLE, message)
}

/// Tells what is wrong where the object has not said so yet.
pub(super) async fn tell(client: &Client, node: &str, agent: &LBNodeAgent, now: &LBNodeAgentStatus) {
    let before = agent.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let reporter = Reporter { controller: CONTROLLER.into(), instance: Some(node.to_owned()) };
    let recorder = Recorder::new(client.clone(), reporter);
    for (reason, note) in news(before, &now.conditions) {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Configure".to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.publish(&event, &agent.object_ref(&())).await {
            tracing::debug!(agent = agent.name_any(), %error, "event not written");
        }
    }
}

/// Reason and note of each thing that is wrong now and was not so before.
fn news(before: &[Condition], now: &[Condition]) -> Vec<(&'static str, String)> {
    let is_same = |condition: &Condition| {
        let known = before.iter().find(|known| known.type_ == condition.type_);
        known.is_some_and(|known| (&known.status, &known.message) == (&condition.status, &condition.message))
    };
    let news = now.iter().filter(|condition| condition.status == "False" && !is_same(condition));
    news.filter_map(|condition| match condition.type_.as_str() {
        condition::ACCEPTED => Some((
            CONFIG_ERROR,
            format!("refused, so what was accepted before it still holds: {}", condition.message),
        )),
        condition::READY if condition.reason == reason::INTERFACE_NOT_USABLE => {
            Some((CONFIGURATION_WARNING, condition.message.clone()))
        }
        _ => None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use api::NodeAgentUse;

    use super::*;
    use crate::members::Member;

    fn agent(yaml: &str) -> LBNodeAgent {
        LBNodeAgent::new("default", serde_norway::from_str(yaml).unwrap())
    }

    fn roster(nodes: &[(&str, &str, bool)]) -> Roster {
        let member = |(node, says, is_live): &(&str, &str, bool)| {
            let (subnets, heartbeats, macs) = Default::default();
            let agent = NodeAgentUse::parse(says);
            ((*node).into(), Member { subnets, heartbeats, macs, agent, is_live: *is_live })
        };
        nodes.iter().map(member).collect()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready_of(status: &LBNodeAgentStatus) -> (&str, &str, &str) {
        let ready = status.conditions.iter().find(|it| it.type_ == condition::READY).unwrap();
        (&ready.status, &ready.reason, &ready.message)
    }

    #[test]
    fn what_nodes_cannot_use_is_said_with_their_names_and_the_dead_are_not_asked() {
        let ready = |nodes: &[(&str, &str, bool)]| {
            let status = status(&agent("{}"), &roster(nodes), at(1));
            let (status, reason, message) = ready_of(&status);
            (status == "True", reason.to_owned(), message.to_owned())
        };
        let all =
            [("n1", "default", true), ("n2", "racks eth7:absent", true), ("n3", "default :no-match", false)];
        assert_eq!(ready(&all), (true, "InterfacesUsable".to_owned(), "used by 1 node".to_owned()));
        assert_eq!(ready(&all[1..]).1, "NoNodes");
        let (is_ready, reason, message) =
            ready(&[("n1", "default eth1:port eth7:absent", true), ("n2", "default", true)]);
        assert_eq!((is_ready, reason.as_str()), (false, "InterfaceNotUsable"));
        assert!(
            message.starts_with("of no use for local addresses on 1 node: n1: eth1 is a port of"),
            "{message}"
        );
        assert!(message.ends_with("eth7 does not exist"), "{message}");
        let many: Vec<_> = (0..13).map(|n| format!("n{n:02}")).collect();
        let many: Vec<_> = many.iter().map(|node| (node.as_str(), "default eth7:absent", true)).collect();
        let (.., message) = ready(&many);
        assert!(
            message.contains("on 13 nodes: n00: eth7") && message.ends_with("; and on 3 more"),
            "{message}"
        );
    }

    #[test]
    fn what_is_wrong_is_told_once_and_again_when_it_is_something_else() {
        let fine = roster(&[("n1", "default", true)]);
        let mut object = agent("local: {localInterface: 'eth['}");
        let news_of = |object: &mut LBNodeAgent, roster: &Roster| {
            let now = status(object, roster, at(1));
            let before = object.status.replace(now.clone()).unwrap_or_default();
            news(&before.conditions, &now.conditions)
        };
        let told = news_of(&mut object, &fine);
        assert_eq!((told.len(), told[0].0), (1, CONFIG_ERROR));
        assert!(told[0].1.contains("spec.local.localInterface") && told[0].1.contains("eth["), "{told:?}");
        assert!(news_of(&mut object, &fine).is_empty());
        object.spec = agent("{}").spec;
        assert!(news_of(&mut object, &fine).is_empty(), "all is well");
        let broken = roster(&[("n1", "default eth7:absent", true)]);
        let told = news_of(&mut object, &broken);
        assert_eq!((told.len(), told[0].0), (1, CONFIGURATION_WARNING));
    }
}
