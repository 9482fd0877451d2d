//! Groups of the `consumer` protocol (KIP-848). On a real broker that does not offer it, what that says is all there is to see.

use ailurus::admin::GroupState;
use ailurus::{GroupProtocol, Result};
use ailurus_broker::Versions;
use kafka_protocol::messages::ConsumerGroupHeartbeatRequest;
use kafka_protocol::protocol::Decodable;
use tokio::time::Instant;

use super::*;

const CONSUMER_GROUP_HEARTBEAT: i16 = 68;
const NOT_COORDINATOR: i16 = 16;
const FENCED_MEMBER_EPOCH: i16 = 110;
const STALE_MEMBER_EPOCH: i16 = 113;
/// A real broker's session timeout is 45 s at the least.
const SESSION: Duration = Duration::from_secs(150);

/// A broker with the protocol, and a client; none where a real broker is without it.
async fn offered() -> Option<(TestBroker, Client)> {
    let broker = support::broker_offering(Versions::kafka()).await;
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "probe", 1).await;
    let outcome = Member::join(&client, &broker.group("probe"), &topic, GroupProtocol::Consumer).await;
    match outcome {
        Ok(member) => {
            member.leave().await;
            Some((broker, client))
        }
        Err(e) => {
            assert!(broker.embedded().is_none() && e.kind() == ErrorKind::Unsupported, "{e:?}");
            assert!(format!("{e:#}").contains("ConsumerConfig::group_protocol"), "{e:?}");
            None
        }
    }
}

fn config(client: &Client, protocol: GroupProtocol) -> ConsumerConfig {
    let mut config = client.config().consumer.clone();
    config.group_protocol = protocol;
    config.session_timeout = Duration::from_secs(30); // the broker has its own
    config
}

/// A member that handles and commits in its own task until it is stopped.
struct Member {
    state: watch::Receiver<State>,
    stop: oneshot::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Default, Clone)]
struct State {
    id: Option<String>,
    owned: BTreeSet<i32>,
    /// Each time anything was taken from it.
    taken: Vec<(&'static str, BTreeSet<i32>)>,
    handled: Vec<i32>,
}

impl Member {
    /// Waits for the first assignment.
    async fn join(client: &Client, group: &str, topic: &str, protocol: GroupProtocol) -> Result<Self> {
        Self::join_as(client, group, topic, config(client, protocol)).await
    }

    async fn join_as(client: &Client, group: &str, topic: &str, config: ConsumerConfig) -> Result<Self> {
        let mut consumer = client.consumer(group).config(config).subscribe([topic]).await?;
        let first = soon(consumer.recv()).await?;
        let (publish, state) = watch::channel(State::default());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(work(consumer, first, publish, stopped));
        Ok(Self { state, stop, task })
    }

    async fn until(&mut self, what: impl FnMut(&State) -> bool) -> State {
        let found = tokio::time::timeout(SESSION, self.state.wait_for(what)).await.map(|s| s.unwrap().clone());
        found.unwrap_or_else(|_| panic!("it never came: {:?}", self.state.borrow()))
    }

    async fn owns(&mut self, count: usize) -> BTreeSet<i32> {
        self.until(|s| s.owned.len() == count).await.owned
    }

    async fn leave(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }

    /// As a crash would.
    async fn die(self) {
        self.stop.send(false).unwrap();
        self.task.await.unwrap();
    }
}

async fn work(
    mut consumer: Consumer,
    first: ConsumerEvent,
    publish: watch::Sender<State>,
    mut stopped: oneshot::Receiver<bool>,
) {
    let set = |partitions: &[TopicPartition]| partitions.iter().map(|p| p.partition).collect::<BTreeSet<_>>();
    let mut event = first;
    loop {
        match event {
            ConsumerEvent::Assigned(added) => publish.send_modify(|s| {
                s.id = consumer.member_id();
                s.owned.extend(set(&added));
            }),
            ConsumerEvent::Revoked(revocation) => {
                let gone = set(&revocation.partitions);
                publish.send_modify(|s| {
                    s.owned.retain(|p| !gone.contains(p));
                    s.taken.push(("revoked", gone));
                });
            }
            ConsumerEvent::Lost(lost) => publish.send_modify(|s| {
                s.owned.retain(|p| !set(&lost).contains(p));
                s.taken.push(("lost", set(&lost)));
            }),
            ConsumerEvent::Records(records) => {
                let committed = consumer.commit(&[(records.topic_partition(), records.next_offset)]).await;
                match committed {
                    // What was not committed is the next owner's.
                    Ok(()) => publish.send_modify(|s| s.handled.extend(numbers(&records))),
                    Err(e) => assert_eq!(e.kind(), ErrorKind::GroupMembership, "{e:?}"),
                }
            }
            _ => {}
        }
        event = tokio::select! {
            leave = &mut stopped => {
                if leave.unwrap() { consumer.close().await.unwrap() } else { consumer.abort().await }
                return;
            }
            event = consumer.recv() => event.unwrap(),
        };
    }
}

/// Waits until all of these have been committed, by whichever member.
async fn until_handled(members: &mut [&mut Member], wanted: Range<i32>) {
    let all: BTreeSet<i32> = wanted.collect();
    let has_all = |seen: &[watch::Receiver<State>]| {
        let seen: BTreeSet<i32> = seen.iter().flat_map(|s| s.borrow().handled.clone()).collect();
        all.is_subset(&seen)
    };
    let states: Vec<_> = members.iter().map(|m| m.state.clone()).collect();
    soon(async {
        while !has_all(&states) {
            let changes = members.iter_mut().map(|m| Box::pin(m.state.changed()));
            futures_util::future::select_all(changes).await.0.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn exceeding_max_poll_interval_leaves_the_group() {
    let Some((broker, client)) = offered().await else { return };
    let topic = topic(&broker, &client, "t", 2).await;
    let config = config(&client, GroupProtocol::Consumer);
    membership::hangs_and_goes_on(&client, &topic, &broker.group("hung"), config).await;
}

#[tokio::test]
async fn retained_partitions_are_not_disturbed() {
    let Some((broker, client)) = offered().await else { return };
    let topic = topic(&broker, &client, "t", 6).await;
    let group = broker.group("g");
    let put = |range| produce(&client, &topic, 6, range, Compression::None);
    put(0..600).await;
    let mut a = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    a.owns(6).await;
    until_handled(&mut [&mut a], 0..600).await;
    let mut b = Member::join(&client, &group, &topic, GroupProtocol::Auto).await.unwrap();
    put(600..1200).await;
    let (of_a, of_b) = (a.owns(3).await, b.owns(3).await);
    assert_eq!(of_a.intersection(&of_b).count(), 0);
    assert_eq!(a.state.borrow().taken, [("revoked", of_b.clone())], "only what goes to the other, in one step");
    until_handled(&mut [&mut a, &mut b], 0..1200).await;
    let admin = Admin::new(&client);
    let group_now = admin.describe_group(&group).await.unwrap();
    assert_eq!((group_now.state.as_str(), group_now.assignor.as_str()), ("Stable", "uniform"));
    let id = a.state.borrow().id.clone().unwrap();
    let described = group_now.members.iter().find(|m| m.member_id == id).unwrap();
    assert_eq!(described.assignment[&topic], of_a.into_iter().collect::<Vec<_>>());
    let handled_by_b = b.state.borrow().handled.clone();
    b.leave().await;
    put(1200..1800).await;
    a.owns(6).await;
    assert_eq!(a.state.borrow().taken.len(), 1, "nothing was taken from the one who stayed");
    until_handled(&mut [&mut a], 1200..1800).await;
    let all = sorted(a.state.borrow().handled.iter().chain(&handled_by_b).copied().collect());
    assert_eq!(all, (0..1800).collect::<Vec<_>>(), "each once, for no one died");
    a.leave().await;
    assert_eq!(admin.describe_group(&group).await.unwrap().state, GroupState::Empty);
}

#[tokio::test]
async fn partitions_of_a_dead_member_are_reassigned() {
    let Some((broker, client)) = offered().await else { return };
    let topic = topic(&broker, &client, "t", 4).await;
    let group = broker.group("g");
    produce(&client, &topic, 4, 0..400, Compression::None).await;
    let mut a = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    a.owns(4).await;
    let mut b = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    b.owns(2).await;
    a.die().await;
    b.owns(4).await;
    produce(&client, &topic, 4, 400..800, Compression::None).await;
    until_handled(&mut [&mut b], 400..800).await;
    b.leave().await;
}

#[tokio::test]
async fn a_static_member_keeps_its_partitions() {
    let Some((broker, client)) = offered().await else { return };
    let topic = topic(&broker, &client, "t", 4).await;
    let group = broker.group("g");
    let mut fixed = config(&client, GroupProtocol::Consumer);
    fixed.group_instance_id = Some("i".into());
    fixed.session_timeout = SESSION; // for as long the successor waits
    let mut a = Member::join_as(&client, &group, &topic, fixed.clone()).await.unwrap();
    a.owns(4).await;
    let mut b = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    b.owns(2).await;
    let before = a.owns(2).await;
    // While the id is taken its successor waits.
    let mut successor = client.consumer(&group).config(fixed.clone()).subscribe([&topic]).await.unwrap();
    let (partitions, ()) = tokio::join!(assigned(&mut successor), a.leave());
    assert_eq!(partitions.iter().map(|p| p.partition).collect::<BTreeSet<_>>(), before);
    assert_eq!(b.state.borrow().owned.len(), 2);
    assert_eq!(b.state.borrow().taken, [], "and the other has not noticed");
    successor.close().await.unwrap();
    b.leave().await;
}

#[tokio::test]
async fn a_group_migrates_to_kip848_one_by_one() {
    let Some((broker, client)) = offered().await else { return };
    let topic = topic(&broker, &client, "t", 4).await;
    let group = broker.group("g");
    produce(&client, &topic, 4, 0..400, Compression::None).await;
    let mut old = Member::join(&client, &group, &topic, GroupProtocol::Classic).await.unwrap();
    old.owns(4).await;
    until_handled(&mut [&mut old], 0..400).await;
    let mut new = if broker.embedded().is_some() {
        // Its groups speak one protocol at a time.
        let e = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.err().unwrap();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(format!("{e:#}").contains("classic"), "{e:?}");
        Member::join(&client, &group, &topic, GroupProtocol::Auto).await.unwrap()
    } else {
        Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap()
    };
    old.owns(2).await;
    new.owns(2).await;
    produce(&client, &topic, 4, 400..800, Compression::None).await;
    until_handled(&mut [&mut old, &mut new], 0..800).await;
    old.leave().await;
    new.owns(4).await;
    produce(&client, &topic, 4, 800..1200, Compression::None).await;
    until_handled(&mut [&mut new], 800..1200).await;
    new.leave().await;
}

#[tokio::test]
async fn auto_falls_back_to_classic() {
    let broker = support::broker_offering(Versions::redpanda_26_2()).await;
    let Some(embedded) = broker.embedded() else { return };
    let client = client(&broker).await;
    let topic = topic(&broker, &client, "t", 2).await;
    let e = Member::join(&client, &broker.group("g"), &topic, GroupProtocol::Consumer).await.err().unwrap();
    assert_eq!(e.kind(), ErrorKind::Unsupported);
    assert!(
        format!("{e:#}").contains("does not serve ConsumerGroupHeartbeat")
            && format!("{e:#}").contains("ConsumerConfig::group_protocol")
    );
    let mut auto = Member::join(&client, &broker.group("g"), &topic, GroupProtocol::Auto).await.unwrap();
    auto.owns(2).await;
    assert!(embedded.request_count(JOIN_GROUP) > 0);
    auto.leave().await;
}

#[tokio::test]
async fn a_fenced_member_rejoins() {
    let Some((broker, client)) = offered().await else { return };
    let Some(embedded) = broker.embedded() else { return };
    let topic = topic(&broker, &client, "t", 2).await;
    let mut a = Member::join(&client, &broker.group("g"), &topic, GroupProtocol::Consumer).await.unwrap();
    a.owns(2).await;
    once(embedded, CONSUMER_GROUP_HEARTBEAT, Fault::Error(FENCED_MEMBER_EPOCH));
    a.until(|s| s.taken == [("lost", BTreeSet::from([0, 1]))]).await;
    a.owns(2).await;
    produce(&client, &topic, 2, 0..100, Compression::None).await;
    until_handled(&mut [&mut a], 0..100).await;
    a.leave().await;
}

#[tokio::test]
async fn a_stale_commit_is_retried_in_the_next_epoch() {
    let Some((broker, client)) = offered().await else { return };
    let Some(embedded) = broker.embedded() else { return };
    let topic = topic(&broker, &client, "t", 1).await;
    let mut a = Member::join(&client, &broker.group("g"), &topic, GroupProtocol::Consumer).await.unwrap();
    a.owns(1).await;
    once(embedded, OFFSET_COMMIT, Fault::Error(STALE_MEMBER_EPOCH));
    produce(&client, &topic, 1, 0..10, Compression::None).await;
    until_handled(&mut [&mut a], 0..10).await;
    assert_eq!(embedded.committed_offset(&broker.group("g"), &topic, 0), Some(10));
    assert_eq!(a.state.borrow().taken, []);
    a.leave().await;
}

#[tokio::test]
async fn lost_responses_and_coordinator_moves_lose_no_partition() {
    let Some((broker, client)) = offered().await else { return };
    let Some(embedded) = broker.embedded() else { return };
    let topic = topic(&broker, &client, "t", 4).await;
    let group = broker.group("g");
    let mut a = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    a.owns(4).await;
    // Every second response to each member is lost, perhaps with an epoch or an assignment. Two in a row would be two epochs,
    // and a member that far behind is fenced.
    let lost = Mutex::new(BTreeMap::<String, bool>::new());
    embedded.set_hook(move |request| {
        if request.api_key != CONSUMER_GROUP_HEARTBEAT {
            return None;
        }
        let heartbeat = ConsumerGroupHeartbeatRequest::decode(&mut request.body.clone(), request.version).unwrap();
        let mut lost = lost.lock().unwrap();
        let lose = lost.entry(heartbeat.member_id.to_string()).or_default();
        *lose = !*lose;
        lose.then_some(Fault::DropResponse)
    });
    let mut b = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    b.owns(2).await;
    embedded.clear_hook();
    let node = embedded.coordinator(&group).unwrap();
    embedded.move_coordinator(&group, (node + 1) % 3).unwrap();
    let mut c = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    c.owns(1).await;
    produce(&client, &topic, 4, 0..400, Compression::None).await;
    until_handled(&mut [&mut a, &mut b, &mut c], 0..400).await;
    for member in [&a, &b, &c] {
        assert!(member.state.borrow().taken.iter().all(|(how, _)| *how == "revoked"), "{:?}", member.state.borrow());
    }
    for member in [a, b, c] {
        member.leave().await;
    }
}

#[tokio::test]
async fn failed_commits_do_not_delay_heartbeats() {
    let Some((broker, client)) = offered().await else { return };
    let Some(embedded) = broker.embedded() else { return };
    let topic = topic(&broker, &client, "t", 1).await;
    let group = broker.group("g");
    let mut a = Member::join(&client, &group, &topic, GroupProtocol::Consumer).await.unwrap();
    a.owns(1).await;
    // While the response to a heartbeat is delayed, commits lose their connection or coordinator.
    const RESPONSE_DELAY: Duration = Duration::from_secs(1);
    let (heartbeats, mut seen) = watch::channel(Vec::new());
    let commits = std::sync::atomic::AtomicUsize::new(0);
    embedded.set_hook(move |request| match request.api_key {
        CONSUMER_GROUP_HEARTBEAT => {
            heartbeats.send_modify(|heartbeats| heartbeats.push(Instant::now()));
            (heartbeats.borrow().len() == 1).then_some(Fault::DelayResponse(RESPONSE_DELAY))
        }
        OFFSET_COMMIT => match commits.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Some(Fault::Error(NOT_COORDINATOR)),
            1 => Some(Fault::Close),
            _ => None,
        },
        _ => None,
    });
    soon(seen.wait_for(|heartbeats| !heartbeats.is_empty())).await.unwrap();
    produce(&client, &topic, 1, 0..10, Compression::None).await;
    until_handled(&mut [&mut a], 0..10).await;
    let heartbeats = soon(seen.wait_for(|heartbeats| heartbeats.len() > 1)).await.unwrap().clone();
    assert!(heartbeats[1] - heartbeats[0] >= RESPONSE_DELAY, "the next heartbeat was sent before the response arrived");
    assert_eq!(a.state.borrow().taken, []);
    a.leave().await;
}

#[tokio::test]
async fn added_partitions_are_read() {
    let Some((broker, client)) = offered().await else { return };
    let topic = topic(&broker, &client, "t", 1).await;
    let mut a = Member::join(&client, &broker.group("g"), &topic, GroupProtocol::Consumer).await.unwrap();
    a.owns(1).await;
    Admin::new(&client).create_partitions(&topic, 3).await.unwrap();
    a.owns(3).await;
    a.leave().await;
}

/// Spoils one request of an API.
fn once(broker: &ailurus_broker::Broker, api_key: i16, fault: Fault) {
    let done = std::sync::atomic::AtomicBool::new(false);
    broker.set_hook(move |request| {
        let first = request.api_key == api_key && !done.swap(true, std::sync::atomic::Ordering::Relaxed);
        first.then_some(fault)
    });
}
