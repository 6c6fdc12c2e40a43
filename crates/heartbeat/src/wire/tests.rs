//! What is written reads the same; no octets from outside break anything, and none that were touched are taken.

use std::time::Duration;

use proptest::{collection::vec, option, prelude::*};

use super::*;

fn id() -> impl Strategy<Value = Id> {
    any::<[u8; 8]>().prop_map(Id)
}

fn death() -> impl Strategy<Value = Death> {
    (id(), any::<u64>(), any::<u32>()).prop_map(|(member, boot, incarnation)| Death {
        member,
        boot,
        incarnation,
    })
}

fn answer() -> impl Strategy<Value = Answer> {
    (death(), option::of(0..u32::MAX), any::<[bool; 2]>(), any::<Mac>()).prop_map(
        |(death, age, [is_ready, is_leaving], mac)| Answer {
            member: death.member,
            age: age.map(|millis| Duration::from_millis(millis.into())),
            boot: death.boot,
            incarnation: death.incarnation,
            is_ready,
            is_leaving,
            mac,
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    prop_oneof![
        vec(any::<u8>(), 0..200).prop_map(|octets| Message::Payload(octets.into())),
        Just(Message::Nudge),
        death().prop_map(Message::Death),
        (4_u8.., vec(any::<u8>(), 0..9)).prop_map(|(kind, octets)| Message::Unknown(kind, octets.into())),
    ]
}

fn parts() -> impl Strategy<Value = Parts> {
    (
        option::of(any::<u32>()),
        option::of((any::<u32>(), vec(message(), 0..5))),
        vec(id(), 0..9),
        vec(answer(), 0..9),
        vec(death(), 0..9),
    )
        .prop_map(|(ack, messages, questions, answers, deaths)| Parts {
            ack,
            messages: messages.map(|(base, list)| Messages { base, list }),
            questions,
            answers,
            deaths,
        })
}

fn header() -> impl Strategy<Value = Header> {
    (any::<[bool; 3]>(), any::<([u8; 4], Mac, u16, u8)>(), death(), any::<[u64; 2]>()).prop_map(
        |(
            [is_ready, is_leaving, wants_answer],
            (group, mac, interval_millis, multiplier),
            it,
            [echo, sequence],
        )| {
            Header {
                is_ready,
                is_leaving,
                wants_answer,
                group,
                sender: it.member,
                boot: it.boot,
                echo,
                sequence,
                incarnation: it.incarnation,
                mac,
                interval_millis,
                multiplier,
            }
        },
    )
}

fn datagram() -> impl Strategy<Value = Datagram> {
    (header(), parts()).prop_map(|(header, parts)| Datagram { header, parts })
}

fn keys() -> Keys {
    Keys::parse(b"a key of the tests").unwrap()
}

const BINDING: Binding<'_> = Binding { group: "192.0.2.0/24", sender: "a", receiver: "b" };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_datagram_reads_as_it_was_written(datagram in datagram()) {
        let octets = datagram.encode(&keys(), BINDING);
        prop_assert_eq!(octets.len(), HEADER_OCTETS + TAG_OCTETS + datagram.parts.octets());
        prop_assert_eq!(Header::peek(&octets), Ok(datagram.header));
        prop_assert_eq!(Datagram::decode(&octets, &keys(), BINDING), Ok(datagram));
    }

    #[test]
    fn one_changed_octet_or_another_length_is_noticed(
        datagram in datagram(), place in any::<prop::sample::Index>(), change in 1_u8.., more in any::<u8>(),
    ) {
        let octets = datagram.encode(&keys(), BINDING);
        let mut touched = octets.clone();
        touched[place.index(octets.len())] ^= change;
        prop_assert!(Datagram::decode(&touched, &keys(), BINDING).is_err());
        let longer: Vec<_> = octets.iter().copied().chain([more]).collect();
        prop_assert_eq!(Datagram::decode(&longer, &keys(), BINDING), Err(Dropped::Tag));
        prop_assert!(Datagram::decode(&octets[..place.index(octets.len())], &keys(), BINDING).is_err());
    }

    #[test]
    fn it_is_good_for_one_sender_and_receiver_in_one_group_and_with_the_key(datagram in datagram()) {
        let octets = datagram.encode(&keys(), BINDING);
        for other in [
            Binding { group: "192.0.3.0/24", ..BINDING },
            Binding { sender: "c", ..BINDING },
            Binding { receiver: "c", ..BINDING },
            Binding { sender: "b", receiver: "a", ..BINDING },
        ] {
            prop_assert_eq!(Datagram::decode(&octets, &keys(), other), Err(Dropped::Tag));
        }
        let other = Keys::parse(b"another key of the tests").unwrap();
        prop_assert_eq!(Datagram::decode(&octets, &other, BINDING), Err(Dropped::Tag));
    }

    #[test]
    fn hostile_octets_with_a_good_tag_are_read_or_refused(
        header in header(), octets in vec(any::<u8>(), 0..300),
    ) {
        let mut said = Vec::new();
        header.encode(&mut said);
        said.extend(&octets);
        let tag = keys().sign(&[&said, &BINDING.octets()]);
        said.extend(tag);
        match Datagram::decode(&said, &keys(), BINDING) {
            Ok(datagram) => prop_assert_eq!(datagram.header, header),
            Err(reason) => prop_assert_eq!(reason, Dropped::Parts),
        }
    }

    #[test]
    fn any_octets_at_all_are_refused(octets in vec(any::<u8>(), 0..200)) {
        prop_assert!(Datagram::decode(&octets, &keys(), BINDING).is_err());
    }
}
