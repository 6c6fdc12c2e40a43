//! Patch: the proposed object is the current one with the patch applied, as the client sees both.

use serde_json::Value;

use super::list::invalid_options;
use super::{Api, Target, WriteOptions, Written};
use crate::managed::{self, Writer};
use crate::object;
use crate::patch::{self, Language};
use crate::refusal::{Cause, Refusal};
use crate::store::Stored;
use crate::view;

impl Api {
    /// Applies a patch to the addressed object.
    pub(crate) fn patch(
        &self,
        target: &Target,
        language: Language,
        patch: &Value,
        options: &WriteOptions,
    ) -> Result<Written, Refusal> {
        let resource = &target.resource;
        match language {
            Language::Strategic if resource.is_custom() => {
                return Err(Refusal::unsupported_media_type(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                ));
            }
            Language::Apply => return self.apply(target, patch, options),
            _ => {}
        }
        let writer = Writer::update(options, target);
        self.modify(target, options, &writer, false, &mut |current| {
            let shown = view::shown(resource, &Stored::detached(current.clone()));
            let patched = match language {
                Language::Json => patch::json(shown, patch)?,
                Language::Merge => patch::merge(shown, patch)?,
                Language::Strategic | Language::Apply => {
                    patch::strategic::apply(shown, patch, resource.schema.get())?
                }
            };
            self.decode_patched(target, patched, options.field_validation)
        })
    }

    /// Server-side apply: the configuration is merged into the object, or becomes it.
    fn apply(&self, target: &Target, applied: &Value, options: &WriteOptions) -> Result<Written, Refusal> {
        if !options.manager_named {
            let fault = Cause::required("fieldManager", "is required for apply patch");
            return Err(invalid_options("PatchOptions", fault));
        }
        if !object::list_at(applied, &["metadata", "managedFields"]).is_empty() {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let (configuration, warnings) =
            self.decode_patched(target, applied.clone(), options.field_validation)?;
        let writer = Writer::apply(options, target, &configuration);
        let resource = &target.resource;
        if resource.objects.get(&target.key()).is_none() && !target.status {
            return self.create_decoded(target, configuration, options, &writer, warnings);
        }
        let mut written = self.modify(target, options, &writer, false, &mut |current| {
            managed::applied(current, &configuration, &writer, resource, options.force)
                .map(|new| (new, Vec::new()))
        })?;
        written.warnings.extend(warnings);
        Ok(written)
    }
}
