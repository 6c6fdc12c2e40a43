//! What can be known about a rule before any object: that it uses only names and functions that exist here,
//! and that the fields it selects from `self` exist in the schema.

use cel::Program;
use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use serde_json::Value;

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
    "quote",
    "format",
    "slice",
    "flatten",
    "sort",
    "sortBy",
    "distinct",
    "range",
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
    Ok(())
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
