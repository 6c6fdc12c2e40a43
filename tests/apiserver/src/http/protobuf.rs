//! Reading protobuf bodies. `kubectl create namespace|configmap|secret|service|deployment …` sends nothing
//! else; answers may be JSON. A table of the messages those commands send, by field number; a field that is
//! not in it is refused by name of its message, never dropped.

use serde_json::{Map, Value, json};

use crate::kinds::cluster::base64;

/// How a field is read.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A string; empty means absent, as all non-pointer fields are always written.
    Text,
    /// A list of strings.
    Texts,
    /// A 32 or 64 bit integer; zero means absent.
    Int,
    /// An integer behind a pointer: zero is zero.
    IntValue,
    /// A boolean; false means absent.
    Flag,
    /// A boolean behind a pointer.
    FlagValue,
    /// `map<string, string>`
    TextMap,
    /// `map<string, bytes>`
    BytesMap,
    /// `map<string, Quantity>`
    QuantityMap,
    /// A message.
    One(&'static Message),
    /// A list of messages.
    Many(&'static Message),
    /// `metav1.Time`
    Time,
    /// `intstr.IntOrString`
    IntOrString,
    /// Written by the server only: left out.
    Ignored,
}

/// A message's name and fields: number, JSON name, kind.
#[derive(Debug)]
struct Message {
    name: &'static str,
    fields: &'static [(u64, &'static str, Kind)],
}

use Kind::{
    BytesMap, Flag, FlagValue, Ignored, Int, IntOrString, IntValue, Many, One, QuantityMap, Text, TextMap,
    Texts, Time,
};

static OWNER: Message = Message {
    name: "OwnerReference",
    fields: &[
        (5, "apiVersion", Text),
        (1, "kind", Text),
        (3, "name", Text),
        (4, "uid", Text),
        (6, "controller", FlagValue),
        (7, "blockOwnerDeletion", FlagValue),
    ],
};

static META: Message = Message {
    name: "ObjectMeta",
    fields: &[
        (1, "name", Text),
        (2, "generateName", Text),
        (3, "namespace", Text),
        (4, "selfLink", Ignored),
        (5, "uid", Text),
        (6, "resourceVersion", Text),
        (7, "generation", Int),
        (8, "creationTimestamp", Time),
        (9, "deletionTimestamp", Time),
        (10, "deletionGracePeriodSeconds", IntValue),
        (11, "labels", TextMap),
        (12, "annotations", TextMap),
        (13, "ownerReferences", Many(&OWNER)),
        (14, "finalizers", Texts),
        (17, "managedFields", Ignored),
    ],
};

static NAMESPACE_SPEC: Message = Message { name: "NamespaceSpec", fields: &[(1, "finalizers", Texts)] };
static NAMESPACE: Message = Message {
    name: "Namespace",
    fields: &[(1, "metadata", One(&META)), (2, "spec", One(&NAMESPACE_SPEC)), (3, "status", Ignored)],
};

static CONFIG_MAP: Message = Message {
    name: "ConfigMap",
    fields: &[
        (1, "metadata", One(&META)),
        (2, "data", TextMap),
        (3, "binaryData", BytesMap),
        (4, "immutable", FlagValue),
    ],
};

static SECRET: Message = Message {
    name: "Secret",
    fields: &[
        (1, "metadata", One(&META)),
        (2, "data", BytesMap),
        (3, "type", Text),
        (4, "stringData", TextMap),
        (5, "immutable", FlagValue),
    ],
};

static SERVICE_ACCOUNT: Message = Message {
    name: "ServiceAccount",
    fields: &[(1, "metadata", One(&META)), (4, "automountServiceAccountToken", FlagValue)],
};

static SERVICE_PORT: Message = Message {
    name: "ServicePort",
    fields: &[
        (1, "name", Text),
        (2, "protocol", Text),
        (6, "appProtocol", Text),
        (3, "port", Int),
        (4, "targetPort", IntOrString),
        (5, "nodePort", Int),
    ],
};

static CLIENT_IP: Message = Message { name: "ClientIPConfig", fields: &[(1, "timeoutSeconds", IntValue)] };
static AFFINITY: Message =
    Message { name: "SessionAffinityConfig", fields: &[(1, "clientIP", One(&CLIENT_IP))] };

static SERVICE_SPEC: Message = Message {
    name: "ServiceSpec",
    fields: &[
        (1, "ports", Many(&SERVICE_PORT)),
        (2, "selector", TextMap),
        (3, "clusterIP", Text),
        (18, "clusterIPs", Texts),
        (4, "type", Text),
        (5, "externalIPs", Texts),
        (7, "sessionAffinity", Text),
        (8, "loadBalancerIP", Text),
        (9, "loadBalancerSourceRanges", Texts),
        (10, "externalName", Text),
        (11, "externalTrafficPolicy", Text),
        (12, "healthCheckNodePort", Int),
        (13, "publishNotReadyAddresses", Flag),
        (14, "sessionAffinityConfig", One(&AFFINITY)),
        (17, "ipFamilyPolicy", Text),
        (19, "ipFamilies", Texts),
        (20, "allocateLoadBalancerNodePorts", FlagValue),
        (21, "loadBalancerClass", Text),
        (22, "internalTrafficPolicy", Text),
        (23, "trafficDistribution", Text),
    ],
};

static SERVICE: Message = Message {
    name: "Service",
    fields: &[(1, "metadata", One(&META)), (2, "spec", One(&SERVICE_SPEC)), (3, "status", Ignored)],
};

static CONTAINER_PORT: Message = Message {
    name: "ContainerPort",
    fields: &[
        (1, "name", Text),
        (2, "hostPort", Int),
        (3, "containerPort", Int),
        (4, "protocol", Text),
        (5, "hostIP", Text),
    ],
};

static RESOURCES: Message = Message {
    name: "ResourceRequirements",
    fields: &[(1, "limits", QuantityMap), (2, "requests", QuantityMap)],
};

static ENV: Message = Message { name: "EnvVar", fields: &[(1, "name", Text), (2, "value", Text)] };

static CONTAINER: Message = Message {
    name: "Container",
    fields: &[
        (1, "name", Text),
        (2, "image", Text),
        (3, "command", Texts),
        (4, "args", Texts),
        (5, "workingDir", Text),
        (6, "ports", Many(&CONTAINER_PORT)),
        (7, "env", Many(&ENV)),
        (8, "resources", One(&RESOURCES)),
        (13, "terminationMessagePath", Text),
        (14, "imagePullPolicy", Text),
        (16, "stdin", Flag),
        (17, "stdinOnce", Flag),
        (18, "tty", Flag),
        (20, "terminationMessagePolicy", Text),
    ],
};

static POD_SPEC: Message = Message {
    name: "PodSpec",
    fields: &[
        (2, "containers", Many(&CONTAINER)),
        (20, "initContainers", Many(&CONTAINER)),
        (3, "restartPolicy", Text),
        (4, "terminationGracePeriodSeconds", IntValue),
        (6, "dnsPolicy", Text),
        (7, "nodeSelector", TextMap),
        (8, "serviceAccountName", Text),
        (9, "serviceAccount", Text),
        (10, "nodeName", Text),
        (11, "hostNetwork", Flag),
        (12, "hostPID", Flag),
        (13, "hostIPC", Flag),
        (16, "hostname", Text),
        (17, "subdomain", Text),
        (19, "schedulerName", Text),
        (24, "priorityClassName", Text),
    ],
};

static POD_TEMPLATE: Message =
    Message { name: "PodTemplateSpec", fields: &[(1, "metadata", One(&META)), (2, "spec", One(&POD_SPEC))] };

static REQUIREMENT: Message = Message {
    name: "LabelSelectorRequirement",
    fields: &[(1, "key", Text), (2, "operator", Text), (3, "values", Texts)],
};

static SELECTOR: Message = Message {
    name: "LabelSelector",
    fields: &[(1, "matchLabels", TextMap), (2, "matchExpressions", Many(&REQUIREMENT))],
};

static ROLLING: Message = Message {
    name: "RollingUpdateDeployment",
    fields: &[(1, "maxUnavailable", IntOrString), (2, "maxSurge", IntOrString)],
};

static STRATEGY: Message =
    Message { name: "DeploymentStrategy", fields: &[(1, "type", Text), (2, "rollingUpdate", One(&ROLLING))] };

static DEPLOYMENT_SPEC: Message = Message {
    name: "DeploymentSpec",
    fields: &[
        (1, "replicas", IntValue),
        (2, "selector", One(&SELECTOR)),
        (3, "template", One(&POD_TEMPLATE)),
        (4, "strategy", One(&STRATEGY)),
        (5, "minReadySeconds", Int),
        (6, "revisionHistoryLimit", IntValue),
        (7, "paused", Flag),
        (9, "progressDeadlineSeconds", IntValue),
    ],
};

static DEPLOYMENT: Message = Message {
    name: "Deployment",
    fields: &[(1, "metadata", One(&META)), (2, "spec", One(&DEPLOYMENT_SPEC)), (3, "status", Ignored)],
};

static PRECONDITIONS: Message =
    Message { name: "Preconditions", fields: &[(1, "uid", Text), (2, "resourceVersion", Text)] };

static DELETE_OPTIONS: Message = Message {
    name: "DeleteOptions",
    fields: &[
        (1, "gracePeriodSeconds", IntValue),
        (2, "preconditions", One(&PRECONDITIONS)),
        (3, "orphanDependents", FlagValue),
        (4, "propagationPolicy", Text),
        (5, "dryRun", Texts),
    ],
};

static KINDS: &[&Message] =
    &[&NAMESPACE, &CONFIG_MAP, &SECRET, &SERVICE_ACCOUNT, &SERVICE, &DEPLOYMENT, &DELETE_OPTIONS];

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";

/// Reads a `runtime.Unknown` envelope and the object in it.
pub(super) fn decode(bytes: &[u8]) -> Result<Value, String> {
    let envelope =
        bytes.strip_prefix(MAGIC).ok_or("the body does not begin with the protobuf prefix k8s\\0")?;
    let (mut kind, mut api_version, mut raw) = (String::new(), String::new(), &[][..]);
    for field in fields(envelope)? {
        match (field.number, field.value) {
            (1, Wire::Bytes(type_meta)) => {
                for part in fields(type_meta)? {
                    match part.number {
                        1 => api_version = part.text()?,
                        2 => kind = part.text()?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(object)) => raw = object,
            _ => {}
        }
    }
    let message = KINDS.iter().find(|m| m.name == kind).ok_or_else(|| {
        let known: Vec<&str> = KINDS.iter().map(|m| m.name).collect();
        format!("the in-memory API server reads protobuf of {} only, got {kind}; send JSON", known.join(", "))
    })?;
    let mut object = json!({"apiVersion": api_version, "kind": kind});
    if let (Some(members), Value::Object(read)) = (object.as_object_mut(), read(message, raw)?) {
        members.extend(read);
    }
    Ok(object)
}

enum Wire<'b> {
    Varint(u64),
    Bytes(&'b [u8]),
}

struct Field<'b> {
    number: u64,
    value: Wire<'b>,
}

impl<'b> Field<'b> {
    fn bytes(&self) -> Result<&'b [u8], String> {
        match self.value {
            Wire::Bytes(bytes) => Ok(bytes),
            Wire::Varint(_) => Err(format!("field {} has the wrong wire type", self.number)),
        }
    }

    fn text(&self) -> Result<String, String> {
        String::from_utf8(self.bytes()?.to_vec()).map_err(|_| format!("field {} is not UTF-8", self.number))
    }

    fn number(&self) -> Result<i64, String> {
        match self.value {
            // Negative numbers are written as their 64 bit two's complement.
            Wire::Varint(n) => Ok(n as i64),
            Wire::Bytes(_) => Err(format!("field {} has the wrong wire type", self.number)),
        }
    }
}

fn varint<'b>(bytes: &mut &'b [u8]) -> Result<u64, String> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest): (&'b u8, _) = bytes.split_first().ok_or("a number is cut off")?;
        *bytes = rest;
        n |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(n);
        }
    }
    Err("a number has more than ten bytes".to_owned())
}

fn fields(mut bytes: &[u8]) -> Result<Vec<Field<'_>>, String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let value = match key & 7 {
            0 => Wire::Varint(varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|e| e.to_string())?;
                let (value, rest) = bytes.split_at_checked(length).ok_or("a field is cut off")?;
                bytes = rest;
                Wire::Bytes(value)
            }
            other => return Err(format!("wire type {other} is not used by Kubernetes objects")),
        };
        all.push(Field { number: key >> 3, value });
    }
    Ok(all)
}

fn read(message: &Message, bytes: &[u8]) -> Result<Value, String> {
    let mut object = Map::new();
    for field in fields(bytes)? {
        let known = message.fields.iter().find(|(number, _, _)| *number == field.number);
        let (_, name, kind) = known.ok_or_else(|| {
            format!(
                "the in-memory API server does not read protobuf field {} of {}; send JSON",
                field.number, message.name
            )
        })?;
        put(&mut object, name, *kind, &field)?;
    }
    Ok(Value::Object(object))
}

fn put(object: &mut Map<String, Value>, name: &str, kind: Kind, field: &Field<'_>) -> Result<(), String> {
    let single = match kind {
        Ignored => None,
        Text => Some(field.text()?).filter(|t| !t.is_empty()).map(Value::from),
        Int => Some(field.number()?).filter(|n| *n != 0).map(Value::from),
        IntValue => Some(json!(field.number()?)),
        Flag => (field.number()? != 0).then(|| json!(true)),
        FlagValue => Some(json!(field.number()? != 0)),
        One(message) => Some(read(message, field.bytes()?)?),
        Time => time(field.bytes()?)?,
        IntOrString => Some(int_or_string(field.bytes()?)?),
        Texts | Many(_) => {
            let item = match kind {
                Many(message) => read(message, field.bytes()?)?,
                _ => json!(field.text()?),
            };
            if let Some(list) = object.entry(name).or_insert_with(|| json!([])).as_array_mut() {
                list.push(item);
            }
            None
        }
        TextMap | BytesMap | QuantityMap => {
            let (key, value) = entry(kind, field.bytes()?)?;
            if let Some(map) = object.entry(name).or_insert_with(|| json!({})).as_object_mut() {
                map.insert(key, value);
            }
            None
        }
    };
    if let Some(value) = single {
        object.insert(name.to_owned(), value);
    }
    Ok(())
}

/// A map's entry: key is field 1, value field 2.
fn entry(kind: Kind, bytes: &[u8]) -> Result<(String, Value), String> {
    let (mut key, mut value) = (String::new(), json!(""));
    for field in fields(bytes)? {
        match (field.number, kind) {
            (1, _) => key = field.text()?,
            (_, BytesMap) => value = json!(base64(field.bytes()?)),
            (_, QuantityMap) => {
                for part in fields(field.bytes()?)? {
                    value = json!(part.text()?);
                }
            }
            _ => value = json!(field.text()?),
        }
    }
    Ok((key, value))
}

/// Seconds since 1970; an empty message is no time.
fn time(bytes: &[u8]) -> Result<Option<Value>, String> {
    let mut secs = None;
    for field in fields(bytes)? {
        if field.number == 1 {
            secs = Some(field.number()?);
        }
    }
    let at = secs.map(jiff::Timestamp::from_second).transpose().map_err(|e| e.to_string())?;
    Ok(at.map(|t| json!(t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())))
}

/// Type 0 is a number, type 1 a string.
fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    for field in fields(bytes)? {
        match field.number {
            1 => is_text = field.number()? == 1,
            2 => number = field.number()?,
            _ => text = field.text()?,
        }
    }
    Ok(if is_text { json!(text) } else { json!(number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_kubectl_is_read() {
        let body =
            b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x17\n\x11\n\x01x\x12\0\x1a\0\"\0*\x002\08\0B\0\x12\0\x1a\0\x1a\0\"\0";
        assert_eq!(
            decode(body).unwrap(),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}, "spec": {}})
        );
    }

    #[test]
    fn cut_off_and_unknown_bodies_are_refused() {
        let body = b"k8s\0\n\x0f\n\x02v1\x12\tNamespace\x12\x1a\n\x14\n\x01x";
        assert!(decode(body).is_err());
        assert!(decode(b"{}").unwrap_err().contains("prefix"));
        let pod = b"k8s\0\n\x09\n\x02v1\x12\x03Pod\x12\0";
        assert!(decode(pod).unwrap_err().contains("send JSON"));
        for end in 0..body.len() {
            let _ = decode(&body[..end]);
        }
    }
}
