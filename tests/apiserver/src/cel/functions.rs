//! The functions that Kubernetes adds to CEL beyond the `cel` crate's own libraries. A rule that calls one
//! that is not here is refused.

use cel::Context;

/// Their names.
pub(super) const NAMES: &[&str] = &["isIP", "isCIDR"];

/// Adds them to a context.
pub(super) fn register(context: &mut Context<'_, '_>) {
    let free = "the name is free in the standard environment";
    context
        .add_function("isIP", |text: std::sync::Arc<String>| text.parse::<std::net::IpAddr>().is_ok())
        .expect(free);
    context
        .add_function("isCIDR", |text: std::sync::Arc<String>| text.parse::<ipnet::IpNet>().is_ok())
        .expect(free);
}
