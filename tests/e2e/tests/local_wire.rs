//! What a node says on the wire when it takes an address of a local pool, field by field, as `tshark` reads it from a
//! capture on the client's link.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use e2e::on_link::{dual_stack, mac_of, nodes, wait_holder};
use lab::{Capture, Error, PATIENCE, Run, require, until};

const EVERYBODY: &str = "ff:ff:ff:ff:ff:ff";
/// Of the default burst, and one before it.
const AT_LEAST: usize = 2;

/// A flag, which newer versions of tshark write as a word and older ones as a number.
fn flag(text: &str) -> bool {
    matches!(text, "1" | "True")
}

#[test]
fn announcements_have_the_fields_of_their_rfcs() {
    let run = Run::start().unwrap();
    let lab = nodes(&run, 2);
    let capture = Capture::start(&run, &lab.topology.neighbour, "eth0", "arp or icmp6").unwrap();
    let addresses = dual_stack(&lab, "my-app", "onlink");
    let macs: Vec<String> =
        addresses.iter().map(|address| mac_of(&lab, &wait_holder(&lab, *address))).collect();
    let (v4, v6) = (addresses[0], addresses[1]);
    // The last of the burst: the capture has everything then.
    let arp = format!("arp.src.proto_ipv4 == {v4} && arp.dst.proto_ipv4 == {v4}");
    let unsolicited = format!("icmpv6.nd.na.target_address == {v6} && icmpv6.nd.na.flag.s == 0");
    let captured = capture.captured_so_far();
    until("two announcements of each form", PATIENCE, || {
        for filter in
            [&format!("{arp} && arp.opcode == 1"), &format!("{arp} && arp.opcode == 2"), &unsolicited]
        {
            let count = captured.packets(filter, &["frame.number"])?.len();
            require!(count >= AT_LEAST, "{count} of {filter}");
        }
        Ok::<_, Error>(())
    })
    .unwrap();
    let captured = capture.finish().unwrap();

    // RFC 5944 §4.6 and RFC 5227 §3: both forms to everybody; in a reply the target is whoever has the address, too.
    let fields = [
        "arp.opcode",
        "eth.dst",
        "eth.src",
        "arp.src.hw_mac",
        "arp.dst.hw_mac",
        "arp.hw.type",
        "arp.proto.type",
    ];
    let mac = &macs[0];
    for line in captured.packets(&arp, &fields).unwrap() {
        let form = line.split('\t').next().unwrap();
        let target = if form == "2" { mac.as_str() } else { "00:00:00:00:00:00" };
        assert_eq!(line, [form, EVERYBODY, mac, mac, target, "1", "0x0800"].join("\t"));
    }
    // RFC 5227 §1.1: whoever probes does not say that it has the address.
    let probes = format!("arp.dst.proto_ipv4 == {v4} && arp.src.proto_ipv4 == 0.0.0.0");
    for line in captured.packets(&probes, &["arp.opcode", "eth.dst", "eth.src", "arp.dst.hw_mac"]).unwrap() {
        let [opcode, to, from, target] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        assert_eq!((opcode, to, target), ("1", EVERYBODY, "00:00:00:00:00:00"), "{line}");
        assert!(
            macs.iter().any(|mac| mac == from)
                || lab.topology.nodes.iter().any(|node| mac_of(&lab, &node.name) == from)
        );
    }

    // RFC 4861 §4.4 and §7.2.6: to all nodes, not solicited, overriding, with the link-layer address of the sender.
    let fields = [
        "eth.dst",
        "eth.src",
        "ipv6.dst",
        "ipv6.hlim",
        "icmpv6.code",
        "icmpv6.checksum.status",
        "icmpv6.opt.type",
        "icmpv6.opt.linkaddr",
        "icmpv6.nd.na.flag.s",
        "icmpv6.nd.na.flag.o",
    ];
    let mac = &macs[1];
    for line in captured.packets(&unsolicited, &fields).unwrap() {
        let (rest, flags) = line.split_at(line.match_indices('\t').nth(7).unwrap().0);
        assert_eq!(rest, ["33:33:00:00:00:01", mac, "ff02::1", "255", "0", "1", "2", mac].join("\t"));
        let flags: Vec<bool> = flags.split('\t').skip(1).map(flag).collect();
        assert_eq!(flags, [false, true], "{line}");
    }
    // RFC 4862 §5.4.2: the question whether anybody has it comes from nobody.
    let solicitations = format!("icmpv6.nd.ns.target_address == {v6} && ipv6.src == ::");
    for line in
        captured.packets(&solicitations, &["ipv6.hlim", "icmpv6.opt.type", "icmpv6.checksum.status"]).unwrap()
    {
        assert_eq!(line, "255\t\t1");
    }
    let asked = captured.packets(&format!("({probes}) || ({solicitations})"), &["frame.number"]).unwrap();
    assert!(!asked.is_empty(), "the wire was asked before the addresses were taken");
}
