//! The accounts of an external group: at the provider that it names now, and at those that it has named before. Pure.
//!
//! A provider is its socket. When the group names another, the accounts there stay until all is given back; what
//! Services still want is asked of the new one. Where that one knows of addresses that it has not given (its books
//! may be a copy of the others', or the socket only has another path now), it is told of their release, too.

use std::{collections::BTreeMap, net::IpAddr};

use api::{FormerProvider, FormerlyServed, ServiceGroupStatus};

use super::Account;
use crate::inputs::{Service, ServiceKey, Word};

/// Whom a provider may have given something.
pub type Accounts = BTreeMap<ServiceKey, Account>;

/// Octets that an entry of `status.formerProviders` takes beside the name of the Service, at most.
const FORMERLY_SERVED_LEN: usize = 128;

/// All accounts of a group.
#[derive(Clone, Debug, Default)]
pub struct Books {
    socket: Option<Word>,
    current: Accounts,
    former: BTreeMap<Word, Accounts>,
    /// Until all Services are listed: the one of the former that has given what they publish.
    inherited: Option<Word>,
}

impl Books {
    /// As they stand in the status of a group whose provider is at this socket now. A status that names no socket is
    /// of a version that did not write it.
    pub fn restore(status: &ServiceGroupStatus, socket: Option<&Word>) -> Books {
        let mut books = Books { socket: socket.cloned(), ..Books::default() };
        for provider in &status.former_providers {
            let accounts = provider.services.iter().filter_map(|served| {
                let addresses: Vec<IpAddr> =
                    served.addresses.iter().filter_map(|ip| ip.parse().ok()).collect();
                let mut account = Account::recorded();
                account.publishes(&addresses);
                Some((key(&served.service)?, account))
            });
            books.former.insert(provider.socket.as_str().into(), accounts.collect());
        }
        let recorded = status.external_services.iter().filter_map(|name| key(name));
        let recorded: Accounts = recorded.map(|service| (service, Account::recorded())).collect();
        match status.external_socket.as_deref() {
            Some(path) if socket.is_none_or(|socket| **socket != *path) => {
                let path = Word::from(path);
                books.former.entry(path.clone()).or_default().extend(recorded);
                books.inherited = Some(path);
            }
            _ => books.current = recorded,
        }
        if let Some(known) = socket.and_then(|socket| books.former.remove(socket)) {
            books.current.extend(known);
        }
        books
    }

    /// What a Service publishes of the group when everything is listed: it was given.
    pub fn adopt(&mut self, service: &Service) {
        let accounts = match &self.inherited {
            Some(path) => self.former.entry(path.clone()).or_default(),
            None if self.socket.is_some() => &mut self.current,
            None => return,
        };
        let opened = || Account::publishing(service.created, &[]);
        accounts.entry(service.key.clone()).or_insert_with(opened).publishes(&service.facts.ingress);
    }

    /// Everything is listed and adopted.
    pub fn end_adoption(&mut self) {
        self.inherited = None;
        self.drop_settled();
    }

    /// The group names this provider from now on, or none. Whether that is another. `published` says what a Service
    /// publishes of the group.
    pub fn move_to(&mut self, socket: Option<&Word>, published: impl Fn(&ServiceKey) -> Vec<IpAddr>) -> bool {
        if self.socket.as_ref() == socket {
            return false;
        }
        let mut new = socket.and_then(|socket| self.former.remove(socket)).unwrap_or_default();
        match std::mem::replace(&mut self.socket, socket.cloned()) {
            None => new.extend(std::mem::take(&mut self.current)),
            Some(old) => {
                let former = self.former.entry(old).or_default();
                for (service, mut account) in std::mem::take(&mut self.current) {
                    if let Some(ask) = account.retire(&published(&service)).filter(|_| socket.is_some()) {
                        let opened = new.entry(service.clone()).or_default();
                        opened.created = account.created;
                        opened.wants(ask);
                    }
                    if account.may_hold() {
                        former.insert(service, account);
                    }
                }
            }
        }
        self.current = new;
        self.drop_settled();
        true
    }

    /// Nothing is released any more at a provider that the group has had before. Whether there was such a one.
    pub fn forget(&mut self, socket: &str) -> bool {
        self.former.remove(socket).is_some()
    }

    fn drop_settled(&mut self) {
        self.former.retain(|_, accounts| !accounts.is_empty());
    }

    /// Where the group's provider is.
    pub fn socket(&self) -> Option<&Word> {
        self.socket.as_ref()
    }

    /// Whether this is where the group's provider is now.
    pub fn is_at(&self, socket: &str) -> bool {
        self.socket.as_deref() == Some(socket)
    }

    /// The accounts at the group's provider.
    pub fn current(&self) -> &Accounts {
        &self.current
    }

    /// The accounts at the group's provider.
    pub fn current_mut(&mut self) -> &mut Accounts {
        &mut self.current
    }

    /// The providers that the group has had before, and the accounts there.
    pub fn former(&self) -> &BTreeMap<Word, Accounts> {
        &self.former
    }

    /// Where the accounts are: now, and before.
    pub fn sockets(&self) -> impl Iterator<Item = &Word> {
        self.socket.iter().chain(self.former.keys())
    }

    /// The accounts at a provider that the group has or had.
    pub fn at_mut(&mut self, socket: &str) -> Option<&mut Accounts> {
        if self.is_at(socket) { Some(&mut self.current) } else { self.former.get_mut(socket) }
    }

    /// All accounts of a Service.
    pub fn of(&mut self, service: &ServiceKey) -> impl Iterator<Item = &mut Account> {
        let all = std::iter::once(&mut self.current).chain(self.former.values_mut());
        all.filter_map(|accounts| accounts.get_mut(service))
    }

    /// All accounts.
    pub fn all(&self) -> impl Iterator<Item = (&ServiceKey, &Account)> {
        self.current.iter().chain(self.former.values().flatten())
    }

    /// A provider holds nothing for the Service.
    pub fn close(&mut self, socket: &str, service: &ServiceKey) {
        if let Some(accounts) = self.at_mut(socket) {
            accounts.remove(service);
        }
        self.drop_settled();
    }

    /// Whether nothing is left to be done.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty() && self.former.is_empty()
    }

    /// How many octets the names take in the status.
    pub fn recorded_len(&self) -> usize {
        let current = self.current.keys().map(|service| service.as_str().len() + 3);
        let former = self.former.values().flat_map(Accounts::keys);
        let former = former.map(|service| service.as_str().len() + FORMERLY_SERVED_LEN);
        current.chain(former).sum()
    }

    /// Writes down whom which provider may have given something.
    pub fn record(&self, status: &mut ServiceGroupStatus) {
        status.external_services = self.current.keys().map(|key| key.as_str().to_owned()).collect();
        status.external_socket = self.socket.as_ref().map(|path| path.to_string());
        let served = |(service, account): (&ServiceKey, &Account)| FormerlyServed {
            service: service.as_str().to_owned(),
            addresses: account.given().iter().map(IpAddr::to_string).collect(),
        };
        let former = self.former.iter().map(|(path, accounts)| FormerProvider {
            socket: path.to_string(),
            services: accounts.iter().map(served).collect(),
        });
        status.former_providers = former.collect();
    }
}

fn key(name: &str) -> Option<ServiceKey> {
    let (namespace, name) = name.split_once('/')?;
    Some(ServiceKey::new(namespace, name))
}

#[cfg(test)]
mod tests {
    use api::IpFamily;

    use super::{
        super::{Action, Answer, Ask, Want, account::Released},
        *,
    };
    use crate::testing::{ips, service};

    fn ask() -> Ask {
        Ask { group: "ext".into(), want: Want::Families(vec![IpFamily::IPv4]), all: true, sharing_key: None }
    }

    fn served_at(socket: &str) -> (Books, ServiceKey) {
        let web = ServiceKey::new("ns", "web");
        let mut books = Books { socket: Some(socket.into()), ..Books::default() };
        books.current.insert(web.clone(), Account::publishing(1, &ips("198.51.100.1")));
        (books, web)
    }

    fn written(books: &Books) -> ServiceGroupStatus {
        let mut status = ServiceGroupStatus::default();
        books.record(&mut status);
        status
    }

    #[test]
    fn what_a_provider_has_given_is_written_down_with_its_socket_when_the_group_names_another() {
        let (mut books, web) = served_at("/a");
        assert!(books.move_to(Some(&"/b".into()), |_| ips("198.51.100.1").to_vec()));
        assert!(books.current.is_empty());
        let status = written(&books);
        assert_eq!(status.external_socket.as_deref(), Some("/b"));
        let served = FormerlyServed { service: "ns/web".into(), addresses: vec!["198.51.100.1".into()] };
        assert_eq!(status.former_providers, [FormerProvider { socket: "/a".into(), services: vec![served] }]);
        // The next term knows it from there.
        let mut books = Books::restore(&status, Some(&"/b".into()));
        let account = books.at_mut("/a").unwrap().get(&web).unwrap();
        assert_eq!(account.next(Some(&ips("198.51.100.1")), true), Action::Wait, "it is still published");
        assert_eq!(account.next(Some(&[]), true), Action::Release(Released::All));
        books.close("/a", &web);
        assert_eq!(written(&books).former_providers, []);
    }

    #[test]
    fn an_edit_that_no_allocator_has_seen_leaves_the_names_with_the_socket_that_they_were_written_for() {
        let (books, web) = served_at("/a");
        for socket in [Some("/b".into()), None] {
            let mut restored = Books::restore(&written(&books), socket.as_ref());
            assert!(restored.current.is_empty());
            restored.adopt(&service("other", "status: {loadBalancer: {ingress: [{ip: 198.51.100.2}]}}"));
            restored.end_adoption();
            let names: Vec<&str> = restored.former["/a"].keys().map(ServiceKey::as_str).collect();
            assert_eq!(names.len(), 2, "{names:?}");
            assert!(restored.former["/a"].contains_key(&web));
        }
        let same = Books::restore(&written(&books), Some(&"/a".into()));
        assert!(same.former.is_empty() && same.current.contains_key(&web));
        // Written by a version that knew of no sockets.
        let old = ServiceGroupStatus { external_socket: None, ..written(&books) };
        assert!(Books::restore(&old, Some(&"/b".into())).current.contains_key(&web));
    }

    #[test]
    fn what_is_still_wanted_is_asked_of_the_new_provider_and_a_late_answer_of_the_old_one_goes_back() {
        let (mut books, web) = served_at("/a");
        let account = books.current.get_mut(&web).unwrap();
        account.wants(ask());
        account.on_sent();
        books.move_to(Some(&"/b".into()), |_| Vec::new());
        assert_eq!(books.current[&web].next(Some(&[]), true), Action::Allocate(ask()));
        assert_eq!(books.current[&web].next(Some(&[]), false), Action::Record);
        let late = Answer { ask: ask(), given: ips("198.51.100.9").to_vec(), problem: None };
        let account = books.at_mut("/a").unwrap().get_mut(&web).unwrap();
        assert!(!account.on_answer(&late, true), "the Service does not get it");
        assert_eq!(account.next(Some(&[]), true), Action::Release(Released::All));
    }

    #[test]
    fn who_has_asked_for_nothing_yet_leaves_nothing_behind() {
        let mut books = Books { socket: Some("/a".into()), ..Books::default() };
        books.current.entry(ServiceKey::new("ns", "web")).or_default().wants(ask());
        books.move_to(Some(&"/b".into()), |_| Vec::new());
        assert!(books.former.is_empty() && books.current.len() == 1);
    }

    #[test]
    fn a_group_that_comes_back_to_a_provider_finds_its_accounts_there() {
        let (mut books, web) = served_at("/a");
        books.move_to(Some(&"/b".into()), |_| Vec::new());
        assert!(!books.move_to(Some(&"/b".into()), |_| Vec::new()), "that is no move");
        books.move_to(Some(&"/a".into()), |_| Vec::new());
        assert!(books.former.is_empty() && books.current.contains_key(&web));
        // To pools of its own: nobody is the provider, and what was given is owed all the same.
        books.move_to(None, |_| Vec::new());
        assert!(books.current.is_empty() && books.former["/a"].contains_key(&web));
        assert!(books.forget("/a") && !books.forget("/a"));
        assert!(books.is_empty());
    }
}
