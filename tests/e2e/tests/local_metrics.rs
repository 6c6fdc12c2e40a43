//! What agents count of local pools, as Prometheus would read it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::Ipv4Addr;

use e2e::on_link::{nodes, wait_holder, wait_taken_over, with_service};
use lab::{DataCentre, PATIENCE, Run, command, require, until};

/// The text of a node's `/metrics`.
fn metrics(lab: &DataCentre<'_>, node: &str) -> lab::Result<String> {
    let host = lab.node(node)?;
    let url = format!("http://{}:7472/metrics", host.addresses.v4);
    command::run(host.namespace.command("curl").args(["-sS", "--fail", "--max-time", "2", &url]))
}

/// The value of a series; `None` where there is none.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// What a value is to be.
type IsSo = fn(Option<f64>) -> bool;

/// Waits until the series of a node are so.
fn wait_metrics(lab: &DataCentre<'_>, node: &str, is_so: &[(&str, IsSo)]) -> String {
    until(format!("the metrics of {node}"), PATIENCE, || {
        let text = metrics(lab, node)?;
        for (series, is_so) in is_so {
            let found = value(&text, series);
            require!(is_so(found), "{series} is {found:?}");
        }
        Ok::<_, lab::Error>(text)
    })
    .unwrap()
}

const IS_ONE: IsSo = |value| value == Some(1.0);
const IS_TWO: IsSo = |value| value == Some(2.0);
const IS_SOME: IsSo = |value| value.is_some_and(|value| value > 0.0);
const IS_GONE: IsSo = |value| value.is_none();

const IS_THREE: IsSo = |value| value == Some(3.0);
const IS_NONE: IsSo = |value| value == Some(0.0);

#[test]
fn an_election_a_failover_and_the_heartbeats_are_counted_and_a_series_goes_with_its_service() {
    let run = Run::start().unwrap();
    let (lab, addresses) = with_service(&run, 3);
    let victim = wait_holder(&lab, addresses[0]);
    let subnet = u32::from(lab.topology.nodes[0].addresses.v4) & 0xffff_ff00;
    let subnet = Ipv4Addr::from(subnet);
    let members =
        |standing| format!("purelb_heartbeat_members{{subnet=\"{subnet}/24\",standing=\"{standing}\"}}");
    let (alive, dead) = (members("alive"), members("dead"));
    let received = format!("purelb_heartbeat_received_total{{subnet=\"{subnet}/24\"}}");
    wait_metrics(
        &lab,
        &victim,
        &[
            ("purelb_election_lease_healthy", IS_ONE),
            ("purelb_election_lease_renewals_total", IS_SOME),
            ("purelb_election_member_count", IS_THREE),
            ("purelb_election_subnet_count", IS_TWO),
            ("purelb_election_local_subnet_count", IS_TWO),
            ("purelb_lbnodeagent_election_wins_total", IS_SOME),
            ("purelb_lbnodeagent_local_addresses", IS_SOME),
            ("purelb_lbnodeagent_address_additions_total", IS_SOME),
            ("purelb_lbnodeagent_garp_sent_total", IS_SOME),
            ("purelb_lbnodeagent_garp_errors_total", IS_NONE),
            ("purelb_heartbeat_lateness_seconds_count", IS_SOME),
            (&alive, IS_TWO),
            (&received, IS_SOME),
        ],
    );
    for node in lab.topology.nodes.iter().filter(|node| node.name != victim) {
        let text = wait_metrics(&lab, &node.name, &[("purelb_lbnodeagent_election_losses_total", IS_SOME)]);
        assert_eq!(value(&text, "purelb_failover_seconds_count"), Some(0.0), "nobody has died");
    }
    lab.topology.unplug(&victim).unwrap();
    let heir = wait_taken_over(&lab, addresses[0], &victim);
    let changes = "purelb_election_winner_changes_total{service=\"default/my-app\"}";
    let text = wait_metrics(
        &lab,
        &heir,
        &[
            ("purelb_failover_seconds_count", IS_SOME),
            ("purelb_election_member_count", IS_TWO),
            (changes, IS_SOME),
            (&dead, IS_ONE),
        ],
    );
    let [sum, count] = ["sum", "count"].map(|part| value(&text, &format!("purelb_failover_seconds_{part}")));
    eprintln!("failover: {count:?} addresses in {sum:?} s altogether");
    lab.cluster.kubectl().run(&["delete", "service", "my-app"]).unwrap();
    wait_metrics(
        &lab,
        &heir,
        &[
            (changes, IS_GONE),
            ("purelb_lbnodeagent_local_addresses", IS_NONE),
            ("purelb_lbnodeagent_address_withdrawals_total", IS_SOME),
        ],
    );
}

#[test]
fn a_lease_that_cannot_be_renewed_is_said_to_be_unhealthy() {
    let run = Run::start().unwrap();
    let mut lab = nodes(&run, 1);
    wait_metrics(&lab, "node1", &[("purelb_election_lease_healthy", IS_ONE)]);
    let control_plane = &mut lab.cluster.control_plane;
    let name = ["apiserver", "kube-apiserver"].into_iter().find(|name| control_plane.process(name).is_some());
    control_plane.process(name.unwrap()).unwrap().kill().unwrap();
    wait_metrics(
        &lab,
        "node1",
        &[
            ("purelb_election_lease_healthy", IS_NONE),
            ("purelb_election_lease_renewal_failures_total", IS_SOME),
        ],
    );
}
