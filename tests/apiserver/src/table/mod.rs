//! What `kubectl get` prints: the columns of each kind and the cells of an object.

mod core;
mod jsonpath;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

pub(crate) use jsonpath::JsonPath;

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Title.
    pub name: String,
    /// `string`, `integer`, `date` …
    pub ty: String,
    /// `name` for the column that names the object.
    pub format: String,
    /// Explanation.
    pub description: String,
    /// 0 is always shown, higher only with `-o wide`.
    pub priority: i64,
}

/// How cells are found.
#[derive(Debug, Clone)]
pub enum Columns {
    /// By a function of the kind.
    Builtin(&'static [(&'static str, i64)], fn(&Value) -> Vec<Value>),
    /// By the CRD's printer columns.
    Custom(Vec<(Column, JsonPath)>),
}

impl Columns {
    /// The columns of a built-in kind.
    pub fn builtin(kind: &str) -> Self {
        let (columns, cells) = match kind {
            "Service" => (core::SERVICE, core::service as fn(&Value) -> Vec<Value>),
            "Node" => (core::NODE, core::node as _),
            "Pod" => (workloads::POD, workloads::pod as _),
            "Namespace" => (core::NAMESPACE, core::namespace as _),
            "Secret" => (core::SECRET, core::secret as _),
            "ConfigMap" => (core::CONFIG_MAP, core::config_map as _),
            "Endpoints" => (core::ENDPOINTS, core::endpoints as _),
            "Event" => (core::EVENT, core::event as _),
            "EndpointSlice" => (core::ENDPOINT_SLICE, core::endpoint_slice as _),
            "Lease" => (core::LEASE, core::lease as _),
            "Deployment" => (workloads::DEPLOYMENT, workloads::deployment as _),
            "DaemonSet" => (workloads::DAEMON_SET, workloads::daemon_set as _),
            "ReplicaSet" => (workloads::REPLICA_SET, workloads::replica_set as _),
            "CustomResourceDefinition" => (core::CRD, core::crd as _),
            _ => (core::PLAIN, core::plain as _),
        };
        Self::Builtin(columns, cells)
    }

    /// The `columnDefinitions`.
    pub fn definitions(&self) -> Vec<Value> {
        match self {
            Self::Builtin(columns, _) => columns
                .iter()
                .map(|(name, priority)| {
                    let format = if *name == "Name" { "name" } else { "" };
                    json!({"name": name, "type": "string", "format": format, "description": name, "priority": priority})
                })
                .collect(),
            Self::Custom(columns) => columns
                .iter()
                .map(|(c, _)| {
                    json!({"name": c.name, "type": c.ty, "format": c.format, "description": c.description, "priority": c.priority})
                })
                .collect(),
        }
    }

    /// The cells of an object.
    pub fn cells(&self, object: &Value) -> Vec<Value> {
        match self {
            Self::Builtin(_, cells) => cells(object),
            Self::Custom(columns) => {
                columns.iter().map(|(column, path)| custom_cell(column, path, object)).collect()
            }
        }
    }
}

fn custom_cell(column: &Column, path: &JsonPath, object: &Value) -> Value {
    let found = path.find(object);
    let Some(first) = found.first() else { return Value::Null };
    match (column.ty.as_str(), first) {
        ("date", Value::String(time)) => json!(age(time)),
        ("integer" | "number" | "boolean", value) => (*value).clone(),
        ("string", Value::String(text)) => json!(text),
        ("string", value) => {
            let all: Vec<String> =
                found.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            if found.len() > 1 { json!(all.join(",")) } else { json!(value.to_string()) }
        }
        (_, value) => (*value).clone(),
    }
}

/// How long ago a time was, as kubectl writes it: `5s`, `3m10s`, `2d4h`.
pub(crate) fn age(time: &str) -> String {
    let Ok(then) = time.parse::<Timestamp>() else { return "<unknown>".to_owned() };
    human_duration((Timestamp::now() - then).total(jiff::Unit::Second).unwrap_or_default() as i64)
}

/// Seconds in kubectl's short form.
fn human_duration(secs: i64) -> String {
    let (m, h, d) = (secs / 60, secs / 3600, secs / 86400);
    let pair = |big: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match secs {
        i64::MIN..=-2 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{secs}s"),
        120..600 => pair(m, "m", secs % 60, "s"),
        600..10_800 => format!("{m}m"),
        10_800..28_800 => pair(h, "h", m % 60, "m"),
        28_800..172_800 => format!("{h}h"),
        172_800..691_200 => pair(d, "d", h % 24, "h"),
        691_200..63_072_000 => format!("{d}d"),
        _ => pair(d / 365, "y", d % 365, "d"),
    }
}

fn created(object: &Value) -> Value {
    json!(age(object["metadata"]["creationTimestamp"].as_str().unwrap_or_default()))
}

fn name(object: &Value) -> Value {
    object["metadata"]["name"].clone()
}

fn or_none(text: &str) -> Value {
    json!(if text.is_empty() { "<none>" } else { text })
}

/// A map as `k=v,k=v`.
fn pairs(map: &Value) -> String {
    let mut all: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default()))
        .collect();
    all.sort();
    all.join(",")
}

#[cfg(test)]
mod tests {
    #[test]
    fn durations_are_written_as_kubectl_writes_them() {
        for (secs, text) in [
            (5, "5s"),
            (119, "119s"),
            (125, "2m5s"),
            (600, "10m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (86_400, "24h"),
            (180_000, "2d2h"),
            (864_000, "10d"),
        ] {
            assert_eq!(super::human_duration(secs), text);
        }
    }
}
