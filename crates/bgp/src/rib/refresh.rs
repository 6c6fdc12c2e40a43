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
    /// The peer has asked; nothing has been said.
    Asked,
    /// The beginning has been said.
    Begun,
}

impl AdjRibOut {
    /// The peer wants all of a family again. One that is under way begins anew.
    pub(crate) fn refresh(&mut self, family: Family) {
        self.refresh[family as usize] = Refresh::Asked;
    }

    pub(super) fn is_refreshing(&self) -> bool {
        self.refresh.iter().any(|refresh| *refresh != Refresh::None)
    }

    /// RFC 7313 §4: not before End-of-RIB of the first table, which would end what has begun before it.
    pub(super) fn begin_refresh(&mut self, loc_rib: &LocRib, out: &mut BytesMut) {
        if !self.is_end_of_rib_sent() {
            return;
        }
        for family in Family::ALL {
            if self.refresh[family as usize] == Refresh::Asked {
                self.refresh[family as usize] = Refresh::Begun;
                say(family, RefreshSubtype::Begin, out);
                self.resend(family, loc_rib);
            }
        }
    }

    /// There is nothing left to say: what has changed meanwhile has been said, too, so that the end takes no route along
    /// that is only on its way.
    pub(super) fn end_refresh(&mut self, out: &mut BytesMut) {
        for family in Family::ALL {
            if self.refresh[family as usize] == Refresh::Begun {
                self.refresh[family as usize] = Refresh::None;
                say(family, RefreshSubtype::End, out);
            }
        }
    }
}

fn say(family: Family, subtype: RefreshSubtype, out: &mut BytesMut) {
    encode_route_refresh(&RouteRefresh { afi: family.afi(), safi: family.safi(), subtype }, out);
}
