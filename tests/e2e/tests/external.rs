//! Addresses of an IPAM sidecar: given by it, announced by BGP, reached by a client, given back to it.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, net::IpAddr, path::PathBuf, process::Command};

use e2e::{INSTALL_NAMESPACE, service, with_one_router};
use lab::{
    DataCentre, Error, PATIENCE, Run, helpers::binary, process::Process, require, traffic::Sink, until,
};
use serde_json::{Value, json};

/// The sample sidecar of `examples/ipam-file` beside the allocator, and the group `external` that is served by it.
struct Sidecar {
    _process: Process,
    store: PathBuf,
}

impl Sidecar {
    fn start(run: &Run, lab: &DataCentre<'_>) -> Sidecar {
        let [socket, store] = ["ipam.sock", "ipam.json"].map(|name| run.folder().join(name));
        let mut command = Command::new(binary("ipam-file").unwrap());
        command.arg("--socket").arg(&socket).arg("--store").arg(&store);
        command.args(["--pool", "external=198.51.100.64/30,2001:db8:51::40/126"]);
        let process = Process::spawn("ipam-file", command, run.log("ipam-file")).unwrap();
        let external = json!({ "provider": "file", "socket": socket, "announce": "remote" });
        let group = json!({
            "apiVersion": "purelb.io/v2",
            "kind": "ServiceGroup",
            "metadata": { "name": "external", "namespace": INSTALL_NAMESPACE },
            "spec": { "external": external },
        });
        let kubectl = lab.cluster.kubectl();
        // The routers take what they know as pools: this one's addresses are the sidecar's now.
        kubectl.run(&["-n", INSTALL_NAMESPACE, "delete", "servicegroup", "routed"]).unwrap();
        kubectl.apply(&group.to_string()).unwrap();
        Sidecar { _process: process, store }
    }

    /// Waits until it has written down that just these addresses are given.
    fn wait_given(&self, expected: &[IpAddr]) {
        until(format!("{expected:?} in the sidecar's books"), PATIENCE, || {
            let text = fs::read(&self.store).unwrap_or_default();
            let books: Value = serde_json::from_slice(&text).unwrap_or_default();
            let given = books["pools"]["external"].as_object();
            let mut given: Vec<String> = given.into_iter().flatten().map(|(ip, _)| ip.clone()).collect();
            let mut expected: Vec<String> = expected.iter().map(IpAddr::to_string).collect();
            given.sort_unstable();
            expected.sort_unstable();
            require!(given == expected, "they have {given:?}");
            Ok::<_, Error>(())
        })
        .unwrap();
    }
}

#[test]
fn addresses_of_a_sidecar_are_announced_reached_and_given_back() {
    let run = Run::start().unwrap();
    let lab = with_one_router(&run, 2).unwrap();
    let sidecar = Sidecar::start(&run, &lab);
    let mut manifest = service("my-app", &json!({ "purelb.io/service-group": "external" }));
    manifest["spec"]["ipFamilyPolicy"] = json!("RequireDualStack");
    manifest["spec"]["ipFamilies"] = json!(["IPv4", "IPv6"]);
    lab.cluster.kubectl().apply(&manifest.to_string()).unwrap();
    let addresses = lab.wait_addresses("default", "my-app").unwrap();
    let expected: [IpAddr; 2] = ["198.51.100.64", "2001:db8:51::40"].map(|ip| ip.parse().unwrap());
    assert_eq!(addresses, expected);
    sidecar.wait_given(&addresses);
    lab.wait_routes(&addresses, &["node1", "node2"]).unwrap();
    for address in &addresses {
        lab.wait_on_nodes(*address, &["node1", "node2"]).unwrap();
    }
    let nodes = lab.topology.nodes.iter().map(|node| &node.namespace);
    let sink = Sink::start_on(nodes).unwrap();
    sink.wait_reachable(&lab.topology.client.namespace, &addresses).unwrap();
    lab.cluster.kubectl().run(&["delete", "service", "my-app"]).unwrap();
    lab.wait_routes(&addresses, &[]).unwrap();
    sidecar.wait_given(&[]);
}
