//! The name grammars of Kubernetes. Each function returns what is wrong, in the words of the real server.

use std::sync::LazyLock;

use regex::Regex;

const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const LABEL_VALUE: &str = "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?";

fn anchored(pattern: &str) -> Regex {
    Regex::new(&format!("^(?:{pattern})$")).expect("the grammar is a regular expression")
}

static SUBDOMAIN_RE: LazyLock<Regex> = LazyLock::new(|| anchored(SUBDOMAIN));
static LABEL_RE: LazyLock<Regex> = LazyLock::new(|| anchored(LABEL));
static LABEL_1035_RE: LazyLock<Regex> = LazyLock::new(|| anchored(LABEL_1035));
static QUALIFIED_RE: LazyLock<Regex> = LazyLock::new(|| anchored(QUALIFIED));
static LABEL_VALUE_RE: LazyLock<Regex> = LazyLock::new(|| anchored(LABEL_VALUE));

fn too_long(limit: usize) -> String {
    format!("must be no more than {limit} bytes")
}

fn mismatch(text: &str, examples: &str, pattern: &str) -> Option<String> {
    Some(format!("{text} (e.g. {examples}, regex used for validation is '{pattern}')"))
}

/// A lowercase RFC 1123 subdomain, the name of most objects.
pub(crate) fn dns_subdomain(name: &str) -> Option<String> {
    if name.len() > 253 {
        return Some(too_long(253));
    }
    if SUBDOMAIN_RE.is_match(name) {
        return None;
    }
    let text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
    mismatch(text, "'example.com'", SUBDOMAIN)
}

/// A lowercase RFC 1123 label, the name of a namespace.
pub(crate) fn dns_label(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some(too_long(63));
    }
    if LABEL_RE.is_match(name) {
        return None;
    }
    let text = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
    mismatch(text, "'my-name',  or '123-abc'", LABEL)
}

/// An RFC 1035 label.
pub(crate) fn dns_1035_label(name: &str) -> Option<String> {
    if name.len() > 63 {
        return Some(too_long(63));
    }
    if LABEL_1035_RE.is_match(name) {
        return None;
    }
    let text = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
    mismatch(text, "'my-name',  or 'abc-123'", LABEL_1035)
}

/// `name` or `prefix/name`: keys of labels and annotations, load balancer classes.
pub(crate) fn qualified_name(key: &str) -> Option<String> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return Some("prefix part must be non-empty".to_owned());
        }
        if let Some(fault) = dns_subdomain(prefix) {
            return Some(format!("prefix part {fault}"));
        }
    }
    if name.is_empty() {
        return Some("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 bytes".to_owned());
    }
    if QUALIFIED_RE.is_match(name) {
        return None;
    }
    let text = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    mismatch(text, "'MyName',  or 'my.name',  or '123-abc'", QUALIFIED)
}

/// A label's value.
pub(crate) fn label_value(value: &str) -> Option<String> {
    if value.len() > 63 {
        return Some(too_long(63));
    }
    if LABEL_VALUE_RE.is_match(value) {
        return None;
    }
    let text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    mismatch(text, "'MyValue',  or 'my_value',  or '12345'", LABEL_VALUE)
}

/// A port's name.
pub(crate) fn port_name(name: &str) -> Option<&'static str> {
    if name.len() > 15 {
        return Some("must be no more than 15 characters");
    }
    if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
        return Some("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    }
    if !name.chars().any(|c| c.is_ascii_lowercase()) {
        return Some("must contain at least one letter (a-z)");
    }
    if name.contains("--") {
        return Some("must not contain consecutive hyphens");
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Some("must not begin or end with a hyphen");
    }
    None
}
