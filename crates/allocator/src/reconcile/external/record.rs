//! What the status of an external group says of its provider, and which names stand in it.

use std::collections::BTreeSet;

use api::ServiceGroupStatus;
use k8s_openapi::jiff::Timestamp;

use super::super::Term;
use crate::{
    external::{
        Account,
        provider::Provider,
        status::{self, Former, Known},
    },
    inputs::ServiceKey,
    metrics::PoolLabels,
};

impl Term {
    /// What an external group's status says beyond that of others; what is to be written down is remembered.
    pub(in crate::reconcile) fn fill_external(
        &mut self,
        name: &str,
        status: &mut ServiceGroupStatus,
        generation: Option<i64>,
    ) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        group.books.record(status);
        group.sent = Some(group.books.current().keys().cloned().collect());
        let (desk, sockets) = (&self.desk, &self.external.sockets);
        let former = group.books.former().iter().map(|(path, accounts)| {
            let uses = |service: &ServiceKey, account: &Account| {
                desk.published(service, name).iter().any(|address| account.given().contains(address))
            };
            Former {
                socket: path,
                in_use: accounts.iter().filter(|(service, account)| uses(service, account)).count(),
                served: accounts.len(),
                failure: sockets.get(path).and_then(|socket| socket.provider.failure()),
            }
        });
        status::fill_former(status, &former.collect::<Vec<_>>(), generation, Timestamp::now());
        let Some(external) = group.external.as_ref().filter(|_| group.is_accepted) else { return };
        let mut held = [BTreeSet::new(), BTreeSet::new()];
        for service in group.books.current().keys() {
            for address in self.desk.published(service, name) {
                held[usize::from(address.is_ipv6())].insert(*address);
            }
        }
        let provider = self.external.sockets.get(&external.socket).map(|socket| &socket.provider);
        let failure = provider.and_then(Provider::failure);
        let known = Known {
            external,
            stats: group.stats.as_ref(),
            failure,
            is_tried: group.is_tried,
            held: held.map(|addresses| i64::try_from(addresses.len()).unwrap_or(i64::MAX)),
        };
        status::fill(status, known, generation, Timestamp::now());
        let metrics = &self.surroundings.metrics;
        let labels = PoolLabels { pool: name.to_owned() };
        metrics.provider_ready.get_or_create(&labels).set(i64::from(failure.is_none()));
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        if let Some(stats) = &group.stats {
            let sum = |a: u64, b: u64| a as f64 + b as f64;
            metrics.pool_size.get_or_create(&labels).set(sum(stats.size_v4, stats.size_v6));
            metrics.addresses_in_use.get_or_create(&labels).set(sum(stats.in_use_v4, stats.in_use_v6));
        }
    }

    /// The status with the names that [`Term::fill_external`] has put into it is written, or was so already.
    pub(in crate::reconcile) fn on_recorded(&mut self, name: &str, is_written: bool) {
        let Some(group) = self.external.groups.get_mut(name) else { return };
        let Some(sent) = group.sent.take().filter(|_| is_written) else { return };
        self.external.touched.extend(sent.difference(&group.recorded).cloned());
        group.recorded = sent;
        // Names that have come meanwhile are written down with the next status.
        if group.books.current().keys().any(|service| !group.recorded.contains(service)) {
            self.touch_group_now(name);
        }
    }
}
