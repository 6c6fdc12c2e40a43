//! What is to be done with the annotations that we set: of few names and fewer values, so nothing is on the heap and
//! nothing large is moved about with every decision.

use api::{
    PoolType,
    names::{PURELB, annotation},
};

use crate::inputs::Word;

/// An annotation that we set or take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Annotation {
    /// [`annotation::ALLOCATED_BY`].
    AllocatedBy,
    /// [`annotation::ALLOCATED_FROM`].
    AllocatedFrom,
    /// [`annotation::POOL_TYPE`].
    PoolType,
    /// [`annotation::SERVICE_GROUP`].
    ServiceGroup,
    /// [`annotation::RE_EVALUATE`], which is only taken away.
    ReEvaluate,
    /// [`annotation::ANNOUNCING_IPV4`], which is only taken away here.
    AnnouncingIPv4,
    /// [`annotation::ANNOUNCING_IPV6`], which is only taken away here.
    AnnouncingIPv6,
}

use Annotation::{
    AllocatedBy, AllocatedFrom, AnnouncingIPv4, AnnouncingIPv6, PoolType as PoolTypeOf, ReEvaluate,
    ServiceGroup,
};

impl Annotation {
    /// In the order in which they are written.
    const ALL: [Annotation; 7] =
        [AllocatedBy, AllocatedFrom, PoolTypeOf, ServiceGroup, ReEvaluate, AnnouncingIPv4, AnnouncingIPv6];

    const fn bit(self) -> u8 {
        1 << self as u8
    }

    /// Its name on the Service.
    pub const fn name(self) -> &'static str {
        match self {
            AllocatedBy => annotation::ALLOCATED_BY,
            AllocatedFrom => annotation::ALLOCATED_FROM,
            PoolTypeOf => annotation::POOL_TYPE,
            ServiceGroup => annotation::SERVICE_GROUP,
            ReEvaluate => annotation::RE_EVALUATE,
            AnnouncingIPv4 => annotation::ANNOUNCING_IPV4,
            AnnouncingIPv6 => annotation::ANNOUNCING_IPV6,
        }
    }
}

/// Annotations to set and to take away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// The value of those that name the group and the type of its pools; there while any annotation is set.
    source: Option<(Word, PoolType)>,
    set: u8,
    removed: u8,
}

impl Annotations {
    /// Sets these, on a Service with addresses of the group.
    pub fn setting(
        annotations: impl IntoIterator<Item = Annotation>,
        group: &Word,
        pool_type: PoolType,
    ) -> Annotations {
        let set = annotations.into_iter().fold(0, |set, annotation| set | annotation.bit());
        Annotations { source: (set != 0).then(|| (group.clone(), pool_type)), set, removed: 0 }
    }

    /// Takes these away.
    pub fn removing(annotations: impl IntoIterator<Item = Annotation>) -> Annotations {
        let mut all = Annotations::default();
        all.remove(annotations);
        all
    }

    /// Takes these away, too.
    pub fn remove(&mut self, annotations: impl IntoIterator<Item = Annotation>) {
        for annotation in annotations {
            self.set &= !annotation.bit();
            self.removed |= annotation.bit();
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        (self.set | self.removed).count_ones() as usize
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.set | self.removed == 0
    }

    /// Names, and the value of those that are to be set.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Option<&str>)> {
        let concerned = |annotation: &Annotation| (self.set | self.removed) & annotation.bit() != 0;
        Annotation::ALL
            .into_iter()
            .filter(concerned)
            .map(|annotation| (annotation.name(), self.value(annotation)))
    }

    /// The value that an annotation is to have.
    pub fn value(&self, annotation: Annotation) -> Option<&str> {
        let (group, pool_type) = self.source.as_ref().filter(|_| self.set & annotation.bit() != 0)?;
        match annotation {
            AllocatedBy => Some(PURELB),
            AllocatedFrom | ServiceGroup => Some(group),
            PoolTypeOf => Some(pool_type.as_str()),
            ReEvaluate | AnnouncingIPv4 | AnnouncingIPv6 => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_set_or_removed_by_their_own_names() {
        let mut annotations =
            Annotations::setting([ServiceGroup, AllocatedBy, PoolTypeOf], &"edge".into(), PoolType::Remote);
        annotations.remove([AnnouncingIPv6, ReEvaluate]);
        let all: Vec<_> = annotations.iter().collect();
        assert_eq!(
            all,
            [
                ("purelb.io/allocated-by", Some("PureLB")),
                ("purelb.io/pool-type", Some("remote")),
                ("purelb.io/service-group", Some("edge")),
                ("purelb.io/re-evaluate", None),
                ("purelb.io/announcing-IPv6", None),
            ]
        );
        assert_eq!((annotations.len(), annotations.is_empty()), (5, false));
    }

    #[test]
    fn what_is_removed_last_is_not_set() {
        let mut annotations = Annotations::setting([AllocatedBy], &"edge".into(), PoolType::Local);
        annotations.remove([AllocatedBy]);
        assert_eq!(annotations.iter().collect::<Vec<_>>(), [("purelb.io/allocated-by", None)]);
        assert!(Annotations::removing([]).is_empty() && Annotations::default() == Annotations::removing([]));
    }

    #[test]
    fn the_names_are_those_of_the_enumeration_each_once() {
        let bits = Annotation::ALL.iter().fold(0, |bits, annotation| bits ^ annotation.bit());
        assert_eq!(bits.count_ones() as usize, Annotation::ALL.len());
    }
}
