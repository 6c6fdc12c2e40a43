//! Namespaces, Nodes, Secrets, ConfigMaps and the other small core kinds.

use serde_json::{Value, json};

use super::{Kind, names};
use crate::object::{self, default_to};
use crate::refusal::Cause;

/// Namespaces.
#[derive(Debug)]
pub(crate) struct Namespace;

impl Kind for Namespace {
    fn name_fault(&self, name: &str) -> Option<String> {
        names::dns_label(name)
    }

    fn default(&self, object: &mut Value) {
        let name = object::name(object).to_owned();
        if !name.is_empty() {
            let labels = object::child_mut(object::child_mut(object, "metadata"), "labels");
            object::put(labels, "kubernetes.io/metadata.name", json!(name));
        }
    }

    fn prepare_create(&self, object: &mut Value) {
        object["status"] = json!({"phase": "Active"});
        let spec = object::child_mut(object, "spec");
        if !object::list_at(spec, &["finalizers"]).contains(&json!("kubernetes")) {
            spec["finalizers"] = json!(["kubernetes"]);
        }
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let finalizers = old["spec"]["finalizers"].clone();
        object::put(object::child_mut(new, "spec"), "finalizers", finalizers);
        object::carry(new, old, "status");
    }
}

/// Nodes.
#[derive(Debug)]
pub(crate) struct Node;

impl Kind for Node {
    fn default(&self, object: &mut Value) {
        object::child_mut(object, "spec");
    }

    // A node's creator, the kubelet, sets the first status: it is kept.
    fn prepare_create(&self, _object: &mut Value) {}

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = Vec::new();
        let Some(old) = old else { return causes };
        for field in ["podCIDRs", "providerID"] {
            let (before, after) = (&old["spec"][field], &new["spec"][field]);
            if !before.is_null() && before != after {
                let text = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig feature gate is enabled)";
                causes.push(Cause::forbidden(format!("spec.{field}"), text));
            }
        }
        causes
    }
}

/// Secrets.
#[derive(Debug)]
pub(crate) struct Secret;

impl Kind for Secret {
    fn default(&self, object: &mut Value) {
        default_to(object, "type", "Opaque");
        let written = object["stringData"].as_object().cloned().unwrap_or_default();
        object::put(object, "stringData", Value::Null);
        for (key, text) in written {
            let encoded = base64(text.as_str().unwrap_or_default().as_bytes());
            object::child_mut(object, "data")[key] = json!(encoded);
        }
    }

    fn prepare_create(&self, _object: &mut Value) {}

    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = data_keys(new, &["data"]);
        if let Some(old) = old {
            if old["type"] != new["type"] {
                causes.push(Cause::invalid("type", &new["type"], "field is immutable"));
            }
            if old["immutable"] == true && (old["data"] != new["data"] || new["immutable"] != true) {
                causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
            }
        }
        let has = |key: &str| !new["data"][key].is_null();
        match new["type"].as_str().unwrap_or_default() {
            "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
                causes.push(Cause::required("data[username]", ""));
                causes.push(Cause::required("data[password]", ""));
            }
            "kubernetes.io/tls" => {
                for key in ["tls.crt", "tls.key"].into_iter().filter(|k| !has(k)) {
                    causes.push(Cause::required(format!("data[{key}]"), ""));
                }
            }
            _ => {}
        }
        causes
    }
}

/// ConfigMaps.
#[derive(Debug)]
pub(crate) struct ConfigMap;

impl Kind for ConfigMap {
    fn prepare_create(&self, _object: &mut Value) {}

    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = data_keys(new, &["data", "binaryData"]);
        if let Some(old) = old
            && old["immutable"] == true
            && (old["data"] != new["data"] || new["immutable"] != true)
        {
            causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
        }
        causes
    }
}

fn data_keys(object: &Value, fields: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in fields {
        for (key, _) in object[*field].as_object().into_iter().flatten() {
            let fits = !key.is_empty()
                && key.len() <= 253
                && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if !fits || key == "." || key == ".." {
                let text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
                causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), text));
            }
        }
    }
    causes
}

/// Standard base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |w, b| (w << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let sextet = (word >> (18 - 6 * i)) & 0x3f;
            out.push(if i <= chunk.len() { char::from(ALPHABET[sextet as usize]) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_pads_as_rfc_4648_says() {
        let coded: Vec<String> =
            ["", "f", "fo", "foo", "foob"].iter().map(|s| super::base64(s.as_bytes())).collect();
        assert_eq!(coded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
