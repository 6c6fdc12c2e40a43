//! Lists: consistency by resourceVersion, paging, selection.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Api, Target};
use crate::kinds::cluster::base64;
use crate::object;
use crate::refusal::{Cause, Refusal};
use crate::selectors::Selection;
use crate::store::{Page, Snapshot, Stored, TooOld};
use crate::view;

/// What a list asks for.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListOptions {
    /// Selection.
    pub selection: Selection,
    /// At most so many items, 0 for all.
    pub limit: usize,
    /// The token of an earlier page.
    pub continue_token: String,
    /// `resourceVersion`.
    pub resource_version: String,
    /// `resourceVersionMatch`.
    pub version_match: String,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listed {
    /// The items.
    pub objects: Vec<Arc<Stored>>,
    /// The list's revision.
    pub revision: u64,
    /// The token for the next page, if there is one.
    pub continue_token: String,
    /// How many items follow, when that is known.
    pub remaining: Option<usize>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    rv: u64,
    page: u64,
    start: usize,
}

impl Api {
    /// Lists what is selected.
    pub(crate) fn list(&self, target: &Target, options: &ListOptions) -> Result<Listed, Refusal> {
        if !options.continue_token.is_empty() {
            return continued(target, options);
        }
        let snapshot = self.consistent_snapshot(target, options)?;
        let mut objects = snapshot.objects;
        if !options.selection.is_everything() {
            objects.retain(|o| options.selection.matches(&o.value));
        }
        if !target.name.is_empty() {
            objects.retain(|o| object::name(&o.value) == target.name);
        }
        if options.limit == 0 || objects.len() <= options.limit {
            let revision = snapshot.revision;
            return Ok(Listed { objects, revision, continue_token: String::new(), remaining: None });
        }
        let page = Page { objects: Arc::new(objects), revision: snapshot.revision };
        let id = target.resource.objects.pages.keep(page.clone());
        Ok(cut(&page, id, 0, options))
    }

    fn consistent_snapshot(&self, target: &Target, options: &ListOptions) -> Result<Snapshot, Refusal> {
        let objects = &target.resource.objects;
        let wanted = parse_version(&options.resource_version)?;
        check_match(options)?;
        let current = objects.revision();
        if wanted > current {
            return Err(Refusal::too_large_resource_version(wanted, current));
        }
        if options.version_match == "Exact" {
            return objects
                .snapshot_at(&target.namespace, wanted)
                .map_err(|too_old| expired(wanted, &too_old));
        }
        Ok(objects.snapshot(&target.namespace))
    }
}

/// Reads a resourceVersion; empty is 0.
pub(crate) fn parse_version(text: &str) -> Result<u64, Refusal> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        Refusal::bad_request(format!(
            "invalid resource version: resourceVersion: Invalid value: \"{text}\": strconv.ParseUint: parsing \"{text}\": invalid syntax"
        ))
    })
}

fn check_match(options: &ListOptions) -> Result<(), Refusal> {
    let field = "resourceVersionMatch";
    let fault = match options.version_match.as_str() {
        "" => return Ok(()),
        _ if options.resource_version.is_empty() => {
            Cause::forbidden(field, "resourceVersionMatch is forbidden unless resourceVersion is provided")
        }
        "Exact" if options.resource_version == "0" => {
            Cause::forbidden(field, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"")
        }
        "Exact" | "NotOlderThan" => return Ok(()),
        other => Cause::not_supported(field, &json!(other), &["Exact", "NotOlderThan", ""]),
    };
    Err(invalid_options("ListOptions", fault))
}

/// 422 for a query parameter.
pub(crate) fn invalid_options(kind: &str, fault: Cause) -> Refusal {
    Refusal::invalid("meta.k8s.io", kind, "", vec![fault])
}

/// 410 for a revision that is no longer in the history.
pub(crate) fn expired(wanted: u64, too_old: &TooOld) -> Refusal {
    Refusal::expired(format!("too old resource version: {wanted} ({})", too_old.oldest))
}

fn continued(target: &Target, options: &ListOptions) -> Result<Listed, Refusal> {
    if !options.resource_version.is_empty() && options.resource_version != "0" {
        return Err(Refusal::bad_request("specifying resource version is not allowed when using continue"));
    }
    let bad = || Refusal::bad_request("continue key is not valid");
    let token: Token = from_base64(&options.continue_token)
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .ok_or_else(bad)?;
    let page = target.resource.objects.pages.find(token.page).filter(|p| p.revision == token.rv).ok_or_else(|| {
        Refusal::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter.",
        )
    })?;
    if token.start > page.objects.len() {
        return Err(bad());
    }
    Ok(cut(&page, token.page, token.start, options))
}

fn cut(page: &Page, id: u64, start: usize, options: &ListOptions) -> Listed {
    let limit = if options.limit == 0 { usize::MAX } else { options.limit };
    let end = start.saturating_add(limit).min(page.objects.len());
    let left = page.objects.len() - end;
    let token = Token { v: "meta.k8s.io/v1".to_owned(), rv: page.revision, page: id, start: end };
    let continue_token = match left {
        0 => String::new(),
        _ => base64(&serde_json::to_vec(&token).expect("a token always encodes")),
    };
    // With a selector the real server does not know how many are left.
    let remaining = (left > 0 && options.selection.is_everything()).then_some(left);
    Listed { objects: page.objects[start..end].to_vec(), revision: page.revision, continue_token, remaining }
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut word = 0u32;
    let mut bits = 0;
    for c in text.trim_end_matches('=').bytes() {
        let sextet = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        word = (word << 6) | u32::from(sextet);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push((word >> bits) as u8);
            word &= (1 << bits) - 1;
        }
    }
    Some(bytes)
}

impl Listed {
    /// The list's metadata.
    pub(crate) fn metadata(&self) -> serde_json::Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        if !self.continue_token.is_empty() {
            meta["continue"] = json!(self.continue_token);
        }
        if let Some(remaining) = self.remaining {
            meta["remainingItemCount"] = json!(remaining);
        }
        meta
    }

    /// The list as JSON, from the objects' shared encodings.
    pub(crate) fn to_json(&self, target: &Target) -> Bytes {
        let resource = &target.resource;
        let head = json!({
            "kind": resource.list_kind, "apiVersion": resource.api_version(), "metadata": self.metadata(),
        });
        let head = head.to_string();
        let size: usize = self.objects.iter().map(|o| o.json.len() + 1).sum();
        let mut out = Vec::with_capacity(head.len() + size + 16);
        out.extend_from_slice(head.trim_end_matches('}').as_bytes());
        out.extend_from_slice(b"},\"items\":[");
        // Items of typed kinds come without their type, as from the real server.
        let type_members =
            format!("{{\"apiVersion\":\"{}\",\"kind\":\"{}\",", resource.stored_as, resource.kind);
        for (i, object) in self.objects.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            let converted = view::converted(resource, object).map(|v| Bytes::from(v.to_string()));
            let json = converted.as_ref().unwrap_or(&object.json);
            match json.strip_prefix(type_members.as_bytes()) {
                Some(rest) if !resource.is_custom() => {
                    out.push(b'{');
                    out.extend_from_slice(rest);
                }
                _ => out.extend_from_slice(json),
            }
        }
        out.extend_from_slice(b"]}");
        out.into()
    }
}
