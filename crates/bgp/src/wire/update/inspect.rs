//! What stands in an UPDATE, prefix by prefix, for tests that play the router: the speaker itself only counts.
//!
//! Prefixes and attribute values are decoded by `zettabgp`, which did not write them, so that a test of an encoder here
//! is not a mistake read by the one who made it.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use zettabgp::{
    BgpSessionParams,
    afi::{BgpAddrV4, BgpAddrV6, BgpItem, decode_bgpitems_from},
    message::attributes::{BgpAttrItem, aspath::BgpASitem},
};

use super::{
    attributes::Attribute,
    code,
    decode::{self, Parts},
};
use crate::{
    attributes::{Attributes, NextHop},
    message::Update,
    notification::{Notification, UPDATE_MALFORMED_ATTRIBUTE_LIST},
    types::Family,
    wire::{DecodeContext, frame, reader::Reader, session_params},
};

/// Everything that a whole UPDATE message says, withdrawals first. An error is one that a speaker would have found
/// (an RFC 7606 fault, too), or Malformed Attribute List where the two decoders do not agree.
pub fn update(message: &[u8], context: &DecodeContext) -> Result<Vec<Update>, Notification> {
    let (_, body) = frame::split(message)?;
    let checked = decode::decode(body, context)?;
    if let Some(family) = checked.end_of_rib {
        return Ok(vec![Update::EndOfRib(family)]);
    }
    let disagree = || Notification::new(UPDATE_MALFORMED_ATTRIBUTE_LIST);
    if !checked.faults.is_empty() {
        return Err(disagree());
    }
    let updates = read(body, context).ok_or_else(disagree)?;
    let (mut reach, mut unreach) = ([0; 2], [0; 2]);
    for update in &updates {
        match update {
            Update::Reach { family, nlri, .. } => reach[*family as usize] += nlri.len(),
            Update::Unreach { family, nlri } => unreach[*family as usize] += nlri.len(),
            Update::EndOfRib(_) => {}
        }
    }
    if (reach, unreach) == (checked.reach, checked.unreach) { Ok(updates) } else { Err(disagree()) }
}

fn read(body: &[u8], context: &DecodeContext) -> Option<Vec<Update>> {
    let parts = Parts::read(body)?;
    let params = session_params(context.four_octet_asn);
    let mut attributes = Attributes::default();
    let mut as4_path = Vec::new();
    let mut classic = None;
    let (mut reach, mut unreach) = (None, None);
    let mut reader = Reader::new(parts.attributes);
    while !reader.is_empty() {
        let attribute = Attribute::read(&mut reader)?;
        match attribute.code {
            code::MP_REACH_NLRI => reach = Some(mp_reach(attribute.value)?),
            code::MP_UNREACH_NLRI => unreach = Some(mp_unreach(attribute.value)?),
            code::NEXT_HOP => classic = Some(NextHop::V4(Reader::new(attribute.value).array()?.into())),
            code::AS4_PATH => as4_path = as_path(&session_params(true), &attribute)?,
            code::ONLY_TO_CUSTOMER => attributes.only_to_customer = Some(Reader::new(attribute.value).u32()?),
            code::AS_PATH => attributes.as_path = as_path(&params, &attribute)?,
            code::MULTI_EXIT_DISC
            | code::LOCAL_PREF
            | code::COMMUNITIES
            | code::EXTENDED_COMMUNITIES
            | code::LARGE_COMMUNITIES => value(&params, &attribute, &mut attributes)?,
            // `zettabgp` panics over some of those that nobody asks for.
            _ => {}
        }
    }
    // RFC 6793 §4.2.3
    let replaced = attributes.as_path.len().checked_sub(as4_path.len())?;
    attributes.as_path.splice(replaced.., as4_path);

    let mut updates = Vec::new();
    let withdrawn = prefixes::<BgpAddrV4>(parts.withdrawn)?;
    if !withdrawn.is_empty() {
        updates.push(Update::Unreach { family: Family::Ipv4Unicast, nlri: withdrawn });
    }
    updates.extend(unreach.map(|(family, nlri)| Update::Unreach { family, nlri }));
    let nlri = prefixes::<BgpAddrV4>(parts.nlri)?;
    if !nlri.is_empty() {
        let next_hop = classic?;
        let attributes = attributes.clone();
        updates.push(Update::Reach { family: Family::Ipv4Unicast, next_hop, attributes, nlri });
    }
    if let Some((family, next_hop, nlri)) = reach {
        updates.push(Update::Reach { family, next_hop, attributes, nlri });
    }
    Some(updates)
}

fn decode_attribute(params: &BgpSessionParams, attribute: &Attribute<'_>) -> Option<BgpAttrItem> {
    let Attribute { code, flags, value, .. } = *attribute;
    BgpAttrItem::decode_from(params, code, flags, value.len(), value).ok()
}

fn as_path(params: &BgpSessionParams, attribute: &Attribute<'_>) -> Option<Vec<u32>> {
    let attribute = Attribute { code: code::AS_PATH, ..*attribute };
    let BgpAttrItem::ASPath(path) = decode_attribute(params, &attribute)? else { return None };
    let mut numbers = Vec::new();
    for segment in path.value {
        match segment {
            BgpASitem::Seq(sequence) => numbers.extend(sequence.value.iter().map(|asn| asn.value)),
            BgpASitem::Set(_) => return None,
        }
    }
    Some(numbers)
}

fn value(params: &BgpSessionParams, attribute: &Attribute<'_>, attributes: &mut Attributes) -> Option<()> {
    match decode_attribute(params, attribute)? {
        BgpAttrItem::MED(med) => attributes.med = Some(med.value),
        BgpAttrItem::LocalPref(local_pref) => attributes.local_pref = Some(local_pref.value),
        BgpAttrItem::CommunityList(list) => {
            attributes.communities = list.value.iter().map(|community| community.value).collect();
        }
        BgpAttrItem::ExtCommunityList(list) => {
            for community in &list.value {
                let mut octets = [0; 8];
                community.encode_to(&mut octets).ok()?;
                attributes.extended_communities.push(octets);
            }
        }
        BgpAttrItem::LargeCommunityList(list) => {
            attributes.large_communities = list.value.iter().map(|c| (c.ga, c.ldp1, c.ldp2)).collect();
        }
        _ => {}
    }
    Some(())
}

fn mp_reach(value: &[u8]) -> Option<(Family, NextHop, Vec<IpNet>)> {
    let mut reader = Reader::new(value);
    let family = Family::from_afi_safi(reader.u16()?, reader.u8()?)?;
    let mut next_hop = Reader::new(reader.u8_prefixed()?);
    let next_hop = match next_hop.len() {
        4 => NextHop::V4(next_hop.array()?.into()),
        _ => NextHop::V6 {
            global: next_hop.array::<16>()?.into(),
            link_local: next_hop.array::<16>().map(Into::into),
        },
    };
    reader.u8()?;
    Some((family, next_hop, family_prefixes(family, reader.rest())?))
}

fn mp_unreach(value: &[u8]) -> Option<(Family, Vec<IpNet>)> {
    let mut reader = Reader::new(value);
    let family = Family::from_afi_safi(reader.u16()?, reader.u8()?)?;
    Some((family, family_prefixes(family, reader.rest())?))
}

fn family_prefixes(family: Family, field: &[u8]) -> Option<Vec<IpNet>> {
    match family {
        Family::Ipv4Unicast => prefixes::<BgpAddrV4>(field),
        Family::Ipv6Unicast => prefixes::<BgpAddrV6>(field),
    }
}

trait Prefix {
    fn net(&self) -> Option<IpNet>;
}

impl Prefix for BgpAddrV4 {
    fn net(&self) -> Option<IpNet> {
        Ipv4Net::new(self.addr, self.prefixlen).ok().map(IpNet::V4)
    }
}

impl Prefix for BgpAddrV6 {
    fn net(&self) -> Option<IpNet> {
        Ipv6Net::new(self.addr, self.prefixlen).ok().map(IpNet::V6)
    }
}

fn prefixes<P: Prefix + BgpItem<P>>(field: &[u8]) -> Option<Vec<IpNet>> {
    decode_bgpitems_from::<P>(field).ok()?.0.iter().map(Prefix::net).collect()
}
