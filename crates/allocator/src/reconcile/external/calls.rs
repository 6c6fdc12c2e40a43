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
    /// Begins the next call for a Service at a group's provider.
    pub(super) fn begin(&mut self, name: &Word, service: &ServiceKey) {
        let action = self.next_action(name, service);
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let Some(socket) = group.external.as_ref().and_then(|e| self.external.sockets.get_mut(&e.socket))
        else {
            return;
        };
        let Some(account) = group.accounts.get_mut(service) else { return };
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
            let names = self.external.groups_of(&path);
            let Some(socket) = self.external.sockets.get_mut(&path) else { continue };
            if socket.provider.begins_probe(now) {
                due.extend(names.first().map(|name| (name.clone(), socket.client.clone())));
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
            if let Some(group) = self.external.groups.get_mut(&name) {
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
