//! `x-kubernetes-validations`: CEL rules of custom resources, over the `cel` crate. What cannot be evaluated
//! here is refused when the CRD is applied, never passed over.

mod check;
mod evaluate;
mod functions;
mod value;

use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program};
use serde_json::Value;

use crate::schema::{Additional, Child, Schema};

pub(crate) use check::check_fields;
pub(crate) use evaluate::evaluate;

static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    env.add_extension(cel::extensions::strings).expect("the strings library fits the standard one");
    Arc::new(env)
});

/// Whether a schema has any rule.
pub(crate) fn has_rules(schema: &Schema) -> bool {
    let below = schema.properties.values().chain(&schema.items).chain(match &schema.additional {
        Additional::Schema(child) => Some(child),
        Additional::Any | Additional::None => None,
    });
    !schema.rules.is_empty() || below.map(Child::get).any(has_rules)
}

/// Why a rule's failure is reported, `FieldValueInvalid` unless the rule says otherwise.
const REASONS: [&str; 4] =
    ["FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"];

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    source: String,
    program: Arc<Program>,
    message: Option<String>,
    message_expression: Option<Arc<Program>>,
    reason: &'static str,
    field_path: Option<String>,
    optional_old_self: bool,
}

impl Rule {
    /// Compiles one entry of `x-kubernetes-validations`.
    pub fn compile(json: &Value) -> Result<Self, String> {
        let source = json["rule"].as_str().unwrap_or_default().trim().to_owned();
        if source.is_empty() {
            return Err("Required value: rule is not specified".to_owned());
        }
        let program = compile(&source)?;
        let message_expression = match json["messageExpression"].as_str() {
            Some(text) => Some(Arc::new(compile(text)?)),
            None => None,
        };
        let wanted = json["reason"].as_str().unwrap_or(REASONS[0]);
        let reason = REASONS.into_iter().find(|r| *r == wanted).ok_or_else(|| {
            format!("unsupported reason \"{wanted}\", supported values: {}", REASONS.join(", "))
        })?;
        Ok(Self {
            program: Arc::new(program),
            message: json["message"].as_str().map(|m| m.trim().to_owned()),
            message_expression,
            reason,
            field_path: json["fieldPath"].as_str().map(str::to_owned),
            optional_old_self: json["optionalOldSelf"] == true,
            source,
        })
    }

    /// Whether the rule looks at the value before the change.
    fn is_transition_rule(&self) -> bool {
        self.program.references().has_variable("oldSelf")
    }
}

fn compile(source: &str) -> Result<Program, String> {
    let program = ENV.compile(source).map_err(|e| format!("compilation failed: {e}"))?;
    check::check_references(&program)?;
    Ok(program)
}

fn context() -> Context<'static, 'static> {
    let mut context = Context::with_env(ENV.clone());
    functions::register(&mut context);
    context
}
