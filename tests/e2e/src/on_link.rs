//! What tests of local pools share: nodes that know each other, a Service of both families on their own subnet, and
//! what a client there sees on its link.

#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "helpers of tests")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use lab::{
    Capture, DataCentre, Error, PATIENCE, Pings, Run, answers, answers::Answer, cluster::wait_acquainted,
    command, control_plane::Choice, data_centre::Plan, require, secs, until,
};
use serde_json::{Value, json};

use crate::{apply_file, service};

/// How often the client forgets who has which address.
const FORGET: Duration = Duration::from_millis(20);
/// What tells who has an address.
const WHO_HAS: &str = "arp or (icmp6 and ip6[40] == 136)";

/// Nodes that all know each other, with the local pools of the manifests, and no Service yet. Before they do, the first
/// one to hear of an address takes it, and hands it over to the elected one afterwards.
pub fn nodes(run: &Run, count: u8) -> DataCentre<'_> {
    let mut plan = Plan::with_nodes(count);
    plan.routers.clear();
    let lab = DataCentre::start(run, &plan, Choice::from_environment(None)).unwrap();
    apply_file(&lab, "local-pools.yaml").unwrap();
    wait_acquainted(run, &lab.topology.nodes, 2).unwrap();
    lab
}

/// Creates a Service of both families with this annotation of the group, and returns its addresses.
pub fn dual_stack(lab: &DataCentre<'_>, name: &str, group: &str) -> Vec<IpAddr> {
    let mut manifest = service(name, &json!({ "purelb.io/service-group": group }));
    manifest["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    manifest["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    lab.cluster.kubectl().apply(&manifest.to_string()).unwrap();
    lab.wait_addresses("default", name).unwrap()
}

/// The same with `my-app`, whose addresses are each on one node.
pub fn with_service(run: &Run, count: u8) -> (DataCentre<'_>, Vec<IpAddr>) {
    let lab = nodes(run, count);
    let addresses = dual_stack(&lab, "my-app", "onlink");
    addresses.iter().for_each(|address| drop(wait_holder(&lab, *address)));
    (lab, addresses)
}

/// Forgets what the client knows of an address, so that it has to ask the wire.
pub fn forget(lab: &DataCentre<'_>, address: IpAddr) {
    let flush = format!("neigh flush to {address} dev eth0");
    let _ = lab.topology.neighbour.namespace.ip(&flush);
}

/// The node that answers to the client on the nodes' subnet.
///
/// # Errors
/// When none does.
pub fn ask(lab: &DataCentre<'_>, address: IpAddr) -> lab::Result<String> {
    let url = format!("http://{}/", SocketAddr::new(address, 80));
    let mut curl = lab.topology.neighbour.namespace.command("curl");
    let answer = command::run(curl.args(["-sS", "--max-time", "1", &url]))?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| Error::parse("the answer", error))?;
    Ok(answer["node"].as_str().unwrap_or_default().to_owned())
}

/// Waits until an address answers to a client that knows nothing of it, and returns the node.
pub fn wait_answer(lab: &DataCentre<'_>, address: IpAddr) -> String {
    until(format!("{address} to answer on its subnet"), PATIENCE, || {
        forget(lab, address);
        ask(lab, address)
    })
    .unwrap()
}

/// Waits until the Service `my-app` says that this node announces the address.
pub fn wait_announcer(lab: &DataCentre<'_>, address: IpAddr, node: &str) {
    let name = if address.is_ipv4() { "purelb.io/announcing-IPv4" } else { "purelb.io/announcing-IPv6" };
    let expected = format!("{node},eth0");
    let kubectl = lab.cluster.kubectl();
    let what = format!("{name}: {expected}");
    kubectl
        .wait(&what, &["service", "my-app", "-n", "default"], PATIENCE, |service| {
            let text = &service["metadata"]["annotations"][name];
            require!(text == &json!(expected), "{text}");
            Ok(())
        })
        .unwrap();
}

/// The nodes whose kernel has an address.
///
/// # Errors
/// When a kernel cannot be asked.
pub fn holders(lab: &DataCentre<'_>, address: IpAddr) -> lab::Result<Vec<String>> {
    let mut holders = Vec::new();
    for node in &lab.topology.nodes {
        if node.namespace.ip_show(&["-brief", "address"])?.contains(&format!(" {address}/")) {
            holders.push(node.name.clone());
        }
    }
    Ok(holders)
}

/// The node that has an address, once it is only one.
pub fn wait_holder(lab: &DataCentre<'_>, address: IpAddr) -> String {
    until(format!("{address} on one node"), PATIENCE, || {
        let holders = holders(lab, address)?;
        require!(holders.len() == 1, "it is on {holders:?}");
        Ok::<_, Error>(holders[0].clone())
    })
    .unwrap()
}

/// Waits until another node than this one has an address, whether that one has it or not.
pub fn wait_taken_over(lab: &DataCentre<'_>, address: IpAddr, from: &str) -> String {
    until(format!("{address} on another node than {from}"), PATIENCE, || {
        let mut others = holders(lab, address)?;
        others.retain(|holder| holder != from);
        require!(others.len() == 1, "others: {others:?}");
        Ok::<_, Error>(others.remove(0))
    })
    .unwrap()
}

/// How often the agents of all other nodes have said this of a node so far: `dead`, `alive`.
fn told(lab: &DataCentre<'_>, what: &str, node: &str) -> Vec<usize> {
    let others = lab.topology.nodes.iter().filter(|other| other.name != node);
    let count = |other: &lab::Host| {
        let log = fs::read_to_string(lab.run.log(&format!("{}-agent", other.name))).unwrap_or_default();
        let is_it = |line: &&str| {
            line.contains(&format!(": {what} subnet=")) && line.contains(&format!(" node={node}"))
        };
        log.lines().filter(is_it).count()
    };
    others.map(count).collect()
}

/// Runs `story` and waits until every other node's agent has said `dead` or `alive` of a node on both subnets since.
pub fn wait_told(lab: &mut DataCentre<'_>, what: &str, node: &str, story: impl FnOnce(&mut DataCentre<'_>)) {
    let before = told(lab, what, node);
    story(lab);
    until(format!("all others to say {what} of {node}"), PATIENCE, || {
        let now = told(lab, what, node);
        require!(now.iter().zip(&before).all(|(now, before)| *now >= before + 2), "{before:?}, then {now:?}");
        Ok::<_, Error>(())
    })
    .unwrap();
}

/// The MAC address of a node.
pub fn mac_of(lab: &DataCentre<'_>, node: &str) -> String {
    let shown = lab.node(node).unwrap().namespace.ip_show(&["-brief", "link", "show", "eth0"]).unwrap();
    shown.split_whitespace().nth(2).unwrap().to_owned()
}

/// Runs `story` while a client asks the wire for the addresses again and again; what was said of them on its link.
pub fn told_on_the_wire(
    lab: &mut DataCentre<'_>,
    addresses: &[IpAddr],
    story: impl FnOnce(&mut DataCentre<'_>),
) -> Vec<Answer> {
    let client = lab.topology.neighbour.namespace.clone();
    let capture = Capture::start(lab.run, &lab.topology.neighbour, "eth0", WHO_HAS).unwrap();
    let pings: Vec<Pings> =
        addresses.iter().map(|address| Pings::start(&client, *address).unwrap()).collect();
    let is_over = Arc::new(AtomicBool::new(false));
    let flushes: String =
        addresses.iter().map(|address| format!("neigh flush to {address} dev eth0\n")).collect();
    let stop = Arc::clone(&is_over);
    let forgetful = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let _ = client.ip(&flushes);
            thread::sleep(FORGET);
        }
    });
    // The thread ends with a story that fails, too.
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| story(lab)));
    is_over.store(true, Ordering::Relaxed);
    forgetful.join().unwrap();
    drop(pings);
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    answers::of(&capture.finish().unwrap(), addresses).unwrap()
}

/// The same, and checks that at no time two machines answered for one of them. Returns who had each address, in order,
/// by MAC address.
pub fn on_the_wire(
    lab: &mut DataCentre<'_>,
    addresses: &[IpAddr],
    story: impl FnOnce(&mut DataCentre<'_>),
) -> Vec<Vec<String>> {
    let seen = told_on_the_wire(lab, addresses, story);
    answers::check_never_two(&seen).unwrap();
    let mut holders = answers::holders(&seen);
    addresses.iter().map(|address| holders.remove(address).unwrap_or_default()).collect()
}

/// The time since 1970, as captures have it.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Waits until an address that several nodes had is on this one only, and the client has reached it for a second.
pub fn wait_healed(lab: &DataCentre<'_>, address: IpAddr, node: &str) {
    let start = Instant::now();
    lab.wait_on_nodes(address, &[node]).unwrap();
    eprintln!("{address} is on {node} only, {:?} after all hear each other again", start.elapsed());
    let pings = Pings::start(&lab.topology.neighbour.namespace, address).unwrap();
    pings.wait_calm(start + secs(1)).unwrap();
}

/// Fails unless the one that is left with an address has announced it after all heard each other again, and nobody else
/// spoke for it any more soon after. The bar is a second; a machine may have other things to do.
pub fn check_healed(seen: &[Answer], healed: Duration, mac: &str) {
    let after = || seen.iter().filter(|answer| answer.at > healed);
    let announced = after().any(|answer| answer.mac == mac && answer.kind == answers::Kind::Announcement);
    assert!(announced, "the one that is left announces the address");
    let last = after().filter(|answer| answer.mac != mac).map(|answer| answer.at - healed).max();
    let last = last.unwrap_or_default();
    eprintln!("somebody else was heard last {last:?} after that");
    assert!(last < secs(5), "somebody else was heard {last:?} after that");
}

/// Starts to ask for each address each millisecond, from a machine of the subnet that forgets nothing.
pub fn steady(lab: &DataCentre<'_>, addresses: &[IpAddr]) -> Vec<Pings> {
    let from = &lab.topology.control.namespace;
    addresses.iter().map(|address| Pings::start(from, *address).unwrap()).collect()
}

/// Ends them; fails when one was not answered.
pub fn none_lost(pings: Vec<Pings>) {
    for pings in pings {
        let asked = pings.finish().unwrap();
        assert_eq!(asked.lost(), 0, "of {} packets, {:?} without an answer", asked.sent(), asked.outage());
    }
}
