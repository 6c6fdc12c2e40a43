//! A ServiceGroup as it is read from the API server: its parts one by one, so that one that cannot be read takes none
//! of the others with it.

use api::{ServiceGroup, ServiceGroupStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::group::Unreadable;

/// The parts of a ServiceGroup.
#[derive(Resource, Clone, Debug)]
#[resource(inherit = "ServiceGroup")]
pub struct LenientGroup {
    /// Name, version, age.
    pub metadata: ObjectMeta,
    /// What its operator wants, or why that cannot be read.
    pub spec: Result<api::ServiceGroupSpec, Unreadable>,
    /// What we have written; one that cannot be read is none.
    pub status: ServiceGroupStatus,
}

#[derive(Deserialize)]
struct Parts {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

impl<'de> Deserialize<'de> for LenientGroup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<LenientGroup, D::Error> {
        let Parts { metadata, spec, status } = Parts::deserialize(deserializer)?;
        Ok(LenientGroup {
            metadata,
            spec: Deserialize::deserialize(&spec)
                .map_err(|error: serde_json::Error| Unreadable::new(&spec, error.to_string())),
            status: serde_json::from_value(status).unwrap_or_default(),
        })
    }
}
