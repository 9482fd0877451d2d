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

mod in_flight;
mod memory;
mod produce;
mod validation;

const LONG: Duration = Duration::from_secs(60);

/// Reads one request frame; returns its API key, version and correlation id.
async fn request(peer: &mut DuplexStream) -> (i16, i16, i32) {
    let size = peer.read_u32().await.unwrap();
    let mut frame = vec![0; size as usize];
    peer.read_exact(&mut frame).await.unwrap();
    let i16_at = |at: usize| i16::from_be_bytes([frame[at], frame[at + 1]]);
    (i16_at(0), i16_at(2), i32::from_be_bytes(frame[4..8].try_into().unwrap()))
}

async fn respond(peer: &mut DuplexStream, correlation: i32, body: &[u8]) {
    let mut frame = u32::try_from(4 + body.len()).unwrap().to_be_bytes().to_vec();
    frame.extend(correlation.to_be_bytes());
    frame.extend(body);
    peer.write_all(&frame).await.unwrap();
}

/// Responds to ApiVersions: Heartbeat 0 and Metadata 4 to 5.
async fn negotiate(peer: &mut DuplexStream) {
    let (key, version, correlation) = request(peer).await;
    assert_eq!((key, version), (18, 3));
    let mut body = vec![0, 0, 3];
    for (key, min, max) in [(12_i16, 0_i16, 0_i16), (3, 4, 5)] {
        body.extend([key.to_be_bytes(), min.to_be_bytes(), max.to_be_bytes()].concat());
        body.push(0);
    }
    body.extend([0, 0, 0, 0, 0]);
    respond(peer, correlation, &body).await;
}

async fn open() -> (Connection, DuplexStream) {
    open_as(|io| io, Reporter::default()).await
}

async fn open_as<S>(wrap: impl FnOnce(DuplexStream) -> S, metrics: Reporter) -> (Connection, DuplexStream)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (socket, mut peer) = tokio::io::duplex(1 << 16);
    let (connection, ()) = tokio::join!(establish(wrap(socket), metrics), negotiate(&mut peer));
    (connection.unwrap(), peer)
}

async fn establish(io: impl AsyncRead + AsyncWrite + Send + 'static, metrics: Reporter) -> Result<Connection> {
    Connection::establish(io, "broker:9092", "test", 1 << 20, LONG, &metrics, None).await
}

async fn error_of_peer(bytes: &[u8]) -> String {
    let (socket, mut peer) = tokio::io::duplex(1 << 16);
    peer.write_all(bytes).await.unwrap();
    establish(socket, Reporter::default()).await.unwrap_err().full()
}

fn heartbeat() -> HeartbeatRequest {
    HeartbeatRequest::default().with_group_id(GroupId("g".into())).with_member_id("m".into())
}

#[tokio::test]
async fn peers_that_are_no_brokers_are_named() {
    let tls_alert = error_of_peer(&[0x15, 3, 3, 0, 2, 2, 70]).await;
    assert!(tls_alert.contains("this port expects TLS"), "{tls_alert}");
    let http = error_of_peer(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(http.contains("a web server listens on this port"), "{http}");
    let noise = error_of_peer(&[0xff; 64]).await;
    assert!(noise.contains("no response of a Kafka broker"), "{noise}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_times_out() {
    let (socket, _theirs) = tokio::io::duplex(1 << 16);
    let e = establish(socket, Reporter::default()).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Connect);
    assert!(e.to_string().contains("did not send its API versions within 60s"), "{e}");
}

#[tokio::test]
async fn requests_are_in_order_and_responses_are_matched() {
    let (connection, mut peer) = open().await;
    let pending: Vec<_> = (0..20).map(|_| connection.submit(heartbeat(), LONG)).collect();
    let mut seen = Vec::new();
    for _ in 0..20 {
        seen.push(request(&mut peer).await.2);
    }
    assert!(seen.is_sorted(), "{seen:?}");
    for (i, correlation) in seen.iter().enumerate().rev() {
        respond(&mut peer, *correlation, &i16::try_from(i).unwrap().to_be_bytes()).await;
    }
    for (i, p) in pending.into_iter().enumerate() {
        assert_eq!(usize::try_from(p.await.unwrap().error_code).unwrap(), i);
    }
}

/// A tokio task whose budget is used up gets nothing ready until its next turn. Its requests keep
/// their order.
#[tokio::test]
async fn a_task_without_budget_keeps_its_place() {
    let (connection, mut peer) = open().await;
    let (response, ()) = tokio::join!(connection.request(heartbeat(), LONG), async {
        let correlation = request(&mut peer).await.2;
        respond(&mut peer, correlation, &[0, 0]).await;
    });
    response.unwrap(); // the connection's task runs

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
        respond(&mut peer, correlation, &[0, code]).await;
    }
    assert_eq!((first.await.unwrap().error_code, second.await.unwrap().error_code), (1, 2));
}

#[tokio::test]
async fn a_dropped_request_is_written_whole() {
    let (connection, mut peer) = open().await;
    drop(connection.submit(heartbeat(), LONG));
    let second = connection.submit(heartbeat(), LONG);
    let (_, _, first) = request(&mut peer).await;
    respond(&mut peer, first, &[0, 0]).await;
    let (_, _, correlation) = request(&mut peer).await;
    respond(&mut peer, correlation, &[0, 7]).await;
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
async fn close_fails_requests_and_waits_for_the_socket() {
    let (connection, mut peer) = open().await;
    let pending = connection.submit(heartbeat(), LONG);
    request(&mut peer).await;
    connection.close().await;
    assert_eq!(pending.await.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0, "the socket is closed");
}

#[tokio::test]
async fn close_aborts_a_stuck_write() {
    let (connection, peer) = open().await;
    // More than the pipe holds, and the peer does not read.
    let member = "m".repeat(30_000);
    let big = || heartbeat().with_member_id(member.clone().into());
    let stuck: Vec<_> = (0..4).map(|_| connection.submit(big(), LONG)).collect();
    drop(stuck);
    connection.close().await;
    drop(peer);
}

#[tokio::test(start_paused = true)]
async fn an_expired_request_closes_the_connection() {
    let (connection, _peer) = open().await;
    let behind = connection.submit(heartbeat(), 2 * LONG);
    let e = connection.request(heartbeat(), LONG).await.unwrap_err();
    assert!(e.is_timeout());
    assert!(e.to_string().contains("no response to Heartbeat from broker:9092 within 60"), "{e}");
    let e = behind.await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Disconnected);
    assert!(connection.is_closed());
}

#[tokio::test]
async fn an_oversized_response_closes_the_connection() {
    let (connection, mut peer) = open().await;
    let pending = connection.submit(heartbeat(), LONG);
    request(&mut peer).await;
    peer.write_u32(2 << 20).await.unwrap(); // no body is needed
    let e = pending.await.unwrap_err();
    assert!(e.to_string().contains("2097152 bytes, more than the 1048576"), "{e}");
    // The messenger does not continue to read: later requests need another connection.
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
async fn an_api_that_the_broker_lacks_is_unsupported() {
    let (connection, _peer) = open().await;
    let e = connection.request(SyncGroupRequest::default(), LONG).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(e.to_string().contains("SyncGroup to broker:9092 failed: the broker does not serve it"), "{e}");
}

#[tokio::test]
async fn a_response_with_a_false_length_is_an_error() {
    let (connection, mut peer) = open().await;
    let pending = connection.submit(MetadataRequest::default(), LONG);
    let (_, _, correlation) = request(&mut peer).await;
    // Throttle time, then an array of 2^31 - 1 brokers.
    respond(&mut peer, correlation, &[0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0]).await;
    let e = pending.await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Corrupt);
    assert!(e.to_string().contains("longer than the response"), "{e}");
    assert!(!connection.is_closed(), "the frame was whole: the connection continues");
}
