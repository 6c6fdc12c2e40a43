//! The act about bad input: it is refused with words that help, and everything else goes on.

use std::time::SystemTime;

use super::{acts, stage::Stage};
use crate::{Result, helpers::probe::unix_ms, require};

pub(super) fn refused(stage: &mut Stage<'_>) -> Result<()> {
    stage.narrator.act(
        "Mistakes",
        "A mistake is refused where it is made, with words that say what would be right, and nothing else notices. \
         Meanwhile the client goes on asking, twenty times a second on each of four ways.",
    );
    let began = unix_ms(SystemTime::now());
    let typed = "apply -f tests/lab/manifests/bad-peer.yaml";
    stage.narrator.prompt("$", &format!("kubectl {typed}"));
    let mut kubectl = stage.lab.cluster.kubectl().command(&typed.split(' ').collect::<Vec<_>>());
    kubectl.current_dir(crate::cluster::source_root());
    let outcome = crate::command::outcome_with_input(&mut kubectl, "")?;
    stage.narrator.output(&outcome.stderr, 6);
    require!(!outcome.success, "a BGPPeer with both peerASN and dynamicASN was accepted");
    let said = outcome.stderr.contains("peerASN") && outcome.stderr.contains("dynamicASN");
    require!(said, "the refusal does not name the fields: {}", outcome.stderr);

    stage.kubectl("apply -n shop -f tests/lab/manifests/bad-address.yaml", 1)?;
    let message = stage.lab.wait_event("shop", "wishful", "AllocationFailed")?;
    stage.kubectl("get events -n shop --field-selector involvedObject.name=wishful", 4)?;
    require!(message.contains("203.0.113.99"), "the event does not name the address: {message}");
    let wishful = stage.lab.cluster.kubectl().get(&["service", "wishful", "-n", "shop"])?;
    let ingress = wishful.pointer("/status/loadBalancer/ingress").and_then(|list| list.as_array());
    require!(ingress.is_none_or(Vec::is_empty), "the Service got {ingress:?}");
    stage.kubectl("delete svc wishful -n shop", 1)?;

    stage.lab.wait_node_statuses(&acts::ALL)?;
    let attempts = stage.attempts_since(began)?;
    let failed = attempts.iter().filter(|attempt| attempt.error.is_some()).collect::<Vec<_>>();
    require!(!attempts.is_empty(), "the client has not asked meanwhile");
    require!(
        failed.is_empty(),
        "{} of {} requests failed meanwhile: {failed:?}",
        failed.len(),
        attempts.len()
    );
    stage.narrator.verified(&format!(
        "the peer was refused at apply, the Service got an event instead of an address; meanwhile {} requests of the \
         client were all answered",
        attempts.len()
    ));
    Ok(())
}
