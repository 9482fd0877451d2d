#![allow(clippy::unwrap_used, clippy::panic)]

mod random;
mod status;

use super::*;
use crate::cluster::group_metadata::{GroupMember, GroupMembership};
use crate::code;

const MS: Duration = Duration::from_millis(1);
const TIMEOUT: Duration = Duration::from_secs(40);
const ME: ProducerIdAndEpoch = ProducerIdAndEpoch { id: 7, epoch: 0 };

#[derive(Debug)]
struct Nobody;

impl GroupMembership for Nobody {
    fn member(&self, _: &mut dyn Iterator<Item = &TopicPartition>) -> crate::Result<Option<GroupMember>> {
        Ok(Some(GroupMember { member_id: "m".into(), generation: 1, instance_id: None }))
    }

    fn on_refused(&self, _: i32) {}
}

fn group() -> ConsumerGroupMetadata {
    ConsumerGroupMetadata::new("g".into(), Arc::new(Nobody))
}

fn partition(n: i32) -> TopicPartition {
    TopicPartition::new("t", n)
}

fn refusal(code: i16) -> Result<Response, RequestFailure> {
    Err(RequestFailure { code: Some(code), error: Error::broker(code, "test") })
}

fn no_response() -> Result<Response, RequestFailure> {
    Err(RequestFailure { code: None, error: Error::new(ErrorKind::Timeout, "no response") })
}

fn epoch(epoch: i16) -> Response {
    Response::Producer(ProducerIdAndEpoch { epoch, ..ME })
}

/// A core, its clock, and what the accumulator has.
struct TestBed {
    core: Core,
    now: Instant,
    sends: Sends,
    effects: Vec<String>,
}

impl TestBed {
    fn with(level: i16, exclusive: bool) -> Self {
        let backoff = Backoff::new(100 * MS, 1000 * MS);
        let config =
            CoreConfig { transactional_id: "id".into(), exclusive, timeout: TIMEOUT, backoff, keeps_epoch: false };
        let sends = Sends { any: false, unfinished: false };
        let mut bed = Self { core: Core::new(config), now: Instant::now(), sends, effects: Vec::new() };
        bed.core.on_start();
        assert_eq!(bed.request(), "find");
        bed.respond(Response::Coordinator(1));
        bed.core.on_feature(5, level);
        assert_eq!(bed.request(), "init fresh");
        bed.respond(epoch(0));
        assert_eq!(bed.request(), "");
        bed.effects.clear();
        bed
    }

    fn v1() -> Self {
        Self::with(1, false)
    }

    fn v2() -> Self {
        Self::with(2, false)
    }

    fn begin(&mut self) {
        let begin = self.core.on_begin(self.now);
        assert!(matches!(begin, Begin::Open(_)), "{begin:?}");
        self.sends = Sends { any: false, unfinished: false };
    }

    /// Sends a record to a partition.
    fn use_partition(&mut self, n: i32) {
        if self.core.open_version() == Version::V1 {
            self.core.on_partitions_used(vec![partition(n)]);
        }
        self.sends = Sends { any: true, unfinished: true };
    }

    fn acknowledge(&mut self) {
        self.sends.unfinished = false;
    }

    /// Applies effects, then returns the next request by name, or "".
    fn request(&mut self) -> String {
        self.core.on_timeout(self.now);
        while let Some(effect) = self.core.poll_effect() {
            self.effects.push(match effect {
                Effect::SetProducer(p) => format!("epoch {}", p.epoch),
                Effect::PartitionsAdded(all) => format!("added {}", all.len()),
                Effect::FailPending(_) => "fail".into(),
            });
        }
        match self.core.poll_request(self.now, self.sends) {
            None => String::new(),
            Some(Request::FindCoordinator(None)) => "find".into(),
            Some(Request::FindCoordinator(Some(group))) => format!("find {group}"),
            Some(Request::InitProducerId(None)) => "init fresh".into(),
            Some(Request::InitProducerId(Some(p))) => format!("init {}", p.epoch),
            Some(Request::AddPartitions(_, all)) => format!("add {}", all.len()),
            Some(Request::AddOffsets(_, group)) => format!("add {group}"),
            Some(Request::CommitOffsets(_, _, all)) => format!("offsets {}", all.offsets.len()),
            Some(Request::EndTxn { producer, commit, .. }) => {
                format!("{} {}", if commit { "commit" } else { "abort" }, producer.epoch)
            }
        }
    }

    fn respond(&mut self, response: Response) {
        self.core.on_response(self.now, Ok(response));
    }

    fn fail(&mut self, failure: Result<Response, RequestFailure>) {
        self.core.on_response(self.now, failure);
    }

    /// Passes the longest backoff.
    fn wait(&mut self) {
        self.now += 1500 * MS;
    }

    /// Begins a transaction with one acknowledged record.
    fn begin_with_record(&mut self) {
        self.begin();
        self.use_partition(0);
        if self.core.open_version() == Version::V1 {
            assert_eq!(self.request(), "add 1");
            self.respond(Response::Done);
        }
        self.acknowledge();
    }

    fn commit(&mut self) {
        self.core.on_end(self.now, true);
    }

    fn abort(&mut self) {
        self.core.on_end(self.now, false);
    }

    fn action(&self) -> Option<TransactionAction> {
        self.core.outcome().and_then(|o| o.as_ref().err()).map(TransactionError::action)
    }

    fn is(&self, outcome: TransactionOutcome) -> bool {
        matches!(self.core.outcome(), Some(Ok(is)) if *is == outcome)
    }
}

#[test]
fn an_empty_transaction_needs_no_request() {
    for mut bed in [TestBed::v1(), TestBed::v2()] {
        bed.begin();
        bed.commit();
        assert_eq!(bed.request(), "");
        assert!(bed.is(TransactionOutcome::Committed));
        bed.begin();
        bed.abort();
        assert_eq!(bed.request(), "");
        assert!(bed.is(TransactionOutcome::Aborted) && bed.core.is_idle());
    }
}

#[test]
fn version_1_adds_partitions_and_the_group_and_then_commits() {
    let mut bed = TestBed::v1();
    bed.begin();
    bed.use_partition(0);
    bed.use_partition(1);
    assert_eq!(bed.request(), "add 2");
    bed.use_partition(2); // waits for the request in flight
    assert_eq!(bed.request(), "");
    bed.respond(Response::Done);
    bed.core.on_offsets(group(), [(partition(9), OffsetAndMetadata::new(5))]);
    bed.commit();
    assert_eq!(bed.request(), "add 1");
    bed.respond(Response::Done);
    assert_eq!(bed.request(), "add g");
    bed.respond(Response::Done);
    assert_eq!(bed.request(), "find g");
    bed.respond(Response::Coordinator(2));
    assert_eq!(bed.request(), "offsets 1");
    bed.respond(Response::Done);
    assert_eq!(bed.request(), "", "not every batch is acknowledged");
    bed.acknowledge();
    assert_eq!(bed.request(), "commit 0");
    bed.respond(Response::Done);
    assert!(bed.is(TransactionOutcome::Committed));
    assert_eq!(bed.effects, ["added 2", "added 1"]);
    bed.begin();
}

#[test]
fn version_2_commits_offsets_and_takes_the_epoch_of_the_response() {
    let mut bed = TestBed::v2();
    bed.begin();
    bed.use_partition(0);
    bed.core.on_offsets(group(), [(partition(9), OffsetAndMetadata::new(5))]);
    bed.commit();
    assert_eq!(bed.request(), "find g");
    bed.respond(Response::Coordinator(2));
    assert_eq!(bed.request(), "offsets 1");
    bed.respond(Response::Done);
    bed.acknowledge();
    assert_eq!(bed.request(), "commit 0");
    bed.respond(epoch(1));
    assert_eq!(bed.request(), "");
    assert_eq!(bed.effects, ["epoch 1"]);
    bed.begin_with_record();
    bed.abort();
    assert_eq!(bed.request(), "abort 1");
    bed.respond(epoch(2));
    assert!(bed.is(TransactionOutcome::Aborted));
}

#[test]
fn a_commit_after_a_failed_batch_aborts() {
    for (mut bed, raised) in [(TestBed::v1(), "init 0"), (TestBed::v2(), "")] {
        bed.begin_with_record();
        let error = Error::broker(10, "produce");
        bed.core.on_send_failure(bed.now, &SendFailure { error, needs_epoch: true });
        bed.commit();
        assert_eq!(bed.request(), "abort 0");
        assert!(bed.core.outcome().is_none());
        bed.respond(if raised.is_empty() { epoch(1) } else { Response::Done });
        assert_eq!(bed.action(), Some(TransactionAction::Abort));
        assert_eq!(bed.request(), raised, "with version 2 the response has a new epoch");
    }
}

#[test]
fn a_failure_while_it_commits_aborts() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.sends.unfinished = true;
    bed.commit();
    assert_eq!(bed.request(), "");
    let error = Error::broker(29, "produce");
    bed.core.on_send_failure(bed.now, &SendFailure { error, needs_epoch: false });
    bed.acknowledge();
    assert_eq!(bed.request(), "abort 0");
    bed.respond(Response::Done);
    assert_eq!(bed.action(), Some(TransactionAction::Abort));
    bed.begin();
}

#[test]
fn a_commit_without_response_is_sent_again_as_it_was() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    for failure in [no_response(), refusal(7), refusal(-1), refusal(999)] {
        bed.fail(failure);
        bed.wait();
        assert_eq!(bed.request(), "find");
        bed.respond(Response::Coordinator(3));
        assert_eq!(bed.request(), "commit 0");
    }
    for code in [14, 51] {
        bed.fail(refusal(code));
        bed.wait();
        assert_eq!(bed.request(), "commit 0", "{code}");
    }
    bed.respond(Response::Done);
    assert!(bed.is(TransactionOutcome::Committed));
    assert!(matches!(bed.core.on_begin(bed.now), Begin::Wait));
    assert_eq!(bed.request(), "init 0", "a copy of the commit may be late");
    bed.respond(epoch(1));
    bed.begin();
}

#[test]
fn version_2_needs_no_new_epoch_after_a_lost_response() {
    let mut bed = TestBed::v2();
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.fail(no_response());
    bed.wait();
    assert_eq!(bed.request(), "find");
    bed.respond(Response::Coordinator(1));
    assert_eq!(bed.request(), "commit 0");
    bed.respond(epoch(1));
    bed.begin();
}

#[test]
fn a_commit_that_is_not_confirmed_in_time_is_unknown_until_it_is() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.now += TIMEOUT;
    assert_eq!(bed.request(), "");
    assert_eq!(bed.action(), Some(TransactionAction::Unknown));
    assert!(matches!(bed.core.on_begin(bed.now), Begin::Wait));
    bed.fail(no_response());
    bed.wait();
    assert_eq!(bed.request(), "find");
    bed.respond(Response::Coordinator(1));
    assert_eq!(bed.request(), "commit 0");
    bed.respond(Response::Done);
    assert!(bed.is(TransactionOutcome::Committed));
    assert_eq!(bed.request(), "init 0");
}

#[test]
fn records_that_are_not_acknowledged_in_time_abort_it() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.sends.unfinished = true;
    bed.commit();
    assert_eq!(bed.request(), "");
    bed.now += TIMEOUT;
    assert_eq!(bed.request(), "");
    assert_eq!(bed.action(), Some(TransactionAction::Abort));
    assert!(matches!(bed.core.on_begin(bed.now), Begin::Wait), "a batch is still in flight");
    bed.acknowledge();
    assert_eq!(bed.request(), "abort 0");
}

#[test]
fn a_fenced_producer_stops() {
    for code in [47, 90, 49] {
        let mut bed = TestBed::v1();
        bed.begin_with_record();
        bed.commit();
        assert_eq!(bed.request(), "commit 0");
        bed.fail(refusal(code));
        assert_eq!(bed.action(), Some(TransactionAction::Fenced));
        assert_eq!(bed.request(), "");
        assert!(matches!(bed.core.on_begin(bed.now), Begin::Failed(e) if e.action() == TransactionAction::Fenced));
    }
}

#[test]
fn a_commit_refused_after_a_lost_response_is_unknown() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.fail(no_response());
    bed.wait();
    assert_eq!(bed.request(), "find");
    bed.respond(Response::Coordinator(1));
    assert_eq!(bed.request(), "commit 0");
    bed.fail(refusal(90));
    assert_eq!(bed.action(), Some(TransactionAction::Unknown));
}

#[test]
fn an_exclusive_id_goes_on_after_a_timeout() {
    let mut bed = TestBed::with(1, true);
    bed.begin_with_record();
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.fail(refusal(47));
    assert_eq!(bed.request(), "init fresh");
    bed.fail(refusal(51));
    bed.wait();
    assert_eq!(bed.request(), "init fresh");
    bed.respond(epoch(4));
    assert_eq!(bed.action(), Some(TransactionAction::Abort));
    bed.begin();
}

#[test]
fn an_exclusive_id_fences_late_batches_with_the_abort() {
    let mut bed = TestBed::with(1, true);
    bed.begin_with_record();
    let error = Error::new(ErrorKind::Indeterminate, "not acknowledged");
    bed.core.on_send_failure(bed.now, &SendFailure { error, needs_epoch: true });
    bed.commit();
    assert_eq!(bed.request(), "init fresh");
    bed.respond(epoch(2));
    assert_eq!(bed.action(), Some(TransactionAction::Abort));
}

#[test]
fn an_abort_of_what_was_not_registered_is_done() {
    let mut bed = TestBed::v1();
    bed.begin();
    bed.use_partition(0);
    assert_eq!(bed.request(), "add 1");
    bed.fail(no_response());
    bed.abort();
    bed.acknowledge();
    assert_eq!(bed.request(), "find");
    bed.respond(Response::Coordinator(1));
    assert_eq!(bed.request(), "abort 0");
    bed.fail(refusal(48));
    assert!(bed.is(TransactionOutcome::Aborted));
    assert_eq!(bed.request(), "init 0", "the request may still arrive");
}

#[test]
fn a_refused_offset_aborts_and_the_next_transaction_begins() {
    for code in [25, 82, 27, 12, 30] {
        let mut bed = TestBed::v2();
        bed.begin_with_record();
        bed.core.on_offsets(group(), [(partition(9), OffsetAndMetadata::new(5))]);
        bed.commit();
        assert_eq!(bed.request(), "find g");
        bed.respond(Response::Coordinator(2));
        assert_eq!(bed.request(), "offsets 1");
        bed.fail(refusal(code));
        assert_eq!(bed.request(), "abort 0");
        bed.respond(epoch(1));
        assert_eq!(bed.action(), Some(TransactionAction::Abort), "{code}");
        bed.begin();
    }
}

#[test]
fn the_version_is_latched_at_begin_and_a_raise_follows_an_upgrade() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    bed.core.on_feature(6, 2);
    bed.core.on_feature(5, 1); // an older epoch of the features
    bed.commit();
    assert_eq!(bed.request(), "commit 0");
    bed.respond(Response::Done);
    assert!(matches!(bed.core.on_begin(bed.now), Begin::Wake));
    assert_eq!(bed.request(), "init 0");
    bed.respond(epoch(1));
    bed.begin();
    assert_eq!(bed.core.open_version(), Version::V2);
    bed.abort();
    assert_eq!(bed.request(), "");
    bed.core.on_feature(7, 1);
    bed.begin();
    assert_eq!(bed.core.open_version(), Version::V1);
}

#[test]
fn a_rejected_id_or_timeout_stops_the_start() {
    for code in [50, 53, 42] {
        let mut bed = TestBed::v1();
        bed.core.on_start();
        assert_eq!(bed.request(), "init fresh");
        bed.fail(refusal(code));
        let started = bed.core.started();
        assert!(matches!(started, Some(Err(e)) if e.action() == TransactionAction::Stop), "{code}");
    }
}

#[test]
fn server_errors_of_the_start_are_retried_a_few_times() {
    let mut bed = TestBed::v1();
    bed.core.on_start();
    for _ in 0..MAX_SERVER_ERRORS {
        assert_eq!(bed.request(), "init fresh");
        bed.fail(refusal(-1));
        bed.wait();
    }
    assert!(matches!(bed.core.started(), Some(Err(_))));
}

#[test]
fn the_end_of_the_last_transaction_is_awaited_2_ms_at_first() {
    let mut bed = TestBed::v1();
    bed.begin();
    bed.use_partition(0);
    assert_eq!(bed.request(), "add 1");
    bed.fail(refusal(51));
    assert_eq!(bed.request(), "");
    bed.now += 3 * MS;
    assert_eq!(bed.request(), "add 1");
    bed.fail(refusal(51));
    bed.now += 3 * MS;
    assert_eq!(bed.request(), "", "it doubles");
}

#[test]
fn a_forgotten_guard_aborts_at_the_next_begin() {
    let mut bed = TestBed::v1();
    bed.begin_with_record();
    assert!(matches!(bed.core.on_begin(bed.now), Begin::Wake));
    assert_eq!(bed.request(), "abort 0");
    bed.respond(Response::Done);
    bed.begin();
}

#[test]
fn offsets_of_an_old_generation_are_sent_again_until_the_partitions_are_lost() {
    for (mut bed, refusals) in [(TestBed::v1(), 3), (TestBed::v2(), 1)] {
        bed.begin_with_record();
        bed.core.on_offsets(group(), [(partition(9), OffsetAndMetadata::new(5))]);
        bed.commit();
        if bed.core.open_version() == Version::V1 {
            assert_eq!(bed.request(), "add g");
            bed.respond(Response::Done);
        }
        assert_eq!(bed.request(), "find g");
        bed.respond(Response::Coordinator(2));
        for code in [code::ILLEGAL_GENERATION, code::STALE_MEMBER_EPOCH].into_iter().cycle().take(refusals) {
            assert_eq!(bed.request(), "offsets 1");
            bed.fail(refusal(code));
            assert_eq!(bed.request(), "", "not at once");
            bed.wait();
        }
        assert_eq!(bed.request(), "offsets 1", "to the same coordinator");
        if refusals == 1 {
            bed.respond(Response::Done);
            assert_eq!(bed.request(), "commit 0");
            continue;
        }
        bed.fail(refusal(code::UNKNOWN_MEMBER_ID)); // as if a partition is not assigned any more
        assert_eq!(bed.request(), "abort 0");
        bed.respond(Response::Done);
        assert_eq!(bed.action(), Some(TransactionAction::Abort));
    }
}

#[test]
fn offsets_whose_generation_stays_old_abort_at_the_timeout() {
    let mut bed = TestBed::v2();
    bed.begin();
    bed.core.on_offsets(group(), [(partition(9), OffsetAndMetadata::new(5))]);
    bed.commit();
    assert_eq!(bed.request(), "find g");
    bed.respond(Response::Coordinator(2));
    while bed.core.outcome().is_none() {
        match &*bed.request() {
            "offsets 1" => bed.fail(refusal(code::ILLEGAL_GENERATION)),
            "" => bed.now = bed.core.next_timeout().unwrap(),
            "abort 0" => bed.respond(epoch(1)),
            other => panic!("{other}"),
        }
    }
    let error = bed.core.outcome().unwrap().clone().unwrap_err();
    assert_eq!(error.action(), TransactionAction::Abort);
    assert!(error.error().full().contains("IllegalGeneration"), "{error}");
}

#[test]
fn a_commit_that_timed_out_at_the_coordinator_does_not_end_an_exclusive_producer() {
    for code in [code::INVALID_TXN_STATE, code::PRODUCER_FENCED] {
        for exclusive in [false, true] {
            let mut bed = TestBed::with(2, exclusive);
            bed.begin_with_record();
            bed.commit();
            assert_eq!(bed.request(), "commit 0");
            bed.fail(refusal(code));
            if !exclusive {
                assert_eq!(bed.action(), Some(TransactionAction::Fenced), "another producer may have the id");
                assert_eq!(bed.request(), "");
                continue;
            }
            assert_eq!(bed.request(), "init fresh");
            bed.respond(epoch(2));
            assert_eq!(bed.action(), Some(TransactionAction::Abort));
            bed.begin();
        }
    }
}
