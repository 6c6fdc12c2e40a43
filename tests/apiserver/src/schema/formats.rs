//! The string and number formats that the real server enforces in CRD schemas. Formats it does not know are
//! ignored, as there.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::Value;

/// Formats of the real server that this one cannot judge: a CRD with one of them is refused.
pub(super) const UNJUDGED: &[&str] =
    &["bsonobjectid", "creditcard", "hexcolor", "isbn", "isbn10", "isbn13", "rgbcolor", "ssn"];

/// Whether a string has a format.
pub(crate) fn matches(format: &str, text: &str) -> bool {
    match format {
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => text.parse::<ipnet::IpNet>().is_ok(),
        "mac" => is_mac(text),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "date-time" | "datetime" => text.contains(['T', 't']) && text.parse::<jiff::Timestamp>().is_ok(),
        "duration" => go_duration(text).is_some(),
        "hostname" => is_hostname(text),
        "uuid" | "uuid3" | "uuid4" | "uuid5" => is_uuid(text, format),
        "byte" => is_base64(text),
        "uri" => text.split_once(':').is_some_and(|(scheme, _)| is_scheme(scheme)) || text.starts_with('/'),
        "email" => text.split_once('@').is_some_and(|(user, host)| !user.is_empty() && is_hostname(host)),
        "k8s-short-name" => crate::kinds::names::dns_label(text).is_none(),
        "k8s-long-name" => crate::kinds::names::dns_subdomain(text).is_none(),
        _ => true,
    }
}

/// Whether a number fits a format.
pub(super) fn number_fits(format: &str, value: &Value) -> bool {
    match format {
        "int32" => value.as_f64().is_some_and(|n| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&n)),
        "int64" => value.is_i64() || value.as_f64().is_some_and(|n| n.abs() < 9.223_372_036_854_775e18),
        _ => true,
    }
}

fn is_mac(text: &str) -> bool {
    let octets: Vec<&str> = text.split([':', '-']).collect();
    matches!(octets.len(), 6 | 8 | 20)
        && octets.iter().all(|o| o.len() == 2 && o.chars().all(|c| c.is_ascii_hexdigit()))
}

fn is_hostname(text: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    text.len() <= 253 && text.trim_end_matches('.').split('.').all(label)
}

fn is_uuid(text: &str, format: &str) -> bool {
    let hex: String = text.chars().filter(|c| *c != '-').collect();
    let shape = hex.len() == 32 && hex.chars().all(|c| c.is_ascii_hexdigit());
    let version = hex.chars().nth(12);
    shape && format.strip_prefix("uuid").is_none_or(|v| v.is_empty() || v.chars().next() == version)
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    text.len().is_multiple_of(4)
        && text.len() - body.len() <= 2
        && body.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '/'))
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
}

/// A Go duration (`1h30m`, `300ms`, `-1.5s`) in nanoseconds. The real server's format also takes the long
/// words of `strfmt` (`3 days`).
pub(super) fn go_duration(text: &str) -> Option<i128> {
    const UNITS: &[(&str, i128)] = &[
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        total += (number.parse::<f64>().ok()? * scale as f64) as i128;
        rest = tail;
    }
    Some(sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        assert_eq!(go_duration("1m30s"), Some(90_000_000_000));
        assert_eq!(go_duration("300ms"), Some(300_000_000));
        assert_eq!(go_duration("0"), Some(0));
        for bad in ["", "10", "s", "5 s", "1x"] {
            assert_eq!(go_duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn address_formats_refuse_the_other_family() {
        assert!(matches("ipv4", "192.0.2.1") && !matches("ipv4", "::1"));
        assert!(matches("ipv6", "::1") && !matches("ipv6", "192.0.2.1"));
        assert!(matches("cidr", "192.0.2.0/24") && !matches("cidr", "192.0.2.0"));
    }
}
