//! The schemas of the kinds that Kubernetes itself brings, taken from the `k8s-openapi` types, with the list
//! semantics of [`super::lists`] laid over them (those types do not carry them).

use std::collections::HashMap;
use std::sync::LazyLock;

use k8s_openapi::api::{apps, coordination, core, discovery, events};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, LabelSelector, ObjectMeta};
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use super::{Additional, Schema, Type, lists, parse};

/// Definition names, by which definitions refer to each other.
static NAMES: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    JSON.keys().map(|name| (name.clone(), &*Box::leak(name.clone().into_boxed_str()))).collect()
});

/// The definitions as OpenAPI JSON.
static JSON: LazyLock<Map<String, Value>> = LazyLock::new(definitions);

static SCHEMAS: LazyLock<HashMap<&'static str, Schema>> = LazyLock::new(|| {
    JSON.iter()
        .map(|(name, json)| {
            let mut schema = parse(json, name).expect("k8s-openapi's schemas are structural");
            open_untyped_objects(&mut schema);
            // Any JSON value (`default` and `example` of a CRD's schema), which k8s-openapi calls an object.
            if name.ends_with(".apiextensions.v1.JSON") {
                schema.ty = Type::Any;
            }
            (interned(name).expect("every definition has its name"), schema)
        })
        .collect()
});

/// The one copy of a definition's name, if there is such a definition.
pub(crate) fn interned(name: &str) -> Option<&'static str> {
    NAMES.get(name).copied()
}

/// A definition by name.
///
/// # Panics
/// When there is none of this name: names come from [`interned`] or are written in this crate.
pub(crate) fn definition(name: &str) -> &'static Schema {
    SCHEMAS.get(name).expect("names of definitions come from `interned` or from our own tables")
}

/// All definitions as OpenAPI JSON, for the OpenAPI documents.
pub(crate) fn definitions_json() -> &'static Map<String, Value> {
    &JSON
}

fn definitions() -> Map<String, Value> {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/definitions".into();
    let mut generator = settings.into_generator();
    macro_rules! define {
        ($($kind:ty),* $(,)?) => { $( generator.subschema_for::<$kind>(); )* };
    }
    define![
        core::v1::Namespace,
        core::v1::Service,
        core::v1::Node,
        core::v1::Pod,
        core::v1::Secret,
        core::v1::ConfigMap,
        core::v1::Endpoints,
        core::v1::Event,
        core::v1::ServiceAccount,
        discovery::v1::EndpointSlice,
        coordination::v1::Lease,
        events::v1::Event,
        apps::v1::Deployment,
        apps::v1::DaemonSet,
        apps::v1::ReplicaSet,
        CustomResourceDefinition,
        ObjectMeta,
        LabelSelector,
        DeleteOptions,
    ];
    let mut all = generator.take_definitions(false);
    for (name, definition) in &mut all {
        lists::overlay(name, definition);
    }
    all
}

/// An object without any declared member is free-form in the built-in kinds (`FieldsV1`), while in a CRD it
/// is one whose members are all pruned.
fn open_untyped_objects(schema: &mut Schema) {
    let bare = schema.properties.is_empty() && matches!(schema.additional, Additional::None);
    if schema.ty == Type::Object && bare {
        schema.preserve_unknown = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reference_between_definitions_resolves() {
        fn walk(schema: &Schema) -> usize {
            let below = schema.properties.values().chain(&schema.items);
            1 + below
                .map(|child| match child {
                    super::super::Child::Inline(schema) => walk(schema),
                    super::super::Child::Named(name, _) => usize::from(SCHEMAS.contains_key(name)),
                })
                .sum::<usize>()
        }
        assert!(JSON.keys().map(|name| walk(definition(name))).sum::<usize>() > 1000);
    }

    #[test]
    fn service_ports_carry_their_merge_keys() {
        let spec = definition("io.k8s.api.core.v1.ServiceSpec");
        let ports = spec.member("ports").expect("a Service has ports");
        assert_eq!(ports.list, super::super::ListKind::Map(vec!["port".into(), "protocol".into()]));
        assert_eq!(ports.patch.as_ref().and_then(|p| p.merge_key.as_deref()), Some("port"));
    }
}
