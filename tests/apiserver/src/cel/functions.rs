//! The functions that Kubernetes adds to CEL beyond the `cel` crate's own libraries: addresses, prefixes,
//! `find`. A rule that calls one that is not here (quantities, URLs, semantic versions …) is refused.

use std::net::IpAddr;
use std::sync::Arc;

use cel::extractors::This;
use cel::objects::Opaque;
use cel::{Context, ExecutionError, Value as Cel};
use ipnet::IpNet;
use regex::Regex;

/// Their names.
pub(super) const NAMES: &[&str] = &[
    "isIP",
    "ip",
    "isCIDR",
    "cidr",
    "family",
    "isUnspecified",
    "isLoopback",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isGlobalUnicast",
    "containsIP",
    "containsCIDR",
    "masked",
    "prefixLength",
    "find",
    "findAll",
];

/// An address as a CEL value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ip(IpAddr);

impl Opaque for Ip {
    fn runtime_type_name(&self) -> &str {
        "net.IP"
    }
}

/// A prefix as a CEL value.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cidr(IpNet);

impl Opaque for Cidr {
    fn runtime_type_name(&self) -> &str {
        "net.CIDR"
    }
}

type Answer = Result<Cel, ExecutionError>;

fn fault(function: &str, message: impl ToString) -> ExecutionError {
    ExecutionError::function_error(function, message)
}

fn parse_ip(text: &str) -> Result<IpAddr, ExecutionError> {
    let address: IpAddr =
        text.parse().map_err(|_| fault("ip", format!("IP Address \"{text}\" parse error")))?;
    match address {
        IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
            Err(fault("ip", format!("IPv4-mapped IPv6 address \"{text}\" is not allowed")))
        }
        _ => Ok(address),
    }
}

fn parse_cidr(text: &str) -> Result<IpNet, ExecutionError> {
    text.parse().map_err(|_| fault("cidr", format!("network address parse error: \"{text}\"")))
}

fn as_ip(value: &Cel) -> Result<IpAddr, ExecutionError> {
    match value {
        Cel::String(text) => parse_ip(text),
        Cel::Opaque(opaque) => match opaque.downcast_ref::<Ip>() {
            Some(ip) => Ok(ip.0),
            None => Err(fault("ip", "not an address")),
        },
        _ => Err(fault("ip", "not an address")),
    }
}

fn as_cidr(value: &Cel) -> Result<IpNet, ExecutionError> {
    match value {
        Cel::String(text) => parse_cidr(text),
        Cel::Opaque(opaque) => match opaque.downcast_ref::<Cidr>() {
            Some(cidr) => Ok(cidr.0),
            None => Err(fault("cidr", "not a prefix")),
        },
        _ => Err(fault("cidr", "not a prefix")),
    }
}

fn ip(This(value): This<Cel>) -> Answer {
    let address = match as_cidr(&value) {
        Ok(cidr) if matches!(value, Cel::Opaque(_)) => cidr.addr(),
        _ => as_ip(&value)?,
    };
    Ok(Cel::Opaque(Arc::new(Ip(address))))
}

fn cidr(This(text): This<Arc<String>>) -> Answer {
    Ok(Cel::Opaque(Arc::new(Cidr(parse_cidr(&text)?))))
}

/// Registers `name` as a test of an address.
fn register_test(context: &mut Context<'_, '_>, name: &'static str, test: fn(IpAddr) -> bool) {
    let call = move |This(value): This<Cel>| -> Answer { Ok(Cel::Bool(test(as_ip(&value)?))) };
    context.add_function(name, call).expect(FREE);
}

const FREE: &str = "the name is free in the standard environment";

fn is_link_local_multicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xff0f == 0xff02,
    }
}

fn is_link_local_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// As Go's `IsGlobalUnicast`: private addresses count.
fn is_global_unicast(address: IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !broadcast
        && !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_multicast()
        && !is_link_local_unicast(address)
}

fn regex(pattern: &str) -> Result<Regex, ExecutionError> {
    Regex::new(pattern).map_err(|e| fault("find", format!("Illegal regex: {e}")))
}

fn text(found: &str) -> Cel {
    Cel::String(Arc::new(found.to_owned()))
}

/// Adds them to a context.
pub(super) fn register(context: &mut Context<'_, '_>) {
    context.add_function("isIP", |This(text): This<Arc<String>>| parse_ip(&text).is_ok()).expect(FREE);
    context.add_function("isCIDR", |This(text): This<Arc<String>>| parse_cidr(&text).is_ok()).expect(FREE);
    context.add_function("ip", ip).expect(FREE);
    context.add_function("cidr", cidr).expect(FREE);
    let family =
        |This(value): This<Cel>| -> Answer { Ok(Cel::Int(if as_ip(&value)?.is_ipv4() { 4 } else { 6 })) };
    context.add_function("family", family).expect(FREE);
    register_test(context, "isUnspecified", |a| a.is_unspecified());
    register_test(context, "isLoopback", |a| a.is_loopback());
    register_test(context, "isLinkLocalMulticast", is_link_local_multicast);
    register_test(context, "isLinkLocalUnicast", is_link_local_unicast);
    register_test(context, "isGlobalUnicast", is_global_unicast);
    let contains_ip = |This(net): This<Cel>, address: Cel| -> Answer {
        Ok(Cel::Bool(as_cidr(&net)?.contains(&as_ip(&address)?)))
    };
    context.add_function("containsIP", contains_ip).expect(FREE);
    let contains_cidr = |This(net): This<Cel>, inner: Cel| -> Answer {
        Ok(Cel::Bool(as_cidr(&net)?.contains(&as_cidr(&inner)?)))
    };
    context.add_function("containsCIDR", contains_cidr).expect(FREE);
    let masked = |This(net): This<Cel>| -> Answer { Ok(Cel::Opaque(Arc::new(Cidr(as_cidr(&net)?.trunc())))) };
    context.add_function("masked", masked).expect(FREE);
    let length = |This(net): This<Cel>| -> Answer { Ok(Cel::Int(as_cidr(&net)?.prefix_len().into())) };
    context.add_function("prefixLength", length).expect(FREE);
    let find = |This(subject): This<Arc<String>>, pattern: Arc<String>| -> Answer {
        Ok(text(regex(&pattern)?.find(&subject).map_or("", |m| m.as_str())))
    };
    context.add_function("find", find).expect(FREE);
    let find_all = |This(subject): This<Arc<String>>, pattern: Arc<String>| -> Answer {
        let all = regex(&pattern)?.find_iter(&subject).map(|m| text(m.as_str())).collect();
        Ok(Cel::List(Arc::new(all)))
    };
    context.add_function("findAll", find_all).expect(FREE);
}

#[cfg(test)]
mod tests {
    use crate::cel::Rule;
    use crate::schema;
    use serde_json::json;

    #[test]
    fn address_functions_answer_as_documented_by_kubernetes() {
        for rule in [
            "isIP('192.0.2.1') && isIP('::1') && !isIP('192.0.2.1/24') && !isIP('x')",
            "isCIDR('192.0.2.0/24') && !isCIDR('192.0.2.0')",
            "ip('192.0.2.1').family() == 4 && ip('2001:db8::1').family() == 6",
            "ip('127.0.0.1').isLoopback() && ip('0.0.0.0').isUnspecified()",
            "ip('fe80::1').isLinkLocalUnicast() && !ip('fe80::1').isGlobalUnicast()",
            "cidr('192.0.2.0/24').containsIP('192.0.2.9') && !cidr('192.0.2.0/24').containsIP(ip('192.0.3.1'))",
            "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8')",
            "cidr('10.0.0.0/8').prefixLength() == 8 && cidr('10.0.0.0/8').ip() == ip('10.0.0.0')",
            "'abc123'.find('[0-9]+') == '123' && 'a1b2'.findAll('[0-9]').size() == 2",
        ] {
            let schema =
                schema::parse(&json!({"type": "object", "x-kubernetes-validations": [{"rule": rule}]}), "")
                    .unwrap();
            assert_eq!(super::super::evaluate(&json!({}), None, &schema), [], "{rule}");
        }
    }

    #[test]
    fn a_rule_that_calls_something_unknown_is_refused() {
        for rule in [
            "quantity('1Ki').isGreaterThan(quantity('1'))",
            "foo(1)",
            "zzz == 1",
            "self ==",
            "url('x').getHost() == 'x'",
        ] {
            assert!(Rule::compile(&json!({"rule": rule})).is_err(), "{rule}");
        }
    }
}
