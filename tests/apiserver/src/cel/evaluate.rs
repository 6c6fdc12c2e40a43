//! Running the rules of a schema over an object, top down.

use cel::{ExecutionError, Value as Cel};
use serde_json::{Value, json};

use super::{Rule, context, value};
use crate::refusal::Cause;
use crate::schema::{ListKind, Schema, Type, field_path};

/// What the rules say about `new`; `old` on updates.
pub(crate) fn evaluate(new: &Value, old: Option<&Value>, schema: &Schema) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(new, old, schema, "", &mut causes);
    causes
}

fn walk(new: &Value, old: Option<&Value>, schema: &Schema, path: &str, causes: &mut Vec<Cause>) {
    if new.is_null() {
        return;
    }
    for rule in &schema.rules {
        causes.extend(run(rule, new, old, schema, path));
    }
    match new {
        Value::Object(members) => {
            for (name, member) in members {
                if let Some(below) = schema.member(name) {
                    let before = old.and_then(|o| o.get(name)).filter(|v| !v.is_null());
                    walk(member, before, below, &field_path(path, name), causes);
                }
            }
        }
        Value::Array(items) => {
            let Some(below) = schema.item() else { return };
            for (i, item) in items.iter().enumerate() {
                walk(item, correlated(item, old, &schema.list), below, &format!("{path}[{i}]"), causes);
            }
        }
        _ => {}
    }
}

/// The old item that an item of a list continues; only the items of map lists can be told.
fn correlated<'v>(item: &Value, old: Option<&'v Value>, list: &ListKind) -> Option<&'v Value> {
    let ListKind::Map(keys) = list else { return None };
    old?.as_array()?.iter().find(|before| keys.iter().all(|k| before[k] == item[k]))
}

fn run(rule: &Rule, new: &Value, old: Option<&Value>, schema: &Schema, path: &str) -> Option<Cause> {
    let mut context = context();
    context.add_variable_from_value("self", value::to_cel(new, Some(schema)));
    if rule.is_transition_rule() {
        match old {
            None if rule.optional_old_self => return Some(unsupported(path)),
            None => return None,
            Some(old) => context.add_variable_from_value("oldSelf", value::to_cel(old, Some(schema))),
        }
    }
    match rule.program.execute(&context) {
        Ok(Cel::Bool(true)) => None,
        Ok(Cel::Bool(false)) => Some(failure(rule, new, schema, path, &context)),
        Ok(other) => Some(Cause::internal(
            path,
            &format!("rule must evaluate to bool, got {other:?}: {}", rule.source),
        )),
        Err(error) => {
            let shown = shown(new, schema);
            Some(Cause::invalid(path, &shown, &format!("rule evaluation error: {error}: {}", rule.source)))
        }
    }
}

/// What is wrong with a rule's types, found by running it on a sample. Failures that depend on the sample's
/// values are none.
pub(super) fn type_fault(rule: &Rule, sample: &Value, schema: &Schema) -> Option<String> {
    let mut context = context();
    context.add_variable_from_value("self", value::to_cel(sample, Some(schema)));
    context.add_variable_from_value("oldSelf", value::to_cel(sample, Some(schema)));
    match rule.program.execute(&context) {
        Ok(Cel::Bool(_)) => None,
        Ok(_) => Some("cel expression must evaluate to a bool".to_owned()),
        Err(
            error @ (ExecutionError::NoSuchOverload(_)
            | ExecutionError::UndeclaredReference(_)
            | ExecutionError::NotSupportedAsMethod { .. }),
        ) => Some(format!("compilation failed: {error}")),
        Err(_) => None,
    }
}

fn unsupported(path: &str) -> Cause {
    Cause::internal(path, "optionalOldSelf is not implemented by the in-memory API server")
}

fn failure(rule: &Rule, new: &Value, schema: &Schema, path: &str, context: &cel::Context<'_, '_>) -> Cause {
    let computed = rule.message_expression.as_ref().and_then(|program| match program.execute(context) {
        Ok(Cel::String(text)) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        _ => None,
    });
    let text =
        computed.or_else(|| rule.message.clone()).unwrap_or_else(|| format!("failed rule: {}", rule.source));
    let field = match &rule.field_path {
        Some(below) => format!("{path}{below}").trim_start_matches('.').to_owned(),
        None => path.to_owned(),
    };
    let field = if field.is_empty() { "<nil>".to_owned() } else { field };
    match rule.reason {
        "FieldValueForbidden" => Cause::forbidden(field, &text),
        "FieldValueRequired" => Cause::required(field, &text),
        "FieldValueDuplicate" => Cause::duplicate(field, &shown(new, schema)),
        _ if matches!(schema.ty, Type::Object | Type::Array) => Cause::invalid_without_value(field, &text),
        _ => Cause::invalid(field, &shown(new, schema), &text),
    }
}

/// Scalars are shown, trees by their type only.
fn shown(value: &Value, schema: &Schema) -> Value {
    match schema.ty {
        Type::Object | Type::Array => json!(schema.ty.word()),
        _ => value.clone(),
    }
}
