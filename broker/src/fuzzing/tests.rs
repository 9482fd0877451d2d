//! Runs the fuzz target from seeds: well-formed requests with some bytes mutated.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use kafka_protocol::messages;
use kafka_protocol::protocol::Decodable;

use super::*;
use crate::batch;
use crate::schema;
use crate::schema::sample::{Rng, body};

/// Number of seeds without `AILURUS_FUZZ_SEEDS`.
const DEFAULT_SEEDS: u64 = 2_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse().expect("a number"))
}

fn shared(versions: Versions) -> Shared {
    let config = BrokerConfig::default().versions(versions);
    let cluster = Cluster::new([(9092, 9092)], &config.racks);
    Shared::new(config, cluster)
}

/// Decodes a request body.
fn decode(api: ApiKey, bytes: &mut Bytes, version: i16) -> Result<(), String> {
    macro_rules! decode {
        ($($api:ident $request:ident,)*) => {
            match api {
                $(ApiKey::$api => messages::$request::decode(bytes, version).map(drop).map_err(|e| e.to_string()),)*
                other => Err(format!("{other:?} is not supported")),
            }
        };
    }
    decode! {
        Produce ProduceRequest,
        Fetch FetchRequest,
        ListOffsets ListOffsetsRequest,
        Metadata MetadataRequest,
        OffsetCommit OffsetCommitRequest,
        OffsetFetch OffsetFetchRequest,
        OffsetForLeaderEpoch OffsetForLeaderEpochRequest,
        FindCoordinator FindCoordinatorRequest,
        JoinGroup JoinGroupRequest,
        Heartbeat HeartbeatRequest,
        LeaveGroup LeaveGroupRequest,
        SyncGroup SyncGroupRequest,
        DescribeGroups DescribeGroupsRequest,
        ListGroups ListGroupsRequest,
        ApiVersions ApiVersionsRequest,
        CreateTopics CreateTopicsRequest,
        DeleteTopics DeleteTopicsRequest,
        DeleteRecords DeleteRecordsRequest,
        InitProducerId InitProducerIdRequest,
        DescribeAcls DescribeAclsRequest,
        CreateAcls CreateAclsRequest,
        DeleteAcls DeleteAclsRequest,
        DescribeConfigs DescribeConfigsRequest,
        DescribeLogDirs DescribeLogDirsRequest,
        CreatePartitions CreatePartitionsRequest,
        DeleteGroups DeleteGroupsRequest,
        IncrementalAlterConfigs IncrementalAlterConfigsRequest,
        OffsetDelete OffsetDeleteRequest,
        AddPartitionsToTxn AddPartitionsToTxnRequest,
        AddOffsetsToTxn AddOffsetsToTxnRequest,
        EndTxn EndTxnRequest,
        TxnOffsetCommit TxnOffsetCommitRequest,
        WriteTxnMarkers WriteTxnMarkersRequest,
        DescribeProducers DescribeProducersRequest,
        DescribeTransactions DescribeTransactionsRequest,
        ListTransactions ListTransactionsRequest,
        DescribeCluster DescribeClusterRequest,
        ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest,
        ConsumerGroupDescribe ConsumerGroupDescribeRequest,
        SaslHandshake SaslHandshakeRequest,
        SaslAuthenticate SaslAuthenticateRequest,
    }
}

fn is_flexible(api: ApiKey, version: i16) -> bool {
    api.request_header_version(version) >= 2
}

#[test]
fn schemas_match_the_decoder() {
    let (shared, mut rng) = (shared(Versions::kafka()), Rng(1));
    for api in (0..100).filter_map(|key| ApiKey::try_from(key).ok()) {
        let Some((min, max)) = shared.config.versions.range(api as i16) else { continue };
        let fields = schema::fields(api).unwrap_or_else(|| panic!("{api:?} has no table"));
        for version in min.max(api.valid_versions().min)..=max {
            for _ in 0..50 {
                let sample = body(fields, version, is_flexible(api, version), &mut rng, b"bytes");
                schema::check(&sample, fields, version, is_flexible(api, version)).unwrap();
                let mut bytes = Bytes::from(sample.clone());
                let decoded = decode(api, &mut bytes, version);
                assert!(decoded.is_ok() && bytes.is_empty(), "{api:?} {version}: {decoded:?} {sample:02x?}");
            }
        }
    }
}

#[test]
fn array_longer_than_its_request_is_rejected() {
    let fields = schema::fields(ApiKey::Metadata).unwrap();
    let refused = schema::check(&[0x7f, 0xff, 0xff, 0xff, 0], fields, 1, false);
    assert!(refused.is_err_and(|e| e.contains("longer than the request")));
    assert!(schema::check(&[0xff, 0xff, 0xff, 0xff], fields, 1, false).is_ok(), "null is all topics");
    assert!(schema::check(&[0xff, 0xff, 0xff, 0xfe], fields, 1, false).is_err());
}

#[test]
fn requests_from_seeds_never_panic() {
    let seeds = match number("AILURUS_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AILURUS_FUZZ_SEEDS").unwrap_or(DEFAULT_SEEDS),
    };
    for seed in seeds {
        let input = input(&mut Rng(seed));
        let outcome = catch_unwind(AssertUnwindSafe(|| super::requests(&input)));
        let again = format!(
            "AILURUS_FUZZ_SEED={seed} cargo test -p ailurus-broker --lib fuzzing::tests::requests_from_seeds_never_panic"
        );
        assert!(outcome.is_ok(), "to run it again: {again}\n{input:02x?}");
    }
}

fn input(rng: &mut Rng) -> Vec<u8> {
    let kind = rng.below(3) as u8 | if rng.below(8) == 0 { 0x80 } else { 0 };
    let shared = shared(
        [Versions::redpanda_24_3(), Versions::redpanda_26_2(), Versions::kafka()][usize::from(kind & 3)].clone(),
    );
    let mut all = vec![kind];
    for _ in 0..=rng.below(8) {
        let (api, version) = (rng.byte(), rng.byte());
        let (key, of) = choose_api(&shared, api, version).unwrap();
        let bytes = batch::empty(1 + rng.below(3) as i32, 7);
        let mut sample = body(schema::fields(key).unwrap(), of, is_flexible(key, of), rng, &bytes);
        mutate(&mut sample, rng);
        sample.truncate(usize::from(u16::MAX));
        all.extend([api, version]);
        all.extend((sample.len() as u16).to_be_bytes());
        all.extend(sample);
    }
    all
}

/// Mutates up to four places in half of the requests.
fn mutate(input: &mut Vec<u8>, rng: &mut Rng) {
    if rng.below(2) == 0 {
        return;
    }
    for _ in 0..=rng.below(3) {
        let at = rng.below(input.len() as u64 + 1) as usize;
        match rng.below(5) {
            0 => input.truncate(at),
            1 => input.insert(at, rng.byte()),
            2 if at + 4 <= input.len() => {
                let length = [0x7fff_ffff_u32, 0xffff_ffff, 0x8000_0000, 100 << 20][rng.below(4) as usize];
                input[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
            _ if at < input.len() => input[at] ^= 1 << rng.below(8),
            _ => {}
        }
    }
}
