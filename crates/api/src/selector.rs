//! Label selectors, as the API server evaluates them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether a label selector matches, as the API server would say. An operator that Kubernetes does not know
/// matches nothing.
pub fn selector_matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| labels.get(key) == Some(value));
    exact
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let value = labels.get(&requirement.key);
            let values = requirement.values.as_deref().unwrap_or_default();
            match requirement.operator.as_str() {
                "In" => value.is_some_and(|value| values.contains(value)),
                "NotIn" => !value.is_some_and(|value| values.contains(value)),
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                _ => false,
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split(',').filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()
    }

    #[test]
    fn selectors_match_as_the_api_server_says() {
        for (yaml, text, expected) in [
            ("{}", "", true),
            ("{matchLabels: {a: b}}", "a=b,c=d", true),
            ("{matchExpressions: [{key: a, operator: In, values: [b, c]}]}", "a=c", true),
            ("{matchExpressions: [{key: a, operator: In, values: [b]}]}", "", false),
            ("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}", "", true),
            ("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}", "a=b", false),
            ("{matchExpressions: [{key: a, operator: DoesNotExist}]}", "a=b", false),
            ("{matchExpressions: [{key: a, operator: Gt, values: ['1']}]}", "a=2", false),
        ] {
            let selector: LabelSelector = serde_norway::from_str(yaml).unwrap();
            assert_eq!(selector_matches(&selector, &labels(text)), expected, "{yaml} {text}");
        }
    }
}
