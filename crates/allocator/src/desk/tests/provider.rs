//! An IPAM provider in the small world, and the accounts that the allocator has there.

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use api::IpFamily;

use crate::{
    desk::Desk,
    external::{Account, Action, Answer, Ask, Want, account::Released},
    inputs::ServiceKey,
    select::Problem,
    testing::ips,
    waiting::Wait,
};

/// The external group.
pub(super) const GROUP: &str = "ext";

/// A provider that keeps to the contract, the names that are written down, and the allocator's accounts.
#[derive(Clone, Default)]
pub(super) struct Provider {
    books: BTreeMap<IpAddr, ServiceKey>,
    accounts: BTreeMap<ServiceKey, Account>,
    calls: BTreeMap<ServiceKey, Call>,
    /// Its figures are asked for soon, because something was released.
    is_poll_due: bool,
}

/// A call that has reached the provider and is not answered yet.
#[derive(Clone)]
enum Call {
    Allocate(Ask, Result<Vec<IpAddr>, Problem>),
    Release(Released),
}

fn problem(reason: &'static str, wait: Wait) -> Problem {
    Problem { reason, message: reason.to_owned(), wait: Some(wait) }
}

impl Provider {
    pub(super) fn on_ask(&mut self, service: &ServiceKey, ask: Ask) {
        self.accounts.entry(service.clone()).or_default().wants(ask);
    }

    pub(super) fn on_decided(&mut self, service: &ServiceKey) {
        if let Some(account) = self.accounts.get_mut(service) {
            account.wants_nothing();
            account.decided();
        }
    }

    /// The allocator is killed: what stays are the names that are written down.
    pub(super) fn on_restart(&mut self) {
        self.calls.clear();
        self.accounts.values_mut().for_each(|account| *account = Account::recorded());
    }

    /// The call that is under way is answered, or that is lost; if there is none, the next begins. Whether there
    /// was anything to do.
    pub(super) fn step(&mut self, service: &ServiceKey, desk: &mut Desk, is_answered: bool) -> bool {
        match self.calls.remove(service) {
            Some(call) => self.end(service, call, desk, is_answered),
            None => return self.begin(service, desk),
        }
        true
    }

    fn begin(&mut self, service: &ServiceKey, desk: &Desk) -> bool {
        if !desk.published(service, GROUP).is_empty() {
            self.accounts.entry(service.clone()).or_default();
        }
        let Some(account) = self.accounts.get_mut(service) else { return false };
        let call = match desk.next_action(service, GROUP, account, true) {
            Action::Wait | Action::Record => return false,
            Action::Close => {
                self.accounts.remove(service);
                return true;
            }
            Action::Allocate(ask) => {
                account.on_sent();
                let given = self.allocate(service, &ask);
                Call::Allocate(ask, given)
            }
            Action::Release(released) => {
                account.on_sent();
                self.books.retain(|address, holder| {
                    holder != service || matches!(released, Released::One(one) if one != *address)
                });
                Call::Release(released)
            }
        };
        self.calls.insert(service.clone(), call);
        true
    }

    fn end(&mut self, service: &ServiceKey, call: Call, desk: &mut Desk, is_answered: bool) {
        let Some(account) = self.accounts.get_mut(service) else { return };
        match call {
            Call::Allocate(ask, given) => {
                let lost = || problem("provider_unavailable", Wait::Provider(GROUP.into()));
                let (given, problem) = match given {
                    _ if !is_answered => (Vec::new(), Some(lost())),
                    Ok(given) => (given, None),
                    Err(problem) => (Vec::new(), Some(problem)),
                };
                let held = desk.published(service, GROUP);
                let given = given.into_iter().filter(|address| match &ask.want {
                    Want::Families(_) => !held.contains(address),
                    Want::Addresses(_) => true,
                });
                let answer = Answer { given: given.collect(), ask, problem };
                if account.on_answer(&answer, is_answered) {
                    desk.on_provided(service, answer);
                }
            }
            Call::Release(released) => {
                let is_freed = account.on_released(released, is_answered);
                account.resume();
                self.is_poll_due |= is_freed;
                if is_freed {
                    wake_for_room(desk);
                }
            }
        }
    }

    /// The same question, the same answer; all or nothing.
    fn allocate(&mut self, service: &ServiceKey, ask: &Ask) -> Result<Vec<IpAddr>, Problem> {
        let given = match &ask.want {
            Want::Addresses(addresses) => {
                let may = |address: &IpAddr| {
                    all().contains(address) && self.books.get(address).is_none_or(|holder| holder == service)
                };
                if !addresses.iter().all(may) {
                    return Err(problem("provider_refused", Wait::Group(GROUP.into())));
                }
                addresses.clone()
            }
            Want::Families(families) => {
                let room = |family| problem("exhausted", Wait::Room(GROUP.into(), family));
                let given = families.iter().map(|family| self.one(service, *family).ok_or(room(*family)));
                if ask.all {
                    given.collect::<Result<Vec<_>, _>>()?
                } else {
                    let (given, refused): (Vec<_>, Vec<_>) = given.partition(Result::is_ok);
                    let given: Vec<IpAddr> = given.into_iter().flatten().collect();
                    match refused.into_iter().find_map(Result::err).filter(|_| given.is_empty()) {
                        Some(problem) => return Err(problem),
                        None => given,
                    }
                }
            }
        };
        self.books.extend(given.iter().map(|address| (*address, service.clone())));
        Ok(given)
    }

    fn one(&self, service: &ServiceKey, family: IpFamily) -> Option<IpAddr> {
        let of_family = || all().into_iter().filter(move |address| IpFamily::of(*address) == family);
        let held = of_family().find(|address| self.books.get(address) == Some(service));
        held.or_else(|| of_family().find(|address| !self.books.contains_key(address)))
    }

    /// Whoever the provider was not there for asks again, and after a poll of its figures whoever waits for room: what
    /// was released may have been asked for just before. Whether there was anything to do.
    pub(super) fn wake(&mut self, desk: &mut Desk) -> bool {
        let is_polled = std::mem::take(&mut self.is_poll_due);
        if is_polled {
            wake_for_room(desk);
        }
        let woken = desk.engine().waiting().on(&Wait::Provider(GROUP.into()));
        let is_anybody = !woken.is_empty();
        if is_anybody {
            desk.wake(woken, Instant::now());
            wake_for_room(desk);
        }
        is_anybody || is_polled
    }

    /// Whether the address is, for the provider, that Service's.
    pub(super) fn has_given(&self, address: IpAddr, service: &ServiceKey) -> bool {
        self.books.get(&address) == Some(service)
    }

    /// Who has something.
    pub(super) fn holders(&self) -> impl Iterator<Item = &ServiceKey> {
        self.books.values()
    }

    /// Whether the provider could answer this question now.
    pub(super) fn could(&self, service: &ServiceKey, ask: &Ask) -> bool {
        self.clone().allocate(service, ask).is_ok()
    }
}

fn wake_for_room(desk: &mut Desk) {
    for family in [IpFamily::IPv4, IpFamily::IPv6] {
        let woken = desk.engine().waiting().next_on(&Wait::Room(GROUP.into(), family), None);
        desk.wake(woken.into_iter().collect(), Instant::now());
    }
}

/// What the provider has: so little that it runs out.
fn all() -> Vec<IpAddr> {
    ips("10.9.0.1 10.9.0.2 fd00:9::1").to_vec()
}
