//! Objects of the API server → small values that the decision reads. What cannot be understood is a value, too.

pub mod compact;
pub mod group;
pub mod group_object;
pub mod key;
pub mod lease;
pub mod listed;
pub mod object;
mod ranges;
pub mod scope;
pub mod service;
pub mod word;
pub mod words;

pub use group::{Group, Groups};
pub use key::ServiceKey;
pub use lease::Live;
pub use object::ServiceObject;
pub use scope::Scope;
pub use service::Service;
pub use word::Word;
