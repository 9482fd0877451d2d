//! Runs the targets from seeds: each input is a valid sample with some bytes changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::panic::{AssertUnwindSafe, catch_unwind};

use allocation_counter::measure;
use bytes::Bytes;
use fastrand::Rng;

use super::*;
use crate::config::Compression;
use crate::record::raw;

/// Memory limit for an input of a few KiB: batches are decompressed up to 256 KiB, and a record of
/// seven bytes takes twenty times as much once it is decoded.
const MEMORY_LIMIT_BYTES: u64 = 16 << 20;
/// Seeds per target without `AILURUS_FUZZ_SEEDS`.
const SEEDS: u64 = 4_000;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|n| n.parse().expect("a number"))
}

/// Runs a target on the inputs of all seeds, or of the one in `AILURUS_FUZZ_SEED`.
fn run(name: &str, sample: impl Fn(&mut Rng) -> Vec<u8>) {
    let (_, target) = TARGETS.iter().find(|(of, _)| *of == name).unwrap();
    let seeds = match number("AILURUS_FUZZ_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AILURUS_FUZZ_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let mut rng = Rng::with_seed(seed);
        let mut input = sample(&mut rng);
        change(&mut input, &mut rng);
        let again = || format!("AILURUS_FUZZ_SEED={seed} cargo test -p ailurus --lib fuzzing::tests::{name}");
        let mut outcome = Ok(());
        let cost = measure(|| outcome = catch_unwind(AssertUnwindSafe(|| target(&input))));
        assert!(outcome.is_ok(), "to run it again: {}\n{input:02x?}", again());
        assert!(
            cost.bytes_max < MEMORY_LIMIT_BYTES,
            "{cost:?} for {} bytes; to run it again: {}",
            input.len(),
            again()
        );
    }
}

/// Changes up to four places; leaves one in eight inputs unchanged.
fn change(input: &mut Vec<u8>, rng: &mut Rng) {
    if rng.u8(..8) == 0 {
        return;
    }
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(..=input.len());
        match rng.u8(..6) {
            0 => input.truncate(at.max(1)),
            1 => input.insert(at, rng.u8(..)),
            2 if at < input.len() => drop(input.remove(at)),
            3 if at + 4 <= input.len() => {
                let lie = [0x7fff_ffff_u32, 0xffff_ffff, 0x8000_0000, 100 << 20, 0x00ff_ffff][rng.usize(..5)];
                input[at..at + 4].copy_from_slice(&lie.to_be_bytes());
            }
            4 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff][rng.usize(..5)],
            _ if at < input.len() => input[at] ^= 1 << rng.u8(..8),
            _ => {}
        }
    }
}

fn noise(rng: &mut Rng, most: usize) -> Vec<u8> {
    let values = if rng.bool() { u8::MAX } else { 3 };
    let n = rng.usize(..=most);
    (0..n).map(|_| rng.u8(..=values)).collect()
}

#[test]
fn response() {
    run("response", wire::fuzz::sample);
}

#[test]
fn records() {
    let older: Vec<Vec<u8>> = include_str!("../../tests/vectors/legacy-messages.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').nth(1).unwrap())
        .filter(|hex| hex.len() < 4000)
        .map(|hex| (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect())
        .collect();
    run("records", move |rng| {
        let mode = rng.u8(..8);
        let behind = match mode {
            0 if rng.bool() => older[rng.usize(..older.len())].clone(),
            1..=4 => {
                let codec = codec(mode);
                let section = section(rng);
                [vec![3, 2], raw::compress(&section, codec).unwrap()].concat()
            }
            5 => [vec![rng.u8(..5), 3, 2], section(rng)].concat(),
            6 | 7 => {
                let attributes = rng.u8(..4);
                let inner = older[rng.usize(..older.len())].clone();
                [vec![attributes, 102], raw::compress(&inner, codec(attributes)).unwrap()].concat()
            }
            _ => {
                let values: Vec<_> = (0..rng.usize(1..5)).map(|_| noise(rng, 60)).collect();
                let pairs = values.iter().map(|v| (&b"key"[..], &v[..]));
                let codec = codec(rng.u8(..5));
                let one = raw::encode(pairs, 1 << 10, codec);
                [&one[..], &one[..]].concat()
            }
        };
        [vec![mode], behind].concat()
    });
}

fn codec(bits: u8) -> Compression {
    match bits {
        1 => Compression::Gzip { level: 3 },
        2 => Compression::Snappy,
        3 => Compression::Lz4,
        4 => Compression::Zstd,
        _ => Compression::None,
    }
}

/// The records of a batch with three of them.
fn section(rng: &mut Rng) -> Vec<u8> {
    const HEADER: usize = 61;
    let values: Vec<_> = (0..3).map(|_| noise(rng, 100)).collect();
    let batch: Bytes = raw::encode(values.iter().map(|v| (&b"key"[..], &v[..])), 1 << 10, Compression::None);
    batch[HEADER..].to_vec()
}

#[test]
fn headers() {
    let names = ["traceparent", "tracestate", "dlq-error", "dlq-original-topic", "dlq-replays", "ce_id", "x"];
    run("headers", move |rng| {
        let mut headers = crate::Headers::new();
        for _ in 0..rng.usize(..8) {
            let value = match rng.u8(..3) {
                0 => b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec(),
                1 => rng.i64(..).to_string().into_bytes(),
                _ => noise(rng, 20),
            };
            headers.push(names[rng.usize(..names.len())], rng.bool().then_some(&value[..]));
        }
        [&[headers.len() as u8][..], &headers.raw].concat()
    });
}

#[test]
fn group() {
    run("group", consumer::fuzz::sample);
}

#[test]
fn dotenv() {
    let lines = include_str!("../../.env.example").lines().collect::<Vec<_>>();
    run("dotenv", move |rng| {
        let mut text = String::new();
        for _ in 0..rng.usize(..6) {
            let line = lines[rng.usize(..lines.len())];
            text += line.strip_prefix("# ").filter(|line| line.starts_with("REDPANDA_")).unwrap_or(line);
            text += ["\n", "\r\n", "\"\n", " $x\n", "'\n"][rng.usize(..5)];
        }
        text.into_bytes()
    });
}

#[test]
fn login() {
    run("login", |rng| {
        let mechanism = rng.u8(..4);
        let first = match rng.u8(..3) {
            0 => b"r=nonce,s=c2FsdA==,i=4096".to_vec(),
            1 => br#"{"status":"invalid_token"}"#.to_vec(),
            _ => noise(rng, 40),
        };
        let second = b"v=c2lnbmF0dXJl".to_vec();
        [vec![mechanism, first.len() as u8], first, vec![second.len() as u8], second].concat()
    });
}
