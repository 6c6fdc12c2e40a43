//! The parts of a Service that are decoded at all; everything lenient, for one odd object must not end a list.
//!
//! Most of a Service as it is stored is metadata that nobody here reads: who has written which field, the object as
//! it was last applied, labels. It is skipped while it is parsed, so that a list of 100,000 Services and the echo
//! of every write cost neither the memory nor the time.

use std::{collections::BTreeMap, fmt};

use api::names::annotation;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry, ObjectMeta, Time};
use kube::Resource;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::json;

/// What the names of our annotations begin with.
const OURS: &str = "purelb.io/";

/// The parts of a Service that are read from the API server.
#[derive(Resource, Clone, Debug, Default, Deserialize)]
#[resource(inherit = "k8s_openapi::api::core::v1::Service")]
pub struct ServiceObject {
    /// Name, version, age; our annotations, and who has written the one that names a group.
    #[serde(deserialize_with = "metadata")]
    pub metadata: ObjectMeta,
    /// What the owner asks for.
    #[serde(default)]
    pub spec: SpecObject,
    /// What is published.
    #[serde(default)]
    pub status: StatusObject,
}

/// The parts of `metadata` that are read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetadataObject {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    annotations: Option<OurAnnotations>,
    managed_fields: Option<Vec<ManagedObject>>,
}

fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let object = MetadataObject::deserialize(deserializer)?;
    let managers = object.managed_fields.into_iter().flatten().filter_map(ManagedObject::of_group);
    let managers: Vec<ManagedFieldsEntry> = managers.collect();
    Ok(ObjectMeta {
        name: object.name,
        namespace: object.namespace,
        uid: object.uid,
        resource_version: object.resource_version,
        creation_timestamp: object.creation_timestamp,
        deletion_timestamp: object.deletion_timestamp,
        annotations: object.annotations.map(|annotations| annotations.0),
        managed_fields: (!managers.is_empty()).then_some(managers),
        ..ObjectMeta::default()
    })
}

/// The annotations whose names begin with ours.
struct OurAnnotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for OurAnnotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OurAnnotations, D::Error> {
        struct Map;
        impl<'de> Visitor<'de> for Map {
            type Value = BTreeMap<String, String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut annotations = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if name.starts_with(OURS) {
                        annotations.insert(name, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(annotations)
            }
        }
        deserializer.deserialize_map(Map).map(OurAnnotations)
    }
}

/// An entry of `metadata.managedFields`, of whose fields only one annotation is of interest.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManagedObject {
    manager: Option<String>,
    fields_v1: Option<FieldsObject>,
}

#[derive(Deserialize)]
struct FieldsObject {
    #[serde(rename = "f:metadata")]
    metadata: Option<MetadataFields>,
}

#[derive(Deserialize)]
struct MetadataFields {
    #[serde(rename = "f:annotations")]
    annotations: Option<AnnotationFields>,
}

#[derive(Deserialize)]
struct AnnotationFields {
    #[serde(rename = "f:purelb.io/service-group")]
    service_group: Option<IgnoredAny>,
}

impl ManagedObject {
    /// The entry, if its manager has written the annotation that names a group, with that field alone.
    fn of_group(self) -> Option<ManagedFieldsEntry> {
        self.fields_v1?.metadata?.annotations?.service_group?;
        let field = format!("f:{}", annotation::SERVICE_GROUP);
        Some(ManagedFieldsEntry {
            manager: self.manager,
            fields_v1: Some(FieldsV1(json!({"f:metadata": {"f:annotations": {field: {}}}}))),
            ..ManagedFieldsEntry::default()
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_the_metadata_only_what_is_read_is_kept() {
        let group = json!({"f:metadata": {"f:annotations": {"f:purelb.io/service-group": {}, "f:a": {}}}});
        let labels = json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:ports": {}}});
        let object: ServiceObject = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": "web"},
                "annotations": {"purelb.io/service-group": "edge", "other": "x"},
                "managedFields": [
                    {"manager": "helm", "operation": "Update", "fieldsV1": labels},
                    {"manager": "kubectl", "operation": "Update", "fieldsV1": group},
                ],
            },
        }))
        .unwrap();
        let metadata = object.metadata;
        assert_eq!((metadata.name.as_deref(), metadata.namespace.as_deref()), (Some("web"), Some("ns")));
        assert_eq!((metadata.uid.as_deref(), metadata.resource_version.as_deref()), (Some("u"), Some("7")));
        assert!(metadata.creation_timestamp.is_some() && metadata.labels.is_none());
        let annotations: Vec<_> = metadata.annotations.unwrap().into_iter().collect();
        assert_eq!(annotations, [("purelb.io/service-group".to_owned(), "edge".to_owned())]);
        let managers: Vec<_> =
            metadata.managed_fields.unwrap().into_iter().map(|entry| entry.manager).collect();
        assert_eq!(managers, [Some("kubectl".to_owned())]);
    }

    #[test]
    fn what_is_null_or_absent_is_absent() {
        let object: ServiceObject =
            serde_json::from_value(json!({"metadata": {"annotations": null, "managedFields": null}}))
                .unwrap();
        assert_eq!(object.metadata, ObjectMeta::default());
    }

    #[test]
    fn the_names_that_are_looked_for_are_those_of_the_annotations() {
        assert!(annotation::SERVICE_GROUP.starts_with(OURS));
        let fields = json!({"metadata": {"managedFields": [{"fieldsV1": {"f:metadata": {"f:annotations": {
            (format!("f:{}", annotation::SERVICE_GROUP)): {},
        }}}}]}});
        let object: ServiceObject = serde_json::from_value(fields).unwrap();
        assert_eq!(object.metadata.managed_fields.map(|managers| managers.len()), Some(1));
    }
}
