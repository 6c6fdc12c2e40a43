//! Enhanced route refresh (RFC 7313): what is sent again stands between Beginning and End of Route Refresh, and whatever
//! a peer has from before and does not hear of between them it drops.

use bytes::BytesMut;

use super::{adj_rib_out::AdjRibOut, loc_rib::LocRib};
use crate::{
    message::{RefreshSubtype, RouteRefresh},
    types::Family,
    wire::encode_route_refresh,
};

/// How far the refresh of a family has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Refresh {
    #[default]
    None,
    /// The peer has asked and knows no marks (RFC 2918); nothing has been looked at.
    Plain,
    /// The peer has asked; nothing has been said.
    Asked,
    /// The beginning has been said.
    Begun,
    /// And the peer has asked again since.
    BegunAndAsked,
}

impl AdjRibOut {
    /// The peer wants all of a family again; `is_marked`: between marks. It is only noted, and as often as it is asked
    /// for while one is under way it is done once more: what it costs is up to what the peer reads, not what it sends.
    pub(crate) fn refresh(&mut self, family: Family, is_marked: bool) {
        let refresh = &mut self.refresh[family as usize];
        *refresh = match *refresh {
            _ if !is_marked => Refresh::Plain,
            Refresh::None | Refresh::Plain | Refresh::Asked => Refresh::Asked,
            Refresh::Begun | Refresh::BegunAndAsked => Refresh::BegunAndAsked,
        };
    }

    pub(super) fn is_refreshing(&self) -> bool {
        self.refresh.iter().any(|refresh| *refresh != Refresh::None)
    }

    /// RFC 7313 §4: not before End-of-RIB of the first table, which would end what has begun before it.
    pub(super) fn begin_refresh(&mut self, loc_rib: &LocRib, out: &mut BytesMut) {
        for family in Family::ALL {
            match self.refresh[family as usize] {
                Refresh::Plain => {
                    self.refresh[family as usize] = Refresh::None;
                    self.resend(family, loc_rib);
                }
                Refresh::Asked if self.is_end_of_rib_sent() => {
                    self.refresh[family as usize] = Refresh::Begun;
                    say(family, RefreshSubtype::Begin, out);
                    self.resend(family, loc_rib);
                }
                _ => {}
            }
        }
    }

    /// There is nothing left to say: what has changed meanwhile has been said, too, so that the end takes no route along
    /// that is only on its way.
    pub(super) fn end_refresh(&mut self, out: &mut BytesMut) {
        for family in Family::ALL {
            self.refresh[family as usize] = match self.refresh[family as usize] {
                Refresh::Begun => Refresh::None,
                Refresh::BegunAndAsked => Refresh::Asked,
                _ => continue,
            };
            say(family, RefreshSubtype::End, out);
        }
    }
}

fn say(family: Family, subtype: RefreshSubtype, out: &mut BytesMut) {
    encode_route_refresh(&RouteRefresh { afi: family.afi(), safi: family.safi(), subtype }, out);
}
