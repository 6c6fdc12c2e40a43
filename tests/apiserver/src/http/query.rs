//! Reading query parameters and delete options.

use std::time::Duration;

use serde_json::Value;

use crate::present::Include;
use crate::refusal::Refusal;
use crate::registry::Resource;
use crate::selectors::{Selection, field, label};
use crate::verbs::delete::DeleteOptions;
use crate::verbs::list::ListOptions;
use crate::verbs::{FieldValidation, WriteOptions};

/// Decoded query parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes the part behind the `?`.
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key), decoded(value))
        });
        Self(pairs.collect())
    }

    /// A parameter; empty when absent.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v)
    }

    /// Whether a parameter is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    /// A boolean parameter.
    pub(crate) fn flag(&self, key: &str) -> bool {
        matches!(self.text(key), "true" | "1" | "True")
    }

    fn number<T: std::str::FromStr>(&self, key: &str) -> Result<Option<T>, Refusal> {
        match self.text(key) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Refusal::bad_request(format!("invalid value \"{text}\" for query parameter {key}"))
            }),
        }
    }

    fn dry_run(&self) -> Result<bool, Refusal> {
        match self.text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(Refusal::new(
                422,
                "Invalid",
                format!(
                    "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"{other}\"]: supported values: \"All\""
                ),
            )),
        }
    }

    /// Options of a write; `agent` is the client's User-Agent, the manager when none is named.
    pub(crate) fn write_options(&self, agent: &str) -> Result<WriteOptions, Refusal> {
        let field_validation = match self.text("fieldValidation") {
            "" | "Warn" => FieldValidation::Warn,
            "Ignore" => FieldValidation::Ignore,
            "Strict" => FieldValidation::Strict,
            other => {
                return Err(Refusal::bad_request(format!("fieldValidation: Unsupported value: \"{other}\"")));
            }
        };
        let named = self.text("fieldManager");
        let manager = if named.is_empty() { agent.split('/').next().unwrap_or_default() } else { named };
        let manager = if manager.is_empty() { "unknown" } else { manager };
        Ok(WriteOptions {
            dry_run: self.dry_run()?,
            manager_named: !named.is_empty(),
            manager: manager.to_owned(),
            field_validation,
            force: self.flag("force"),
        })
    }

    /// Options of a list.
    pub(crate) fn list_options(&self, resource: &Resource) -> Result<ListOptions, Refusal> {
        Ok(ListOptions {
            selection: self.selection(resource)?,
            limit: self.number("limit")?.unwrap_or(0),
            continue_token: self.text("continue").to_owned(),
            resource_version: self.text("resourceVersion").to_owned(),
            version_match: self.text("resourceVersionMatch").to_owned(),
        })
    }

    /// The selectors.
    pub(crate) fn selection(&self, resource: &Resource) -> Result<Selection, Refusal> {
        let labels = label::parse(self.text("labelSelector"))
            .map_err(|e| Refusal::bad_request(format!("unable to parse requirement: {e}")))?;
        let fields = field::parse(self.text("fieldSelector"), &resource.selectable, resource.namespaced)
            .map_err(Refusal::bad_request)?;
        Ok(Selection { labels, fields })
    }

    /// `timeoutSeconds`.
    pub(crate) fn timeout(&self) -> Result<Option<Duration>, Refusal> {
        let secs = self.number("timeoutSeconds")?.filter(|s| *s > 0);
        Ok(secs.map(Duration::from_secs))
    }

    /// `includeObject`.
    pub(crate) fn include(&self) -> Include {
        match self.text("includeObject") {
            "None" => Include::None,
            "Object" => Include::Object,
            _ => Include::Metadata,
        }
    }

    /// Delete options from the query and, where given, the body.
    pub(crate) fn delete_options(&self, body: Option<&Value>) -> Result<DeleteOptions, Refusal> {
        let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let mut options = DeleteOptions {
            dry_run: self.dry_run()?,
            grace_secs: self.number("gracePeriodSeconds")?,
            propagation: owned(self.text("propagationPolicy")),
            uid: None,
            resource_version: None,
        };
        if self.flag("orphanDependents") {
            options.propagation = Some("Orphan".to_owned());
        }
        let Some(body) = body else { return Ok(options) };
        if let Some(kind) = body["kind"].as_str().filter(|k| *k != "DeleteOptions") {
            return Err(Refusal::bad_request(format!("expected DeleteOptions, got {kind}")));
        }
        options.dry_run |= body["dryRun"].as_array().is_some_and(|d| !d.is_empty());
        options.grace_secs = body["gracePeriodSeconds"].as_i64().or(options.grace_secs);
        options.propagation = body["propagationPolicy"].as_str().map(str::to_owned).or(options.propagation);
        options.uid = body["preconditions"]["uid"].as_str().map(str::to_owned);
        options.resource_version = body["preconditions"]["resourceVersion"].as_str().map(str::to_owned);
        Ok(options)
    }
}

/// Undoes percent and plus encoding.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        let escaped = match (first, tail) {
            (b'%', [a, b, ..]) => hex(*a).zip(hex(*b)).map(|(a, b)| a * 16 + b),
            _ => None,
        };
        match (escaped, first) {
            (Some(byte), _) => {
                out.push(byte);
                rest = &tail[2..];
            }
            (None, b'+') => {
                out.push(b' ');
                rest = tail;
            }
            (None, other) => {
                out.push(*other);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_percent_decoded() {
        let query = Query::parse("labelSelector=app%3Dweb%2Ctier+in+%28a%29&watch=1&odd=100%");
        assert_eq!(query.text("labelSelector"), "app=web,tier in (a)");
        assert!(query.flag("watch"));
        assert_eq!(query.text("odd"), "100%");
    }
}
