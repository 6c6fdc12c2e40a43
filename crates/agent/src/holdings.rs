//! Addresses of local pools between plan and wire: what the claims are told that this node should hold, what they
//! say that it does hold, and what has to be told of that. No I/O.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use api::{AddressConflict, LinkLayerAddress};

use crate::{
    apply::announcing::Announcement,
    claim::{Elected, Input, Report, Wanted},
    inputs::node_agent::LocalConfig,
    key::ObjectKey,
    local_pools::LocalPools,
    plan::{LocalAddress, node::NodePlan},
};

/// What this node holds of local pools.
#[derive(Debug, Default)]
pub struct Holdings {
    config: LocalConfig,
    /// Whether the claims know everything.
    is_told: bool,
    /// Addresses whose plan has changed.
    touched: BTreeSet<IpAddr>,
    /// Services of which others may have to be told.
    services: BTreeSet<ObjectKey>,
    held: BTreeSet<IpAddr>,
    strangers: BTreeMap<IpAddr, LinkLayerAddress>,
    /// What was told of each Service of which this node holds something.
    told: HashMap<ObjectKey, Told>,
}

/// What was told of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    /// All its addresses: of how many there are depends how each is written.
    addresses: Vec<IpAddr>,
    held: BTreeMap<IpAddr, Arc<str>>,
}

/// What there is to tell of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// The Service.
    pub service: ObjectKey,
    /// Announced from now on, and on which interface.
    pub gained: Vec<(IpAddr, Arc<str>)>,
    /// Announced no more.
    pub lost: Vec<IpAddr>,
    /// What its annotations should say, where that is this node's to say.
    pub announcement: Option<Announcement>,
}

impl Holdings {
    /// Addresses are put on interfaces so from now on.
    pub fn set_config(&mut self, config: LocalConfig) {
        if self.config != config {
            self.config = config;
            self.is_told = false;
        }
    }

    /// The interfaces may be others: the claims are told everything again.
    pub const fn on_interfaces(&mut self) {
        self.is_told = false;
    }

    /// The plan of a Service has changed as to these addresses.
    pub fn touch(&mut self, service: &ObjectKey, addresses: impl IntoIterator<Item = IpAddr>) {
        self.touched.extend(addresses);
        self.services.insert(service.clone());
    }

    /// Whether there is nothing to tell.
    pub fn is_idle(&self, pools: &LocalPools) -> bool {
        (self.is_told || !pools.is_seen()) && self.touched.is_empty() && self.services.is_empty()
    }

    /// What the claims have to be told. Nothing before this node's interfaces are known: what an earlier run left
    /// would be taken for unwanted.
    pub fn take_inputs(&mut self, plan: &NodePlan, pools: &LocalPools) -> Vec<Input> {
        let touched = std::mem::take(&mut self.touched);
        if !pools.is_seen() {
            return Vec::new();
        }
        if !std::mem::replace(&mut self.is_told, true) {
            let interfaces = pools.interfaces().iter().map(|interface| interface.index).collect();
            let wanted = plan.locals().filter_map(|local| self.wanted(local, pools)).collect();
            return vec![Input::Interfaces(interfaces), Input::WantedAll(wanted)];
        }
        let wanted = |address: IpAddr| plan.local(address).and_then(|local| self.wanted(local, pools));
        touched.into_iter().map(|address| Input::Wanted(address, wanted(address))).collect()
    }

    fn wanted(&self, local: &LocalAddress, pools: &LocalPools) -> Option<Wanted> {
        let elected = match &local.other {
            None => Elected::Us,
            // Who cannot be asked for it does not keep it either.
            Some(other) if !pools.can_be_asked(other) => return None,
            Some(other) => Elected::Other(other.clone()),
        };
        Some(Wanted {
            interface: local.index,
            prefix: local.address,
            addressing: self.config.addressing_of(local.addr(), local.no_dad),
            announcing: self.config.announcing,
            elected,
        })
    }

    /// Takes in what the claims say. Whether the strangers on the wire are others now.
    pub fn on_report(&mut self, report: &Report, pools: &LocalPools) -> bool {
        let (Report::Held(address)
        | Report::Released(address)
        | Report::Conflict(address, _)
        | Report::Unheld(address, _)
        | Report::ConflictEnded(address)) = report;
        self.services.extend(pools.users(*address).cloned());
        match report {
            Report::Held(address) => {
                self.held.insert(*address);
                self.strangers.remove(address).is_some()
            }
            Report::Released(address) => {
                self.held.remove(address);
                false
            }
            Report::Conflict(address, mac) => {
                let stranger = LinkLayerAddress(mac.0);
                self.strangers.insert(*address, stranger) != Some(stranger)
            }
            // No stranger: it is no reason to keep the address from Services.
            Report::Unheld(..) => false,
            Report::ConflictEnded(address) => self.strangers.remove(address).is_some(),
        }
    }

    /// How many addresses this node holds.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Strangers that answer for addresses of ours.
    pub fn conflicts(&self) -> BTreeSet<AddressConflict> {
        let strangers = self.strangers.iter();
        strangers
            .map(|(address, mac)| AddressConflict { address: *address, link_layer_address: *mac })
            .collect()
    }

    /// What has to be told of Services since the last time.
    pub fn take_news(&mut self, plan: &NodePlan, pools: &LocalPools) -> Vec<News> {
        let services = std::mem::take(&mut self.services);
        services.into_iter().filter_map(|service| self.news(service, plan, pools)).collect()
    }

    fn news(&mut self, service: ObjectKey, plan: &NodePlan, pools: &LocalPools) -> Option<News> {
        let locals = plan.service(&service).map(|plan| plan.local.as_slice()).unwrap_or_default();
        let held = locals.iter().filter(|local| self.held.contains(&local.addr()));
        let now = Told {
            addresses: pools.addresses(&service).to_vec(),
            held: held.map(|local| (local.addr(), local.interface.clone())).collect(),
        };
        let before = self.told.get(&service).cloned().unwrap_or_default();
        if now == before || (now.held.is_empty() && before.held.is_empty()) {
            return None;
        }
        let gained =
            now.held.iter().filter(|(address, interface)| before.held.get(*address) != Some(*interface));
        let gained: Vec<_> = gained.map(|(address, interface)| (*address, interface.clone())).collect();
        let lost: Vec<_> =
            before.held.keys().filter(|address| !now.held.contains_key(address)).copied().collect();
        // What has gone to another node, that one says.
        let has_heir = |address: &IpAddr| locals.iter().any(|it| it.addr() == *address && !it.is_elected());
        let is_mine_to_say = !now.held.is_empty() || !lost.iter().all(has_heir);
        let announcement = (is_mine_to_say && !now.addresses.is_empty()).then(|| Announcement {
            service: service.clone(),
            held: now.held.clone(),
            live: Arc::new(pools.electorate().keys().cloned().collect()),
        });
        if now.held.is_empty() {
            self.told.remove(&service);
        } else {
            self.told.insert(service.clone(), now);
        }
        Some(News { service, gained, lost, announcement })
    }
}

#[cfg(test)]
mod tests {
    use netlink::{Lifetime, Mac};

    use super::*;
    use crate::{
        local_pools::tests::{facts, interface, others},
        plan::{Reason, ServicePlan},
    };

    const ADDRESS: &str = "192.0.2.50";

    fn ip() -> IpAddr {
        ADDRESS.parse().unwrap()
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("default", name)
    }

    struct Case {
        holdings: Holdings,
        plan: NodePlan,
        pools: LocalPools,
    }

    impl Case {
        fn new() -> Case {
            let mut pools = LocalPools::default();
            pools.set_node("n1");
            pools.set_facts(facts(vec![interface("eth0", 2, &["192.0.2.7/24"])]));
            pools.set_others(others(&[("n2", "192.0.2.0/24")]));
            let mut case = Case { holdings: Holdings::default(), plan: NodePlan::default(), pools };
            assert_eq!(case.inputs(), [Input::Interfaces(vec![2]), Input::WantedAll(vec![])]);
            case
        }

        /// A Service has the address, and this node is to hold it or another.
        fn plan(&mut self, name: &str, other: Option<&str>) {
            let local = LocalAddress {
                address: "192.0.2.50/24".parse().unwrap(),
                interface: "eth0".into(),
                index: 2,
                no_dad: true,
                other: other.map(Into::into),
            };
            self.pools.set_service(&key(name), &[ip()]);
            let plan = ServicePlan { local: vec![local], ..ServicePlan::skip(Reason::NoSubnet) };
            self.plan.set(&key(name), Some(plan));
            self.holdings.touch(&key(name), [ip()]);
        }

        fn forget(&mut self, name: &str) {
            self.pools.set_service(&key(name), &[]);
            self.plan.set(&key(name), None);
            self.holdings.touch(&key(name), [ip()]);
        }

        fn inputs(&mut self) -> Vec<Input> {
            self.holdings.take_inputs(&self.plan, &self.pools)
        }

        /// Who is elected for the address, as the claims are told.
        fn elected(&mut self) -> Option<Elected> {
            match self.inputs().pop() {
                Some(Input::Wanted(_, wanted)) => wanted.map(|wanted| wanted.elected),
                other => panic!("{other:?}"),
            }
        }

        fn report(&mut self, report: Report) -> bool {
            self.holdings.on_report(&report, &self.pools)
        }

        fn news(&mut self) -> Vec<News> {
            self.holdings.take_news(&self.plan, &self.pools)
        }
    }

    #[test]
    fn nothing_is_said_before_the_interfaces_are_known() {
        let mut holdings = Holdings::default();
        let (plan, pools) = (NodePlan::default(), LocalPools::default());
        assert!(holdings.is_idle(&pools));
        assert!(holdings.take_inputs(&plan, &pools).is_empty());
    }

    #[test]
    fn the_claims_are_told_of_changes_and_of_everything_when_the_interfaces_or_the_settings_change() {
        let mut case = Case::new();
        case.plan("a", None);
        let inputs = case.inputs();
        let [Input::Wanted(address, Some(wanted))] = inputs.as_slice() else { panic!("{inputs:?}") };
        assert_eq!((*address, wanted.interface), (ip(), 2));
        assert!(!wanted.addressing.no_dad, "skipIPv6DAD is of IPv6");
        assert_eq!(wanted.elected, Elected::Us);
        assert!(case.inputs().is_empty());
        case.holdings.on_interfaces();
        let inputs = case.inputs();
        assert!(matches!(&inputs[..], [Input::Interfaces(_), Input::WantedAll(all)] if all.len() == 1));
        let mut config = LocalConfig::default();
        case.holdings.set_config(config);
        assert!(case.inputs().is_empty(), "the same");
        config.addressing.lifetime = Lifetime::Permanent;
        case.holdings.set_config(config);
        assert_eq!(case.inputs().len(), 2);
    }

    #[test]
    fn an_address_that_another_wins_is_kept_for_it_only_if_it_can_ask() {
        let mut case = Case::new();
        case.plan("a", Some("n2"));
        assert_eq!(case.elected(), Some(Elected::Other("n2".into())));
        case.plan("a", Some("n3"));
        assert_eq!(case.elected(), None, "no message reaches n3");
        case.plan("a", None);
        case.plan("b", None);
        case.forget("a");
        assert_eq!(case.elected(), Some(Elected::Us), "b has it, too");
        case.forget("b");
        assert_eq!(case.elected(), None);
    }

    #[test]
    fn what_is_really_held_is_told_of_every_service_that_has_it_and_told_once() {
        let mut case = Case::new();
        case.plan("a", None);
        case.plan("b", None);
        assert!(case.news().is_empty(), "planned is not held");
        case.report(Report::Held(ip()));
        let news = case.news();
        assert_eq!(news.iter().map(|news| news.service.clone()).collect::<Vec<_>>(), [key("a"), key("b")]);
        assert_eq!(news[0].gained, [(ip(), "eth0".into())]);
        let announcement = news[0].announcement.as_ref().unwrap();
        assert_eq!(announcement.held, [(ip(), "eth0".into())].into());
        assert_eq!(*announcement.live, ["n1", "n2"].map(Into::into).into());
        case.report(Report::Held(ip()));
        case.plan("a", None);
        assert!(case.news().is_empty(), "told already");
    }

    #[test]
    fn what_goes_to_another_node_that_one_writes_and_what_goes_to_nobody_this_one() {
        for (heir, is_mine) in [(Some("n2"), false), (None, true)] {
            let mut case = Case::new();
            case.plan("a", None);
            case.report(Report::Held(ip()));
            case.news();
            case.plan("a", heir);
            case.report(Report::Released(ip()));
            let news = case.news().pop().unwrap();
            assert_eq!((news.lost, news.gained), (vec![ip()], vec![]));
            assert_eq!(news.announcement.is_some_and(|it| it.held.is_empty()), is_mine, "{heir:?}");
            assert!(case.holdings.told.is_empty());
        }
    }

    #[test]
    fn a_stranger_is_told_once_and_until_it_ends_or_the_address_is_held() {
        let mut case = Case::new();
        case.plan("a", None);
        let stranger = Report::Conflict(ip(), Mac([2, 0, 0, 0, 0, 9]));
        assert!(case.report(stranger.clone()) && !case.report(stranger.clone()));
        assert_eq!(case.holdings.conflicts().len(), 1);
        assert!(case.report(Report::ConflictEnded(ip())));
        assert!(case.report(stranger) && case.report(Report::Held(ip())));
        assert!(case.holdings.conflicts().is_empty());
    }
}
