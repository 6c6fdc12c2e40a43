//! The Services of a list that is not complete yet.
//!
//! They come one by one, between the objects that they are read from, which are dropped at once. A Service that was
//! put on the heap there would stay there, and the heap would be full of holes of odd sizes: a fifth of it, with
//! 100,000 Services. So they are kept in large pieces, each a mapping of its own, and settle down beside each other
//! when the list is complete.

use std::{mem, sync::Arc};

use super::{Service, ServiceKey};

/// How many Services a piece has.
const PIECE: usize = 4096;

/// The Services that have come so far.
#[derive(Debug)]
pub struct Listed {
    pieces: Vec<Piece>,
    /// In the place of all keys, each of which would be a piece of heap of its own.
    no_key: ServiceKey,
}

#[derive(Debug)]
struct Piece {
    services: Vec<Service>,
    /// Namespaces and names, one behind the other.
    names: String,
    /// Of each Service, where in `names` its namespace and its name end.
    ends: Vec<(usize, usize)>,
}

impl Default for Piece {
    fn default() -> Piece {
        let services = Vec::with_capacity(PIECE);
        Piece { services, names: String::with_capacity(32 * PIECE), ends: Vec::with_capacity(PIECE) }
    }
}

impl Default for Listed {
    fn default() -> Listed {
        Listed { pieces: Vec::new(), no_key: ServiceKey::new("", "") }
    }
}

impl Listed {
    /// Adds one.
    pub fn add(&mut self, mut service: Service) {
        if self.pieces.last().is_none_or(|piece| piece.services.len() == PIECE) {
            self.pieces.push(Piece::default());
        }
        let Some(piece) = self.pieces.last_mut() else { return };
        let key = mem::replace(&mut service.key, self.no_key.clone());
        piece.names.push_str(key.namespace());
        let namespace = piece.names.len();
        piece.names.push_str(key.name());
        piece.ends.push((namespace, piece.names.len()));
        piece.services.push(service);
    }

    /// All of them, in the order in which they came. Piece by piece is given back.
    pub fn settle(self) -> Vec<Arc<Service>> {
        let mut settled = Vec::with_capacity(self.pieces.iter().map(|piece| piece.services.len()).sum());
        for Piece { services, names, ends } in self.pieces {
            let mut begin = 0;
            for (mut service, (namespace, name)) in services.into_iter().zip(ends) {
                let text = |from: usize, to: usize| names.get(from..to).unwrap_or_default();
                service.key = ServiceKey::new(text(begin, namespace), text(namespace, name));
                begin = name;
                settled.push(Arc::new(service));
            }
        }
        settled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::service;

    #[test]
    fn services_come_out_as_they_went_in_and_in_that_order() {
        let names: Vec<String> = (0..PIECE + 3).map(|number| format!("ä{number}")).collect();
        let template = service("template", "metadata: {annotations: {purelb.io/multi-pool: 'true'}}");
        let mut listed = Listed::default();
        for name in &names {
            listed.add(Service { key: ServiceKey::new("ns", name), ..template.clone() });
        }
        let settled = listed.settle();
        assert!(settled.iter().map(|service| service.key.name()).eq(names.iter().map(String::as_str)));
        assert!(
            settled.iter().all(|service| service.key.namespace() == "ns" && service.facts == template.facts)
        );
        assert!(Listed::default().settle().is_empty());
    }
}
