//! The produce request against kafka-protocol's, and frames with inserts.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, TopicName, TransactionalId};
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::collection::vec;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::wire::produce::{Insert, Produce, TopicBatches};
use crate::wire::stream::{MessengerStream, StreamControl};

/// A socket that takes so many bytes at a time, in a cycle; at 0 it is pending once.
struct Slow {
    takes: Vec<usize>,
    turn: usize,
    taken: Vec<u8>,
}

impl AsyncRead for Slow {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

impl AsyncWrite for Slow {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = self.takes[self.turn % self.takes.len()];
        self.turn += 1;
        if room == 0 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = self.taken.len();
        let offered: Vec<u8> = bufs.iter().flat_map(|b| b.iter().copied()).take(room).collect();
        self.taken.extend(offered);
        Poll::Ready(Ok(self.taken.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Returns a frame's body as the messenger writes it, and as it must arrive.
fn spliced(id: u32, plain: &[u8], inserts: &[Insert]) -> (Vec<u8>, Vec<u8>) {
    let body = [&[0, 0, 0, 9], &id.to_be_bytes()[..], plain].concat();
    let (mut whole, mut from) = (Vec::new(), 0);
    for insert in inserts {
        whole.extend(&body[from..insert.at]);
        whole.extend(&insert.bytes);
        from = insert.at;
    }
    whole.extend(&body[from..]);
    (body, whole)
}

fn a_frame() -> impl Strategy<Value = (Vec<u8>, Vec<Insert>)> {
    let inserts = vec((any::<prop::sample::Index>(), vec(any::<u8>(), 0..40)), 0..20);
    (vec(any::<u8>(), 0..50), inserts).prop_map(|(plain, inserts)| {
        let place = |i: prop::sample::Index| 8 + i.index(plain.len() + 1);
        let mut inserts: Vec<_> =
            inserts.into_iter().map(|(i, b)| Insert { at: place(i), bytes: Bytes::from(b) }).collect();
        inserts.sort_by_key(|i| i.at);
        (plain, inserts)
    })
}

proptest! {
    #[test]
    fn frames_are_whole_whatever_the_socket_takes(
        frames in vec(a_frame(), 1..5),
        takes in vec(0_usize..60, 1..10).prop_filter("some progress", |t| t.iter().any(|n| *n > 0)),
    ) {
        let control = Arc::new(StreamControl::default());
        let mut stream = MessengerStream::new(Slow { takes, turn: 0, taken: Vec::new() }, Arc::clone(&control), 1 << 20);
        let mut expected = Vec::new();
        for (id, (plain, inserts)) in (0..).zip(&frames) {
            let (body, whole) = spliced(id, plain, inserts);
            control.register_frame(&body, inserts.clone());
            expected.extend(u32::try_from(whole.len()).unwrap().to_be_bytes());
            expected.extend(whole);
            let write = async {
                stream.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes()).await?;
                stream.write_all(&body).await?;
                stream.flush().await
            };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(write).unwrap();
        }
        prop_assert_eq!(&stream.get_ref().taken, &expected);
    }

    #[test]
    fn produce_requests_equal_those_of_kafka_protocol(
        topics in vec(("[a-z]{1,200}", vec((any::<i32>(), vec(any::<u8>(), 1..300)), 0..4)), 0..4),
        acks in -1_i16..2,
        timeout_ms: i32,
        transactional_id in prop::option::of("[a-z]{1,200}"),
        version in 3_i16..=12,
    ) {
        let id = transactional_id.clone().map(|id| TransactionalId(StrBytes::from_string(id)));
        let reference = ProduceRequest::default().with_transactional_id(id).with_acks(acks).with_timeout_ms(timeout_ms).with_topic_data(
            topics.iter().map(|(name, batches)| {
                let data = |(p, b): &(i32, Vec<u8>)| {
                    PartitionProduceData::default().with_index(*p).with_records(Some(b.clone().into()))
                };
                TopicProduceData::default()
                    .with_name(TopicName(StrBytes::from_string(name.clone())))
                    .with_partition_data(batches.iter().map(data).collect())
            }).collect(),
        );
        let mut expected = Vec::new();
        reference.encode(&mut expected, version).unwrap();
        let topics = topics.into_iter().map(|(name, batches)| TopicBatches {
            topic: name.into(),
            batches: batches.into_iter().map(|(p, b)| (p, b.into())).collect(),
        });
        let transactional_id = transactional_id.map(Arc::from);
        let request = Produce { transactional_id, acks, timeout_ms, topics: topics.collect() };
        let mut plain = Vec::new();
        let mut inserts = request.encode(&mut plain, version);
        while let Some(insert) = inserts.pop() {
            plain.splice(insert.at..insert.at, insert.bytes);
        }
        prop_assert_eq!(plain, expected);
    }
}

/// A frame that was registered and never written releases its batches when the connection is
/// killed.
#[test]
fn a_killed_connection_keeps_no_batches() {
    let control = StreamControl::default();
    let batch = Bytes::from(vec![7; 100]);
    control.register_frame(&[0; 8], vec![Insert { at: 8, bytes: batch.clone() }]);
    control.kill("test");
    assert!(batch.try_into_mut().is_ok(), "no other reference");
    assert!(control.killed().cancelled().now_or_never().is_some());
}
