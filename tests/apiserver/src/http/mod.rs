//! HTTP: from a request to a verb on a target, and from results to answers. Knows media types, paths and
//! query parameters; knows no kind.

pub(crate) mod accept;
pub(crate) mod answer;
mod body;
pub(crate) mod dispatch;
mod health;
pub(crate) mod path;
mod protobuf;
pub(crate) mod query;
