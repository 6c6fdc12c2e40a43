//! `spec.bfd` of a BGPPeer: how the path to the router is watched.
//!
//! One hop (RFC 5881) unless the peer says that it is further away: by `ebgpMultiHop` or `ttlSecurity` of 2 or more,
//! or by `minimumTTL`, which only several hops have (RFC 5883).

use std::{num::NonZeroU8, time::Duration};

use api::{BGPPeerSpec, GoDuration, Refusal, bgp_peer::BfdConfig};
use bgp::bfd::{Config, Path};

const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// Reads it; `None` where the peer has no BFD.
pub fn parse(spec: &BGPPeerSpec) -> Result<Option<Config>, Refusal> {
    let Some(bfd) = &spec.bfd else { return Ok(None) };
    let detect_mult = NonZeroU8::new(bfd.detect_multiplier)
        .ok_or_else(|| Refusal::invalid("spec.bfd.detectMultiplier", "it is 0: expected 1 to 255"))?;
    Ok(Some(Config {
        transmit_interval: interval("spec.bfd.transmitInterval", bfd.transmit_interval)?,
        receive_interval: interval("spec.bfd.receiveInterval", bfd.receive_interval)?,
        detect_mult,
        passive: bfd.passive,
        path: path(spec, bfd)?,
    }))
}

fn interval(path: &str, time: GoDuration) -> Result<Duration, Refusal> {
    if (INTERVALS.0..=INTERVALS.1).contains(&time.0) {
        return Ok(time.0);
    }
    Err(Refusal::invalid(path, format!("{time} cannot be: expected 10ms to 60s")))
}

fn path(spec: &BGPPeerSpec, bfd: &BfdConfig) -> Result<Path, Refusal> {
    match (bfd.minimum_ttl, spec.ebgp_multi_hop.or(spec.ttl_security)) {
        (Some(0 | 255), _) => Err(Refusal::invalid("spec.bfd.minimumTTL", "expected 1 to 254")),
        (Some(_), _) if spec.interface.is_some() => Err(Refusal::invalid(
            "spec.bfd.minimumTTL",
            "a router on an interface is one hop away, which is always checked: leave it out",
        )),
        (Some(min_ttl), _) => Ok(Path::Multihop { min_ttl }),
        (None, _) if spec.interface.is_some() => Ok(Path::SingleHop),
        // Packets are sent with 255, and each router on the way takes one.
        (None, Some(hops)) if hops > 1 => Ok(Path::Multihop { min_ttl: 255 - (hops - 1) }),
        (None, _) => Ok(Path::SingleHop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(yaml: &str) -> Result<Option<Config>, Refusal> {
        let peer = "myASN: 64512, peerASN: 64513, peerAddress: 192.0.2.1";
        parse(&serde_norway::from_str(&format!("{{{peer}, {yaml}}}")).unwrap())
    }

    #[test]
    fn bfd_has_the_documented_defaults() {
        assert_eq!(read("holdTime: 9s").unwrap(), None);
        assert_eq!(read("bfd: {}").unwrap(), Some(Config::default()));
    }

    #[test]
    fn every_field_of_bfd_reaches_the_session() {
        let yaml = "bfd: {transmitInterval: 50ms, receiveInterval: 1s, detectMultiplier: 5, passive: true}";
        let expected = Config {
            transmit_interval: Duration::from_millis(50),
            receive_interval: Duration::from_secs(1),
            detect_mult: NonZeroU8::new(5).unwrap(),
            passive: true,
            path: Path::SingleHop,
        };
        assert_eq!(read(yaml).unwrap(), Some(expected));
    }

    #[test]
    fn several_hops_are_told_by_ebgp_multi_hop_or_minimum_ttl() {
        for (yaml, path) in [
            ("bfd: {}, ebgpMultiHop: 1", Path::SingleHop),
            ("bfd: {}, ttlSecurity: 1", Path::SingleHop),
            ("bfd: {}, ttlSecurity: 2", Path::Multihop { min_ttl: 254 }),
            ("bfd: {}, ttlSecurity: 254", Path::Multihop { min_ttl: 2 }),
            ("bfd: {minimumTTL: 250}, ttlSecurity: 2", Path::Multihop { min_ttl: 250 }),
            ("bfd: {}, ebgpMultiHop: 3", Path::Multihop { min_ttl: 253 }),
            ("bfd: {}, ebgpMultiHop: 255", Path::Multihop { min_ttl: 1 }),
            ("bfd: {minimumTTL: 250}, ebgpMultiHop: 3", Path::Multihop { min_ttl: 250 }),
            ("bfd: {minimumTTL: 64}", Path::Multihop { min_ttl: 64 }),
        ] {
            assert_eq!(read(yaml).unwrap().unwrap().path, path, "{yaml}");
        }
    }

    #[test]
    fn a_router_on_an_interface_is_one_hop_away_whatever_its_session_would_take() {
        let peer = "{myASN: 64512, peerASN: 64513, interface: eth0, bfd: {}, ttlSecurity: 2}";
        let read = parse(&serde_norway::from_str(peer).unwrap()).unwrap().unwrap();
        assert_eq!(read.path, Path::SingleHop);
    }

    #[test]
    fn bad_values_are_refused_with_their_field() {
        for (yaml, path) in [
            ("bfd: {transmitInterval: 9ms}", "spec.bfd.transmitInterval"),
            ("bfd: {receiveInterval: 61s}", "spec.bfd.receiveInterval"),
            ("bfd: {detectMultiplier: 0}", "spec.bfd.detectMultiplier"),
            ("bfd: {minimumTTL: 255}", "spec.bfd.minimumTTL"),
        ] {
            assert_eq!(read(yaml).unwrap_err().path, path, "{yaml}");
        }
    }
}
