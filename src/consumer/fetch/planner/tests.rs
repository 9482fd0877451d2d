#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use kafka_protocol::messages::BrokerId;
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use uuid::Uuid;

use super::*;
use crate::cluster::topic_meta;
use crate::error::ErrorKind;
use crate::timestamp::Timestamp;

const SHARE: usize = 100_000;

fn lease(partition: i32, epoch: u64) -> Lease {
    Lease { partition: TopicPartition::new("t", partition), epoch }
}

fn p(partition: i32) -> Lease {
    lease(partition, 1)
}

fn planner(starts: &[StartOffset]) -> FetchPlanner {
    let config =
        ConsumerConfig { prefetch_bytes: SHARE * starts.len(), partition_fetch_bytes: 60_000, ..Default::default() };
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut planner = FetchPlanner::new(&config, backoff, Arc::default());
    planner.add(starts.iter().zip(0..).map(|(start, i)| (p(i), *start)));
    planner
}

/// A topic whose partitions have these leaders; -1 for none.
pub(in crate::consumer) fn snapshot(leaders: &[i32], id: u128) -> Snapshot {
    let partition = |(leader, index): (&i32, i32)| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(*leader))
            .with_leader_epoch(7)
    };
    let topic = MetadataResponseTopic::default()
        .with_topic_id(Uuid::from_u128(id))
        .with_partitions(leaders.iter().zip(0..).map(partition).collect());
    let mut snapshot = Snapshot::empty();
    snapshot.topics.insert(topic_meta("t".into(), &topic, None));
    snapshot
}

/// Partitions that a fetch requests, with their offsets.
fn requests(plan: &Plan) -> Vec<(i32, i64)> {
    match plan {
        Plan::Fetch(plan) => plan.requests.iter().map(|a| (a.lease.partition.partition, a.what.offset)).collect(),
        other => panic!("no fetch: {other:?}"),
    }
}

fn fetched(next: i64, bytes: usize) -> FetchedPartition {
    FetchedPartition { next, end: next, wire: bytes, memory: bytes, ..FetchedPartition::default() }
}

#[test]
fn start_offsets_come_before_one_fetch_per_broker() {
    let mut t = planner(&[StartOffset::Offset(5), StartOffset::Latest, StartOffset::Earliest]);
    let now = Instant::now();
    let changes = t.apply_metadata(&snapshot(&[1, 1, 2], 1));
    assert_eq!(changes, LeaderChanges { new_brokers: vec![1, 2], ..LeaderChanges::default() });
    assert_eq!(t.apply_metadata(&snapshot(&[1, 1, 2], 1)), LeaderChanges::default(), "they run already");
    let Plan::ListOffsets(seeks) = t.plan(1, now) else { panic!("a start is not known") };
    assert_eq!((seeks[0].lease.partition.partition, seeks[0].what, seeks[0].leader_epoch), (1, StartOffset::Latest, 7));
    let found = t.on_offset_resolved(&p(1), StartOffset::Latest, 40, None);
    assert_eq!((found.at, found.must_commit), (Some(40), false), "the application knows where it started");
    let plan = t.plan(1, now);
    assert_eq!(requests(&plan), [(0, 5), (1, 40)]);
    assert_eq!(t.plan(1, now), Plan::Wait(None), "it is in flight");
    t.clear_in_flight([&p(0), &p(1)]);
    assert_eq!(t.plan(1, now), plan, "no response came");
    let Plan::ListOffsets(seeks) = t.plan(2, now) else { panic!("a start is not known") };
    assert_eq!(seeks[0].what, StartOffset::Earliest);
    assert!(!t.on_offset_resolved(&p(2), StartOffset::Earliest, 3, None).must_commit);
    assert_eq!(t.plan(3, now), Plan::Stop);
}

#[test]
fn a_timestamp_after_the_last_record_is_the_end() {
    let mut t = planner(&[StartOffset::Timestamp(Timestamp::from_millis(99))]);
    t.apply_metadata(&snapshot(&[1], 1));
    let now = Instant::now();
    t.plan(1, now);
    assert_eq!(t.on_offset_resolved(&p(0), StartOffset::Timestamp(Timestamp::from_millis(99)), -1, None).at, None);
    let Plan::ListOffsets(seeks) = t.plan(1, now) else { panic!("requests again") };
    assert_eq!(seeks[0].what, StartOffset::Latest);
}

#[test]
fn a_partition_over_its_share_is_left_out() {
    let mut t = planner(&[StartOffset::Offset(0); 2]);
    t.apply_metadata(&snapshot(&[1, 1], 1));
    let now = Instant::now();
    t.plan(1, now);
    let (buffered, _) = t.on_fetched(&p(0), now, 0, fetched(10, SHARE - 10_000)).unwrap();
    let (read, _) = t.on_fetched(&p(1), now, 0, fetched(10, SHARE * 2)).unwrap();
    drop(read);
    let Plan::Fetch(plan) = t.plan(1, now) else { panic!("both have room") };
    assert_eq!(plan.wait, t.max_wait);
    let sizes: BTreeMap<_, _> = plan.requests.iter().map(|a| (a.lease.partition.partition, a.what.max_bytes)).collect();
    assert_eq!(sizes, [(0, 43_334), (1, 60_000)].into(), "what is left of the budget, or the setting");
    let (more, _) = t.on_fetched(&p(0), now, 10, fetched(20, 10_000)).unwrap();
    t.on_fetched(&p(1), now, 10, fetched(10, 0)).unwrap();
    let Plan::Fetch(plan) = t.plan(1, now) else { panic!("one goes on") };
    assert_eq!((plan.requests.len(), plan.requests[0].lease.partition.partition), (1, 1));
    assert!(plan.wait < t.max_wait, "the broker must not hold it for long: the other may have room soon");
    assert_eq!(t.plan(1, now), Plan::Wait(None));
    drop((buffered, more));
    assert_eq!(requests(&t.plan(1, now)), [(0, 20)]);
}

#[test]
fn compressed_bytes_are_fetched_in_smaller_pieces() {
    let mut t = planner(&[StartOffset::Offset(0)]);
    t.apply_metadata(&snapshot(&[1], 1));
    let now = Instant::now();
    t.plan(1, now);
    t.on_fetched(&p(0), now, 0, FetchedPartition { memory: 40_000, ..fetched(9, 10_000) }).unwrap();
    let Plan::Fetch(plan) = t.plan(1, now) else { panic!("it has room") };
    assert_eq!(
        (plan.requests[0].what.max_bytes, plan.max_bytes),
        (SHARE / 4, SHARE / 12),
        "a third of the budget when it is opened"
    );
}

#[test]
fn the_partition_served_longest_ago_comes_first() {
    let mut t = planner(&[StartOffset::Offset(0); 3]);
    t.apply_metadata(&snapshot(&[1, 1, 1], 1));
    let now = Instant::now();
    assert_eq!(requests(&t.plan(1, now)), [(0, 0), (1, 0), (2, 0)]);
    t.on_fetched(&p(0), now, 0, fetched(5, 100)).unwrap();
    t.clear_in_flight([&p(1), &p(2)]); // the response had no room for them
    assert_eq!(requests(&t.plan(1, now)), [(1, 0), (2, 0), (0, 5)]);
    t.on_fetched(&p(1), now, 0, fetched(5, 100)).unwrap();
    t.clear_in_flight([&p(0), &p(2)]);
    assert_eq!(requests(&t.plan(1, now)), [(2, 0), (0, 5), (1, 5)]);
}

#[test]
fn an_empty_partition_is_reported_once() {
    let mut t = planner(&[StartOffset::Offset(4)]);
    t.apply_metadata(&snapshot(&[1], 1));
    let now = Instant::now();
    let mut is_news = |at, next| {
        t.plan(1, now);
        t.on_fetched(&p(0), now, at, fetched(next, 0)).unwrap().1
    };
    assert!(is_news(4, 4), "the end of an empty partition");
    assert!(!is_news(4, 4));
    assert!(is_news(4, 6), "offsets without a record");
    assert!(!is_news(6, 6));
}

#[test]
fn an_offset_outside_the_log_is_reset() {
    let mut t = planner(&[StartOffset::Offset(500)]);
    t.apply_metadata(&snapshot(&[1], 1));
    let now = Instant::now();
    t.plan(1, now);
    let refused = t.on_error(&p(0), now, code::OFFSET_OUT_OF_RANGE, "fetching");
    assert!(refused.refresh && refused.report.is_none());
    report_range(&mut t, now, 20, 90);
    assert_eq!(requests(&t.plan(1, now)), [(0, 20)]);
}

/// Reports both ends of the log whose leader refused the position.
fn report_range(t: &mut FetchPlanner, now: Instant, start: i64, end: i64) -> ResolvedOffset {
    for (what, offset) in [(StartOffset::Earliest, start), (StartOffset::Latest, end)] {
        let Plan::ListOffsets(seeks) = t.plan(1, now) else { panic!("both ends are requested") };
        assert_eq!(seeks[0].what, what);
        let sought = t.on_offset_resolved(&p(0), what, offset, None);
        if what == StartOffset::Latest {
            return sought;
        }
    }
    unreachable!()
}

#[test]
fn an_offset_inside_the_log_stays() {
    for reset in [Some(StartOffset::Latest), Some(StartOffset::Earliest), None] {
        let mut t = planner(&[StartOffset::Offset(50)]);
        t.reset_policy = reset;
        t.apply_metadata(&snapshot(&[1], 1));
        let mut now = Instant::now();
        for round in 0..5 {
            assert_eq!(requests(&t.plan(1, now)), [(0, 50)], "{reset:?}");
            assert!(t.on_error(&p(0), now, code::OFFSET_OUT_OF_RANGE, "fetching").refresh);
            if round > 0 {
                let Plan::Wait(Some(until)) = t.plan(1, now) else { panic!("not again at once") };
                now = until;
            }
            let sought = report_range(&mut t, now, 20, 50);
            assert!(sought.at.is_none() && sought.report.is_none() && !sought.must_commit);
        }
        assert_eq!(requests(&t.plan(1, now)), [(0, 50)], "{reset:?}");
    }
}

#[test]
fn a_reset_to_latest_is_committed() {
    let mut t = planner(&[StartOffset::Offset(50)]);
    t.reset_policy = Some(StartOffset::Latest);
    t.apply_metadata(&snapshot(&[1], 1));
    let now = Instant::now();
    t.plan(1, now);
    t.on_error(&p(0), now, code::OFFSET_OUT_OF_RANGE, "fetching");
    let sought = report_range(&mut t, now, 0, 49);
    assert_eq!((sought.at, sought.must_commit), (Some(49), true));
}

#[test]
fn topics_that_must_be_read_whole_start_at_their_beginning() {
    let mut t = planner(&[]);
    t.reset_policy = Some(StartOffset::Latest);
    t.earliest_topics = Some(".retry.billing.".into());
    let of = |topic: &str| t.reset_policy(&TopicPartition::new(topic, 0));
    assert_eq!(of("orders.retry.billing.1m"), Some(StartOffset::Earliest));
    assert_eq!([of("orders"), of("orders.retry.other.1m")], [Some(StartOffset::Latest); 2]);
}

#[test]
fn by_latest_a_new_partition_starts_at_its_beginning() {
    let mut t = planner(&[]);
    t.reset_policy = Some(StartOffset::Latest);
    t.add([(p(0), StartPosition::NewPartition)]);
    t.apply_metadata(&snapshot(&[1], 1));
    let now = Instant::now();
    let Plan::ListOffsets(seeks) = t.plan(1, now) else { panic!("requests for the beginning") };
    assert_eq!(seeks[0].what, StartOffset::Earliest);
    let sought = t.on_offset_resolved(&p(0), StartOffset::Earliest, 3, None);
    assert_eq!((sought.at, sought.must_commit), (Some(3), true), "the next owner would start at the end");
}

#[test]
fn a_failed_partition_backs_off_alone() {
    let mut t = planner(&[StartOffset::Offset(0); 2]);
    t.apply_metadata(&snapshot(&[1, 1], 1));
    let now = Instant::now();
    t.plan(1, now);
    assert!(t.on_error(&p(0), now, 6, "fetching").refresh);
    t.on_fetched(&p(1), now, 0, fetched(3, 10)).unwrap();
    assert_eq!(requests(&t.plan(1, now)), [(1, 3)], "the other one goes on");
    let Plan::Wait(Some(until)) = t.plan(1, now) else { panic!("it waits") };
    assert!(until > now && until < now + Duration::from_secs(1));
    assert_eq!(requests(&t.plan(1, until)), [(0, 0)], "again, for want of news");
    t.on_error(&p(0), until, 74, "fetching");
    assert_eq!(t.apply_metadata(&snapshot(&[2, 1], 1)).new_brokers, [2]);
    assert_eq!(requests(&t.plan(2, until)), [(0, 0)], "with new news at once");
    let lost = t.apply_metadata(&snapshot(&[-1, -1], 1));
    assert!(lost.leaderless);
    assert_eq!(t.plan(1, until), Plan::Stop);
}

#[test]
fn responses_of_two_leaders_count_once() {
    let mut t = planner(&[StartOffset::Offset(0)]);
    t.apply_metadata(&snapshot(&[1], 1));
    let now = Instant::now();
    t.plan(1, now);
    t.apply_metadata(&snapshot(&[2], 1));
    assert_eq!(requests(&t.plan(2, now)), [(0, 0)], "the old one may never respond");
    assert_eq!(t.plan(2, now), Plan::Wait(None));
    t.on_fetched(&p(0), now, 0, fetched(8, 10)).unwrap();
    assert_eq!(requests(&t.plan(2, now)), [(0, 8)]);
    assert!(t.on_fetched(&p(0), now, 0, fetched(8, 10)).is_none(), "a response to an old request");
}

#[test]
fn a_lasting_error_is_reported_once() {
    let mut t = planner(&[StartOffset::Offset(0)]);
    t.apply_metadata(&snapshot(&[1], 1));
    let mut now = Instant::now();
    t.plan(1, now);
    let e = t.on_error(&p(0), now, 29, "fetching").report.unwrap();
    assert_eq!(e.kind(), ErrorKind::Authorization);
    assert!(e.to_string().contains("t/0"), "{e}");
    now += Duration::from_secs(2);
    t.plan(1, now);
    assert!(t.on_error(&p(0), now, 29, "fetching").report.is_none());
    now += Duration::from_secs(2);
    t.plan(1, now);
    t.on_fetched(&p(0), now, 0, fetched(1, 10)).unwrap();
    assert!(t.on_error(&p(0), now, 29, "fetching").report.is_some(), "reported again after a success");

    let mut t = planner(&[StartOffset::Offset(0)]);
    t.apply_metadata(&snapshot(&[1], 1));
    t.plan(1, now);
    t.on_fetched(&p(0), now, 0, FetchedPartition { corrupt: true, ..fetched(3, 10) }).unwrap();
    assert!(t.on_corrupt(&p(0)));
    assert_eq!(requests(&t.plan(1, now)), [(0, 3)], "nothing is skipped");
    t.on_fetched(&p(0), now, 3, FetchedPartition { corrupt: true, ..fetched(3, 10) }).unwrap();
    assert!(!t.on_corrupt(&p(0)));
    let Plan::Wait(Some(until)) = t.plan(1, now) else { panic!("it waits") };
    assert_eq!(requests(&t.plan(1, until)), [(0, 3)]);
}

#[test]
fn a_recreated_topic_is_read_from_its_beginning() {
    let mut t = planner(&[StartOffset::Offset(50)]);
    t.apply_metadata(&snapshot(&[1], 1));
    let mut gone = Snapshot::empty();
    assert_eq!(t.apply_metadata(&gone).missing, [], "not known yet");
    gone.failed.insert("t".into(), code::UNKNOWN_TOPIC_OR_PARTITION);
    assert_eq!(t.apply_metadata(&gone).missing, [p(0)]);
    assert_eq!(t.apply_metadata(&gone).missing, []);
    t.apply_metadata(&snapshot(&[1], 2));
    let Plan::ListOffsets(seeks) = t.plan(1, Instant::now()) else { panic!("another log") };
    assert_eq!(seeks[0].what, StartOffset::Earliest);
}

#[test]
fn partitions_are_added_and_removed_during_fetches() {
    let mut t = planner(&[StartOffset::Offset(0); 2]);
    t.apply_metadata(&snapshot(&[1, 1, 2], 1));
    let now = Instant::now();
    assert_eq!(requests(&t.plan(1, now)), [(0, 0), (1, 0)]);
    t.remove(&[p(0).partition]);
    t.add([(p(2), StartOffset::Offset(7))]);
    assert_eq!(t.apply_metadata(&snapshot(&[1, 1, 2], 1)).new_brokers, [2]);
    assert_eq!(requests(&t.plan(2, now)), [(2, 7)]);
    assert!(t.on_fetched(&p(0), now, 0, fetched(5, 10)).is_none(), "it is no longer assigned");
    assert_eq!(t.plan(1, now), Plan::Wait(None), "the other one is still in flight");
    assert!(t.on_fetched(&p(1), now, 0, fetched(5, 10)).is_some(), "the other one is still read");
    assert_eq!(requests(&t.plan(1, now)), [(1, 5)]);

    // Assigned again under another lease; the response to the old request comes only now.
    t.add([(lease(0, 2), StartOffset::Offset(3))]);
    t.apply_metadata(&snapshot(&[1, 1, 2], 1));
    assert_eq!(requests(&t.plan(1, now)), [(0, 3)]);
    assert!(t.on_fetched(&p(0), now, 3, fetched(9, 10)).is_none());
    t.clear_in_flight([&p(0)]);
    assert!(!t.on_error(&p(0), now, 6, "fetching").refresh && !t.on_corrupt(&p(0)));
    assert_eq!(t.plan(1, now), Plan::Wait(None), "the new request is still in flight");
    assert!(t.on_fetched(&lease(0, 2), now, 3, fetched(9, 10)).is_some());
    t.remove(&[p(0).partition, p(1).partition]);
    assert_eq!(t.plan(1, now), Plan::Stop);
}

#[test]
fn shares_follow_the_number_of_partitions() {
    let mut t = planner(&[StartOffset::Offset(0)]);
    t.apply_metadata(&snapshot(&[1, 1], 1));
    let now = Instant::now();
    t.plan(1, now);
    let (buffered, _) = t.on_fetched(&p(0), now, 0, fetched(10, SHARE / 2)).unwrap();
    t.add([(p(1), StartOffset::Offset(0))]);
    t.apply_metadata(&snapshot(&[1, 1], 1));
    assert_eq!(requests(&t.plan(1, now)), [(1, 0)], "the first one has used up its half");
    t.remove(&[p(1).partition]);
    assert_eq!(requests(&t.plan(1, now)), [(0, 10)]);
    drop(buffered);
}

#[test]
fn without_a_policy_the_log_range_is_reported() {
    let config = ConsumerConfig { offset_reset: crate::config::OffsetReset::None, ..Default::default() };
    let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut t = FetchPlanner::new(&config, backoff, Arc::default());
    t.add([
        (p(0), StartPosition::At(StartOffset::Offset(500))),
        (p(1), StartPosition::ByResetPolicy),
        (p(2), StartPosition::Committed(80, Some(3))),
    ]);
    t.apply_metadata(&snapshot(&[1, 1, 1], 1));
    let now = Instant::now();
    let request = |t: &mut FetchPlanner, wanted: &[(i32, StartOffset)]| {
        let Plan::ListOffsets(seeks) = t.plan(1, now) else { panic!("the log's ends are not known") };
        let requested: Vec<_> = seeks.iter().map(|a| (a.lease.partition.partition, a.what)).collect();
        assert_eq!(requested, wanted);
    };
    let report_of = |t: &mut FetchPlanner, i, offset| {
        let (to, then) = (StartOffset::Earliest, StartOffset::Latest);
        assert!(t.on_offset_resolved(&p(i), to, 10, None).report.is_none());
        request(t, &[(i, then)]);
        let found = t.on_offset_resolved(&p(i), then, offset, None);
        assert_eq!((found.at, found.must_commit), (None, false));
        found.report.unwrap().to_string()
    };
    request(&mut t, &[(1, StartOffset::Earliest)]);
    let e = report_of(&mut t, 1, 90);
    assert!(e.contains("committed no offset of t/1, which begins at 10 and ends at 90"), "{e}");
    let Plan::Validate(requests) = t.plan(1, now) else { panic!("a committed offset has to be in the log still") };
    assert_eq!(requests[0].what, PositionCheck { offset: 80, epoch: 3 });
    assert_eq!(t.on_validated(&p(2), requests[0].what, Some(60)), None);
    request(&mut t, &[(2, StartOffset::Earliest)]);
    let e = report_of(&mut t, 2, 70);
    assert!(e.contains("t/2 was truncated to offset 60 and written again, after it was read up to offset 80"), "{e}");
    assert!(e.contains("begins at 10 and ends at 70") && e.contains("ConsumerConfig::offset_reset"), "{e}");
    assert_eq!(self::requests(&t.plan(1, now)), [(0, 500)]);
    t.on_error(&p(0), now, code::OFFSET_OUT_OF_RANGE, "fetching");
    request(&mut t, &[(0, StartOffset::Earliest)]);
    let e = report_of(&mut t, 0, 90);
    assert!(e.contains("offset 500 of t/0 is not in its log"), "{e}");
    assert_eq!(t.plan(1, now), Plan::Wait(None), "until it is sought");
    t.seek(&p(0), StartOffset::Offset(50));
    assert_eq!(self::requests(&t.plan(1, now)), [(0, 50)]);
}

#[test]
fn responses_from_before_a_seek_are_ignored() {
    let mut t = planner(&[StartOffset::Latest, StartOffset::Offset(0)]);
    t.apply_metadata(&snapshot(&[1, 1], 1));
    let now = Instant::now();
    let Plan::ListOffsets(old) = t.plan(1, now) else { panic!("a start is not known") };
    t.seek(&p(0), StartOffset::Latest);
    assert!(!t.is_current(&old[0]));
    let Plan::ListOffsets(new) = t.plan(1, now) else { panic!("it is requested again") };
    assert!(t.is_current(&new[0]));
    assert!(!t.on_offset_resolved(&p(0), StartOffset::Latest, 9, None).must_commit, "the application has decided that");
    let Plan::Fetch(old) = t.plan(1, now) else { panic!("both are known") };
    t.seek(&p(1), StartOffset::Offset(0));
    assert_eq!(old.requests.iter().map(|a| t.is_current(a)).collect::<Vec<_>>(), [true, false]);
    assert_eq!(requests(&t.plan(1, now)), [(1, 0)], "the other one is still in flight");
}

#[test]
fn a_paused_partition_is_left_out() {
    let mut t = planner(&[StartOffset::Offset(0); 2]);
    t.apply_metadata(&snapshot(&[1, 1], 1));
    let now = Instant::now();
    t.pause(&[p(0)], true);
    let Plan::Fetch(plan) = t.plan(1, now) else { panic!("one goes on") };
    assert_eq!((plan.requests.len(), plan.requests[0].lease.partition.partition, plan.wait), (1, 1, t.max_wait));
    assert_eq!(t.plan(1, now), Plan::Wait(None));
    t.pause(&[p(0)], false);
    assert_eq!(requests(&t.plan(1, now)), [(0, 0)]);
}

/// Changes the leader epoch.
fn elected(mut snapshot: Snapshot, epoch: i32) -> Snapshot {
    snapshot.topics.for_each_mut(|topic| topic.partitions.iter_mut().for_each(|p| p.leader_epoch = epoch));
    snapshot
}

#[test]
fn a_new_leader_validates_the_position() {
    let mut t = planner(&[StartOffset::Offset(0); 2]);
    t.apply_metadata(&snapshot(&[1, 1], 1));
    let now = Instant::now();
    t.plan(1, now);
    t.on_fetched(&p(0), now, 0, FetchedPartition { leader_epoch: Some(7), ..fetched(50, 10) }).unwrap();
    t.clear_in_flight([&p(1)]);
    t.apply_metadata(&elected(snapshot(&[2, 2], 1), 8));
    let Plan::Validate(requested) = t.plan(2, now) else { panic!("the new leader may have less") };
    assert_eq!(requested.len(), 1, "of the other one nothing was read");
    assert_eq!((requested[0].what, requested[0].leader_epoch), (PositionCheck { offset: 50, epoch: 7 }, 8));
    assert_eq!(requests(&t.plan(2, now)), [(1, 0)], "which goes on meanwhile");
    t.on_error(&p(0), now, 74, "validating");
    let Plan::Wait(Some(until)) = t.plan(2, now) else { panic!("it waits") };
    assert!(matches!(t.plan(2, until), Plan::Validate(_)), "again");
    assert_eq!(t.on_validated(&p(0), requested[0].what, Some(50)), None, "all is there");
    assert_eq!(requests(&t.plan(2, until)), [(0, 50)]);

    t.clear_in_flight([&p(0)]);
    t.apply_metadata(&elected(snapshot(&[2, 2], 1), 9));
    assert!(matches!(t.plan(2, until), Plan::Validate(_)));
    assert_eq!(t.on_validated(&p(0), requested[0].what, Some(40)), Some(40));
    t.seek(&p(0), StartOffset::Offset(40));
    assert_eq!(requests(&t.plan(2, until)), [(1, 0), (0, 40)]);

    t.on_fetched(&p(0), now, 40, FetchedPartition { leader_epoch: Some(9), ..fetched(60, 10) }).unwrap();
    t.apply_metadata(&elected(snapshot(&[2, 2], 1), 10));
    assert!(matches!(t.plan(2, until), Plan::Validate(_)));
    assert_eq!(t.on_validated(&p(0), PositionCheck { offset: 60, epoch: 9 }, None), None);
    let Plan::ListOffsets(seeks) = t.plan(2, until) else { panic!("no one knows where to go on: by the policy") };
    assert_eq!(seeks[0].what, StartOffset::Earliest);
    t.skip_validation([&p(0)]);
}

#[test]
fn a_preferred_replica_expires() {
    let mut t = planner(&[StartOffset::Offset(0)]);
    let known = |t: &mut FetchPlanner, epoch| {
        let mut snapshot = elected(snapshot(&[1], 1), epoch);
        let at = |id| (id, crate::BrokerAddr::new("h", 9000 + id as u16));
        snapshot.brokers = [at(1), at(2)].into();
        t.apply_metadata(&snapshot).new_brokers
    };
    assert_eq!(known(&mut t, 7), [1]);
    let now = Instant::now();
    t.plan(1, now);
    t.set_preferred_replica(&p(0), 2, now + Duration::from_secs(5));
    assert_eq!(t.take_new_brokers(), [2]);
    assert_eq!(t.plan(1, now), Plan::Stop);
    assert_eq!(requests(&t.plan(2, now)), [(0, 0)]);
    t.on_fetched(&p(0), now, 0, fetched(5, 10)).unwrap();
    assert!(!t.expire_preferred_replicas(now));
    assert!(t.expire_preferred_replicas(now + Duration::from_secs(5)), "another replica may be closer by now");
    assert_eq!((t.plan(2, now), t.take_new_brokers()), (Plan::Stop, vec![1]));
    assert_eq!(requests(&t.plan(1, now)), [(0, 5)]);
    t.set_preferred_replica(&p(0), 2, now + Duration::from_secs(5));
    assert!(t.drop_preferred_replica(&p(0), 2, now), "it does not serve it");
    assert!(!t.drop_preferred_replica(&p(0), 1, now), "the leader is no such replica");
    let Plan::Wait(Some(until)) = t.plan(1, now) else { panic!("the leader would send it back there at once") };
    assert_eq!(requests(&t.plan(1, until)), [(0, 5)]);
    t.set_preferred_replica(&p(0), 2, now + Duration::from_secs(5));
    known(&mut t, 8);
    assert_eq!(requests(&t.plan(1, now)), [(0, 5)], "a new leader chooses again");
    t.set_preferred_replica(&p(0), 3, now + Duration::from_secs(5));
    known(&mut t, 8);
    assert_eq!(requests(&t.plan(1, now)), [(0, 5)], "one that is not known any more");
}
