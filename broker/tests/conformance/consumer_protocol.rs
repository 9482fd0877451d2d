//! Groups of the `consumer` protocol (KIP-848). Epochs are compared with each other, not with
//! numbers: brokers differ in the first epoch and in when they assign again.

use std::collections::BTreeSet;

use kafka_protocol::messages::consumer_group_describe_response::DescribedGroup;
use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions;
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};

use super::groups::{Member, described};
use super::*;

/// A member of a group that subscribes to one topic.
struct ConsumerMember {
    member: Member,
    topic: String,
    topic_id: Uuid,
    epoch: i32,
    instance: Option<&'static str>,
    owned: BTreeSet<i32>,
}

impl ConsumerMember {
    async fn new(target: &Target, group: &str, topic: &str, id: &str) -> Self {
        let mut member = Member::connect(target, group).await;
        member.id = id.into();
        let named = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let requested = MetadataRequest::default().with_topics(Some(vec![named]));
        let topic_id = member.client.call(12, &requested).await.topics[0].topic_id;
        Self { member, topic: topic.into(), topic_id, epoch: 0, instance: None, owned: BTreeSet::new() }
    }

    fn request(&self, epoch: i32) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&self.member.group))
            .with_member_id(text(&self.member.id))
            .with_instance_id(self.instance.map(text))
            .with_member_epoch(epoch)
            .with_rebalance_timeout_ms(-1)
    }

    fn join_request(&self) -> ConsumerGroupHeartbeatRequest {
        self.request(0)
            .with_rebalance_timeout_ms(20_000)
            .with_subscribed_topic_names(Some(vec![topic_name(&self.topic)]))
            .with_topic_partitions(Some(vec![]))
    }

    fn owned_partitions(&self, owned: impl IntoIterator<Item = i32>) -> Option<Vec<TopicPartitions>> {
        let of = TopicPartitions::default().with_topic_id(self.topic_id).with_partitions(owned.into_iter().collect());
        Some(if of.partitions.is_empty() { vec![] } else { vec![of] })
    }

    /// Sends a request; applies the response if it is not an error.
    async fn send(&mut self, request: &ConsumerGroupHeartbeatRequest) -> ConsumerGroupHeartbeatResponse {
        let response = self.member.client.call(1, request).await;
        if response.error_code == 0 {
            self.epoch = response.member_epoch;
            if let Some(assignment) = &response.assignment {
                self.owned = assignment.topic_partitions.iter().flat_map(|t| t.partitions.clone()).collect();
            }
        }
        response
    }

    async fn code(&mut self, request: ConsumerGroupHeartbeatRequest) -> i16 {
        self.send(&request).await.error_code
    }

    async fn join(&mut self) -> ConsumerGroupHeartbeatResponse {
        self.send(&self.join_request()).await
    }

    async fn heartbeat(&mut self) -> ConsumerGroupHeartbeatResponse {
        self.send(&self.request(self.epoch)).await
    }

    /// Acknowledges the assignment: sends the owned partitions.
    async fn acknowledge(&mut self) -> ConsumerGroupHeartbeatResponse {
        let owned = self.owned_partitions(self.owned.clone());
        self.send(&self.request(self.epoch).with_topic_partitions(owned)).await
    }

    /// Sends heartbeats until the member owns that many partitions.
    async fn wait_for_partitions(&mut self, partitions: usize) {
        for _ in 0..100_000 {
            if self.owned.len() == partitions {
                return;
            }
            assert_eq!(self.heartbeat().await.error_code, 0);
        }
        panic!("{} has {:?}", self.member.id, self.owned);
    }

    async fn describe(&mut self) -> DescribedGroup {
        let request = ConsumerGroupDescribeRequest::default().with_group_ids(vec![group_id(&self.member.group)]);
        self.member.client.call(0, &request).await.groups.remove(0)
    }

    async fn commit(&mut self, version: i16, epoch: i32, id: &str) -> i16 {
        let partition =
            OffsetCommitRequestPartition::default().with_committed_offset(7).with_committed_leader_epoch(-1);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(topic_name(&self.topic))
            .with_partitions(vec![partition.with_committed_metadata(Some(text("")))]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(&self.member.group))
            .with_generation_id_or_member_epoch(epoch)
            .with_member_id(text(id))
            .with_topics(vec![topic]);
        self.member.client.call(version, &request).await.topics[0].partitions[0].error_code
    }

    async fn committed(&mut self, member: Option<&str>, epoch: i32) -> Result<i64, i16> {
        let topic = OffsetFetchRequestTopics::default().with_name(topic_name(&self.topic));
        let of = OffsetFetchRequestGroup::default()
            .with_group_id(group_id(&self.member.group))
            .with_member_id(member.map(text))
            .with_member_epoch(epoch)
            .with_topics(Some(vec![topic.with_partition_indexes(vec![0])]));
        let found = self.member.client.call(9, &OffsetFetchRequest::default().with_groups(vec![of])).await;
        let group = &found.groups[0];
        if group.error_code == 0 { Ok(group.topics[0].partitions[0].committed_offset) } else { Err(group.error_code) }
    }
}

/// Creates a topic of four partitions and two members that have not joined.
async fn pair(target: &Target) -> (ConsumerMember, ConsumerMember) {
    let (group, topic) = (target.name("g"), target.name("t"));
    assert_eq!(target.client().await.create_topic(&topic, 4).await, 0);
    (ConsumerMember::new(target, &group, &topic, "a").await, ConsumerMember::new(target, &group, &topic, "b").await)
}

#[tokio::test]
async fn partition_moves_after_its_owner_revoked_it() {
    for target in targets().await {
        let (mut a, mut b) = pair(&target).await;
        let joined = a.join().await;
        assert_eq!((joined.error_code, joined.member_id), (0, Some(text("a"))));
        assert!(joined.member_epoch > 0 && joined.heartbeat_interval_ms > 0);
        a.wait_for_partitions(4).await;
        assert_eq!(a.acknowledge().await.assignment, None, "nothing has changed");
        assert_eq!(b.join().await.assignment.unwrap().topic_partitions, [], "all are taken");
        let before = a.epoch;
        a.wait_for_partitions(2).await;
        assert_eq!(a.epoch, before, "the epoch stays until the revocation");
        assert_eq!(b.heartbeat().await.assignment, None);
        let all = a.owned_partitions(0..4);
        assert_eq!(a.code(a.request(a.epoch).with_topic_partitions(all)).await, 0);
        assert_eq!(a.epoch, before);
        let stale = a.epoch;
        assert_eq!(a.acknowledge().await.error_code, 0);
        assert!(a.epoch > before);
        b.wait_for_partitions(2).await;
        assert_eq!(a.owned.intersection(&b.owned).count(), 0);
        // The response with the new epoch may be lost: the previous one is accepted from a member
        // that owns no more than its assignment.
        assert_eq!(a.code(a.request(stale)).await, 110);
        let (too_many, own) = (a.owned_partitions(0..4), a.owned_partitions(a.owned.clone()));
        assert_eq!(a.code(a.request(stale).with_topic_partitions(too_many)).await, 110);
        assert_eq!(a.code(a.request(stale).with_topic_partitions(own)).await, 0);
        let epoch = a.epoch;
        assert_eq!(a.join().await.error_code, 0, "a member may rejoin");
        assert_eq!((a.epoch, a.owned.len()), (epoch, 2), "and keeps its partitions");
        assert_eq!(b.code(b.request(-1)).await, 0);
        a.wait_for_partitions(4).await;
        assert_eq!(a.code(a.request(-1)).await, 0);
        let group = a.describe().await;
        assert_eq!((group.error_code, group.group_state.as_str(), group.members.len()), (0, "Empty", 0));
        assert_eq!((a.member.delete().await, a.member.delete().await), (0, 69));
        clean_up(target).await;
    }
}

#[tokio::test]
async fn invalid_heartbeats_get_the_right_error() {
    for target in targets().await {
        let (mut a, mut b) = pair(&target).await;
        assert_eq!(a.code(a.request(1)).await, 69);
        assert_eq!(a.code(a.request(-1)).await, 69);
        for (case, request) in [
            ("no topics", a.join_request().with_subscribed_topic_names(None)),
            ("owned is null", a.join_request().with_topic_partitions(None)),
            ("owned", a.join_request().with_topic_partitions(a.owned_partitions([0]))),
            ("no timeout", a.join_request().with_rebalance_timeout_ms(-1)),
            ("no id", a.join_request().with_member_id(text(""))),
            ("no instance", a.request(-2)),
            ("no epoch", a.request(-3)),
        ] {
            assert_eq!(a.code(request).await, 42, "{case}");
        }
        assert_eq!(a.code(a.join_request().with_server_assignor(Some(text("sticky")))).await, 112);
        assert_eq!(a.code(a.join_request().with_group_id(group_id(""))).await, 42);
        let generated = a.member.client.call(0, &a.join_request().with_member_id(text(""))).await;
        assert!(
            generated.error_code == 0 && generated.member_id.is_some_and(|id| !id.is_empty()),
            "version 0 gives an id"
        );
        a.join().await;
        assert_eq!(a.code(a.request(a.epoch + 7)).await, 110);
        assert_eq!(b.code(b.request(a.epoch)).await, 25);
        assert_eq!(b.code(b.request(-1)).await, 25);
        assert_eq!(a.join().await.error_code, 0, "a member may rejoin at once");
        clean_up(target).await;
    }
}

#[tokio::test]
async fn static_member_leaves_temporarily() {
    for target in targets().await {
        let (mut a, mut b) = pair(&target).await;
        (a.instance, b.instance) = (Some("i"), Some("i"));
        a.join().await;
        a.wait_for_partitions(4).await;
        assert_eq!(b.join().await.error_code, 111);
        assert_eq!(b.code(b.request(a.epoch)).await, 82);
        assert_eq!(b.code(b.request(-2)).await, 82);
        assert_eq!(a.send(&a.request(-2)).await.member_epoch, -2);
        assert_eq!(b.join().await.error_code, 0);
        assert_eq!(b.owned.len(), 4, "it keeps its partitions");
        assert_eq!(a.code(a.request(b.epoch)).await, 82);
        a.instance = None;
        assert_eq!(a.code(a.request(b.epoch)).await, 25);
        assert_eq!(b.code(b.request(-1)).await, 0);
        assert_eq!(b.code(b.request(-1)).await, 25);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn commit_needs_the_member_epoch() {
    for target in targets().await {
        let (mut a, _) = pair(&target).await;
        assert_eq!(a.commit(9, 3, "a").await, 69);
        a.join().await;
        a.wait_for_partitions(4).await;
        let epoch = a.epoch;
        assert_eq!(a.commit(8, epoch, "a").await, 35);
        assert_eq!(a.commit(9, epoch + 1, "a").await, 113);
        assert_eq!(a.commit(9, epoch, "nobody").await, 25);
        assert_eq!(a.commit(9, -1, "").await, 25);
        assert_eq!(a.committed(Some("a"), epoch).await, Ok(-1));
        assert_eq!(a.commit(9, epoch, "a").await, 0);
        assert_eq!(a.committed(Some("a"), epoch).await, Ok(7));
        assert_eq!(a.committed(Some("a"), epoch + 1).await, Err(113));
        assert_eq!(a.committed(Some("nobody"), epoch).await, Err(25));
        assert_eq!(a.committed(None, -1).await, Ok(7), "a request without a member is allowed");
        let topic = a.topic.clone();
        assert_eq!(a.member.committed(&topic).await.1, 7, "as before version 8");
        clean_up(target).await;
    }
}

#[tokio::test]
async fn consumer_protocol_group_is_described() {
    for target in targets().await {
        let (mut a, _) = pair(&target).await;
        assert_eq!(a.describe().await.error_code, 69);
        a.send(&a.join_request().with_server_assignor(Some(text("range")))).await;
        a.wait_for_partitions(4).await;
        let group = a.describe().await;
        assert_eq!((group.group_state.as_str(), group.assignor_name.as_str()), ("Stable", "range"));
        assert_eq!((group.group_epoch, group.assignment_epoch), (a.epoch, a.epoch));
        let member = &group.members[0];
        assert_eq!((member.member_id.as_str(), member.member_epoch), ("a", a.epoch));
        assert_eq!(member.subscribed_topic_names, [topic_name(&a.topic)]);
        let assigned = &member.assignment.topic_partitions[0];
        assert_eq!((assigned.topic_id, &assigned.topic_name), (a.topic_id, &topic_name(&a.topic)));
        assert_eq!((assigned.partitions.len(), &member.assignment), (4, &member.target_assignment));
        assert_eq!(a.member.describe().await, described("Dead", "", "", 0), "not a classic group");
        let strict = DescribeGroupsRequest::default().with_groups(vec![group_id(&a.member.group)]);
        assert_eq!(a.member.client.call(6, &strict).await.groups[0].error_code, 69);
        let all = a.member.client.call(5, &ListGroupsRequest::default()).await.groups;
        let listed = all.into_iter().find(|g| g.group_id == group_id(&a.member.group)).unwrap();
        assert_eq!((listed.group_type.as_str(), listed.protocol_type.as_str()), ("consumer", "consumer"));
        assert_eq!(a.member.delete().await, 68);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn empty_group_changes_its_protocol() {
    for target in targets().await {
        let (mut a, _) = pair(&target).await;
        let topic = a.topic.clone();
        assert_eq!(a.member.commit_as(-1, "", &topic, 5, "").await, 0);
        a.join().await;
        a.wait_for_partitions(4).await;
        assert_eq!(a.committed(Some("a"), a.epoch).await, Ok(5), "with its offsets");
        assert_eq!(a.member.commit_as(-1, "", &topic, 6, "").await, 25);
        assert_eq!(a.code(a.request(-1)).await, 0);
        let mut classic = Member::connect(&target, &a.member.group).await;
        classic.get_member_id().await;
        assert_eq!(classic.join().await.error_code, 0);
        assert_eq!(classic.committed(&topic).await.1, 5);
        clean_up(target).await;
    }
}
