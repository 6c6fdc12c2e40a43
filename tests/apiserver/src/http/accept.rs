//! Content negotiation.

use crate::present::{Form, Include};
use crate::refusal::Refusal;

/// How an answer is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The form of objects.
    pub form: Form,
    /// YAML rather than JSON.
    pub yaml: bool,
}

/// Picks the first media type of an `Accept` header that is produced here.
pub(crate) fn negotiate(accept: &str, include: Include) -> Result<Accepted, Refusal> {
    if accept.trim().is_empty() {
        return Ok(Accepted { form: Form::Object, yaml: false });
    }
    accept.split(',').find_map(|range| accepted(range, include)).ok_or_else(Refusal::not_acceptable)
}

fn accepted(range: &str, include: Include) -> Option<Accepted> {
    let mut parts = range.split(';').map(str::trim);
    let yaml = match parts.next()? {
        "application/json" | "*/*" | "application/*" => false,
        "application/yaml" => true,
        _ => return None,
    };
    let (mut word, mut group, mut version) = ("", "", "");
    for part in parts {
        match part.split_once('=') {
            Some(("as", w)) => word = w,
            Some(("g", g)) => group = g,
            Some(("v", v)) => version = v,
            _ => {}
        }
    }
    let form = match word {
        "" => Form::Object,
        "Table" if group == "meta.k8s.io" && version == "v1" => Form::Table(include),
        "PartialObjectMetadata" | "PartialObjectMetadataList"
            if group == "meta.k8s.io" && version == "v1" =>
        {
            Form::Metadata
        }
        _ => return None,
    };
    Some(Accepted { form, yaml })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_type_that_is_produced_here_wins() {
        let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(negotiate(kubectl, Include::Metadata).unwrap().form, Form::Table(Include::Metadata));
        let old = "application/json;as=Table;v=v1beta1;g=meta.k8s.io, application/json";
        assert_eq!(negotiate(old, Include::Metadata).unwrap().form, Form::Object);
        let typed = "application/vnd.kubernetes.protobuf, application/json";
        assert_eq!(negotiate(typed, Include::Metadata).unwrap().form, Form::Object);
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf", Include::Metadata).unwrap_err().code,
            406
        );
    }
}
