//! Offsets in transactions, and who may commit them.

use super::transactions::*;
use super::*;
use ailurus_test_support::raw_client::transactions::*;

const STALE: i32 = 99;

/// Finds the coordinator of a group, until it has loaded it.
async fn find_group(client: &mut Client, group: &str, topic: &str) {
    let find = FindCoordinatorRequest::default().with_key(text(group)).with_key_type(0);
    while client.call(3, &find).await.error_code != 0 {}
    while [14, 15, 16].contains(&stable_offset(client, group, topic, 0).await.1) {}
}

/// Adds the group to the transaction, if the version needs it, once the last one has completed.
async fn add_group(p: &mut Producer, group: &str) {
    while p.versions == V1 && p.add_offsets(group).await == CONCURRENT_TRANSACTIONS {}
}

#[tokio::test]
async fn offsets_are_pending_until_the_marker() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 1).await;
        for versions in [V1, V2] {
            let group = target.name(&format!("g{}", versions.end));
            let mut client = target.client().await;
            find_group(&mut client, &group, &topic).await;
            let mut p = producer(&target, versions, &group).await;
            if versions == V1 {
                assert_eq!(p.commit_offset(&group, &topic, 0, 5).await, TRANSACTION_ABORTABLE, "not added");
                p.versions.commit_offsets = 3;
                assert_eq!(p.commit_offset(&group, &topic, 0, 5).await, INVALID_TXN_STATE, "not added");
                p.versions = V1;
            }
            add_group(&mut p, &group).await;
            assert_eq!(p.commit_offset(&group, &topic, 0, 5).await, 0);
            assert_eq!(p.commit_offset(&group, &topic, 0, 6).await, 0);
            assert_eq!(stable_offset(&mut client, &group, &topic, 0).await, (-1, UNSTABLE_OFFSET_COMMIT));
            assert_eq!(p.end(true).await, 0);
            completed(&mut p).await;
            assert_eq!(stable_offset(&mut client, &group, &topic, 0).await, (6, 0));
            add_group(&mut p, &group).await;
            assert_eq!(p.commit_offset(&group, &topic, 0, 9).await, 0);
            assert_eq!(p.end(false).await, 0);
            completed(&mut p).await;
            assert_eq!(stable_offset(&mut client, &group, &topic, 0).await, (6, 0), "aborted");
        }
        clean_up(target).await;
    }
}

#[tokio::test]
async fn classic_member_commits_in_its_generation_also_in_a_rebalance() {
    for target in targets().await {
        let topic = target.name("t");
        target.client().await.create_topic(&topic, 2).await;
        for versions in [V1, V2] {
            let group = target.name(&format!("g{}", versions.end));
            let mut client = target.client().await;
            find_group(&mut client, &group, &topic).await;
            let member = client.call(5, &join_request(&group, "")).await.member_id.to_string();
            let joined = client.call(5, &join_request(&group, &member)).await;
            assert_eq!(joined.error_code, 0);
            let generation = joined.generation_id;
            let mut p = producer(&target, versions, &group).await;
            add_group(&mut p, &group).await;
            p.member = (generation, member.clone(), None);
            assert_eq!(p.commit_offset(&group, &topic, 0, 1).await, 0, "completing a rebalance");
            let assignment = SyncGroupRequestAssignment::default().with_member_id(text(&member));
            let sync = SyncGroupRequest::default()
                .with_group_id(group_id(&group))
                .with_generation_id(generation)
                .with_member_id(text(&member))
                .with_assignments(vec![assignment]);
            assert_eq!(client.call(3, &sync).await.error_code, 0);
            assert_eq!(p.commit_offset(&group, &topic, 0, 2).await, 0);
            p.member.0 = STALE;
            assert_eq!(p.commit_offset(&group, &topic, 0, 3).await, ILLEGAL_GENERATION);
            p.member = (generation, "other".into(), None);
            assert_eq!(p.commit_offset(&group, &topic, 0, 3).await, UNKNOWN_MEMBER_ID);
            p.member = (generation, member.clone(), Some("instance".into()));
            assert_eq!(p.commit_offset(&group, &topic, 0, 3).await, UNKNOWN_MEMBER_ID);
            p.member = (-1, String::new(), None);
            assert_eq!(p.commit_offset(&group, &topic, 1, 7).await, 0, "without a member, as older clients");
            assert_eq!(p.end(true).await, 0);
            completed(&mut p).await;
            assert_eq!(stable_offset(&mut client, &group, &topic, 0).await, (2, 0));
            assert_eq!(stable_offset(&mut client, &group, &topic, 1).await, (7, 0));
            let identity = MemberIdentity::default().with_member_id(text(&member));
            let leave = LeaveGroupRequest::default().with_group_id(group_id(&group)).with_members(vec![identity]);
            assert_eq!(client.call(3, &leave).await.error_code, 0);
        }
        clean_up(target).await;
    }
}

#[tokio::test]
async fn consumer_protocol_member_commits_in_its_epoch() {
    for target in targets().await {
        let (topic, group) = (target.name("t"), target.name("g"));
        let mut client = target.client().await;
        client.create_topic(&topic, 1).await;
        find_group(&mut client, &group, &topic).await;
        let heartbeat = ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group_id(&group))
            .with_member_id(text("m"))
            .with_rebalance_timeout_ms(10_000)
            .with_subscribed_topic_names(Some(vec![topic_name(&topic)]))
            .with_topic_partitions(Some(vec![]));
        let joined = client.call(1, &heartbeat).await;
        assert_eq!(joined.error_code, 0);
        let mut p = producer(&target, V2, "p").await;
        p.member = (joined.member_epoch, "m".into(), None);
        assert_eq!(p.commit_offset(&group, &topic, 0, 5).await, 0);
        p.member.0 = STALE;
        assert_eq!(p.commit_offset(&group, &topic, 0, 6).await, ILLEGAL_GENERATION);
        p.member = (joined.member_epoch, "other".into(), None);
        assert_eq!(p.commit_offset(&group, &topic, 0, 6).await, UNKNOWN_MEMBER_ID);
        p.member = (3, "m".into(), None);
        let unknown = target.name("unknown");
        assert_eq!(p.commit_offset(&unknown, &topic, 0, 6).await, ILLEGAL_GENERATION, "no such group");
        assert_eq!(p.end(true).await, 0);
        completed(&mut p).await;
        assert_eq!(stable_offset(&mut client, &group, &topic, 0).await, (5, 0));
        let leave = heartbeat.with_member_epoch(-1);
        assert_eq!(client.call(1, &leave).await.error_code, 0);
        clean_up(target).await;
    }
}
