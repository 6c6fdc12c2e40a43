//! Frames of ARP and Neighbor Discovery, as anyone on the wire may send them. What is heard is of one station and about
//! one host's address, and said again as an announcement it is heard as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netlink::{Kind, frame};

fuzz_target!(|input: &[u8]| {
    let Some(heard) = frame::read(input) else { return };
    assert!(heard.mac.is_station() && !heard.address.is_unspecified() && !heard.address.is_multicast());
    for frame in frame::announcements(heard.mac, heard.address, false) {
        let again = frame::read(&frame).expect("an announcement of a host's address");
        assert_eq!((again.address, again.mac, again.kind), (heard.address, heard.mac, Kind::Announcement));
    }
});
