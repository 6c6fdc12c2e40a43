//! What waits for a peer that does not read.

use super::*;

#[test]
fn what_a_peer_asks_for_that_reads_nothing_does_not_pile_up() {
    for enhanced_route_refresh in [false, true] {
        let mut bench = Bench::in_state(OpenSent);
        let capabilities = Capabilities {
            multiprotocol: Family::ALL.to_vec(),
            four_octet_asn: Some(THEIRS),
            route_refresh: true,
            enhanced_route_refresh,
            ..Capabilities::default()
        };
        let router_id = RouterId::new([10, 0, 0, OUR_ID + 1].into()).unwrap();
        let open = Open { asn: THEIRS, hold_time: HoldTime::DEFAULT, router_id, capabilities };
        let mut octets = BytesMut::new();
        wire::encode_open(&open, &mut octets);
        wire::encode_keepalive(&mut octets);
        bench.receive(Direction::Outgoing, &octets);
        assert_eq!(bench.peer.state(), Established);
        let id = bench.peer.connection(Direction::Outgoing).unwrap().id;
        let mut queued = 0;
        for _ in 0..20_000 {
            bench.peer.handle_received(id, &refresh(), bench.now);
            while let Some((_, bytes)) = bench.peer.poll_transmit(&mut bench.loc_rib, true, bench.now) {
                queued += bytes.len();
            }
        }
        assert!(queued < 300 * 1024, "{queued} octets wait");
        assert_eq!(bench.peer.state(), Established);
    }
}
