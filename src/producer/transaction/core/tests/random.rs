//! Invariants of a core, whatever its coordinator does.

use proptest::prelude::*;

use super::*;

/// An event of the property test.
#[derive(Debug, Clone)]
enum Event {
    Begin,
    Send(i32),
    Acknowledge,
    SendFails(bool),
    Offsets,
    End(bool),
    Respond,
    Refuse(i16),
    Lose,
    Wait,
    Feature(i16),
}

fn event() -> impl Strategy<Value = Event> {
    let codes = [14, 16, 51, 7, 47, 90, 120, 48, 59, 29, 25, -1, 999];
    prop_oneof![
        4 => Just(Event::Begin),
        4 => (0..4_i32).prop_map(Event::Send),
        4 => Just(Event::Acknowledge),
        1 => any::<bool>().prop_map(Event::SendFails),
        1 => Just(Event::Offsets),
        3 => any::<bool>().prop_map(Event::End),
        12 => Just(Event::Respond),
        2 => prop::sample::select(codes.to_vec()).prop_map(Event::Refuse),
        1 => Just(Event::Lose),
        4 => Just(Event::Wait),
        1 => (0..3_i16).prop_map(Event::Feature),
    ]
}

proptest! {
    /// Whatever the coordinator does: a failed transaction is never committed, a commit that was
    /// sent is followed by no abort unless it was refused, and with version 1 no epoch is used for
    /// another transaction after a request without response.
    #[test]
    fn verdicts_and_epochs_are_safe(events in prop::collection::vec(event(), 1..120), exclusive: bool) {
        let mut bed = TestBed::with(1, exclusive);
        let (mut in_flight, mut open, mut failed) = (String::new(), false, false);
        let (mut committing, mut refused, mut tainted) = (false, false, None::<i16>);
        let mut next_epoch = 1;
        for event in events {
            match event {
                Event::Begin if !open => {
                    let epoch = bed.core.producer.map(|p| p.epoch);
                    if let Begin::Open(version) = bed.core.on_begin(bed.now) {
                        prop_assert!(version == Version::V2 || tainted.is_none() || tainted != epoch);
                        (open, failed, committing, refused, tainted) = (true, false, false, false, None);
                        bed.sends = Sends { any: false, unfinished: false };
                    }
                }
                Event::Send(n) if open && !failed => bed.use_partition(n),
                Event::Acknowledge => bed.acknowledge(),
                Event::SendFails(needs_epoch) if open => {
                    failed = true;
                    bed.sends.unfinished = false;
                    let error = Error::broker(10, "produce");
                    bed.core.on_send_failure(bed.now, &SendFailure { error, needs_epoch });
                }
                Event::Offsets if open => {
                    bed.core.on_offsets(group(), [(partition(9), OffsetAndMetadata::new(5))]);
                }
                Event::End(commit) if open => {
                    open = false;
                    bed.core.on_end(bed.now, commit);
                }
                Event::Respond if in_flight.starts_with("find") => bed.respond(Response::Coordinator(1)),
                Event::Respond if !in_flight.is_empty() => {
                    let is_v2 = bed.core.open_version() == Version::V2;
                    let ends = in_flight.starts_with("commit") || in_flight.starts_with("abort");
                    if in_flight.starts_with("init") || (ends && is_v2) {
                        bed.respond(epoch(next_epoch));
                        next_epoch += 1;
                    } else {
                        bed.respond(Response::Done);
                    }
                }
                Event::Refuse(code) if !in_flight.is_empty() => {
                    refused |= in_flight.starts_with("commit");
                    bed.fail(refusal(code));
                }
                Event::Lose if !in_flight.is_empty() => {
                    if !in_flight.starts_with("init") && !in_flight.starts_with("find") {
                        tainted = bed.core.producer.map(|p| p.epoch);
                    }
                    bed.fail(no_response());
                }
                Event::Wait => bed.wait(),
                Event::Feature(level) => bed.core.on_feature(5, level),
                _ => continue,
            }
            if bed.core.in_flight.is_none() {
                in_flight = bed.request();
                if in_flight.starts_with("commit") {
                    prop_assert!(!failed && !bed.sends.unfinished);
                    committing = true;
                }
                prop_assert!(!in_flight.starts_with("abort") || !committing || refused, "{}", in_flight);
                prop_assert!(bed.core.poll_request(bed.now, bed.sends).is_none() || in_flight.is_empty());
            }
        }
    }
}
