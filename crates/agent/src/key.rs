//! What names an object inside the agent.

use std::{fmt, sync::Arc};

use kube::ResourceExt;
use serde::{Deserialize, Serialize};

/// Namespace and name of an object, as `namespace/name`; only the name where there is no namespace. Cheap to
/// clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// Of a namespaced object.
    pub fn new(namespace: &str, name: &str) -> ObjectKey {
        ObjectKey(format!("{namespace}/{name}").into())
    }

    /// Of any object.
    pub fn of(object: &impl ResourceExt) -> ObjectKey {
        match object.namespace() {
            Some(namespace) => ObjectKey::new(&namespace, &object.name_any()),
            None => ObjectKey(object.name_any().into()),
        }
    }

    /// The namespace; empty where there is none.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
