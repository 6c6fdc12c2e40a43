//! Who watches whom: members stand in a ring by their [`Id`], and each is watched by the next few behind it.

use crate::config::{Id, Name};

/// How many watch a member, where there are so many.
pub const WATCHERS: usize = 3;

/// The first few behind a place, in the ring's order. `ring` is sorted; who stands at the place itself is not among them.
pub(crate) fn successors<'a>(ring: &'a [(Id, Name)], place: &Id) -> impl Iterator<Item = &'a Name> {
    let split = ring.partition_point(|(id, _)| id <= place);
    let (before, behind) = ring.split_at(split);
    in_turn(behind.iter().chain(before), *place)
}

/// The first few before a place, the nearest first.
pub(crate) fn predecessors<'a>(ring: &'a [(Id, Name)], place: &Id) -> impl Iterator<Item = &'a Name> {
    let split = ring.partition_point(|(id, _)| id < place);
    let (before, behind) = ring.split_at(split);
    in_turn(before.iter().rev().chain(behind.iter().rev()), *place)
}

fn in_turn<'a>(members: impl Iterator<Item = &'a (Id, Name)>, place: Id) -> impl Iterator<Item = &'a Name> {
    members.filter(move |(id, _)| *id != place).map(|(_, name)| name).take(WATCHERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_behind_another_has_it_before_itself() {
        for count in 1..12_u8 {
            let ring: Vec<(Id, Name)> =
                (0..count).map(|number| (Id([number * 3; 8]), Name::from(number.to_string()))).collect();
            for (place, name) in &ring {
                let behind: Vec<_> = successors(&ring, place).collect();
                assert_eq!(behind.len(), WATCHERS.min(usize::from(count) - 1));
                assert!(!behind.contains(&name));
                for watcher in behind {
                    let (watcher, _) = ring.iter().find(|(_, name)| name == watcher).unwrap();
                    assert!(predecessors(&ring, watcher).any(|watched| watched == name), "{count} {name}");
                }
            }
        }
    }

    #[test]
    fn a_place_between_members_has_neighbours_too() {
        let ring = [1_u8, 3, 5, 7].map(|place| (Id([place; 8]), Name::from(place.to_string())));
        let names = |names: Vec<&Name>| names.iter().map(|name| name.to_string()).collect::<String>();
        assert_eq!(names(successors(&ring, &Id([4; 8])).collect()), "571");
        assert_eq!(names(predecessors(&ring, &Id([4; 8])).collect()), "317");
        assert_eq!(names(predecessors(&ring, &Id([0; 8])).collect()), "753");
    }
}
