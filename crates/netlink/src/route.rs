//! Routes: blackholes for aggregates, with our mark, and which link the default route leaves by.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};

use crate::{
    PROTOCOL,
    address::{Outcome, unchanged_if},
    connection::{Netlink, Request},
    error::{Error, Step},
};

/// Metric of our blackholes: worse than what an administrator adds, so that a real route to the same prefix
/// keeps its effect.
const BLACKHOLE_METRIC: u32 = 4096;

/// A default route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Index of the link that it leaves by.
    pub index: u32,
    /// Gateway, where there is one.
    pub gateway: Option<IpAddr>,
    /// Metric: the lowest wins.
    pub metric: u32,
    /// Whether it is an IPv6 route.
    pub is_ipv6: bool,
}

impl Netlink {
    /// Adds blackhole routes for these prefixes. One result a prefix, in order; those that are there already
    /// are successes.
    pub async fn add_blackholes(&self, prefixes: &[IpNet]) -> Vec<Result<Outcome, Error>> {
        let requests = blackhole_requests(prefixes, RouteNetlinkMessage::NewRoute, NLM_F_CREATE | NLM_F_EXCL);
        let results = self.batch(Step::AddRoute, requests).await;
        results.into_iter().map(|result| unchanged_if(result, &[libc::EEXIST])).collect()
    }

    /// Deletes the blackhole routes that [`Netlink::add_blackholes`] added; those that are gone are successes.
    pub async fn delete_blackholes(&self, prefixes: &[IpNet]) -> Vec<Result<Outcome, Error>> {
        let requests = blackhole_requests(prefixes, RouteNetlinkMessage::DelRoute, 0);
        let results = self.batch(Step::DeleteRoute, requests).await;
        results.into_iter().map(|result| unchanged_if(result, &[libc::ESRCH])).collect()
    }

    /// The blackhole routes that carry our mark, an earlier run's too.
    pub async fn blackholes(&self) -> Result<Vec<IpNet>, Error> {
        let routes = self.main_routes().await?;
        let ours = RouteProtocol::from(PROTOCOL);
        Ok(routes
            .iter()
            .filter(|route| route.header.kind == RouteType::BlackHole && route.header.protocol == ours)
            .filter_map(destination)
            .collect())
    }

    /// The default routes of the main table, lowest metric first.
    pub async fn default_routes(&self) -> Result<Vec<DefaultRoute>, Error> {
        let routes = self.main_routes().await?;
        let mut defaults: Vec<_> = routes
            .iter()
            .filter(|route| route.header.kind == RouteType::Unicast)
            .filter(|route| route.header.destination_prefix_length == 0)
            .filter_map(default_route)
            .collect();
        defaults.sort_by_key(|route| (route.metric, route.is_ipv6, route.index));
        Ok(defaults)
    }

    async fn main_routes(&self) -> Result<Vec<RouteMessage>, Error> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let answers = self.dump(Step::ListRoutes, RouteNetlinkMessage::GetRoute(request)).await?;
            routes.extend(answers.into_iter().filter_map(|message| match message {
                RouteNetlinkMessage::NewRoute(route) if is_in_main(&route) => Some(route),
                _ => None,
            }));
        }
        Ok(routes)
    }
}

fn is_in_main(route: &RouteMessage) -> bool {
    let table = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(route.header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN)
}

fn destination(route: &RouteMessage) -> Option<IpNet> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    })?;
    IpNet::new(address, route.header.destination_prefix_length).ok()
}

fn default_route(route: &RouteMessage) -> Option<DefaultRoute> {
    let (mut index, mut gateway, mut metric) = (None, None, 0);
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(oif) => index = Some(*oif),
            RouteAttribute::Gateway(address) => gateway = ip(address),
            RouteAttribute::Priority(priority) => metric = *priority,
            // Multipath: the first leg stands for the route.
            RouteAttribute::MultiPath(legs) => index = index.or(legs.first().map(|leg| leg.interface_index)),
            _ => {}
        }
    }
    let is_ipv6 = route.header.address_family == AddressFamily::Inet6;
    Some(DefaultRoute { index: index?, gateway, metric, is_ipv6 })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn blackhole_requests(
    prefixes: &[IpNet],
    wrap: fn(RouteMessage) -> RouteNetlinkMessage,
    flags: u16,
) -> Vec<Request> {
    prefixes
        .iter()
        .map(|prefix| Request {
            message: wrap(blackhole(*prefix)),
            flags,
            object: format!("blackhole {}", prefix.trunc()),
        })
        .collect()
}

fn blackhole(prefix: IpNet) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = match prefix {
        IpNet::V4(_) => AddressFamily::Inet,
        IpNet::V6(_) => AddressFamily::Inet6,
    };
    route.header.destination_prefix_length = prefix.prefix_len();
    route.header.table = RouteHeader::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::from(PROTOCOL);
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::BlackHole;
    route.attributes.push(RouteAttribute::Destination(prefix.network().into()));
    route.attributes.push(RouteAttribute::Priority(BLACKHOLE_METRIC));
    route
}
