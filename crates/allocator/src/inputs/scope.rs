//! Which namespaces a ServiceGroup serves, and what all groups together say about one namespace.
//!
//! A group that is refused for its pools still has its say here: a boundary must not fall because of a typing
//! error in a pool.

use std::collections::{BTreeSet, HashMap};

use api::{Refusal, ServiceGroupSpec};
use foldhash::fast::RandomState;

use super::Word;

/// Which namespaces a group serves, and how strictly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `spec.namespaces`, sorted, each once.
    namespaces: Vec<Word>,
    /// `spec.enforceNamespaces`: those namespaces use only their own groups, and the group serves only them.
    pub is_enforced: bool,
    /// `spec.namespaceDefault`.
    pub is_default: bool,
}

impl Scope {
    /// The scope of a group.
    ///
    /// # Errors
    ///
    /// A boundary or a default without a namespace.
    pub fn parse(spec: &ServiceGroupSpec) -> Result<Scope, Refusal> {
        for (is_set, field) in
            [(spec.enforce_namespaces, "enforceNamespaces"), (spec.namespace_default, "namespaceDefault")]
        {
            if is_set && spec.namespaces.is_empty() {
                let message = "it needs spec.namespaces: list the namespaces, or leave it out";
                return Err(Refusal::invalid(format!("spec.{field}"), message));
            }
        }
        let sorted: BTreeSet<&str> = spec.namespaces.iter().map(String::as_str).collect();
        Ok(Scope {
            namespaces: sorted.into_iter().map(Word::from).collect(),
            is_enforced: spec.enforce_namespaces,
            is_default: spec.namespace_default,
        })
    }

    /// Whether the group lists the namespace.
    pub fn lists(&self, namespace: &str) -> bool {
        self.namespaces.binary_search_by(|known| known.as_ref().cmp(namespace)).is_ok()
    }

    /// Whether Services of the two namespaces may share an address of the group.
    pub fn unites(&self, one: &str, other: &str) -> bool {
        one == other || (self.lists(one) && self.lists(other))
    }

    /// The namespaces, sorted.
    pub fn namespaces(&self) -> &[Word] {
        &self.namespaces
    }
}

/// What all groups together say about one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// The groups that list it, sorted by name, each with whether it is marked as its default.
    groups: Vec<(Word, bool)>,
    /// One of them makes it a boundary.
    pub is_bounded: bool,
}

impl Claims {
    /// Whether the group lists the namespace.
    pub fn has(&self, group: &str) -> bool {
        self.groups.iter().any(|(name, _)| name.as_ref() == group)
    }

    /// Names of the groups that list it, sorted.
    pub fn groups(&self) -> impl Iterator<Item = &Word> {
        self.groups.iter().map(|(name, _)| name)
    }

    /// Whether one of them is marked as its default.
    pub fn is_any_marked(&self) -> bool {
        self.groups.iter().any(|(_, is_default)| *is_default)
    }

    /// The one group for Services that name none: the only one, or the only one that is marked.
    pub fn default_group(&self) -> Option<&Word> {
        if let [(only, _)] = self.groups.as_slice() {
            return Some(only);
        }
        let mut marked = self.groups.iter().filter(|(_, is_default)| *is_default).map(|(name, _)| name);
        marked.next().filter(|_| marked.next().is_none())
    }
}

/// The claims on every namespace that a group lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(HashMap<Word, Claims, RandomState>);

impl Namespaces {
    /// Adds what a group says.
    pub fn add(&mut self, group: &Word, scope: &Scope) {
        for namespace in scope.namespaces() {
            let claims = self.0.entry(namespace.clone()).or_default();
            claims.is_bounded |= scope.is_enforced;
            let position = claims.groups.partition_point(|(name, _)| name < group);
            claims.groups.insert(position, (group.clone(), scope.is_default));
        }
    }

    /// What is said about a namespace; `None`: no group lists it.
    pub fn get(&self, namespace: &str) -> Option<&Claims> {
        self.0.get(namespace)
    }

    /// The namespaces about which the two say different things.
    pub fn differences(&self, other: &Namespaces) -> BTreeSet<Word> {
        let names = self.0.keys().chain(other.0.keys());
        names.filter(|name| self.get(name) != other.get(name)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(yaml: &str) -> Result<Scope, Refusal> {
        Scope::parse(&serde_norway::from_str(yaml).unwrap())
    }

    #[test]
    fn a_namespace_has_a_default_group_where_one_lists_it_or_one_of_several_is_marked() {
        let plain = scope("namespaces: [web, db]").unwrap();
        let marked = scope("{namespaces: [web], namespaceDefault: true}").unwrap();
        for (groups, expected) in [
            (vec![("a", &plain)], Some("a")),
            (vec![("a", &plain), ("b", &plain)], None),
            (vec![("a", &plain), ("b", &marked)], Some("b")),
            (vec![("b", &marked), ("a", &marked)], None),
            (vec![], None),
        ] {
            let mut namespaces = Namespaces::default();
            groups.iter().for_each(|(name, scope)| namespaces.add(&Word::from(*name), scope));
            let found = namespaces.get("web").and_then(Claims::default_group);
            assert_eq!(found.map(AsRef::as_ref), expected, "{groups:?}");
        }
    }

    #[test]
    fn a_group_unites_only_the_namespaces_that_it_lists() {
        let scope = scope("namespaces: [web, db, web]").unwrap();
        assert_eq!(scope.namespaces().len(), 2);
        assert!(scope.unites("web", "db") && scope.unites("other", "other"));
        assert!(!scope.unites("web", "other"));
    }

    #[test]
    fn a_boundary_or_a_default_of_no_namespace_is_refused() {
        for field in ["enforceNamespaces", "namespaceDefault"] {
            let refusal = scope(&format!("{field}: true")).unwrap_err();
            assert_eq!(refusal.path, format!("spec.{field}"));
            assert!(refusal.message.contains("spec.namespaces"), "{refusal}");
        }
    }
}
