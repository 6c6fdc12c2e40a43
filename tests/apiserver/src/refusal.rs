//! Answers that are not the object asked for: the `Status` objects of the Kubernetes API, with the reasons,
//! messages and causes that clients match on.

use serde_json::{Value, json};

/// One field's fault in an object, a `StatusCause`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueInvalid` and its siblings.
    pub reason: &'static str,
    /// Path of the field, as `spec.ports[0].port`.
    pub field: String,
    /// The message without the field.
    pub message: String,
}

impl Cause {
    fn new(reason: &'static str, field: impl Into<String>, message: String) -> Self {
        Self { reason, field: field.into(), message }
    }

    /// The field must be given.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueRequired", field, with_detail("Required value", detail))
    }

    /// The field's value is wrong.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            with_detail(&format!("Invalid value: {}", shown(value)), detail),
        )
    }

    /// The field's value is wrong, and too large to be shown.
    pub(crate) fn invalid_without_value(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueInvalid", field, with_detail("Invalid value", detail))
    }

    /// The field's value has the wrong type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::new(
            "FieldValueTypeInvalid",
            field,
            with_detail(&format!("Invalid value: {}", shown(value)), detail),
        )
    }

    /// The field's value appears twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::new("FieldValueDuplicate", field, format!("Duplicate value: {}", shown(value)))
    }

    /// The field may not be given here.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new("FieldValueForbidden", field, with_detail("Forbidden", detail))
    }

    /// The field's value is not one of a list.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list = supported.iter().map(|s| format!("\"{s}\"")).collect::<Vec<_>>().join(", ");
        Self::new(
            "FieldValueNotSupported",
            field,
            format!("Unsupported value: {}: supported values: {list}", shown(value)),
        )
    }

    /// The field is longer than allowed.
    pub fn too_long(field: impl Into<String>, limit: u64) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        Self::new("FieldValueTooLong", field, format!("Too long: may not be more than {limit} {unit}"))
    }

    /// The list has more items than allowed.
    pub fn too_many(field: impl Into<String>, actual: usize, limit: u64) -> Self {
        Self::new("FieldValueTooMany", field, format!("Too many: {actual}: must have at most {limit} items"))
    }

    /// Something the field refers to does not exist.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::new("FieldValueNotFound", field, format!("Not found: {}", shown(value)))
    }

    /// The server failed while judging the field.
    pub fn internal(field: impl Into<String>, detail: &str) -> Self {
        Self::new("InternalError", field, format!("Internal error: {detail}"))
    }

    fn line(&self) -> String {
        format!("{}: {}", self.field, self.message)
    }
}

fn with_detail(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

/// A value as field errors show it: scalars as JSON, trees as compact JSON.
fn shown(value: &Value) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// What a refusal is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subject {
    /// API group.
    pub group: String,
    /// Plural resource name, or the kind for validation errors (as the real server does).
    pub kind: String,
    /// Object name.
    pub name: String,
    /// Object uid, where known.
    pub uid: String,
}

/// An answer with a failure `Status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, as `NotFound`.
    pub reason: &'static str,
    /// Human-readable message.
    pub message: String,
    /// What it is about.
    pub subject: Box<Subject>,
    /// Field causes.
    pub causes: Vec<Cause>,
    /// Seconds to wait before trying again.
    pub retry_after: Option<u32>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code, self.reason, self.message)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A refusal without subject.
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, reason, message, subject: Box::default(), causes: Vec::new(), retry_after: None }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        *self.subject = Subject {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: String::new(),
        };
        self
    }

    /// 400: the request cannot be understood.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404: no such object.
    pub(crate) fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", qualified(resource, group));
        Self::new(404, "NotFound", message).about(group, resource, name)
    }

    /// 404: no such path.
    pub(crate) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// 409: the name is taken.
    pub(crate) fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", qualified(resource, group));
        Self::new(409, "AlreadyExists", message).about(group, resource, name)
    }

    /// 409: the object moved under the caller, or a precondition failed.
    pub(crate) fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {what} \"{name}\": {why}"))
            .about(group, resource, name)
    }

    /// 409: the resource version sent is not the current one.
    pub(crate) fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    /// 403: not allowed in this state.
    pub(crate) fn forbidden(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let what = qualified(resource, group);
        Self::new(403, "Forbidden", format!("{what} \"{name}\" is forbidden: {why}"))
            .about(group, resource, name)
    }

    /// 422: the object breaks its kind's rules.
    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let lines: Vec<String> = causes.iter().map(Cause::line).collect();
        let text = match lines.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{name}\" is invalid: {text}", qualified(kind, group));
        let mut refusal = Self::new(422, "Invalid", message).about(group, kind, name);
        refusal.causes = causes;
        refusal
    }

    /// 410: the resource version asked for is no longer in the history.
    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 405.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// 406: none of the accepted media types is produced here.
    pub(crate) fn not_acceptable() -> Self {
        let types = "only the following media types are accepted: application/json, application/yaml";
        Self::new(406, "NotAcceptable", types)
    }

    /// 415: the body's media type is not read here.
    pub(crate) fn unsupported_media_type(accepted: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 504: the resource version asked for lies in the future.
    pub(crate) fn too_large_resource_version(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let mut refusal = Self::new(504, "Timeout", message);
        refusal.retry_after = Some(1);
        refusal.causes =
            vec![Cause::new("ResourceVersionTooLarge", "", "Too large resource version".to_owned())];
        refusal
    }

    /// 501: this server knows the request and does not do it.
    pub(crate) fn not_implemented(what: &str) -> Self {
        Self::new(501, "NotImplemented", format!("the in-memory API server does not implement {what}"))
    }

    /// The `Status` object.
    pub(crate) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message,
        });
        if !self.reason.is_empty() {
            status["reason"] = json!(self.reason);
        }
        let details = self.details();
        if details.as_object().is_some_and(|d| !d.is_empty()) {
            status["details"] = details;
        }
        status["code"] = json!(self.code);
        status
    }

    fn details(&self) -> Value {
        let mut details = json!({});
        let subject = &self.subject;
        for (key, text) in [
            ("name", &subject.name),
            ("group", &subject.group),
            ("kind", &subject.kind),
            ("uid", &subject.uid),
        ] {
            if !text.is_empty() {
                details[key] = json!(text);
            }
        }
        if !self.causes.is_empty() {
            details["causes"] = self.causes.iter().map(cause_json).collect();
        }
        if let Some(seconds) = self.retry_after {
            details["retryAfterSeconds"] = json!(seconds);
        }
        details
    }
}

fn cause_json(cause: &Cause) -> Value {
    let mut json = json!({"reason": cause.reason, "message": cause.message});
    if !cause.field.is_empty() {
        json["field"] = json!(cause.field);
    }
    json
}

/// `services`, or `deployments.apps` with a group.
pub(crate) fn qualified(resource: &str, group: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
