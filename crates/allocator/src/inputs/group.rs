//! ServiceGroups: which are accepted, which are refused and why, and which of them has an address.
//!
//! A pure function of all groups: the older of two that overlap wins, whatever the order in which they came.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use api::{AddressRange, GoDuration, IpFamily, Pool, PoolType, Refusal, ServiceGroupSpec, condition::reason};
use foldhash::fast::RandomState;
use kube::ResourceExt;
use serde_json::Value;

use super::{
    Word,
    group_object::LenientGroup,
    ranges::Ranges,
    scope::{Claims, Namespaces, Scope},
};
use crate::external::{self, External};

/// From which of its pools a group gives addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Picking {
    /// The first that has a free one.
    #[default]
    InOrder,
    /// `multiPool`: one from each.
    EveryPool,
    /// `balancePools`: the one with the fewest in use.
    LeastUsed,
}

/// A group that can be allocated from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Name in the install namespace.
    pub name: Word,
    /// Local or remote.
    pub pool_type: PoolType,
    /// In the order in which they are used; they do not overlap.
    pub pools: Vec<Pool>,
    /// Which namespaces it serves.
    pub scope: Scope,
    /// Which of the pools.
    pub picking: Picking,
    /// `spec.stickyFor`: how long addresses wait for a Service that is gone.
    pub sticky_for: Option<GoDuration>,
    /// What the operator should know of how the spec was read.
    pub remarks: Vec<String>,
    /// Who keeps the books instead; then there are no pools.
    pub external: Option<External>,
}

impl Group {
    /// The pools of a family, in order.
    pub fn pools_of(&self, family: IpFamily) -> impl Iterator<Item = &Pool> + Clone {
        self.pools.iter().filter(move |pool| pool.range.family() == family)
    }

    /// Whether it has pools of a family.
    pub fn has(&self, family: IpFamily) -> bool {
        self.pools_of(family).next().is_some()
    }

    /// Whether the address may be handed out from it.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.pools.iter().any(|pool| pool.range.contains(address))
    }

    /// Its ranges, in order.
    pub fn ranges(&self) -> impl Iterator<Item = AddressRange> + '_ {
        self.pools.iter().map(|pool| pool.range)
    }
}

/// A ServiceGroup as it was read; refused already where not even that worked.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupObject {
    /// Name.
    pub name: Word,
    /// Seconds since 1970.
    pub created: i64,
    /// The spec, or why the object cannot be read.
    pub spec: Result<ServiceGroupSpec, Unreadable>,
}

/// A spec that cannot be read as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Why.
    pub refusal: Refusal,
    /// What it says about namespaces, and nothing else: a boundary must not fall with the rest.
    pub namespaces: Box<ServiceGroupSpec>,
}

impl Unreadable {
    /// A spec with this error.
    pub fn new(spec: &Value, error: String) -> Unreadable {
        let names = spec["namespaces"].as_array().into_iter().flatten();
        let is_true = |field: &str| spec[field].as_bool().unwrap_or_default();
        let namespaces = Box::new(ServiceGroupSpec {
            namespaces: names.filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
            enforce_namespaces: is_true("enforceNamespaces"),
            namespace_default: is_true("namespaceDefault"),
            ..ServiceGroupSpec::default()
        });
        Unreadable { refusal: Refusal::invalid("spec", error), namespaces }
    }
}

impl GroupObject {
    /// What matters of an object that came from the API server, readable or not.
    pub fn from_object(object: &LenientGroup) -> GroupObject {
        GroupObject {
            name: object.name_any().into(),
            created: object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            spec: object.spec.clone(),
        }
    }
}

/// All groups of the install namespace, judged.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    accepted: HashMap<Word, Arc<Group>, RandomState>,
    refused: HashMap<Word, Refusal>,
    ranges: Ranges,
    /// What accepted and refused groups say about namespaces.
    namespaces: Namespaces,
}

/// What is different between the groups before and after an edit.
#[derive(Clone, Debug, Default)]
pub struct GroupChanges {
    /// The groups that are different, as they were and as they are, as far as they are accepted. One that is
    /// refused for another reason than before, or that is refused and was not there, is different, too.
    groups: BTreeMap<Word, [Option<Arc<Group>>; 2]>,
    /// The namespaces about which groups say something else.
    namespaces: BTreeSet<Word>,
}

impl GroupChanges {
    /// Whether nothing is different.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.namespaces.is_empty()
    }

    /// Whether the group of this name is different.
    pub fn has_group(&self, name: &str) -> bool {
        self.groups.contains_key(name)
    }

    /// Whether groups say something else about this namespace.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains(name)
    }

    /// Whether a group that is different has or had the address.
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.groups.values().flatten().flatten().any(|group| group.contains(address))
    }
}

impl Groups {
    /// Judges all groups together.
    pub fn new<'a>(objects: impl IntoIterator<Item = &'a GroupObject>) -> Groups {
        let mut objects: Vec<&GroupObject> = objects.into_iter().collect();
        objects.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let created: HashMap<&str, i64> =
            objects.iter().map(|object| (object.name.as_ref(), object.created)).collect();
        let mut groups = Groups::default();
        for object in objects {
            let is_as_old = |other: &str| created.get(other) == Some(&object.created);
            let scope =
                Scope::parse(object.spec.as_ref().unwrap_or_else(|unreadable| &unreadable.namespaces));
            if let Ok(scope) = &scope {
                groups.namespaces.add(&object.name, scope);
            }
            match scope.and_then(|scope| groups.judge(object, scope, is_as_old)) {
                Ok(group) => groups.accept(group),
                Err(refusal) => {
                    groups.refused.insert(object.name.clone(), refusal);
                }
            }
        }
        groups
    }

    fn judge(
        &self,
        object: &GroupObject,
        scope: Scope,
        is_as_old: impl Fn(&str) -> bool,
    ) -> Result<Group, Refusal> {
        let spec = object.spec.as_ref().map_err(|unreadable| unreadable.refusal.clone())?;
        let pools = spec.parse_pools()?;
        let view = spec.pools();
        let paths = view.iter().flat_map(|view| &view.pools).map(|(path, ..)| path);
        for (pool, path) in pools.iter().zip(paths) {
            if let Some((group, range)) = self.ranges.overlapping(&pool.range) {
                let other = match is_as_old(&group.name) {
                    true => {
                        format!("ServiceGroup {}, created in the same second and first by name", group.name)
                    }
                    false => format!("the older ServiceGroup {}", group.name),
                };
                let message =
                    format!("{} overlaps with {range} of {other}: choose other addresses", pool.range);
                return Err(Refusal { reason: reason::OVERLAP, path: format!("{path}.pool"), message });
            }
        }
        let picking = match &view {
            Some(view) if view.multi_pool => Picking::EveryPool,
            Some(view) if view.balance_pools => Picking::LeastUsed,
            _ => Picking::InOrder,
        };
        let (external, announce) = external::parse(spec).unzip();
        let pool_type = announce.or(view.map(|view| view.pool_type)).unwrap_or(PoolType::Local);
        Ok(Group {
            name: object.name.clone(),
            pool_type,
            pools,
            picking,
            scope,
            sticky_for: spec.sticky_for,
            remarks: spec.remarks(),
            external,
        })
    }

    fn accept(&mut self, group: Group) {
        let group = Arc::new(group);
        for range in group.ranges() {
            self.ranges.add(&range, group.clone());
        }
        self.accepted.insert(group.name.clone(), group);
    }

    /// The accepted group of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Group>> {
        self.accepted.get(name)
    }

    /// Why the group of this name is refused.
    pub fn refusal(&self, name: &str) -> Option<&Refusal> {
        self.refused.get(name)
    }

    /// The accepted group that has the address.
    pub fn of_address(&self, address: IpAddr) -> Option<&Arc<Group>> {
        self.ranges.group_of(address)
    }

    /// What groups, refused ones too, say about a namespace; `None`: none lists it.
    pub fn claims(&self, namespace: &str) -> Option<&Claims> {
        self.namespaces.get(namespace)
    }

    /// Every other namespace whose Services may share an address with those of this one.
    pub fn united_with(&self, namespace: &str) -> BTreeSet<Word> {
        let groups = self.claims(namespace).into_iter().flat_map(Claims::groups);
        let scopes = groups.filter_map(|name| self.get(name)).map(|group| &group.scope);
        let all = scopes.flat_map(|scope| scope.namespaces());
        all.filter(|other| other.as_ref() != namespace).cloned().collect()
    }

    /// What is different from what was before.
    pub fn changes_since(&self, old: &Groups) -> GroupChanges {
        let accepted = old.accepted.keys().chain(self.accepted.keys());
        let names: BTreeSet<&Word> = accepted.chain(old.refused.keys()).chain(self.refused.keys()).collect();
        let pairs = names.into_iter().map(|name| (name, [old.get(name), self.get(name)]));
        let changed = pairs.filter(|(name, [was, is])| was != is || old.refusal(name) != self.refusal(name));
        GroupChanges {
            groups: changed.map(|(name, pair)| (name.clone(), pair.map(|group| group.cloned()))).collect(),
            namespaces: self.namespaces.differences(&old.namespaces),
        }
    }

    /// Accepted groups, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Group>> {
        self.accepted.values()
    }

    /// Names of accepted groups, sorted, for messages.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.accepted.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(name: &str, created: i64, spec: &str) -> GroupObject {
        GroupObject { name: name.into(), created, spec: Ok(serde_norway::from_str(spec).unwrap()) }
    }

    fn remote(name: &str, created: i64, pool: &str) -> GroupObject {
        object(name, created, &format!("remote: {{v4pool: {{pool: {pool}, subnet: 192.0.2.0/24}}}}"))
    }

    #[test]
    fn the_older_of_two_groups_that_overlap_wins_in_any_order() {
        let old = remote("old", 1, "192.0.2.0/28");
        let new = remote("new", 2, "192.0.2.8-192.0.2.20");
        for objects in [[&old, &new], [&new, &old]] {
            let groups = Groups::new(objects);
            assert!(groups.get("old").is_some() && groups.get("new").is_none());
            let refusal = groups.refusal("new").unwrap();
            assert_eq!(refusal.reason, reason::OVERLAP);
            assert_eq!(refusal.path, "spec.remote.v4pool.pool");
            assert!(refusal.message.contains("older ServiceGroup old"), "{refusal}");
        }
    }

    #[test]
    fn of_two_groups_of_the_same_second_the_first_by_name_wins_and_the_other_is_told_so() {
        let groups = Groups::new([&remote("b", 1, "192.0.2.0/28"), &remote("a", 1, "192.0.2.0/28")]);
        let refusal = groups.refusal("b").unwrap();
        assert!(refusal.message.contains("ServiceGroup a, created in the same second"), "{refusal}");
        assert!(!refusal.message.contains("older"), "{refusal}");
    }

    #[test]
    fn a_range_around_an_older_one_overlaps() {
        let groups = Groups::new([&remote("old", 1, "192.0.2.8/30"), &remote("new", 2, "192.0.2.0/24")]);
        assert!(groups.refusal("new").is_some());
    }

    #[test]
    fn one_bad_group_does_not_stop_the_others() {
        let bad = remote("bad", 1, "banana");
        let unreadable = GroupObject {
            name: "worse".into(),
            created: 1,
            spec: Err(Unreadable::new(&json!({}), "x".into())),
        };
        let groups = Groups::new([&bad, &unreadable, &remote("good", 2, "192.0.2.0/28")]);
        assert_eq!(groups.names(), ["good"]);
        assert_eq!(groups.refusal("bad").unwrap().path, "spec.remote.v4pool.pool");
        assert_eq!(groups.refusal("worse").unwrap().path, "spec");
    }

    #[test]
    fn a_boundary_stands_where_the_rest_of_the_spec_cannot_be_read() {
        let spec = json!({"stickyFor": "9999999h", "namespaces": ["web"], "enforceNamespaces": true,
            "remote": {"v4pool": {"pool": "192.0.2.0/28", "subnet": "192.0.2.0/24"}}});
        let object: LenientGroup = serde_json::from_value(json!({
            "metadata": {"name": "bounded"}, "spec": spec, "status": {"allocatedIPv4": 3}}))
        .unwrap();
        assert_eq!(object.status.allocated_ipv4, 3, "the status is read all the same");
        let groups =
            Groups::new([&GroupObject::from_object(&object), &remote("default", 1, "192.0.2.32/28")]);
        assert!(groups.refusal("bounded").unwrap().message.contains("9999999h"), "{groups:?}");
        let claims = groups.claims("web").unwrap();
        assert!(claims.is_bounded && claims.has("bounded"));
        let refused = crate::select::usable("default", "web", &groups).unwrap_err();
        assert_eq!(refused.reason, "namespace_denied");
    }

    #[test]
    fn an_address_finds_its_group() {
        let v6 = object("six", 3, "local: {v6pool: {pool: 'fd00::10-fd00::20', subnet: 'fd00::/64'}}");
        let groups = Groups::new([&remote("a", 1, "192.0.2.0/28"), &remote("b", 2, "192.0.2.32/28"), &v6]);
        for (address, name) in [
            ("192.0.2.1", Some("a")),
            ("192.0.2.40", Some("b")),
            ("192.0.2.20", None),
            ("192.0.2.200", None),
            ("fd00::15", Some("six")),
            ("fd00::1", None),
            ("1.1.1.1", None),
        ] {
            let found = groups.of_address(address.parse().unwrap()).map(|group| group.name.as_ref());
            assert_eq!(found, name, "{address}");
        }
    }
}
