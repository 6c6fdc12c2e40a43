//! What the agent observes beside the API server.

pub mod kube_proxy;
pub mod links;
pub mod nodes;
pub mod routers;
pub mod subnets;
