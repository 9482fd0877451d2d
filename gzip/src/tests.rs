#![allow(clippy::unwrap_used)]

use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::fuzzing::round_trip;
use crate::huffman::BitWriter;
use crate::matcher::{Matcher, WINDOW_BYTES};

fn inflated(deflated: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    flate2::bufread::DeflateDecoder::new(deflated).read_to_end(&mut plain).unwrap();
    plain
}

#[test]
fn limits_of_matches_and_codes() {
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
    // A match at the maximum distance, and one byte beyond.
    let repeated = |distance: usize| [&noise[..300], &vec![0; distance - 300], &noise[..300]].concat();
    // Bytes that occur once have the longest codes: a run of them is the most that is written
    // at a time.
    let rare = [noise[..30_000].iter().map(|b| b % 16).collect(), (0..=255).collect::<Vec<u8>>()].concat();
    for data in [
        Vec::new(),
        vec![7],
        vec![7; 1_000_000],
        repeated(WINDOW_BYTES - 1),
        repeated(WINDOW_BYTES),
        repeated(WINDOW_BYTES + 1),
        noise.clone(),
        [&rare[..], &rare[30_000..], &noise].concat(),
        rare,
        // Frequencies whose tree is deeper than codes may be long.
        (0..24_u32).flat_map(|i| vec![i as u8 * 9; 1 << (i / 2)]).rev().collect(),
    ] {
        round_trip(&data);
    }
    assert!(
        round_trip(&repeated(WINDOW_BYTES)).len() + 200 < round_trip(&repeated(WINDOW_BYTES + 1)).len(),
        "the match at the maximum distance is used"
    );
}

#[test]
fn earlier_data_is_not_matched() {
    let mut matcher = Matcher::new();
    let data: Vec<u8> = (0..5_000_u32).flat_map(|i| (i % 700).to_be_bytes()).collect();
    // At the last one, positions start again.
    for base in [matcher.base, u32::MAX - 200_000, u32::MAX - 100_000, u32::MAX - 90_000] {
        matcher.base = matcher.base.max(base);
        let mut out = Vec::new();
        matcher.deflate(&data, &mut out);
        assert!(inflated(&out) == data);
    }
}

#[test]
fn parts_are_one_stream() {
    let (mut matcher, mut out) = (Matcher::new(), Vec::new());
    let data: Vec<u8> = (0..9_000_u32).flat_map(|i| (i % 700).to_be_bytes()).collect();
    let mut bits = BitWriter::new(&mut out);
    let (first, rest) = data.split_at(1_001);
    matcher.write_part(first, false, &mut bits);
    matcher.write_part(rest, true, &mut bits);
    bits.finish();
    assert!(inflated(&out) == data);
}

/// The size that the encoder is for: JSON events in batches.
#[test]
fn events_shrink_as_by_level_5_of_zlib() {
    let mut random = fastrand::Rng::with_seed(1);
    let events: String = (0..3_000)
        .map(|i| {
            let (user, amount, id) = (random.u32(..50_000), random.u32(50..100_000), random.u128(..));
            format!(
                r#"{{"eventId":"{id:032x}","eventType":"order.created","orderId":"order-{i}","userId":"user-{user}","totalAmount":{amount},"currency":"EUR","status":"PAID"}}"#
            )
        })
        .collect();
    let mut zlib = flate2::read::GzEncoder::new(events.as_bytes(), flate2::Compression::new(5));
    let zlib = zlib.read_to_end(&mut Vec::new()).unwrap();
    let size = round_trip(events.as_bytes()).len();
    assert!(size * 100 < zlib * 105, "{size} bytes, zlib's level 5 {zlib}");
}

proptest! {
    #[test]
    fn data_round_trips(words in vec(vec(any::<u8>(), 1..12), 1..20), order in vec(any::<prop::sample::Index>(), 0..3000)) {
        let data: Vec<u8> = order.iter().flat_map(|i| words[i.index(words.len())].iter().copied()).collect();
        round_trip(&data);
    }

    #[test]
    fn any_bytes_round_trip(data in vec(any::<u8>(), 0..2000), times in 1..40_usize) {
        round_trip(&data.repeat(times));
    }
}
