//! Calls that begin: the next one of an account, figures that are due, probes.

use std::time::Instant;

use super::{
    super::{Done, Term},
    Call, CallResult,
};
use crate::{
    external::{Action, client::Client},
    inputs::{ServiceKey, Word},
};

impl Call {
    fn ended(group: Word, client: &Client, started: Instant, result: CallResult) -> Done {
        Done::External(Box::new(Call { group, socket: client.socket().clone(), started, result }))
    }
}

impl Term {
    /// Begins the next call for a Service at a provider that a group has or had.
    pub(super) fn begin(&mut self, path: &Word, name: &Word, service: &ServiceKey) {
        let action = self.next_action(name, path, service);
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let Some(socket) = self.external.sockets.get_mut(path) else { return };
        let Some(account) = group.books.at_mut(path).and_then(|accounts| accounts.get_mut(service)) else {
            return;
        };
        let (client, name, service, started) =
            (socket.client.clone(), name.clone(), service.clone(), Instant::now());
        match action {
            Some(Action::Allocate(ask)) => {
                self.tasks.spawn(async move {
                    let allocated = client.allocate(service.as_str(), &ask).await;
                    let result = CallResult::Allocate(service, ask, allocated);
                    Call::ended(name, &client, started, result)
                });
            }
            Some(Action::Release(released)) => {
                self.tasks.spawn(async move {
                    let answer = client.release(&name, service.as_str(), released).await;
                    let result = CallResult::Release(service, released, answer);
                    Call::ended(name, &client, started, result)
                });
            }
            // What was to be done is not any more; what is instead is looked at.
            _ => {
                self.external.touch(&service);
                return;
            }
        }
        account.on_sent();
        socket.provider.on_sent();
        self.under_way += 1;
    }

    /// Figures that are due, and probes of providers that did not answer.
    pub(super) fn begin_polls(&mut self) {
        let now = Instant::now();
        let mut due: Vec<(Word, Client)> = Vec::new();
        let sockets: Vec<Word> = self.external.sockets.keys().cloned().collect();
        for path in sockets {
            let (names, concerned) = (self.external.groups_of(&path), self.external.concerned_by(&path));
            let Some(socket) = self.external.sockets.get_mut(&path) else { continue };
            let is_probed = std::mem::take(&mut socket.is_probe_due) && socket.provider.failure().is_none();
            if is_probed || socket.provider.begins_probe(now) {
                let name = names.first().or(concerned.first());
                due.extend(name.map(|name| (name.clone(), socket.client.clone())));
            } else if socket.provider.failure().is_none() {
                let is_due = |name: &&Word| {
                    self.external.groups.get(*name).is_some_and(|group| {
                        group.is_accepted
                            && !group.stats_in_flight
                            && group.stats_due.is_some_and(|due| due <= now)
                    })
                };
                due.extend(names.iter().filter(is_due).map(|name| (name.clone(), socket.client.clone())));
            }
        }
        for (name, client) in due {
            if let Some(group) = self.external.groups.get_mut(&name)
                && group.books.is_at(client.socket())
            {
                group.stats_in_flight = true;
                group.stats_due = None;
            }
            self.tasks.spawn(async move {
                let (started, answer) = (Instant::now(), client.stats(&name).await);
                Call::ended(name, &client, started, CallResult::Stats(answer))
            });
        }
    }
}
