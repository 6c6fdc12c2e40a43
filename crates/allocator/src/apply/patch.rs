//! The bodies of the two requests on a Service, written as they are serialised: one is sent for every Service, and a
//! tree of maps between the decision and the octets would cost a tenth of all that a write takes.

use std::net::IpAddr;

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Value, json};

use crate::assign::{Annotations, Write};

/// The one request: annotations and status, on condition of a version.
#[derive(Clone, Copy, Debug)]
pub struct StatusPatch<'a> {
    version: &'a str,
    write: &'a Write,
}

impl<'a> StatusPatch<'a> {
    /// What the decision writes on the Service of that version.
    pub fn new(version: &'a str, write: &'a Write) -> StatusPatch<'a> {
        StatusPatch { version, write }
    }
}

/// The same as a JSON value, to look at or to apply.
pub fn status_patch(version: &str, write: &Write) -> Value {
    serde_json::to_value(StatusPatch::new(version, write)).expect("maps with texts as keys are JSON")
}

/// The request before it: the traffic policy.
pub fn policy_patch(version: &str) -> Value {
    json!({"metadata": {"resourceVersion": version}, "spec": {"externalTrafficPolicy": "Cluster"}})
}

impl Serialize for StatusPatch<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let annotations = Some(&self.write.annotations).filter(|annotations| !annotations.is_empty());
        let mut patch = serializer.serialize_map(None)?;
        patch.serialize_entry(
            "metadata",
            &Metadata { resource_version: self.version, annotations: annotations.map(Changes) },
        )?;
        if let Some(addresses) = &self.write.ingress {
            patch.serialize_entry(
                "status",
                &Status { load_balancer: LoadBalancer { ingress: Ingress::of(addresses) } },
            )?;
        }
        patch.end()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    resource_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<Changes<'a>>,
}

/// Annotations by name; one that is taken away is null.
struct Changes<'a>(&'a Annotations);

impl Serialize for Changes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    load_balancer: LoadBalancer<'a>,
}

#[derive(Serialize)]
struct LoadBalancer<'a> {
    ingress: Option<Ingress<'a>>,
}

/// What is published; nothing is null, not an empty list.
struct Ingress<'a>(&'a [IpAddr]);

impl<'a> Ingress<'a> {
    fn of(addresses: &'a [IpAddr]) -> Option<Ingress<'a>> {
        (!addresses.is_empty()).then_some(Ingress(addresses))
    }
}

impl Serialize for Ingress<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|&ip| Entry { ip, ip_mode: "VIP" }))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    ip: IpAddr,
    ip_mode: &'static str,
}

#[cfg(test)]
mod tests {
    use api::PoolType;

    use super::*;
    use crate::{
        assign::{Annotation, Annotations},
        testing::ips,
    };

    #[test]
    fn status_and_annotations_are_one_patch_on_condition_of_the_version() {
        let mut annotations =
            Annotations::setting([Annotation::AllocatedBy], &"default".into(), PoolType::Remote);
        annotations.remove([Annotation::ReEvaluate]);
        let write = Write { ingress: Some(ips("192.0.2.1 fd00::1")), annotations, ..Write::default() };
        assert_eq!(
            status_patch("7", &write),
            json!({
                "metadata": {
                    "resourceVersion": "7",
                    "annotations": {"purelb.io/allocated-by": "PureLB", "purelb.io/re-evaluate": null},
                },
                "status": {"loadBalancer": {"ingress": [
                    {"ip": "192.0.2.1", "ipMode": "VIP"}, {"ip": "fd00::1", "ipMode": "VIP"},
                ]}},
            })
        );
    }

    #[test]
    fn a_release_empties_the_ingress() {
        let write = Write { ingress: Some(ips("")), ..Write::default() };
        assert_eq!(
            status_patch("7", &write),
            json!({"metadata": {"resourceVersion": "7"}, "status": {"loadBalancer": {"ingress": null}}})
        );
    }

    #[test]
    fn what_stays_is_not_named() {
        assert_eq!(status_patch("7", &Write::default()), json!({"metadata": {"resourceVersion": "7"}}));
    }
}
