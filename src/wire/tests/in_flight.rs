//! Requests whose callers wait, stop polling, or drop the future.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, ready};

use futures_util::poll;
use tokio::io::ReadBuf;

use super::*;
use crate::metrics::{Metrics, Observation};

/// Returns a Heartbeat of which a few fill the pipe to the peer.
fn big() -> HeartbeatRequest {
    heartbeat().with_member_id("m".repeat(30_000).into())
}

#[tokio::test]
async fn frames_are_written_without_their_callers() {
    let (connection, mut peer) = open().await;
    let mut pending: Vec<_> = (0..8).map(|_| connection.submit(big(), LONG)).collect();
    for p in &mut pending {
        assert!(poll!(p).is_pending());
    }
    // No caller polls while the peer reads.
    let mut seen = Vec::new();
    for _ in 0..pending.len() {
        seen.push(request(&mut peer).await.2);
    }
    for (i, correlation) in (0_i16..).zip(&seen) {
        respond(&mut peer, *correlation, &i.to_be_bytes()).await;
    }
    for (i, p) in (0..).zip(pending) {
        assert_eq!(p.await.unwrap().error_code, i);
    }
}

#[tokio::test]
async fn a_response_right_before_the_end_counts() {
    let (connection, mut peer) = open().await;
    let mut pending = connection.submit(heartbeat(), LONG);
    let mut unanswered = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut pending).is_pending() && poll!(&mut unanswered).is_pending());
    let correlation = request(&mut peer).await.2;
    respond(&mut peer, correlation, &[0, 7]).await;
    drop(peer);
    connection.closed().await;
    assert_eq!(unanswered.await.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(pending.await.unwrap().error_code, 7);
}

#[tokio::test(start_paused = true)]
async fn deadlines_hold_for_callers_that_do_not_poll() {
    let (connection, mut peer) = open().await;
    let mut in_time = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut in_time).is_pending());
    let correlation = request(&mut peer).await.2;
    respond(&mut peer, correlation, &[0, 7]).await;
    let mut late = connection.submit(heartbeat(), 2 * LONG);
    assert!(poll!(&mut late).is_pending());
    tokio::time::sleep(LONG + LONG / 2).await;
    assert!(!connection.is_closed(), "the first response was in time");
    connection.closed().await;
    assert_eq!(in_time.await.unwrap().error_code, 7);
    assert!(late.await.unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_keeps_its_deadline() {
    let (connection, _peer) = open().await;
    let mut pending = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut pending).is_pending());
    drop(pending);
    let began = Instant::now();
    connection.closed().await;
    assert_eq!(began.elapsed().as_secs(), LONG.as_secs());
}

#[tokio::test]
async fn a_dropped_connection_closes_after_its_last_response() {
    let (connection, mut peer) = open().await;
    let mut pending = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut pending).is_pending());
    drop(connection);
    let correlation = request(&mut peer).await.2;
    respond(&mut peer, correlation, &[0, 7]).await;
    assert_eq!(pending.await.unwrap().error_code, 7);
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0, "the socket is closed");
}

#[tokio::test]
async fn one_oversized_response_fails_one_request_as_corrupt() {
    let (connection, mut peer) = open().await;
    let both: [_; 2] = std::array::from_fn(|_| connection.submit(heartbeat(), LONG));
    peer.write_u32(2 << 20).await.unwrap();
    let kinds = futures_util::future::join_all(both).await.into_iter().map(|response| response.unwrap_err().kind());
    assert_eq!(kinds.collect::<Vec<_>>(), [ErrorKind::Corrupt, ErrorKind::Disconnected]);
}

#[derive(Debug)]
struct Panics;

impl Metrics for Panics {
    fn observe(&self, observation: &Observation<'_>) {
        assert!(!matches!(observation, Observation::RequestEnded { .. }), "a test's panic");
    }
}

#[tokio::test(start_paused = true)]
async fn callers_are_woken_even_if_metrics_panic() {
    let (connection, _peer) = open_as(|io| io, Reporter::to(Arc::new(Panics))).await;
    let pending = connection.submit(heartbeat(), LONG);
    let response = tokio::time::timeout(2 * LONG, pending).await.expect("it is woken");
    assert!(response.unwrap_err().is_timeout());
    connection.closed().await;
}

/// A stream whose flush is stuck once the flag is set.
struct Unflushed(DuplexStream, Arc<AtomicBool>);

impl AsyncRead for Unflushed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unflushed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.0).poll_flush(cx))?;
        if self.1.load(Ordering::Relaxed) { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn close_aborts_a_stuck_flush() {
    let stuck = Arc::new(AtomicBool::new(false));
    let (connection, _peer) = open_as(|io| Unflushed(io, Arc::clone(&stuck)), Reporter::default()).await;
    tokio::task::yield_now().await; // the connection task starts
    stuck.store(true, Ordering::Relaxed);
    let mut pending = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut pending).is_pending());
    let began = Instant::now();
    connection.close().await;
    assert!(began.elapsed().is_zero(), "the socket was closed at once");
    assert_eq!(pending.await.unwrap_err().kind(), ErrorKind::Disconnected);
}
