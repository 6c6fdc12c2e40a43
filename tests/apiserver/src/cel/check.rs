//! What can be known about a rule before any object: that it uses only names and functions that exist here,
//! and that the fields it selects from `self` exist in the schema.

use cel::Program;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use serde_json::{Value, json};

use super::{functions, value};
use crate::schema::{Schema, SchemaError, Type};

/// Functions and operators of the standard library, macros expanded.
const STANDARD: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "string",
    "int",
    "uint",
    "double",
    "bool",
    "bytes",
    "type",
    "dyn",
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "hasValue",
    "value",
    "orValue",
    "or",
    "optional.of",
    "optional.none",
    "optional.ofNonZeroValue",
    "of",
    "none",
    "ofNonZeroValue",
    "charAt",
    "indexOf",
    "lastIndexOf",
    "join",
    "lowerAscii",
    "upperAscii",
    "replace",
    "split",
    "substring",
    "trim",
    "reverse",
    "strings.quote",
    "quote",
    "format",
];

/// Fails when a program calls or names something this server does not have.
pub(super) fn check_references(program: &Program) -> Result<(), String> {
    let references = program.references();
    for function in references.functions() {
        let operator = !function.starts_with(|c: char| c.is_ascii_alphabetic());
        if !operator && !STANDARD.contains(&function) && !functions::NAMES.contains(&function) {
            return Err(format!(
                "compilation failed: undeclared reference to '{function}' (in container '')"
            ));
        }
    }
    for variable in references.variables() {
        let known = ["self", "oldSelf"].contains(&variable)
            || variable.starts_with('@')
            || is_type_name(variable)
            || is_bound(program.expression(), variable);
        if !known {
            return Err(format!(
                "compilation failed: undeclared reference to '{variable}' (in container '')"
            ));
        }
    }
    Ok(())
}

fn is_type_name(name: &str) -> bool {
    let types =
        ["bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type", "optional"];
    types.contains(&name)
}

fn is_bound(expression: &IdedExpr, name: &str) -> bool {
    let mut found = false;
    visit(expression, &mut |e| {
        if let Expr::Comprehension(c) = e {
            found |= c.iter_var == name || c.accu_var == name || c.iter_var2.as_deref() == Some(name);
        }
    });
    found
}

/// Fails when a rule of `schema` selects a field of `self` that the schema does not have.
pub(crate) fn check_fields(schema: &Schema, path: &str) -> Result<(), SchemaError> {
    for (i, rule) in schema.rules.iter().enumerate() {
        let mut fault = None;
        visit(rule.program.expression(), &mut |e| {
            if let Some(chain) = selection(e)
                && fault.is_none()
            {
                fault = unknown_field(schema, &chain);
            }
        });
        if let Some(field) = fault {
            return Err(SchemaError {
                path: format!("{path}.x-kubernetes-validations[{i}].rule"),
                value: Value::String(rule.source.clone()),
                message: format!("compilation failed: undefined field '{field}'"),
            });
        }
    }
    check_types(schema, path)
}

/// Fails when a rule cannot be of type bool, or compares values of different types: what the real server's
/// type checker finds, as far as it shows on a sample value of the schema.
fn check_types(schema: &Schema, path: &str) -> Result<(), SchemaError> {
    for (i, rule) in schema.rules.iter().enumerate() {
        let mut fault = None;
        visit(rule.program.expression(), &mut |e| {
            if fault.is_none() {
                fault = mismatch(schema, e);
            }
        });
        let sample = sample(schema, 0);
        let fault = fault.or_else(|| super::evaluate::type_fault(rule, &sample, schema));
        if let Some(message) = fault {
            return Err(SchemaError {
                path: format!("{path}.x-kubernetes-validations[{i}].rule"),
                value: Value::String(rule.source.clone()),
                message,
            });
        }
    }
    Ok(())
}

/// A comparison between two types that are known and differ.
fn mismatch(schema: &Schema, expression: &Expr) -> Option<String> {
    let Expr::Call(call) = expression else { return None };
    let [left, right] = call.args.as_slice() else { return None };
    if !matches!(call.func_name.as_str(), "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_") {
        return None;
    }
    let (left, right) = (static_type(schema, &left.expr)?, static_type(schema, &right.expr)?);
    (left != right).then(|| {
        format!(
            "compilation failed: found no matching overload for '{}' applied to '({left}, {right})'",
            call.func_name
        )
    })
}

fn static_type(schema: &Schema, expression: &Expr) -> Option<&'static str> {
    match expression {
        Expr::Literal(LiteralValue::Boolean(_)) => Some("bool"),
        Expr::Literal(LiteralValue::Int(_)) => Some("int"),
        Expr::Literal(LiteralValue::Double(_)) => Some("double"),
        Expr::Literal(LiteralValue::String(_)) => Some("string"),
        Expr::Select(select) if select.test => Some("bool"),
        Expr::Call(call) if call.func_name == "size" => Some("int"),
        Expr::Ident(name) if name == "self" || name == "oldSelf" => scalar(schema),
        other => {
            let chain = selection(other)?;
            scalar(chain.iter().try_fold(schema, |at, name| at.member(&value::unescape(name)))?)
        }
    }
}

fn scalar(schema: &Schema) -> Option<&'static str> {
    match (schema.ty, schema.format.as_deref()) {
        (Type::String, Some("date-time" | "duration")) => None,
        (Type::String, _) => Some("string"),
        (Type::Integer, _) => Some("int"),
        (Type::Number, _) => Some("double"),
        (Type::Boolean, _) => Some("bool"),
        _ => None,
    }
}

/// A value of the schema with every member present.
fn sample(schema: &Schema, depth: usize) -> Value {
    const DEEPEST: usize = 8;
    if let Some(value) = schema.default.as_ref().or(schema.checks.values.first()) {
        return value.clone();
    }
    match schema.ty {
        Type::Object if depth < DEEPEST => {
            let members =
                schema.properties.iter().map(|(name, child)| (name.clone(), sample(child.get(), depth + 1)));
            Value::Object(members.collect())
        }
        Type::Array if depth < DEEPEST => {
            Value::Array(schema.item().map(|item| sample(item, depth + 1)).into_iter().collect())
        }
        Type::Object => json!({}),
        Type::Array => json!([]),
        Type::String => json!(""),
        Type::Integer => json!(1),
        Type::Number => json!(1.0),
        Type::Boolean => json!(true),
        Type::Any => Value::Null,
    }
}

/// The field names of `self.a.b.c` (or of `oldSelf`), outermost first.
fn selection(expression: &Expr) -> Option<Vec<&str>> {
    let mut names = Vec::new();
    let mut at = expression;
    loop {
        match at {
            Expr::Select(select) => {
                names.push(select.field.as_str());
                at = &select.operand.expr;
            }
            Expr::Ident(name) if (name == "self" || name == "oldSelf") && !names.is_empty() => {
                names.reverse();
                return Some(names);
            }
            _ => return None,
        }
    }
}

fn unknown_field(schema: &Schema, chain: &[&str]) -> Option<String> {
    let mut at = schema;
    for (depth, name) in chain.iter().enumerate() {
        if at.ty != Type::Object {
            // Optional values and untyped parts have members the schema does not tell.
            return (at.ty != Type::Any && depth > 0).then(|| (*name).to_owned());
        }
        let root_member = depth == 0 && matches!(*name, "apiVersion" | "kind" | "metadata");
        let field = value::unescape(name);
        match at.member(&field) {
            Some(below) => at = below,
            None if root_member || at.embedded_resource => return None,
            None => return Some((*name).to_owned()),
        }
    }
    None
}

fn visit(expression: &IdedExpr, look: &mut dyn FnMut(&Expr)) {
    look(&expression.expr);
    match &expression.expr {
        Expr::Call(call) => {
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                visit(part, look);
            }
        }
        Expr::Comprehension(c) => {
            for part in [&c.iter_range, &c.accu_init, &c.loop_cond, &c.loop_step, &c.result] {
                visit(part, look);
            }
        }
        Expr::List(list) => list.elements.iter().for_each(|e| visit(e, look)),
        Expr::Select(select) => visit(&select.operand, look),
        Expr::Map(map) => map.entries.iter().for_each(|e| visit_entry(&e.expr, look)),
        Expr::Struct(value) => value.entries.iter().for_each(|e| visit_entry(&e.expr, look)),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => {}
    }
}

fn visit_entry(entry: &EntryExpr, look: &mut dyn FnMut(&Expr)) {
    match entry {
        EntryExpr::StructField(field) => visit(&field.value, look),
        EntryExpr::MapEntry(entry) => {
            visit(&entry.key, look);
            visit(&entry.value, look);
        }
    }
}
