//! The form an answer takes: the objects themselves, a `Table` for `kubectl get`, or only their metadata.

use serde_json::{Value, json};

use crate::registry::Resource;
use crate::store::Stored;
use crate::verbs::Target;
use crate::verbs::list::Listed;
use crate::view;

/// What a `Table`'s rows carry of their object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Include {
    /// Its metadata.
    #[default]
    Metadata,
    /// Nothing.
    None,
    /// All of it.
    Object,
}

/// A form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Form {
    /// The objects.
    #[default]
    Object,
    /// `as=PartialObjectMetadata`
    Metadata,
    /// `as=Table`
    Table(Include),
}

impl Form {
    /// A single object in this form. A table carries its column definitions only if `with_columns`.
    pub(crate) fn one(self, resource: &Resource, object: &Stored, with_columns: bool) -> Value {
        let value = view::shown(resource, object);
        match self {
            Self::Object => value,
            Self::Metadata => partial(&value),
            Self::Table(include) => {
                let meta = json!({"resourceVersion": value["metadata"]["resourceVersion"]});
                table(resource, &[value], meta, include, with_columns)
            }
        }
    }

    /// A list in this form.
    pub(crate) fn list(self, target: &Target, listed: &Listed) -> Value {
        let resource = &target.resource;
        let values: Vec<Value> = listed.objects.iter().map(|o| view::shown(resource, o)).collect();
        match self {
            Self::Object | Self::Metadata => {
                let items: Vec<Value> = values.iter().map(partial).collect();
                json!({
                    "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                    "metadata": listed.metadata(), "items": items,
                })
            }
            Self::Table(include) => table(resource, &values, listed.metadata(), include, true),
        }
    }
}

fn partial(value: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]})
}

fn table(resource: &Resource, values: &[Value], meta: Value, include: Include, with_columns: bool) -> Value {
    let columns = with_columns.then(|| resource.columns.definitions());
    let row = |value: &Value| {
        let mut row = json!({"cells": resource.columns.cells(value)});
        match include {
            Include::None => {}
            Include::Metadata => row["object"] = partial(value),
            Include::Object => row["object"] = value.clone(),
        }
        row
    };
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": meta,
        "columnDefinitions": columns,
        "rows": values.iter().map(row).collect::<Vec<Value>>(),
    })
}
