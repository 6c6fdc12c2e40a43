//! Bytes ↔ values: the codec of BGP messages.
//!
//! This is the only place that knows `zettabgp`. That crate encodes and decodes what it does right: the
//! values of most path attributes and capabilities, and ROUTE-REFRESH. Frames, optional parameters and the
//! attribute list are walked here, because there it panics, loops or gives up on what routers send; AS_PATH,
//! MP_REACH_NLRI next hops, NOTIFICATION and the prefixes of an UPDATE are written here (each place says why).
//!
//! Not here: what a message means to the session (`fsm`), and which prefixes go into it (`rib`).
//!
//! Guarantees, whatever bytes come in: nothing panics, every loop consumes input, and memory is bounded by a
//! constant times one message. An error is the NOTIFICATION that answers it.

mod capability;
pub mod frame;
mod notification;
mod open;
#[cfg(test)]
mod properties;
mod reader;
mod refresh;
#[cfg(test)]
mod traps;
pub mod update;

use bytes::BytesMut;

use crate::{
    capabilities::Negotiated,
    message::{Open, ReceivedUpdate, RouteRefresh},
    notification::Notification,
    types::Family,
};

/// What decoding depends on, beside the bytes: everything in it comes from the OPENs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecodeContext {
    /// AS numbers in AS_PATH and AGGREGATOR are 4 octets wide (RFC 6793).
    pub four_octet_asn: bool,
    /// IPv4 prefixes may come with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// Families of the session: prefixes of others are ignored.
    pub families: Vec<Family>,
    /// The peer is in another AS: LOCAL_PREF and route reflection mean nothing from it.
    pub is_ebgp: bool,
}

impl DecodeContext {
    /// The context of a session, once both OPENs are known. Before that `DecodeContext::default()` is right:
    /// OPEN, NOTIFICATION and KEEPALIVE depend on nothing.
    pub fn new(negotiated: &Negotiated, is_ebgp: bool) -> DecodeContext {
        DecodeContext {
            four_octet_asn: negotiated.four_octet_asn,
            extended_next_hop: negotiated.extended_next_hop,
            families: negotiated.families.clone(),
            is_ebgp,
        }
    }
}

/// What encoding of UPDATEs depends on, beside the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeContext {
    /// AS numbers in AS_PATH are 4 octets wide; where not, AS_TRANS and AS4_PATH are used (RFC 6793).
    pub four_octet_asn: bool,
    /// No message is longer: [`frame::MAX_LENGTH`] or [`frame::MAX_EXTENDED_LENGTH`].
    pub max_length: usize,
}

impl From<&Negotiated> for EncodeContext {
    fn from(negotiated: &Negotiated) -> EncodeContext {
        let max_length =
            if negotiated.extended_message { frame::MAX_EXTENDED_LENGTH } else { frame::MAX_LENGTH };
        EncodeContext { four_octet_asn: negotiated.four_octet_asn, max_length }
    }
}

/// One message from a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// RFC 4271 §4.2
    Open(Open),
    /// RFC 4271 §4.3, already reduced to what is kept of it.
    Update(ReceivedUpdate),
    /// RFC 4271 §4.5
    Notification(Notification),
    /// RFC 4271 §4.4
    Keepalive,
    /// RFC 2918, RFC 7313
    RouteRefresh(RouteRefresh),
}

/// Decodes one whole message, as long as [`frame::next`] said.
pub fn decode(message: &[u8], context: &DecodeContext) -> Result<Received, Notification> {
    let (message_type, body) = frame::split(message)?;
    Ok(match message_type {
        frame::MessageType::Open => Received::Open(open::decode(body)?),
        frame::MessageType::Update => Received::Update(update::decode(body, context)?),
        frame::MessageType::Notification => Received::Notification(notification::decode(body)?),
        frame::MessageType::Keepalive => Received::Keepalive,
        frame::MessageType::RouteRefresh => Received::RouteRefresh(refresh::decode(message, body)?),
    })
}

/// Appends an OPEN.
pub fn encode_open(open: &Open, out: &mut BytesMut) {
    frame::write(frame::MessageType::Open, out, |out| open::encode(open, out));
}

/// Appends a NOTIFICATION. Data that does not fit into 4,096 octets is cut.
pub fn encode_notification(notification: &Notification, out: &mut BytesMut) {
    frame::write(frame::MessageType::Notification, out, |out| notification::encode(notification, out));
}

/// Appends a KEEPALIVE.
pub fn encode_keepalive(out: &mut BytesMut) {
    frame::write(frame::MessageType::Keepalive, out, |_| ());
}

/// Appends a ROUTE-REFRESH.
pub fn encode_route_refresh(refresh: &RouteRefresh, out: &mut BytesMut) {
    frame::write(frame::MessageType::RouteRefresh, out, |out| refresh::encode(refresh, out));
}

/// What `zettabgp` wants to know of a session. IPv4 mode always, because its IPv6 mode takes classic NLRI for IPv6
/// prefixes, and no guessing of path identifiers, which takes a default route for one.
fn session_params(four_octet_asn: bool) -> zettabgp::BgpSessionParams {
    let mut params = zettabgp::BgpSessionParams::new(
        0,
        0,
        zettabgp::BgpTransportMode::IPv4,
        std::net::Ipv4Addr::UNSPECIFIED,
        Vec::new(),
    );
    params.has_as32bit = four_octet_asn;
    params.fuzzy_pathid = false;
    params
}
