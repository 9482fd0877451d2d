//! Requests whose callers wait, look elsewhere, or go.

use futures_util::poll;

use super::*;

/// Heartbeats that fill the pipe to the peer.
fn big() -> HeartbeatRequest {
    heartbeat().with_member_id("m".repeat(30_000).into())
}

#[tokio::test]
async fn what_is_written_does_not_depend_on_who_waits() {
    let (connection, mut peer) = open().await;
    let mut pending: Vec<_> = (0..8).map(|_| connection.submit(big(), LONG)).collect();
    for p in &mut pending {
        assert!(poll!(p).is_pending());
    }
    // Nobody polls them while they are read.
    let mut seen = Vec::new();
    for _ in 0..pending.len() {
        seen.push(request(&mut peer).await.2);
    }
    for (i, correlation) in (0_i16..).zip(&seen) {
        answer(&mut peer, *correlation, &i.to_be_bytes()).await;
    }
    for (i, p) in (0..).zip(pending) {
        assert_eq!(p.await.unwrap().error_code, i);
    }
}

#[tokio::test]
async fn an_answer_right_before_the_end_is_told() {
    let (connection, mut peer) = open().await;
    let mut pending = connection.submit(heartbeat(), LONG);
    let mut unanswered = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut pending).is_pending() && poll!(&mut unanswered).is_pending());
    let correlation = request(&mut peer).await.2;
    answer(&mut peer, correlation, &[0, 7]).await;
    drop(peer);
    connection.closed().await;
    assert_eq!(unanswered.await.unwrap_err().kind(), ErrorKind::Disconnected);
    assert_eq!(pending.await.unwrap().error_code, 7);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_kept_for_who_looks_elsewhere_and_an_answer_in_time_counts() {
    let (connection, mut peer) = open().await;
    let mut in_time = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut in_time).is_pending());
    let correlation = request(&mut peer).await.2;
    answer(&mut peer, correlation, &[0, 7]).await;
    let mut late = connection.submit(heartbeat(), 2 * LONG);
    assert!(poll!(&mut late).is_pending());
    tokio::time::sleep(LONG + LONG / 2).await;
    assert!(!connection.is_closed(), "the first was answered in time");
    connection.closed().await;
    assert_eq!(in_time.await.unwrap().error_code, 7);
    assert!(late.await.unwrap_err().is_timeout());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_dropped_while_its_caller_waits_still_has_its_deadline() {
    let (connection, _peer) = open().await;
    let mut pending = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut pending).is_pending());
    drop(pending);
    let began = Instant::now();
    connection.closed().await;
    assert_eq!(began.elapsed().as_secs(), LONG.as_secs());
}

#[tokio::test]
async fn a_connection_that_is_dropped_ends_when_its_last_answer_is_there() {
    let (connection, mut peer) = open().await;
    let mut pending = connection.submit(heartbeat(), LONG);
    assert!(poll!(&mut pending).is_pending());
    drop(connection);
    let correlation = request(&mut peer).await.2;
    answer(&mut peer, correlation, &[0, 7]).await;
    assert_eq!(pending.await.unwrap().error_code, 7);
    assert_eq!(peer.read(&mut [0; 8]).await.unwrap(), 0, "the socket is closed");
}
