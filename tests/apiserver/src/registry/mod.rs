//! Which resources are served: a table of [`Resource`]s, replaced as a whole when a CRD comes or goes.

pub(crate) mod builtin;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use serde_json::Value;

use crate::kinds::Kind;
use crate::schema::Schema;
use crate::store::Collection;
use crate::table::Columns;

/// Group, version and plural name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceId {
    /// API group, empty for core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name.
    pub plural: String,
}

/// How a version shows what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// As it is.
    Same,
    /// With another `apiVersion` (conversion strategy None).
    OtherVersion,
    /// Core events as `events.k8s.io/v1`.
    Events,
}

/// Where a resource's schema comes from.
#[derive(Debug, Clone)]
pub enum SchemaSource {
    /// A definition of the built-in kinds.
    Builtin(&'static str),
    /// A CRD's.
    Custom(Arc<Schema>, Arc<Value>),
}

impl SchemaSource {
    /// The schema.
    pub fn get(&self) -> &Schema {
        match self {
            Self::Builtin(name) => crate::schema::builtin::definition(name),
            Self::Custom(schema, _) => schema,
        }
    }
}

/// A served resource.
#[derive(Debug)]
pub struct Resource {
    /// Its address.
    pub id: ResourceId,
    /// Kind.
    pub kind: String,
    /// Kind of its lists.
    pub list_kind: String,
    /// Singular name.
    pub singular: String,
    /// Short names.
    pub short_names: Vec<String>,
    /// Categories, as `all`.
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// Whether `/status` exists.
    pub has_status: bool,
    /// Schema.
    pub schema: SchemaSource,
    /// Rules.
    pub rules: Arc<dyn Kind>,
    /// Objects; shared by the versions of one resource.
    pub objects: Arc<Collection>,
    /// The `apiVersion` objects are stored with.
    pub stored_as: String,
    /// How this version shows them.
    pub view: View,
    /// What `kubectl get` prints.
    pub columns: Columns,
    /// JSON paths that field selectors may use, besides name and namespace.
    pub selectable: Vec<String>,
}

impl Resource {
    /// `v1`, or `group/version`.
    pub fn api_version(&self) -> String {
        api_version(&self.id.group, &self.id.version)
    }

    /// Whether this is a custom resource.
    pub fn is_custom(&self) -> bool {
        matches!(self.schema, SchemaSource::Custom(..))
    }
}

/// `v1`, or `group/version`.
pub(crate) fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// The resources at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    /// In order of registration.
    pub resources: Vec<Arc<Resource>>,
    by_id: HashMap<ResourceId, Arc<Resource>>,
}

impl Table {
    /// The resource at an address.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        let id = ResourceId { group: group.into(), version: version.into(), plural: plural.into() };
        self.by_id.get(&id).cloned()
    }

    /// Groups with their versions, core first, then by name; versions in order of registration.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let mut groups: Vec<(String, Vec<String>)> = Vec::new();
        for resource in &self.resources {
            let at = groups.iter().position(|(group, _)| *group == resource.id.group).unwrap_or_else(|| {
                groups.push((resource.id.group.clone(), Vec::new()));
                groups.len() - 1
            });
            if !groups[at].1.contains(&resource.id.version) {
                groups[at].1.push(resource.id.version.clone());
            }
        }
        groups
    }

    fn rebuild(resources: Vec<Arc<Resource>>) -> Self {
        let by_id = resources.iter().map(|r| (r.id.clone(), r.clone())).collect();
        Self { resources, by_id }
    }
}

/// The table, shared.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: RwLock<Arc<Table>>,
}

impl Registry {
    /// The resources now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.table.read().expect("no code panics while it holds the table").clone()
    }

    /// Adds resources, replacing those at the same address.
    pub(crate) fn add(&self, added: Vec<Resource>) {
        self.change(|resources| {
            for resource in added {
                let resource = Arc::new(resource);
                match resources.iter_mut().find(|r| r.id == resource.id) {
                    Some(there) => *there = resource,
                    None => resources.push(resource),
                }
            }
        });
    }

    /// Removes the resources of a group and plural name, all versions but `kept`.
    pub(crate) fn remove(&self, group: &str, plural: &str, kept: &[String]) {
        self.change(|resources| {
            resources
                .retain(|r| r.id.group != group || r.id.plural != plural || kept.contains(&r.id.version));
        });
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Arc<Resource>>)) {
        let mut table = self.table.write().expect("no code panics while it holds the table");
        let mut resources = table.resources.clone();
        edit(&mut resources);
        *table = Arc::new(Table::rebuild(resources));
    }
}
