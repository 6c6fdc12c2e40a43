//! A Service as the decision sees it: a few hundred bytes instead of the whole object.
//!
//! Equal values mean that nothing that matters has changed: our own writes and the agents' annotations come back
//! as equal values and wake nobody.

use std::{fmt, net::IpAddr};

pub use crate::inputs::key::ServiceKey;
use crate::inputs::{
    Word,
    compact::{Addresses, ShortText, Uid},
    object::{IngressObject, PortObject, ServiceObject},
    word::Ports,
};
use api::{
    IpFamily, PoolType,
    names::{ALLOCATOR_FIELD_MANAGER, annotation},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Whether a Service is for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Type LoadBalancer, and its class, or the lack of one, names us.
    Ours,
    /// Type LoadBalancer of another class: never touched.
    OtherClass,
    /// Of another type, or being deleted: gives back what it has from us.
    Ended,
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FamilyPolicy {
    /// One family.
    SingleStack,
    /// Both where possible.
    PreferDualStack,
    /// Both or none.
    RequireDualStack,
}

/// `spec.ipFamilies`: one or two, in the owner's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    first: IpFamily,
    second: Option<IpFamily>,
}

impl Families {
    /// One or two different families; more, doubled or none fall back to what is left, IPv4 at last.
    pub fn new(families: &[IpFamily]) -> Families {
        let first = families.first().copied().unwrap_or(IpFamily::IPv4);
        Families { first, second: families.iter().copied().find(|family| *family != first) }
    }

    /// In order.
    pub fn iter(self) -> impl Iterator<Item = IpFamily> {
        std::iter::once(self.first).chain(self.second)
    }

    /// Whether the family is one of them.
    pub fn contains(self, family: IpFamily) -> bool {
        self.iter().any(|known| known == family)
    }

    /// Whether it has a family that `other` has not.
    pub fn exceeds(self, other: Families) -> bool {
        self.iter().any(|family| !other.contains(family))
    }
}

/// A protocol and a port: what two Services on one address must not both have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// As Kubernetes spells it: TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// Number.
    pub port: u16,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// The default of Kubernetes.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        write!(f, "{protocol} {}", self.port)
    }
}

/// What the owner asks for with annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requests {
    /// `purelb.io/service-group`.
    pub group: Option<Word>,
    /// Whether `group` was written by us: then it binds nobody.
    pub group_is_ours: bool,
    /// `purelb.io/allow-shared-ip`.
    pub sharing_key: Option<Word>,
    /// `purelb.io/allow-local` is `"true"`.
    pub allow_local: bool,
    /// `purelb.io/re-evaluate` is `"true"`.
    pub re_evaluate: bool,
    /// What few owners ask for; nothing of that is nothing here.
    special: Option<Box<Special>>,
}

/// What few owners ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Special {
    addresses: Result<Vec<IpAddr>, String>,
    multi_pool: Result<Option<bool>, String>,
    odd_values: Vec<String>,
}

impl Requests {
    /// `purelb.io/addresses`, or `spec.loadBalancerIP` where that is absent; empty where both are. An error says why
    /// it is unreadable.
    pub fn addresses(&self) -> Result<&[IpAddr], &str> {
        let Some(special) = &self.special else { return Ok(&[]) };
        special.addresses.as_deref().map_err(String::as_str)
    }

    /// What is wrong with values that count as if they were not there.
    pub fn odd_values(&self) -> &[String] {
        self.special.as_ref().map_or(&[], |special| &special.odd_values)
    }

    /// `purelb.io/multi-pool`; an error says why it is unreadable.
    pub fn multi_pool(&self) -> Result<Option<bool>, &str> {
        let Some(special) = &self.special else { return Ok(None) };
        special.multi_pool.as_ref().copied().map_err(String::as_str)
    }

    /// Whether the owner leaves it to us which addresses.
    pub fn asks_for_no_addresses(&self) -> bool {
        self.addresses().is_ok_and(<[_]>::is_empty)
    }

    /// The group that the owner names; what we have written there ourselves binds nobody.
    pub fn owners_group(&self) -> Option<&Word> {
        self.group.as_ref().filter(|_| !self.group_is_ours)
    }
}

/// What we have written on the Service before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Brand {
    /// `purelb.io/allocated-by` names us.
    pub allocated_by_us: bool,
    /// `purelb.io/allocated-from`.
    pub allocated_from: Option<Word>,
    /// `purelb.io/pool-type`.
    pub pool_type: Option<PoolType>,
    /// An announcing annotation is there.
    pub announced: bool,
}

impl Brand {
    /// Whether anything of ours is on the Service.
    pub fn is_any(&self) -> bool {
        self.allocated_by_us
    }
}

/// A Service as the decision sees it.
#[derive(Clone, Debug)]
pub struct Service {
    /// Which.
    pub key: ServiceKey,
    /// For events.
    pub uid: Uid,
    /// What a write is conditional on.
    pub resource_version: ShortText,
    /// Seconds since 1970; who is older wins a conflict.
    pub created: i64,
    /// What the decision reads.
    pub facts: Facts,
}

/// What of a Service matters to the decision; see the module's comment on equality.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Whether it is for us.
    pub ownership: Ownership,
    /// `spec.ipFamilies`.
    pub families: Families,
    /// `spec.ipFamilyPolicy`.
    pub policy: FamilyPolicy,
    /// `spec.externalTrafficPolicy` is `Local`.
    pub traffic_policy_local: bool,
    /// The ports.
    pub ports: Ports,
    /// Annotations of the owner.
    pub requests: Requests,
    /// Annotations of ours.
    pub brand: Brand,
    /// Addresses in `status.loadBalancer.ingress`, in their order.
    pub ingress: Addresses,
    /// The ingress has something that cannot be ours: a host name, an unreadable address.
    pub foreign_ingress: bool,
}

impl Service {
    /// The small value of an object. `None` for a Service that neither has nor had anything to do with load
    /// balancers. `default_class` says whether Services without a class are ours.
    pub fn from_object(object: &ServiceObject, default_class: bool) -> Option<Service> {
        let metadata = &object.metadata;
        let brand = brand(metadata);
        let is_load_balancer = object.spec.type_.as_deref() == Some("LoadBalancer");
        if !is_load_balancer && !brand.is_any() {
            return None;
        }
        let ownership = match object.spec.load_balancer_class.as_deref() {
            _ if !is_load_balancer => Ownership::Ended,
            Some(class) if api::names::is_our_class(class) => ended_if_deleting(metadata),
            None if default_class => ended_if_deleting(metadata),
            // It was ours until `defaultAnnouncer` became another: no agent announces it any more.
            None if brand.allocated_by_us => Ownership::Ended,
            _ => Ownership::OtherClass,
        };
        let (ingress, foreign_ingress) = ingress(&object.status.load_balancer.ingress);
        Some(Service {
            key: ServiceKey::new(
                metadata.namespace.as_deref().unwrap_or_default(),
                metadata.name.as_deref().unwrap_or_default(),
            ),
            uid: metadata.uid.clone().unwrap_or_default().into(),
            resource_version: metadata.resource_version.clone().unwrap_or_default().into(),
            created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            facts: Facts {
                ownership,
                families: families(&object.spec.ip_families),
                policy: policy(object.spec.ip_family_policy.as_deref()),
                traffic_policy_local: object.spec.external_traffic_policy.as_deref() == Some("Local"),
                ports: ports(&object.spec.ports),
                requests: requests(object, &brand),
                brand,
                ingress,
                foreign_ingress,
            },
        })
    }

    /// Uses the memory of what is known of it already for what has not changed.
    pub fn keep_of(&mut self, known: &Service) {
        if self.key == known.key {
            self.key = known.key.clone();
        }
        if self.facts.ports == known.facts.ports {
            self.facts.ports = known.facts.ports.clone();
        }
    }

    /// Who comes first where two want the same: the older, then the first by key.
    pub fn seniority(&self) -> (i64, &ServiceKey) {
        (self.created, &self.key)
    }
}

fn ended_if_deleting(metadata: &ObjectMeta) -> Ownership {
    if metadata.deletion_timestamp.is_some() { Ownership::Ended } else { Ownership::Ours }
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn families(texts: &[String]) -> Families {
    let known: Vec<IpFamily> = texts.iter().filter_map(|text| text.parse().ok()).collect();
    Families::new(&known)
}

fn policy(text: Option<&str>) -> FamilyPolicy {
    match text {
        Some("PreferDualStack") => FamilyPolicy::PreferDualStack,
        Some("RequireDualStack") => FamilyPolicy::RequireDualStack,
        _ => FamilyPolicy::SingleStack,
    }
}

fn ports(objects: &[PortObject]) -> Ports {
    let port = |object: &PortObject| {
        let protocol = match object.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        Port { protocol, port: object.port }
    };
    objects.iter().map(port).collect::<Vec<Port>>().into()
}

fn ingress(objects: &[IngressObject]) -> (Addresses, bool) {
    let address = |object: &IngressObject| object.ip.as_deref()?.parse::<IpAddr>().ok();
    let foreign = objects.iter().any(|object| {
        address(object).is_none() || object.hostname.as_deref().is_some_and(|name| !name.is_empty())
    });
    (objects.iter().filter_map(address).collect(), foreign)
}

fn brand(metadata: &ObjectMeta) -> Brand {
    Brand {
        allocated_by_us: annotation(metadata, annotation::ALLOCATED_BY) == Some(api::names::PURELB),
        allocated_from: annotation(metadata, annotation::ALLOCATED_FROM).map(Word::from),
        pool_type: annotation(metadata, annotation::POOL_TYPE).and_then(|text| text.parse().ok()),
        announced: [annotation::ANNOUNCING_IPV4, annotation::ANNOUNCING_IPV6]
            .iter()
            .any(|name| annotation(metadata, name).is_some()),
    }
}

fn requests(object: &ServiceObject, brand: &Brand) -> Requests {
    let metadata = &object.metadata;
    let is_true = |name| annotation(metadata, name).is_some_and(|value| value.trim() == "true");
    let text = |name| annotation(metadata, name).map(str::trim).filter(|value| !value.is_empty());
    let group: Option<Word> = text(annotation::SERVICE_GROUP).map(Word::from);
    let addresses = match text(annotation::ADDRESSES) {
        Some(list) => parse_addresses(list).map_err(|error| format!("{} {error}", annotation::ADDRESSES)),
        None => match object.spec.load_balancer_ip.as_deref().map(str::trim).filter(|ip| !ip.is_empty()) {
            Some(ip) => parse_addresses(ip).map_err(|error| format!("spec.loadBalancerIP {error}")),
            None => Ok(Vec::new()),
        },
    };
    let multi_pool = text(annotation::MULTI_POOL).map(parse_multi_pool).transpose();
    let odd_values = odd_values(metadata);
    let is_special = !odd_values.is_empty() || addresses != Ok(Vec::new()) || multi_pool != Ok(None);
    Requests {
        group_is_ours: group.is_some() && group == brand.allocated_from && group_annotation_is_ours(metadata),
        group,
        sharing_key: text(annotation::ALLOW_SHARED_IP).map(Word::from),
        allow_local: is_true(annotation::ALLOW_LOCAL),
        re_evaluate: is_true(annotation::RE_EVALUATE),
        special: is_special.then(|| Box::new(Special { addresses, multi_pool, odd_values })),
    }
}

/// What is to be told of annotations that do not count: values that only look like "true", and what PureLB's own
/// program reads and this one does not.
fn odd_values(metadata: &ObjectMeta) -> Vec<String> {
    let meanings = [
        (annotation::RE_EVALUATE, "the Service is not evaluated again"),
        (annotation::ALLOW_LOCAL, "externalTrafficPolicy Local of a local pool is reset"),
    ];
    let odd = meanings.into_iter().filter_map(|(name, what_follows)| {
        let value = annotation(metadata, name)?.trim();
        let is_clear = matches!(value, "" | "true" | "false");
        (!is_clear).then(|| {
            let shown: String = value.chars().take(64).collect();
            format!("{name} is {shown:?}, so {what_follows}: expected \"true\", or no such annotation")
        })
    });
    let without_effect = [
        (
            annotation::SKIP_IPV6_DAD,
            "skipIPv6DAD of the ServiceGroup (spec.local) counts for all its Services",
        ),
        (
            annotation::NODE_AFFINITY,
            "which node announces an address of a local pool is elected; where only nodes with ready endpoints are to \
             announce, use a remote pool and externalTrafficPolicy: Local",
        ),
    ];
    let without_effect = without_effect.into_iter().filter_map(|(name, instead)| {
        annotation(metadata, name)?;
        Some(format!("{name} has no effect here and can be removed: {instead}"))
    });
    odd.chain(without_effect).collect()
}

/// Whether nobody but us has written the service-group annotation, as `metadata.managedFields` says. Where the
/// API server keeps no such books it counts as ours while it says what we would have written.
fn group_annotation_is_ours(metadata: &ObjectMeta) -> bool {
    let field = format!("f:{}", annotation::SERVICE_GROUP);
    let mut managers = metadata
        .managed_fields
        .iter()
        .flatten()
        .filter(|entry| {
            let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
            fields.is_some_and(|fields| fields["f:metadata"]["f:annotations"].get(&field).is_some())
        })
        .map(|entry| entry.manager.as_deref());
    managers.all(|manager| manager == Some(ALLOCATOR_FIELD_MANAGER))
}

fn parse_multi_pool(text: &str) -> Result<bool, String> {
    let name = annotation::MULTI_POOL;
    text.parse()
        .map_err(|_| format!("{name} is {text:?}: expected \"true\" or \"false\", or no such annotation"))
}

/// One address, or one of each family, separated by a comma.
fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let wanted = "expected one address, or an IPv4 and an IPv6 address separated by a comma";
    let mut addresses: Vec<IpAddr> = Vec::with_capacity(2);
    for part in text.split(',').map(str::trim) {
        let address =
            part.parse().map_err(|_| format!("has {part:?}, which is not an IP address: {wanted}"))?;
        if let Some(other) = addresses.iter().find(|other| IpFamily::of(**other) == IpFamily::of(address)) {
            return Err(format!("has {other} and {address}, which are of one family: {wanted}"));
        }
        addresses.push(address);
    }
    Ok(addresses)
}
