#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use kafka_protocol::messages::*;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::connection::Connection;
use crate::error::{ErrorKind, Result};
use crate::metrics::Reporter;

mod callers;
mod claims;
mod produce;
mod schemas;

const LONG: Duration = Duration::from_secs(60);

/// Reads one request frame; returns its API key, version and correlation id.
async fn request(peer: &mut DuplexStream) -> (i16, i16, i32) {
    let size = peer.read_u32().await.unwrap();
    let mut frame = vec![0; size as usize];
    peer.read_exact(&mut frame).await.unwrap();
    let i16_at = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
    (i16_at(0), i16_at(2), i32::from_be_bytes(frame[4..8].try_into().unwrap()))
}

async fn answer(peer: &mut DuplexStream, correlation: i32, body: &[u8]) {
    let mut frame = u32::try_from(4 + body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(correlation.to_be_bytes());
    frame.extend(body);
    peer.write_all(&frame).await.unwrap();
}

/// Answers ApiVersions: Heartbeat 0 and Metadata 4 to 5.
async fn greet(peer: &mut DuplexStream) {
    let (key, version, correlation) = request(peer).await;
    assert_eq!((key, version), (18, 3));
    let mut body = vec![0, 0, 3];
    for (key, min, max) in [(12_i16, 0_i16, 0_i16), (3, 4, 5)] {
        body.extend([key.to_be_bytes(), min.to_be_bytes(), max.to_be_bytes()].concat());
        body.push(0);
    }
    body.extend([0, 0, 0, 0, 0]);
    answer(peer, correlation, &body).await;
}

async fn open() -> (Connection, DuplexStream) {
    open_as(|io| io, Reporter::default()).await
}

async fn open_as<S>(wrap: impl FnOnce(DuplexStream) -> S, metrics: Reporter) -> (Connection, DuplexStream)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    let (connection, ()) = tokio::join!(over(wrap(ours), metrics), greet(&mut theirs));
    (connection.unwrap(), theirs)
}

async fn over(io: impl AsyncRead + AsyncWrite + Send + 'static, metrics: Reporter) -> Result<Connection> {
    Connection::over(io, "broker:9092", "test", 1 << 20, LONG, &metrics, None).await
}

/// What connecting to something that answers with `bytes` says.
async fn greeted_with(bytes: &[u8]) -> String {
    let (ours, mut theirs) = tokio::io::duplex(1 << 16);
    theirs.write_all(bytes).await.unwrap();
    over(ours, Reporter::default()).await.unwrap_err().full()
}

fn heartbeat() -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(GroupId("g".into())).with_member_id("m".into())
}

#[tokio::test]
async fn what_is_no_broker_is_named() {
    let tls_alert = greeted_with(&[0x15, 3, 3, 0, 2, 2, 70]).await;
    assert!(tls_alert.contains("this port expects TLS"), "{tls_alert}");
    let http = greeted_with(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(http.contains("a web server listens on this port"), "{http}");
    let noise = greeted_with(&[0xff; 64]).await;
    assert!(noise.contains("no answer of a Kafka broker"), "{noise}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_given_up() {
    let (ours, _theirs) = tokio::io::duplex(1 << 16);
    let e = over(ours, Reporter::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
    assert!(e.to_string().contains("did not tell its API versions within 60s"), "{e}");
}

#[tokio::test]
async fn requests_keep_the_order_of_submit_and_answers_find_their_request() {
    let (connection, mut peer) = open().await;
    let pending: Vec<_> = (0..20).map(|_| connection.submit(heartbeat(), LONG)).collect();
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(request(&mut peer).await.2);
    }
    assert!(seen.is_sorted(), "{seen:?}");
    for (i, correlation) in seen.iter().enumerate().rev() {
        answer(&mut peer, *correlation, &i16::try_from(i).unwrap().to_be_bytes()).await;
    }
    for (i, p) in pending.into_iter().enumerate() {
        assert_eq!(usize::try_from(p.await.unwrap().error_code).unwrap(), i);
    }
}

/// A task of tokio that has done much gets nothing ready from it until its next turn. What it submits keeps its place.
#[tokio::test]
async fn a_task_without_budget_keeps_its_place() {
    let (connection, mut peer) = open().await;
    let (answered, ()) = tokio::join!(connection.request(heartbeat(), LONG), async {
        let correlation = request(&mut peer).await.2;
        answer(&mut peer, correlation, &[0, 0]).await;
    });
    answered.unwrap(); // the connection's task has begun

    let (items, mut queue) = tokio::sync::mpsc::unbounded_channel();
    (0..1000).for_each(|i| items.send(i).unwrap());
    let first = poll_fn(|cx| {
        while queue.poll_recv(cx).is_ready() {}
        assert!(!queue.is_empty(), "the budget is used up");
        Poll::Ready(connection.submit(heartbeat(), LONG))
    })
    .await;
    let second = tokio::task::unconstrained(poll_fn(|_| Poll::Ready(connection.submit(heartbeat(), LONG)))).await;
    for code in [1, 2] {
        let correlation = request(&mut peer).await.2;
        answer(&mut peer, correlation, &[0, code]).await;
    }
    assert_eq!((first.await.unwrap().error_code, second.await.unwrap().error_code), (1, 2));
}

#[tokio::test]
async fn a_dropped_request_is_still_sent_whole() {
    let (connection, mut peer) = open().await;
    drop(connection.submit(heartbeat(), LONG));
    let second = connection.submit(heartbeat(), LONG);
    let (_, _, first) = request(&mut peer).await;
    answer(&mut peer, first, &[0, 0]).await;
    let (_, _, correlation) = request(&mut peer).await;
    answer(&mut peer, correlation, &[0, 7]).await;
    assert_eq!(second.await.unwrap().error_code, 7);
}

#[tokio::test]
async fn the_end_of_an_idle_connection_is_noticed() {
    let (connection, peer) = open().await;
    assert!(!connection.is_closed());
    drop(peer);
    connection.closed().await;
    let e = connection.request(heartbeat(), LONG).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected);
    assert!(e.to_string().contains("the broker closed the connection"), "{e}");
}

#[tokio::test]
async fn close_ends_what_is_under_way_and_waits_for_the_socket() {
    let (connection, mut peer) = open().await;
    let pending = connection.submit(heartbeat(), LONG);
    request(&mut peer).await;
    connection.close().await;
    assert_eq!(pending.await.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0, "the socket is closed");
}

#[tokio::test]
async fn close_also_ends_a_write_that_is_stuck() {
    let (connection, peer) = open().await;
    // More than the pipe holds, and nobody reads.
    let member = "m".repeat(30_000);
    let big = || heartbeat().with_member_id(member.clone().into());
    let stuck: Vec<_> = (0..4).map(|_| connection.submit(big(), LONG)).collect();
    drop(stuck);
    connection.close().await;
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_request_closes_the_connection() {
    let (connection, _peer) = open().await;
    let behind = connection.submit(heartbeat(), 2 * LONG);
    let e = connection.request(heartbeat(), LONG).await.unwrap_err();
    assert!(e.is_timeout());
    assert!(e.to_string().contains("no answer to Heartbeat from broker:9092 within 60"), "{e}");
    let e = behind.await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected);
    assert!(connection.is_closed());
}

#[tokio::test]
async fn an_answer_beyond_the_limit_closes_the_connection() {
    let (connection, mut peer) = open().await;
    let pending = connection.submit(heartbeat(), LONG);
    request(&mut peer).await;
    peer.write_u32(2 << 20).await.unwrap(); // nothing has to follow
    let e = pending.await.unwrap_err();
    assert!(e.to_string().contains("2097152 bytes, more than the 1048576"), "{e}");
    // The messenger does not read on: who asks for a connection must be given another one.
    tokio::time::timeout(LONG, connection.closed()).await.expect("the connection is closed");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_before_the_broker_does() {
    let (connection, _peer) = open().await;
    let began = Instant::now();
    connection.closed().await;
    assert_eq!(began.elapsed().as_secs(), 9 * 60);
}

#[tokio::test]
async fn an_api_the_broker_does_not_serve_is_an_error_that_says_so() {
    let (connection, _peer) = open().await;
    let e = connection.request(SyncGroupRequest::default(), LONG).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("SyncGroup to broker:9092 failed: the broker does not serve it"), "{e}");
}

#[tokio::test]
async fn an_answer_that_lies_about_its_lengths_is_an_error() {
    let (connection, mut peer) = open().await;
    let pending = connection.submit(MetadataRequest::default(), LONG);
    let (_, _, correlation) = request(&mut peer).await;
    // Throttle time, then an array of 2^31 - 1 brokers.
    answer(&mut peer, correlation, &[0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0]).await;
    let e = pending.await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("longer than the response"), "{e}");
    assert!(!connection.is_closed(), "the frame was whole: the connection goes on");
}
