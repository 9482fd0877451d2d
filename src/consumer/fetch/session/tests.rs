#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

#[test]
fn epochs_count_the_responses_of_a_session() {
    let mut s = Session::default();
    assert!(s.is_new());
    assert_eq!(s.next(), FetchMetadata { id: 0, epoch: INITIAL_EPOCH });
    assert!(s.on_response(0, 77));
    assert_eq!(s.next(), FetchMetadata { id: 77, epoch: 1 });
    assert!(s.on_response(0, 77));
    assert_eq!((s.next(), s.is_new()), (FetchMetadata { id: 77, epoch: 2 }, false));
    s.epoch = i32::MAX;
    assert!(s.on_response(0, 77));
    assert_eq!(s.next(), FetchMetadata { id: 77, epoch: 1 }, "epoch 0 would open another one");
}

#[test]
fn a_lost_session_is_opened_again() {
    for (code, id) in [(code::FETCH_SESSION_ID_NOT_FOUND, 0), (code::INVALID_FETCH_SESSION_EPOCH, 77)] {
        let mut s = Session::default();
        s.on_response(0, 77);
        assert!(!s.on_response(code, 0));
        assert_eq!(s.next(), FetchMetadata { id, epoch: INITIAL_EPOCH });
    }
    let mut s = Session::default();
    assert!(s.on_response(0, 0), "the broker has no room for a session");
    assert!(s.is_new());
    s.on_response(0, 77);
    s.on_failure(); // no response came: the broker may have served the request
    assert_eq!(s.next(), FetchMetadata { id: 77, epoch: INITIAL_EPOCH }, "which closes the old one");
}
