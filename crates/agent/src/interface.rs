//! The dummy interface: the one place that talks to the kernel about addresses and blackholes. It does what
//! [`Addresses`] says and tells it what came of it.

use std::time::{Duration, Instant};

use ipnet::IpNet;
use netlink::{DummyKind, Error, Event, Lifetime, Link, Monitor, MonitorError, Netlink, Outcome};

use crate::{apply::addresses::Addresses, inputs::node_agent::DummyConfig, metrics::Metrics};

/// Wait before the interface is looked at again after that has failed.
const RETRY: Duration = Duration::from_millis(500);

/// The interface, its addresses, and the sockets to the kernel.
#[derive(Debug)]
pub struct Interface {
    netlink: Netlink,
    monitor: Monitor,
    config: DummyConfig,
    link: Option<Link>,
    /// Addresses, desired against observed.
    pub addresses: Addresses,
    /// When to make sure of the interface and to list its addresses again.
    resync_at: Option<Instant>,
    /// When the lifetimes of its addresses are set anew; `None` where they are for ever.
    renew_at: Option<Instant>,
    /// Interfaces that have been given up, to be cleaned when their addresses are on the new one.
    former: Vec<(u32, Vec<IpNet>)>,
    metrics: Metrics,
}

/// Whether kernels of this release keep `IFA_PROTO` (Linux 5.18 and newer).
fn keeps_marks(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0u32));
    (numbers.next(), numbers.next()) >= (Some(5), Some(18))
}

impl Interface {
    /// Opens the sockets. The interface itself is made by [`Interface::resync`], which is due at once.
    pub fn open(config: DummyConfig, metrics: Metrics) -> anyhow::Result<Interface> {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Interface {
            netlink: Netlink::open()?,
            monitor: Monitor::open([config.interface.clone()])?,
            addresses: Addresses::new(!keeps_marks(&release)),
            config,
            link: None,
            resync_at: Some(Instant::now()),
            renew_at: None,
            former: Vec::new(),
            metrics,
        })
    }

    /// Name of the interface.
    pub fn name(&self) -> &str {
        &self.config.interface
    }

    /// Takes on another configuration. Addresses are put on a new interface before the old one is cleaned.
    pub fn reconfigure(&mut self, config: DummyConfig, now: Instant) -> Result<(), MonitorError> {
        if config == self.config {
            return Ok(());
        }
        if config.interface != self.config.interface {
            tracing::info!(from = %self.config.interface, to = %config.interface, "changing the dummy interface");
            self.monitor = Monitor::open([config.interface.clone()])?;
            if let Some(link) = self.link.take() {
                self.former.push((link.index, self.addresses.held().copied().collect()));
            }
            self.addresses.on_link_gone(now);
            self.resync_at = Some(now);
        }
        if config.addressing.lifetime != self.config.addressing.lifetime {
            self.renew_at = Some(now);
        }
        self.config = config;
        Ok(())
    }

    /// Whether the interface is there.
    pub const fn is_up(&self) -> bool {
        self.link.is_some()
    }

    /// When there is something to do without an event.
    pub fn next_due(&self) -> Option<Instant> {
        [self.resync_at, self.renew_at, self.addresses.next_due()].into_iter().flatten().min()
    }

    /// Does what is due.
    pub async fn on_time(&mut self, now: Instant) {
        self.addresses.on_time(now);
        if self.resync_at.is_some_and(|at| at <= now) {
            self.resync_at = None;
            if let Err(error) = self.resync(now).await {
                tracing::warn!(interface = %self.config.interface, %error, "interface not usable, trying again");
                self.resync_at = Some(now + RETRY);
            }
        }
        if self.renew_at.is_some_and(|at| at <= now) {
            self.renew(now).await;
        }
    }

    /// Sets the lifetimes of the addresses that are ours anew, and again at half of them.
    async fn renew(&mut self, now: Instant) {
        self.renew_at = match self.config.addressing.lifetime {
            Lifetime::Permanent => None,
            Lifetime::Limited { valid_secs, preferred_secs } => {
                Some(now + Duration::from_secs(valid_secs.min(preferred_secs).into()) / 2)
            }
        };
        let Some(link) = &self.link else { return };
        let held: Vec<_> = self.addresses.held().copied().collect();
        let results = self.netlink.renew_addresses(link.index, &held, self.config.addressing).await;
        for (address, error) in
            held.iter().zip(results).filter_map(|(address, result)| Some((address, result.err()?)))
        {
            tracing::warn!(%address, %error, "lifetime of an address not renewed, trying again");
            self.renew_at = Some(now + RETRY);
        }
    }

    /// Makes sure of the interface and lists its addresses.
    async fn resync(&mut self, now: Instant) -> Result<(), Error> {
        let (link, kind) = self.netlink.ensure_dummy(&self.config.interface).await?;
        if kind != DummyKind::Existing {
            let made_of = match kind {
                DummyKind::Bridge => "a bridge without ports, for this kernel has no dummy",
                _ => "dummy",
            };
            tracing::info!(interface = %link.name, made_of, "interface created");
        }
        self.monitor.watch(link.index);
        let dump = self.netlink.addresses(Some(link.index)).await?;
        // Addresses of an earlier run may have other lifetimes.
        let is_limited = |lifetime| matches!(lifetime, Lifetime::Limited { .. });
        let wanted = is_limited(self.config.addressing.lifetime);
        if wanted || dump.iter().any(|address| address.is_marked() && is_limited(address.lifetime)) {
            self.renew_at = Some(now);
        }
        self.addresses.on_dump(&dump, now);
        self.link = Some(link);
        Ok(())
    }

    /// Waits for the next change in the kernel and takes it in.
    pub async fn next_event(&mut self) -> Result<(), MonitorError> {
        let event = self.monitor.next().await?;
        let now = Instant::now();
        let is_ours = |index| self.link.as_ref().is_none_or(|link| link.index == index);
        match event {
            Event::AddressAdded(address) if is_ours(address.index) => {
                self.addresses.on_added_by_kernel(&address);
            }
            Event::AddressRemoved(address) if is_ours(address.index) => {
                self.addresses.on_removed_by_kernel(&address, now);
            }
            Event::LinkRemoved(link) if is_ours(link.index) => {
                tracing::warn!(interface = %link.name, "someone deleted the interface: making it anew");
                self.link = None;
                self.addresses.on_link_gone(now);
                self.resync_at = Some(now);
            }
            // Maybe someone set it down, maybe this is the echo of its creation: the kernel is asked.
            Event::LinkChanged(link) if !link.is_up && is_ours(link.index) && self.link.is_some() => {
                self.resync_at = Some(now);
            }
            Event::Resync => self.resync_at = Some(now),
            _ => {}
        }
        Ok(())
    }

    /// Adds addresses; returns those that the kernel has now.
    pub async fn add(&mut self, addresses: &[IpNet], now: Instant) -> Vec<IpNet> {
        let Some(link) = &self.link else {
            // They are touched again by the list of the new interface's addresses.
            for address in addresses {
                self.addresses.on_failed(*address, now);
            }
            return Vec::new();
        };
        let results = self.netlink.add_addresses(link.index, addresses, self.config.addressing).await;
        let mut added = Vec::with_capacity(addresses.len());
        for (address, result) in addresses.iter().zip(results) {
            match result {
                Ok(outcome) => {
                    self.addresses.on_added(*address, now);
                    if outcome == Outcome::Changed {
                        self.metrics.address_additions.inc();
                    }
                    added.push(*address);
                }
                Err(error) => self.failed(*address, &error, now),
            }
        }
        self.count();
        added
    }

    /// Removes addresses.
    pub async fn remove(&mut self, addresses: &[IpNet], now: Instant) {
        let Some(link) = &self.link else { return };
        let results = self.netlink.delete_addresses(link.index, addresses).await;
        for (address, result) in addresses.iter().zip(results) {
            match result {
                Ok(outcome) => {
                    self.addresses.on_removed(address);
                    if outcome == Outcome::Changed {
                        self.metrics.address_withdrawals.inc();
                    }
                }
                Err(error) => self.failed(*address, &error, now),
            }
        }
        self.count();
    }

    fn failed(&mut self, address: IpNet, error: &Error, now: Instant) {
        self.metrics.address_errors.inc();
        // Once a failure, not once an attempt.
        if self.addresses.on_failed(address, now) == 1 {
            tracing::warn!(%address, %error, "address failed, trying again");
        }
        if matches!(error.errno(), Some(ENODEV)) {
            self.resync_at = Some(now);
        }
    }

    /// Learns what is on the interface if that has not happened yet, without making it.
    pub async fn look(&mut self, now: Instant) -> Result<(), Error> {
        if self.link.is_none()
            && let Some(link) = self.netlink.link_by_name(&self.config.interface).await?
        {
            let dump = self.netlink.addresses(Some(link.index)).await?;
            self.addresses.on_dump(&dump, now);
            self.link = Some(link);
        }
        Ok(())
    }

    fn count(&self) {
        self.metrics.addresses.set(self.addresses.len().try_into().unwrap_or(i64::MAX));
    }

    /// Cleans interfaces that have been given up.
    pub async fn clean_former(&mut self) {
        for (index, addresses) in std::mem::take(&mut self.former) {
            for error in
                self.netlink.delete_addresses(index, &addresses).await.into_iter().filter_map(Result::err)
            {
                tracing::warn!(%error, "address stays on the interface that is no longer used");
            }
        }
    }

    /// Blackholes that carry our mark.
    pub async fn blackholes(&self) -> Vec<IpNet> {
        self.netlink.blackholes().await.unwrap_or_else(|error| {
            tracing::warn!(%error, "blackhole routes of an earlier run may stay");
            Vec::new()
        })
    }

    /// Adds blackholes; returns those that are there.
    pub async fn add_blackholes(&self, prefixes: &[IpNet]) -> Vec<IpNet> {
        done(prefixes, self.netlink.add_blackholes(prefixes).await)
    }

    /// Removes blackholes; returns those that are gone.
    pub async fn remove_blackholes(&self, prefixes: &[IpNet]) -> Vec<IpNet> {
        done(prefixes, self.netlink.delete_blackholes(prefixes).await)
    }
}

const ENODEV: i32 = 19;

fn done(prefixes: &[IpNet], results: Vec<Result<Outcome, Error>>) -> Vec<IpNet> {
    let mut done = Vec::with_capacity(prefixes.len());
    for (prefix, result) in prefixes.iter().zip(results) {
        match result {
            Ok(_) => done.push(*prefix),
            Err(error) => tracing::warn!(%error, "blackhole route"),
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_known_since_linux_5_18() {
        for (release, expected) in [
            ("6.18.44-fc", true),
            ("5.18.0", true),
            ("5.17.9", false),
            ("4.18.0-553.el8", false),
            ("", false),
        ] {
            assert_eq!(keeps_marks(release), expected, "{release}");
        }
    }
}
