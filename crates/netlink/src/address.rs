//! Addresses of links: list, add, delete.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{
        AddressAttribute, AddressFlags as KernelFlags, AddressMessage, AddressProtocol, AddressScope,
        CacheInfo,
    },
};

use crate::{
    PROTOCOL,
    connection::{Netlink, Request},
    error::{Error, Step},
};

/// `INFINITY_LIFE_TIME` of the kernel.
const FOREVER: u32 = u32::MAX;

/// An address as the kernel lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// Index of its link.
    pub index: u32,
    /// The address itself with its prefix length, host bits kept.
    pub prefix: IpNet,
    /// `IFA_PROTO`: who put it there; `None` where the kernel does not say.
    pub protocol: Option<u8>,
    /// What the kernel thinks of it.
    pub flags: AddressFlags,
    /// Of link-local scope: the kernel's own on every IPv6 link.
    pub is_link_local: bool,
    /// What was left of its life when the kernel said so.
    pub lifetime: Lifetime,
}

/// Flags of an address that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AddressFlags {
    /// Never expires.
    pub is_permanent: bool,
    /// Duplicate address detection has not finished: it can't be used yet.
    pub is_tentative: bool,
    /// Someone else on the wire has it.
    pub is_duplicate: bool,
    /// IPv4: another address of the same subnet came first.
    pub is_secondary: bool,
    /// IPv6: of RFC 8981, another one before long.
    pub is_temporary: bool,
    /// No new connections are to start from it: its preferred lifetime is over.
    pub is_deprecated: bool,
}

impl Address {
    /// Whether it carries our mark.
    pub fn is_marked(&self) -> bool {
        self.protocol == Some(PROTOCOL)
    }

    pub(crate) fn from_message(message: AddressMessage) -> Option<Address> {
        let mut flags = KernelFlags::from_bits_retain(message.header.flags.bits().into());
        let (mut local, mut address, mut protocol) = (None, None, None);
        let mut lifetime = Lifetime::Permanent;
        for attribute in message.attributes {
            match attribute {
                AddressAttribute::Local(ip) => local = Some(ip),
                AddressAttribute::Address(ip) => address = Some(ip),
                AddressAttribute::Flags(all) => flags = all,
                AddressAttribute::CacheInfo(info) => lifetime = Lifetime::from_kernel(&info),
                AddressAttribute::Protocol(by) => protocol = Some(u8::from(by)),
                _ => {}
            }
        }
        // IFA_ADDRESS is the peer's address on a point-to-point link; IFA_LOCAL, where given, is ours.
        let prefix = IpNet::new(local.or(address)?, message.header.prefix_len).ok()?;
        Some(Address {
            index: message.header.index,
            prefix,
            protocol,
            flags: AddressFlags {
                is_permanent: flags.contains(KernelFlags::Permanent),
                is_tentative: flags.contains(KernelFlags::Tentative),
                is_duplicate: flags.contains(KernelFlags::Dadfailed),
                is_secondary: matches!(prefix, IpNet::V4(_)) && flags.contains(KernelFlags::Secondary),
                // One bit with two meanings.
                is_temporary: matches!(prefix, IpNet::V6(_)) && flags.contains(KernelFlags::Secondary),
                is_deprecated: flags.contains(KernelFlags::Deprecated),
            },
            is_link_local: message.header.scope == AddressScope::Link,
            lifetime,
        })
    }
}

/// How long an address lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// Until it is deleted.
    #[default]
    Permanent,
    /// Seconds; adding it again starts them anew.
    Limited {
        /// Until the kernel deletes it.
        valid_secs: u32,
        /// Until it is no longer chosen as source of new connections.
        preferred_secs: u32,
    },
}

impl Lifetime {
    fn from_kernel(info: &CacheInfo) -> Lifetime {
        match info.ifa_valid {
            FOREVER => Lifetime::Permanent,
            valid_secs => Lifetime::Limited { valid_secs, preferred_secs: info.ifa_preferred },
        }
    }
}

/// How addresses are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addressing {
    /// Add no route to the prefix: the address answers, nothing more.
    pub no_prefix_route: bool,
    /// IPv6: no duplicate address detection, usable at once.
    pub no_dad: bool,
    /// How long it lives.
    pub lifetime: Lifetime,
}

/// What adding or deleting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The kernel did it.
    Changed,
    /// It was so already.
    Unchanged,
}

impl Netlink {
    /// Every address of the namespace, or of one link.
    pub async fn addresses(&self, index: Option<u32>) -> Result<Vec<Address>, Error> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let addresses = self.dump(Step::ListAddresses, request).await?;
        Ok(addresses
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewAddress(message) => Address::from_message(message),
                _ => None,
            })
            .filter(|address| index.is_none_or(|index| address.index == index))
            .collect())
    }

    /// Adds addresses to the link, many in one datagram. One result an address, in order: one failing does not
    /// stop the rest. Those that are there already are successes.
    pub async fn add_addresses(
        &self,
        index: u32,
        addresses: &[IpNet],
        how: Addressing,
    ) -> Vec<Result<Outcome, Error>> {
        let flags = match how.lifetime {
            Lifetime::Permanent => NLM_F_CREATE | NLM_F_EXCL,
            Lifetime::Limited { .. } => NLM_F_CREATE | NLM_F_REPLACE,
        };
        self.put_addresses(index, addresses, how, flags).await
    }

    /// Sets the lifetimes of addresses anew, to for ever, too; adds those that are not there. One result an address,
    /// in order.
    pub async fn renew_addresses(
        &self,
        index: u32,
        addresses: &[IpNet],
        how: Addressing,
    ) -> Vec<Result<Outcome, Error>> {
        self.put_addresses(index, addresses, how, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    async fn put_addresses(
        &self,
        index: u32,
        addresses: &[IpNet],
        how: Addressing,
        flags: u16,
    ) -> Vec<Result<Outcome, Error>> {
        let requests = addresses
            .iter()
            .map(|address| Request {
                message: RouteNetlinkMessage::NewAddress(addition(index, *address, how)),
                flags,
                object: format!("{address} on link {index}"),
            })
            .collect();
        let results = self.batch(Step::AddAddress, requests).await;
        results.into_iter().map(|result| unchanged_if(result, &[libc::EEXIST])).collect()
    }

    /// Adds one address.
    pub async fn add_address(&self, index: u32, address: IpNet, how: Addressing) -> Result<Outcome, Error> {
        let mut results = self.add_addresses(index, &[address], how).await;
        results.pop().expect("one result an address")
    }

    /// Deletes exactly these addresses: local address, prefix length and link must all agree, else the kernel
    /// would pick one that is merely similar. Those that are gone already, or whose link is, are successes.
    pub async fn delete_addresses(&self, index: u32, addresses: &[IpNet]) -> Vec<Result<Outcome, Error>> {
        let requests = addresses
            .iter()
            .map(|address| Request {
                message: RouteNetlinkMessage::DelAddress(exactly(index, *address)),
                flags: 0,
                object: format!("{address} on link {index}"),
            })
            .collect();
        let results = self.batch(Step::DeleteAddress, requests).await;
        results
            .into_iter()
            .map(|result| unchanged_if(result, &[libc::EADDRNOTAVAIL, libc::ENODEV, libc::ENXIO]))
            .collect()
    }

    /// Deletes one address.
    pub async fn delete_address(&self, index: u32, address: IpNet) -> Result<Outcome, Error> {
        let mut results = self.delete_addresses(index, &[address]).await;
        results.pop().expect("one result an address")
    }
}

pub(crate) fn unchanged_if(result: Result<(), Error>, errnos: &[i32]) -> Result<Outcome, Error> {
    match result {
        Ok(()) => Ok(Outcome::Changed),
        Err(error) if error.errno().is_some_and(|errno| errnos.contains(&errno)) => Ok(Outcome::Unchanged),
        Err(error) => Err(error),
    }
}

fn exactly(index: u32, address: IpNet) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.index = index;
    message.header.family = match address {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    message.header.prefix_len = address.prefix_len();
    message.attributes.push(AddressAttribute::Local(address.addr()));
    message.attributes.push(AddressAttribute::Address(address.addr()));
    message
}

fn addition(index: u32, address: IpNet, how: Addressing) -> AddressMessage {
    let mut message = exactly(index, address);
    let mut flags = KernelFlags::empty();
    if how.no_prefix_route {
        flags |= KernelFlags::Noprefixroute;
    }
    if how.no_dad && matches!(address.addr(), IpAddr::V6(_)) {
        flags |= KernelFlags::Nodad;
    }
    message.attributes.push(AddressAttribute::Flags(flags));
    let (ifa_valid, ifa_preferred) = match how.lifetime {
        Lifetime::Permanent => (FOREVER, FOREVER),
        Lifetime::Limited { valid_secs, preferred_secs } => (valid_secs, preferred_secs.min(valid_secs)),
    };
    let mut lifetimes = CacheInfo::default();
    lifetimes.ifa_valid = ifa_valid;
    lifetimes.ifa_preferred = ifa_preferred;
    message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
    // A kernel before 5.18 skips this attribute.
    message.attributes.push(AddressAttribute::Protocol(AddressProtocol::Other(PROTOCOL)));
    message
}
