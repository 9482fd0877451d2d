#![allow(clippy::unwrap_used)]

use kafka_protocol::messages::offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic};

use super::*;
use crate::cluster::fields::topic_name;

#[test]
fn committed_offsets_are_those_that_there_are() {
    let partition = |index, offset, code| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_error_code(code)
    };
    let response = |partitions| {
        let topic = OffsetFetchResponseTopic::default().with_name(topic_name("t")).with_partitions(partitions);
        OffsetFetchResponse::default().with_topics(vec![topic])
    };
    let known =
        response(vec![partition(0, 7, 0), partition(1, -1, 0), partition(2, 3, code::UNKNOWN_TOPIC_OR_PARTITION)]);
    assert_eq!(
        decode_committed(&known).unwrap(),
        HashMap::from([(TopicPartition::new("t", 0), OffsetAndMetadata::new(7))])
    );
    let unstable = response(vec![partition(0, 7, 0), partition(1, -1, 88)]);
    assert_eq!(decode_committed(&unstable).unwrap_err(), 88);
    assert_eq!(decode_committed(&known.with_error_code(14)).unwrap_err(), 14);
}
