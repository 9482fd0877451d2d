#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use kafka_protocol::protocol::Decodable;
use proptest::prelude::*;

use super::*;

fn partitions(list: &str) -> Vec<TopicPartition> {
    let all = list.split(',').filter(|p| *p != "-");
    all.map(|p| p.split_once('/').map(|(t, p)| TopicPartition::new(t, p.parse().unwrap())).unwrap()).collect()
}

fn hex(text: &str) -> Bytes {
    let digits = text.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
    digits.filter(|two| *two != "-").map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

#[test]
fn bytes_equal_those_of_java() {
    let mut rows = 0;
    for line in include_str!("../../../../tests/vectors/consumer-protocol.txt").lines().filter(|l| !l.starts_with('#'))
    {
        rows += 1;
        match line.split(' ').collect::<Vec<_>>().as_slice() {
            ["subscription", version, topics, data, owned, generation, rack, bytes] => {
                let version: i16 = version.parse().unwrap();
                let all = Subscription {
                    topics: topics.split(',').map(Into::into).collect(),
                    user_data: Some(*data).filter(|d| *d != "null").map(hex),
                    owned: if version >= 1 { partitions(owned) } else { vec![] },
                    generation: (version >= 2).then(|| generation.parse().unwrap()),
                    rack: Some(*rack).filter(|r| version >= 3 && *r != "-").map(Into::into),
                };
                assert_eq!(Subscription::decode(&hex(bytes)).unwrap(), all, "{line}");
                if version == WRITE_VERSION {
                    assert_eq!(all.encode().unwrap(), hex(bytes), "{line}");
                }
            }
            ["assignment", version, list, bytes] => {
                assert_eq!(decode_assignment(&hex(bytes)).unwrap(), partitions(list), "{line}");
                if *version == WRITE_VERSION.to_string() {
                    assert_eq!(encode_assignment(&partitions(list)).unwrap(), hex(bytes), "{line}");
                }
            }
            ["sticky", list, generation, bytes] => {
                let generation = generation.parse().unwrap();
                assert_eq!(encode_sticky(&partitions(list), generation), hex(bytes), "{line}");
                assert_eq!(decode_sticky(&hex(bytes)).unwrap(), (partitions(list), Some(generation)), "{line}");
                let older = hex(bytes).slice(..bytes.len() / 2 - 4);
                assert_eq!(decode_sticky(&older).unwrap(), (partitions(list), None), "its first version");
            }
            ["cooperative-sticky", ..] | ["assign", ..] => rows -= 1, // the assignors' tests read them
            _ => panic!("unknown row: {line:?}"),
        }
    }
    assert_eq!(rows, 31);
}

#[test]
fn wrong_lengths_are_corrupt() {
    for bytes in [
        &[][..],
        &[0],
        &[255, 255, 0, 0, 0, 0],
        &[0, 0, 0x7f, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0, 0, 1, 0x7f, 0xff],
        &[0, 0, 0, 0, 0, 1, 255, 255],
        &[0, 0, 0, 0, 0, 1, 0, 1, 0xff],
        &[0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0],
        &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0x7f, 0, 0, 0],
    ] {
        assert_eq!(Subscription::decode(bytes).unwrap_err().kind(), ErrorKind::Corrupt, "{bytes:?}");
    }
    let wrong = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0x7f, 0, 0, 0];
    assert_eq!(decode_assignment(&wrong).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(decode_sticky(&wrong[2..]).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(decode_assignment(&[]).unwrap(), []);
}

/// KafkaJS writes version 0 or 1 with topics and user data only.
#[test]
fn decodes_subscriptions_of_kafkajs() {
    let bytes = [&[0, 0, 0, 0, 0, 1, 0, 1, b't'][..], &[0, 0, 0, 0]].concat();
    let read = Subscription::decode(&bytes).unwrap();
    assert_eq!((read.topics, read.user_data), (["t".to_owned()].into(), Some(Bytes::new())));
    let later = [&[0, 1, 0, 0, 0, 1, 0, 1, b't'][..], &[0, 0, 0, 0]].concat();
    assert_eq!(Subscription::decode(&later).unwrap().topics, ["t".to_owned()].into());
}

proptest! {
    #[test]
    fn encoding_follows_the_kafka_schema(
        topics in proptest::collection::btree_set("[a-z.]{1,9}", 0..6),
        owned in proptest::collection::btree_set(("[a-c]", 0..9_i32), 0..12),
        generation in any::<i32>(),
        rack in proptest::option::of("[a-z]{1,4}"),
    ) {
        let owned: Vec<_> = owned.into_iter().map(|(t, p)| TopicPartition::new(t, p)).collect();
        let all = Subscription { topics, user_data: None, owned, generation: Some(generation), rack };
        let bytes = all.encode().unwrap();
        prop_assert_eq!(&Subscription::decode(&bytes).unwrap(), &all);
        let mut body = bytes.slice(2..);
        ConsumerProtocolSubscription::decode(&mut body, WRITE_VERSION).unwrap();
        prop_assert!(body.is_empty());
        let bytes = encode_assignment(&all.owned).unwrap();
        prop_assert_eq!(&decode_assignment(&bytes).unwrap(), &all.owned);
        ConsumerProtocolAssignment::decode(&mut bytes.slice(2..), WRITE_VERSION).unwrap();
        prop_assert_eq!(decode_sticky(&encode_sticky(&all.owned, generation)).unwrap(), (all.owned, Some(generation)));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        _ = Subscription::decode(&bytes);
        _ = decode_assignment(&bytes);
        _ = decode_sticky(&bytes);
    }
}
