//! Requests in Kafka's protocol, for what no client does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ProduceRequest, ProducerId,
    RequestHeader, ResponseHeader, TopicName, TransactionalId,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

/// Longest wait for a response.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Codes of a coordinator that is being created or loads.
const NOT_READY: [i16; 3] = [14, 15, 16];

/// A connection to a broker.
pub struct Connection(TcpStream);

/// A producer id and its epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
}

impl Connection {
    #[track_caller]
    pub fn open(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        Self(stream)
    }

    #[track_caller]
    pub fn request<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        let header = RequestHeader::default().with_request_api_key(R::KEY).with_request_api_version(version);
        let mut body = BytesMut::new();
        header.encode(&mut body, R::header_version(version)).unwrap();
        request.encode(&mut body, version).unwrap();
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(body.len()).unwrap());
        frame.put(body);
        self.0.write_all(&frame).unwrap();
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut response = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut response).unwrap();
        let mut response = Bytes::from(response);
        ResponseHeader::decode(&mut response, R::Response::header_version(version)).unwrap();
        let decoded = R::Response::decode(&mut response, version).unwrap();
        assert!(!response.has_remaining(), "bytes after the response");
        decoded
    }

    /// Starts a producer, transactional if it has an id; waits until there is a coordinator.
    #[track_caller]
    pub fn init_producer(&mut self, transactional_id: Option<&str>) -> Producer {
        let key = StrBytes::from_string(transactional_id.unwrap_or_default().to_owned());
        let find = FindCoordinatorRequest::default().with_key(key).with_key_type(1);
        let init = InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(id))
            .with_transaction_timeout_ms(600_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let started = ailurus_test_support::process::until(|| {
            if transactional_id.is_some() && self.request(3, &find).error_code != 0 {
                return None;
            }
            let response = self.request(4, &init);
            let code = response.error_code;
            assert!(code == 0 || NOT_READY.contains(&code), "InitProducerId: {code}");
            (code == 0).then_some(Producer { id: response.producer_id.0, epoch: response.producer_epoch })
        });
        started.expect("a coordinator")
    }

    /// Adds a partition to the producer's transaction; returns the error code.
    #[track_caller]
    pub fn add_partition(&mut self, transactional_id: &str, producer: Producer, topic: &str, partition: i32) -> i16 {
        let topic = AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(id(transactional_id))
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(vec![topic]);
        self.request(3, &request).results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code
    }

    /// Appends a transactional batch of one record, as old as this; returns the error code and the
    /// offset.
    #[track_caller]
    pub fn append(
        &mut self,
        (transactional_id, producer, sequence): (&str, Producer, i32),
        topic: &str,
        partition: i32,
        age: Duration,
    ) -> (i16, i64) {
        let written = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap() - age;
        let record = Record {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence,
            timestamp: i64::try_from(written.as_millis()).unwrap(),
            key: None,
            value: Some(Bytes::from_static(b"transactional")),
            headers: Default::default(),
        };
        let mut batch = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut batch, &[record], &options).unwrap();
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch.freeze()));
        let topic = TopicProduceData::default().with_name(name(topic)).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(id(transactional_id)))
            .with_acks(-1)
            .with_timeout_ms(30_000)
            .with_topic_data(vec![topic]);
        let response = self.request(9, &request);
        let partition = &response.responses[0].partition_responses[0];
        (partition.error_code, partition.base_offset)
    }
}

fn id(transactional_id: &str) -> TransactionalId {
    TransactionalId(StrBytes::from_string(transactional_id.to_owned()))
}

fn name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}
