//! Groups of the classic protocol: members, offsets, descriptions.

use super::*;

/// A connection to the coordinator, for one group.
pub struct Member {
    pub client: Client,
    pub group: String,
    pub id: String,
    pub generation: i32,
}

impl Member {
    /// Waits until the coordinator serves: a new cluster has to find one first.
    pub async fn connect(target: &Target, group: &str) -> Self {
        let mut client = target.client().await;
        for _ in 0..10_000 {
            let request = OffsetFetchRequest::default().with_group_id(group_id(group)).with_topics(None);
            let find = FindCoordinatorRequest::default().with_key(text(group));
            let found = client.call(3, &find).await.error_code;
            if found == 0 && client.call(5, &request).await.error_code == 0 {
                break;
            }
        }
        Self { client, group: group.into(), id: String::new(), generation: -1 }
    }

    fn join_request(&self) -> JoinGroupRequest {
        join_request(&self.group, &self.id)
    }

    pub async fn send_join(&mut self) {
        let request = self.join_request();
        self.client.send(5, &request).await;
    }

    pub async fn receive_join(&mut self) -> JoinGroupResponse {
        let joined = self.client.receive::<JoinGroupRequest>(5).await.unwrap();
        if !joined.member_id.is_empty() {
            self.id = joined.member_id.to_string();
        }
        self.generation = joined.generation_id;
        joined
    }

    /// Gets a member id.
    pub async fn get_member_id(&mut self) {
        self.send_join().await;
        assert_eq!(self.receive_join().await.error_code, 79);
    }

    pub async fn join(&mut self) -> JoinGroupResponse {
        self.send_join().await;
        self.receive_join().await
    }

    fn sync_request(&self, assignments: &[(&str, &'static [u8])]) -> SyncGroupRequest {
        let one = |&(id, assignment): &(&str, &'static [u8])| {
            SyncGroupRequestAssignment::default().with_member_id(text(id)).with_assignment(assignment.into())
        };
        SyncGroupRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(text(&self.id))
            .with_assignments(assignments.iter().map(one).collect())
    }

    pub async fn sync(&mut self, assignments: &[(&str, &'static [u8])]) -> SyncGroupResponse {
        let request = self.sync_request(assignments);
        self.client.call(3, &request).await
    }

    pub async fn heartbeat(&mut self) -> i16 {
        self.heartbeat_as(self.generation, &self.id.clone(), None).await
    }

    pub async fn heartbeat_as(&mut self, generation: i32, id: &str, instance: Option<&str>) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id(generation)
            .with_member_id(text(id))
            .with_group_instance_id(instance.map(text));
        self.client.call(3, &request).await.error_code
    }

    pub async fn leave(&mut self, id: &str, instance: Option<&str>) -> i16 {
        let member = MemberIdentity::default().with_member_id(text(id)).with_group_instance_id(instance.map(text));
        let request = LeaveGroupRequest::default().with_group_id(group_id(&self.group)).with_members(vec![member]);
        self.client.call(4, &request).await.members[0].error_code
    }

    pub async fn commit_as(&mut self, generation: i32, id: &str, topic: &str, offset: i64, note: &str) -> i16 {
        let partition = OffsetCommitRequestPartition::default()
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1)
            .with_committed_metadata(Some(text(note)));
        let topic = OffsetCommitRequestTopic::default().with_name(topic_name(topic)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id(&self.group))
            .with_generation_id_or_member_epoch(generation)
            .with_member_id(text(id))
            .with_topics(vec![topic]);
        self.client.call(7, &request).await.topics[0].partitions[0].error_code
    }

    pub async fn committed(&mut self, topic: &str) -> (i16, i64, Option<String>) {
        let requested = OffsetFetchRequestTopic::default().with_name(topic_name(topic)).with_partition_indexes(vec![0]);
        let request =
            OffsetFetchRequest::default().with_group_id(group_id(&self.group)).with_topics(Some(vec![requested]));
        let mut found = self.client.call(5, &request).await;
        let partition = found.topics.remove(0).partitions.remove(0);
        (found.error_code, partition.committed_offset, partition.metadata.map(|m| m.to_string()))
    }

    /// Returns state, protocol type, protocol and number of members.
    pub async fn describe(&mut self) -> (String, String, String, usize) {
        let request = DescribeGroupsRequest::default().with_groups(vec![group_id(&self.group)]);
        let group = self.client.call(4, &request).await.groups.remove(0);
        let strings = (group.group_state.to_string(), group.protocol_type.to_string(), group.protocol_data.to_string());
        (strings.0, strings.1, strings.2, group.members.len())
    }

    pub async fn delete(&mut self) -> i16 {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![group_id(&self.group)]);
        self.client.call(1, &request).await.results[0].error_code
    }
}

pub fn described(state: &str, protocol_type: &str, protocol: &str, members: usize) -> (String, String, String, usize) {
    (state.into(), protocol_type.into(), protocol.into(), members)
}

#[tokio::test]
async fn two_members_rebalance_and_one_leaves() {
    for target in targets().await {
        let group = target.name("g");
        let (mut a, mut b) = (Member::connect(&target, &group).await, Member::connect(&target, &group).await);
        a.get_member_id().await;
        let joined = a.join().await;
        assert_eq!((joined.error_code, joined.generation_id, joined.members.len()), (0, 1, 1));
        assert_eq!(joined.leader.as_str(), a.id);
        assert_eq!(a.describe().await, described("CompletingRebalance", "consumer", "", 1));
        let id = a.id.clone();
        assert_eq!(a.sync(&[(&id, b"all")]).await.assignment, Bytes::from_static(b"all"));
        assert_eq!((a.heartbeat().await, a.describe().await), (0, described("Stable", "consumer", "range", 1)));
        b.get_member_id().await;
        b.send_join().await;
        while a.heartbeat().await == 0 {} // until the broker has read what b sent
        assert_eq!(a.heartbeat().await, 27);
        assert_eq!(a.describe().await, described("PreparingRebalance", "consumer", "", 2));
        let of_a = a.join().await;
        let of_b = b.receive_join().await;
        assert_eq!((of_a.generation_id, of_a.members.len()), (2, 2));
        assert_eq!((of_b.generation_id, of_b.members.len()), (2, 0));
        assert_eq!(of_b.leader, of_a.leader);
        let waiting = b.sync_request(&[]);
        b.client.send(3, &waiting).await;
        let (id_a, id_b) = (a.id.clone(), b.id.clone());
        assert_eq!(a.sync(&[(&id_a, b"0"), (&id_b, b"1")]).await.assignment, Bytes::from_static(b"0"));
        let synced = b.client.receive::<SyncGroupRequest>(3).await.unwrap();
        assert_eq!((synced.error_code, synced.assignment), (0, Bytes::from_static(b"1")));
        assert_eq!(b.leave(&id_b, None).await, 0);
        assert_eq!((a.heartbeat().await, b.heartbeat().await), (27, 25));
        assert_eq!(a.join().await.members.len(), 1);
        assert_eq!(a.delete().await, 68);
        assert_eq!(a.leave(&id_a, None).await, 0);
        assert_eq!(a.describe().await, described("Empty", "consumer", "", 0));
        assert_eq!((a.delete().await, a.delete().await), (0, 69));
        assert_eq!(a.describe().await, described("Dead", "", "", 0));
        clean_up(target).await;
    }
}

#[tokio::test]
async fn invalid_group_requests_get_the_right_error() {
    for target in targets().await {
        let group = target.name("g");
        let mut a = Member::connect(&target, &group).await;
        assert_eq!(a.heartbeat_as(1, "nobody", None).await, 25);
        assert_eq!(a.leave("nobody", None).await, 25);
        assert_eq!(a.sync(&[]).await.error_code, 25);
        let unknown_member = join_request(&group, "nobody");
        assert_eq!(a.client.call(5, &unknown_member).await.error_code, 25);
        let short = join_request(&group, "").with_session_timeout_ms(10);
        assert_eq!(a.client.call(5, &short).await.error_code, 26);
        let empty_transactional_id = join_request("", "");
        assert_eq!(a.client.call(5, &empty_transactional_id).await.error_code, 24);
        let nothing = join_request(&group, "").with_protocols(vec![]);
        assert_eq!(a.client.call(5, &nothing).await.error_code, 23);
        a.get_member_id().await;
        a.join().await;
        let id = a.id.clone();
        assert_eq!(a.heartbeat_as(7, &id, None).await, 22);
        assert_eq!(a.heartbeat_as(1, "nobody", None).await, 25);
        assert_eq!(a.heartbeat_as(1, &id, Some("instance")).await, 25);
        let stale = a.sync_request(&[]).with_generation_id(0);
        assert_eq!(a.client.call(3, &stale).await.error_code, 22);
        let other = JoinGroupRequestProtocol::default().with_name(text("other"));
        let incompatible = join_request(&group, "").with_protocols(vec![other]);
        assert_eq!(a.client.call(5, &incompatible).await.error_code, 23);
        let connect = join_request(&group, "").with_protocol_type(text("connect"));
        assert_eq!(a.client.call(5, &connect).await.error_code, 23);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn returning_static_member_fences_its_old_id() {
    for target in targets().await {
        let group = target.name("g");
        let mut a = Member::connect(&target, &group).await;
        let request = a.join_request().with_group_instance_id(Some(text("i")));
        a.client.send(5, &request).await;
        let old = a.receive_join().await;
        assert_eq!((old.error_code, old.members[0].group_instance_id.clone()), (0, Some(text("i"))));
        a.sync(&[(old.member_id.as_str(), b"all")]).await;
        a.client.send(5, &request).await;
        let new = a.receive_join().await;
        assert_eq!((new.error_code, new.generation_id, new.members.len()), (0, 1, 0));
        assert_ne!(new.member_id, old.member_id);
        assert_eq!(new.leader, old.member_id, "a leader that must not assign again sees another leader");
        assert_eq!(a.sync(&[]).await.assignment, Bytes::from_static(b"all"));
        assert_eq!(a.heartbeat_as(1, old.member_id.as_str(), Some("i")).await, 82);
        assert_eq!(a.heartbeat_as(1, old.member_id.as_str(), None).await, 25);
        assert_eq!(a.heartbeat_as(1, new.member_id.as_str(), Some("i")).await, 0);
        assert_eq!(a.leave(old.member_id.as_str(), Some("i")).await, 82);
        assert_eq!(a.leave("", Some("j")).await, 25);
        assert_eq!(a.leave("", Some("i")).await, 0);
        assert_eq!(a.describe().await.0, "Empty");
        clean_up(target).await;
    }
}

#[tokio::test]
async fn offsets_are_committed_by_members_and_into_empty_groups() {
    for target in targets().await {
        let (group, topic) = (target.name("g"), target.name("t"));
        let mut a = Member::connect(&target, &group).await;
        a.client.create_topic(&topic, 1).await;
        assert_eq!(a.committed(&topic).await, (0, -1, Some(String::new())));
        assert_eq!(a.commit_as(3, "nobody", &topic, 1, "").await, 22);
        assert_eq!(a.commit_as(-1, "", &topic, 5, "note").await, 0);
        assert_eq!(a.committed(&topic).await, (0, 5, Some("note".into())));
        assert_eq!(a.commit_as(-1, "", &target.name("none"), 5, "").await, 3);
        assert_eq!(a.commit_as(-1, "", &topic, 6, &"x".repeat(5000)).await, 12);
        a.get_member_id().await;
        a.join().await;
        let id = a.id.clone();
        assert_eq!(a.commit_as(1, &id, &topic, 7, "").await, 27);
        a.sync(&[]).await;
        assert_eq!(a.commit_as(-1, "", &topic, 7, "").await, 25);
        assert_eq!(a.commit_as(1, "nobody", &topic, 7, "").await, 25);
        assert_eq!(a.commit_as(2, &id, &topic, 7, "").await, 22);
        assert_eq!(a.commit_as(1, &id, &topic, 7, "").await, 0);
        assert_eq!(a.committed(&topic).await.1, 7);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn deleting_a_topic_deletes_its_committed_offsets() {
    for target in targets().await {
        let (group, topic) = (target.name("g"), target.name("t"));
        let mut a = Member::connect(&target, &group).await;
        a.client.create_topic(&topic, 1).await;
        assert_eq!(a.commit_as(-1, "", &topic, 5, "").await, 0);
        let delete = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(&topic)]).with_timeout_ms(10_000);
        a.client.call(5, &delete).await;
        for _ in 0..10_000 {
            if a.committed(&topic).await.1 == -1 {
                break;
            }
        }
        assert_eq!(a.committed(&topic).await.1, -1);
        a.client.create_topic(&topic, 1).await;
        assert_eq!(a.client.produce(&topic, 0, BatchBuilder::new(&[1]).make()).await.base_offset, 0);
        clean_up(target).await;
    }
}

#[tokio::test]
async fn groups_are_listed_by_state() {
    for target in targets().await {
        let group = target.name("g");
        let mut a = Member::connect(&target, &group).await;
        a.get_member_id().await;
        a.join().await;
        a.sync(&[]).await;
        let mut listed = async |filter: &[&'static str]| {
            let states = filter.iter().map(|s| text(s)).collect();
            let found = a.client.call(5, &ListGroupsRequest::default().with_states_filter(states)).await;
            let found = found.groups.into_iter().find(|g| g.group_id == group_id(&group));
            found.map(|g| (g.group_state.to_string(), g.group_type.to_string(), g.protocol_type.to_string()))
        };
        let stable = Some(("Stable".to_owned(), "classic".to_owned(), "consumer".to_owned()));
        assert_eq!(listed(&[]).await, stable);
        assert_eq!(listed(&["stable"]).await, stable);
        assert_eq!(listed(&["Empty"]).await, None);
        clean_up(target).await;
    }
}
