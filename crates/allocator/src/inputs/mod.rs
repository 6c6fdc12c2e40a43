//! Objects of the API server → small values that the decision reads. What cannot be understood is a value, too.

pub mod compact;
pub mod group;
pub mod lease;
pub mod object;
pub mod scope;
pub mod service;
pub mod words;

pub use group::{Group, Groups};
pub use lease::Live;
pub use object::ServiceObject;
pub use scope::Scope;
pub use service::{Service, ServiceKey};
