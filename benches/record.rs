//! The work done for each record: into a batch, out of a batch, compressed, key to partition, into its partition's batch.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;

use ailurus::Compression;
use ailurus::producer::{murmur2, raw::RawAccumulator};
use ailurus::record::raw;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

/// Order events of about 340 bytes with their keys, as many as fill a batch of 1 MB.
fn events() -> Vec<(String, String)> {
    let mut random = fastrand::Rng::with_seed(1);
    let status = ["PENDING", "CONFIRMED", "PAID", "SHIPPED", "CANCELLED"];
    let mut event = |i: usize| {
        let items: Vec<_> = (0..2)
            .map(|_| {
                let (product, quantity, price) = (random.u32(..5000), random.u32(1..6), random.u32(50..20_000));
                format!(r#"{{"productId":"p-{product}","quantity":{quantity},"price":{price}}}"#)
            })
            .collect();
        let value = format!(
            r#"{{"eventId":"{:032x}","eventType":"order.created","orderId":"order-{i}","userId":"user-{}","items":[{}],"totalAmount":{},"currency":"EUR","status":"{}","timestamp":"2026-01-01T00:00:00.{:03}Z"}}"#,
            random.u128(..),
            random.u32(..50_000),
            items.join(","),
            random.u32(50..100_000),
            status[random.usize(..5)],
            random.u32(..1000),
        );
        (format!("order-{i}"), value)
    };
    (0..2_800).map(&mut event).collect()
}

fn benches(c: &mut Criterion) {
    let events = events();
    let pairs = || events.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes()));
    let default_gzip = Compression::gzip(Compression::DEFAULT_GZIP_LEVEL).unwrap();
    let codecs = [
        ("none", Compression::None),
        ("gzip", default_gzip),
        ("snappy", Compression::Snappy),
        ("lz4", Compression::Lz4),
        ("zstd", Compression::Zstd),
    ];

    let mut group = c.benchmark_group("record");
    group.throughput(Throughput::Elements(events.len() as u64));
    for (name, codec) in codecs {
        let batch = raw::encode(pairs(), 1 << 20, codec);
        group.bench_function(format!("encode {name}"), |b| b.iter(|| raw::encode(black_box(pairs()), 1 << 20, codec)));
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| raw::decode(black_box(batch.clone()), 64 << 20).unwrap());
        });
    }
    let batch = raw::encode(pairs(), 1 << 20, Compression::None);
    for (name, codec) in &codecs[1..] {
        group.bench_function(format!("compress {name}"), |b| {
            b.iter(|| raw::compress(black_box(&batch), *codec).unwrap());
        });
    }
    let mut batches = RawAccumulator::new("orders", 3);
    group.bench_function("accumulate", |b| {
        b.iter(|| {
            pairs().for_each(|(key, value)| batches.append(black_box(key), value));
            batches.send()
        });
    });
    group.bench_function("partition", |b| {
        b.iter(|| events.iter().fold(0, |sum, (key, _)| sum ^ murmur2(black_box(key.as_bytes()))));
    });
    group.finish();
}

criterion_group!(record, benches);
criterion_main!(record);
