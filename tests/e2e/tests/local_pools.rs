//! Local pools: addresses on the nodes' own subnet, as a client on that subnet sees them, and as its link saw them.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use e2e::{apply_file, service};
use lab::{
    Capture, DataCentre, Error, PATIENCE, Process, Run, answers, command, control_plane::Choice,
    data_centre::Plan, helpers, pods::Workload, require, until,
};
use serde_json::{Value, json};

/// How often the client forgets who has which address.
const FORGET: Duration = Duration::from_millis(20);

/// Nodes with a Service of both families on their own subnet, a pod behind it on every node.
fn lab(run: &Run, nodes: u8) -> (DataCentre<'_>, Vec<IpAddr>, Workload) {
    let mut plan = Plan::with_nodes(nodes);
    plan.routers.clear();
    let lab = DataCentre::start(run, &plan, Choice::from_environment(None)).unwrap();
    apply_file(&lab, "local-pools.yaml").unwrap();
    wait_acquainted(&lab);
    let mut manifest = service("my-app", &json!({ "purelb.io/service-group": "onlink" }));
    manifest["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    manifest["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    lab.cluster.kubectl().apply(&manifest.to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    let nodes: Vec<&str> = lab.topology.nodes.iter().map(|node| node.name.as_str()).collect();
    let workload = lab.deploy("default", "my-app", &addresses, &nodes).unwrap();
    (lab, addresses, workload)
}

/// Waits until every node has heard all others on both subnets: before, the first one to hear of an address takes it,
/// and hands it over to the elected one as soon as they know each other.
fn wait_acquainted(lab: &DataCentre<'_>) {
    let nodes: Vec<&str> = lab.topology.nodes.iter().map(|node| node.name.as_str()).collect();
    for node in &nodes {
        until(format!("{node} to hear the others"), PATIENCE, || {
            let log = fs::read_to_string(lab.run.log(&format!("{node}-agent")));
            let log = log.map_err(Error::io("reading the log of an agent"))?;
            for other in nodes.iter().filter(|other| *other != node) {
                let heard = format!("node={other} is_ready=true");
                let subnets =
                    log.lines().filter(|line| line.contains(": alive subnet=") && line.ends_with(&heard));
                require!(subnets.count() >= 2, "{other} is not heard on both subnets");
            }
            Ok(())
        })
        .unwrap();
    }
}

/// Forgets what the client knows of an address, so that it has to ask the wire.
fn forget(lab: &DataCentre<'_>, address: IpAddr) {
    let flush = format!("neigh flush to {address} dev eth0");
    let _ = lab.topology.neighbour.namespace.ip(&flush);
}

/// The node that answers to the client on the nodes' subnet.
fn ask(lab: &DataCentre<'_>, address: IpAddr) -> lab::Result<String> {
    let url = format!("http://{}/", SocketAddr::new(address, 80));
    let mut curl = lab.topology.neighbour.namespace.command("curl");
    let answer = command::run(curl.args(["-sS", "--max-time", "1", &url]))?;
    let answer: Value = serde_json::from_str(&answer).map_err(|error| Error::parse("the answer", error))?;
    Ok(answer["node"].as_str().unwrap_or_default().to_owned())
}

/// Waits until an address answers to a client that knows nothing of it, and returns the node.
fn wait_answer(lab: &DataCentre<'_>, address: IpAddr) -> String {
    until(format!("{address} to answer on its subnet"), PATIENCE, || {
        forget(lab, address);
        ask(lab, address)
    })
    .unwrap()
}

/// Waits until the Service says that this node announces the address.
fn wait_announcer(lab: &DataCentre<'_>, address: IpAddr, node: &str) {
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

/// Runs `story` while a client asks the wire for the addresses again and again, and checks on its link that at no
/// time two machines answered for one of them. Returns who had each address, in order, by MAC address.
fn on_the_wire(lab: &DataCentre<'_>, addresses: &[IpAddr], story: impl FnOnce()) -> Vec<Vec<String>> {
    let host = &lab.topology.neighbour;
    let capture = Capture::start(lab.run, host, "eth0", "arp or icmp6").unwrap();
    let mut probe = host.namespace.command(helpers::binary("lab").unwrap());
    probe.args(["probe", "--interface", "eth0", "--out"]).arg(lab.run.folder().join("attempts"));
    for address in addresses {
        probe.args(["--target", &SocketAddr::new(*address, 80).to_string()]);
    }
    let mut client = Process::spawn("client", probe, lab.run.log("client")).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                addresses.iter().for_each(|address| forget(lab, *address));
                thread::sleep(FORGET);
            }
        });
        // The thread ends with a story that fails, too.
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(story));
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    client.kill().unwrap();
    let seen = answers::of(&capture.finish().unwrap(), addresses).unwrap();
    answers::check_never_two(&seen).unwrap();
    let mut holders = answers::holders(&seen);
    addresses.iter().map(|address| holders.remove(address).unwrap_or_default()).collect()
}

fn mac_of(lab: &DataCentre<'_>, node: &str) -> String {
    let shown = lab.node(node).unwrap().namespace.ip_show(&["-brief", "link", "show", "eth0"]).unwrap();
    shown.split_whitespace().nth(2).unwrap().to_owned()
}

#[test]
fn one_node_of_the_subnet_answers_for_an_address_and_says_so() {
    let run = Run::start().unwrap();
    let (lab, addresses, _workload) = lab(&run, 3);
    let holders = on_the_wire(&lab, &addresses, || {
        for address in &addresses {
            let node = wait_answer(&lab, *address);
            wait_announcer(&lab, *address, &node);
            lab.wait_on_nodes(*address, &[&node]).unwrap();
            forget(&lab, *address);
            assert_eq!(ask(&lab, *address).unwrap(), node);
        }
    });
    for (address, holders) in addresses.iter().zip(holders) {
        assert_eq!(holders, [mac_of(&lab, &ask(&lab, *address).unwrap())], "{address}");
    }
    let told = lab.wait_event("default", "my-app", "Announcing").unwrap();
    assert!(told.contains("on eth0"), "{told}");
    lab.cluster.kubectl().run(&["delete", "service", "my-app"]).unwrap();
    for address in &addresses {
        lab.wait_on_nodes(*address, &[]).unwrap();
    }
}

#[test]
fn when_the_holder_dies_another_node_answers_and_never_two() {
    let run = Run::start().unwrap();
    let (mut lab, addresses, _workload) = lab(&run, 3);
    let before: Vec<String> = addresses.iter().map(|address| wait_answer(&lab, *address)).collect();
    let victim = before[0].clone();
    let macs: Vec<String> = before.iter().map(|node| mac_of(&lab, node)).collect();
    let mut after = Vec::new();
    let holders = on_the_wire(&lab, &addresses, || {
        for (address, node) in addresses.iter().zip(&before) {
            assert_eq!(wait_answer(&lab, *address), *node);
        }
        lab.topology.unplug(&victim).unwrap();
        after = addresses.iter().map(|address| wait_answer(&lab, *address)).collect();
    });
    lab.cluster.agent(&victim).unwrap().kill().unwrap();
    for (number, address) in addresses.iter().enumerate() {
        assert_ne!(after[number], victim, "{address}");
        wait_announcer(&lab, *address, &after[number]);
        let mut expected = vec![macs[number].clone(), mac_of(&lab, &after[number])];
        expected.dedup();
        assert_eq!(holders[number], expected, "{address}: what it did not hold has not moved");
    }
}
