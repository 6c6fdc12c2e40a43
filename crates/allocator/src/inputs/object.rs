//! The parts of a Service that are decoded at all; everything lenient, for one odd object must not end a list.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// The parts of a Service that are read from the API server.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "k8s_openapi::api::core::v1::Service")]
pub struct ServiceObject {
    /// Name, annotations, version.
    pub metadata: ObjectMeta,
    /// What the owner asks for.
    #[serde(default)]
    pub spec: SpecObject,
    /// What is published.
    #[serde(default)]
    pub status: StatusObject,
}

/// The parts of `spec` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub struct SpecObject {
    #[serde(rename = "type")]
    pub type_: Option<String>,
    pub load_balancer_class: Option<String>,
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: Option<String>,
    pub ip_families: Vec<String>,
    pub ip_family_policy: Option<String>,
    pub external_traffic_policy: Option<String>,
    pub ports: Vec<PortObject>,
}

/// The parts of `spec.ports[]` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub struct PortObject {
    pub protocol: Option<String>,
    pub port: u16,
}

/// The parts of `status` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub struct StatusObject {
    pub load_balancer: LoadBalancerObject,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub struct LoadBalancerObject {
    pub ingress: Vec<IngressObject>,
}

/// `status.loadBalancer.ingress[]`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "Kubernetes' own names")]
pub struct IngressObject {
    pub ip: Option<String>,
    pub hostname: Option<String>,
}
