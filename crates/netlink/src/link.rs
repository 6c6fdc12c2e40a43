//! Links: which there are, and the one without a wire that carries addresses for the sake of being there.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{
        AfSpecInet, AfSpecUnspec, InetDevConf, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage, State,
    },
};

use crate::{
    connection::{Netlink, Request},
    error::{Error, Step},
    mac::Mac,
};

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Interface index.
    pub index: u32,
    /// Interface name.
    pub name: String,
    /// `IFF_UP`: set up by the administrator.
    pub is_up: bool,
    /// `IFF_LOWER_UP`: there is a carrier.
    pub has_carrier: bool,
    /// `IFF_LOOPBACK`.
    pub is_loopback: bool,
    /// `IFF_NOARP`: neighbours are not resolved on it.
    pub is_noarp: bool,
    /// RFC 2863 operational state is up (or the driver does not say).
    pub is_operational: bool,
    /// Index of the bridge, bond or VRF that it is a port of.
    pub controller: Option<u32>,
    /// What kind of virtual link, as `ip -d link` prints it; `None` for hardware.
    pub kind: Option<String>,
    /// Ethernet address, where it is Ethernet.
    pub hardware_address: Option<Mac>,
}

impl Link {
    pub(crate) fn from_message(message: LinkMessage) -> Option<Link> {
        let flags = message.header.flags;
        let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            is_up: flags.contains(LinkFlags::Up),
            has_carrier: flags.contains(LinkFlags::LowerUp),
            is_loopback: flags.contains(LinkFlags::Loopback),
            is_noarp: flags.contains(LinkFlags::Noarp),
            is_operational: true,
            controller: None,
            kind: None,
            hardware_address: None,
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Controller(index) if index != 0 => link.controller = Some(index),
                LinkAttribute::OperState(state) => {
                    link.is_operational = matches!(state, State::Up | State::Unknown);
                }
                LinkAttribute::Address(address) if is_ethernet => {
                    link.hardware_address = address.try_into().ok().map(Mac);
                }
                LinkAttribute::LinkInfo(infos) => link.kind = kind_of(infos),
                _ => {}
            }
        }
        (!link.name.is_empty()).then_some(link)
    }
}

fn kind_of(infos: Vec<LinkInfo>) -> Option<String> {
    infos.into_iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// What a link without a wire was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DummyKind {
    /// It was there before.
    Existing,
    /// The kernel's `dummy`.
    Dummy,
    /// A bridge without ports: this kernel has no `dummy`.
    Bridge,
}

impl Netlink {
    /// Every link of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let links = self.dump(Step::ListLinks, request).await?;
        Ok(links
            .into_iter()
            .filter_map(|message| match message {
                RouteNetlinkMessage::NewLink(message) => Link::from_message(message),
                _ => None,
            })
            .collect())
    }

    /// The link of this name, if there is one.
    pub async fn link_by_name(&self, name: &str) -> Result<Option<Link>, Error> {
        Ok(self.links().await?.into_iter().find(|link| link.name == name))
    }

    /// The link with this index, if there is one.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>, Error> {
        Ok(self.links().await?.into_iter().find(|link| link.index == index))
    }

    /// Makes sure that a link of this name exists, is up, and answers ARP only for what it is asked on. A new
    /// one is a `dummy`, or a bridge without ports where the kernel has no `dummy`.
    pub async fn ensure_dummy(&self, name: &str) -> Result<(Link, DummyKind), Error> {
        let (mut link, kind) = match self.link_by_name(name).await? {
            Some(link) => (link, DummyKind::Existing),
            None => self.create_dummy(name).await?,
        };
        self.set_arp_for_held_addresses(&link).await?;
        if !link.is_up {
            self.set_up(&link).await?;
            link.is_up = true;
        }
        Ok((link, kind))
    }

    async fn create_dummy(&self, name: &str) -> Result<(Link, DummyKind), Error> {
        let kind = match self.create(name, InfoKind::Dummy).await {
            Ok(()) => DummyKind::Dummy,
            Err(error) if error.is_unsupported() => {
                self.create(name, InfoKind::Bridge).await?;
                DummyKind::Bridge
            }
            Err(error) => return Err(error),
        };
        let link = self.link_by_name(name).await?.ok_or_else(|| Error::Refused {
            step: Step::CreateLink,
            object: name.to_owned(),
            source: std::io::Error::from_raw_os_error(libc::ENODEV),
        })?;
        Ok((link, kind))
    }

    async fn create(&self, name: &str, kind: InfoKind) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        // A dummy is NOARP by itself. For a bridge it saves the kernel a multicast group for every IPv6 address,
        // whose cost grows with their number: 5,000 addresses take 0.3 s instead of 11 s.
        message.header.flags = LinkFlags::Noarp;
        message.header.change_mask = LinkFlags::Noarp;
        message.attributes.push(LinkAttribute::IfName(name.to_owned()));
        message.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]));
        let request = Request {
            message: RouteNetlinkMessage::NewLink(message),
            flags: NLM_F_CREATE | NLM_F_EXCL,
            object: name.to_owned(),
        };
        match self.acknowledged(Step::CreateLink, request).await {
            // Someone else was faster: that one serves.
            Err(error) if error.errno() == Some(libc::EEXIST) => Ok(()),
            result => result,
        }
    }

    async fn set_up(&self, link: &Link) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(Step::SetLinkUp, link, message).await
    }

    /// `arp_ignore=1`, `arp_announce=2` and `promote_secondaries=1` on this link: it answers only for its own
    /// addresses, never lends one of them to a request on the wire, and the removal of one address does not
    /// take the others of its subnet along. Set over netlink, because `/proc/sys` is read-only in a container
    /// that is not privileged.
    async fn set_arp_for_held_addresses(&self, link: &Link) -> Result<(), Error> {
        let mut conf = InetDevConf::default();
        conf.arp_ignore = 1;
        conf.arp_announce = 2;
        conf.promote_secondaries = 1;
        let mut message = LinkMessage::default();
        message.header.interface_family = AddressFamily::Unspec;
        message.header.index = link.index;
        message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet(vec![
            AfSpecInet::DevConfRequest(conf),
        ])]));
        self.change(Step::SetLinkArp, link, message).await
    }

    async fn change(&self, step: Step, link: &Link, message: LinkMessage) -> Result<(), Error> {
        let request =
            Request { message: RouteNetlinkMessage::SetLink(message), flags: 0, object: link.name.clone() };
        self.acknowledged(step, request).await
    }

    /// Deletes a link; one that is gone already is a success.
    pub async fn delete_link(&self, link: &Link) -> Result<(), Error> {
        let mut message = LinkMessage::default();
        message.header.index = link.index;
        let request =
            Request { message: RouteNetlinkMessage::DelLink(message), flags: 0, object: link.name.clone() };
        match self.acknowledged(Step::DeleteLink, request).await {
            Err(error) if error.errno() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }
}
