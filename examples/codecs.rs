//! Ratio and CPU cost of each codec on your data: `cargo run --release --example codecs -- FILE [BATCH_BYTES]`
//!
//! Each line of FILE is the value of a record. As many records as a producer would have are put into batches of three
//! partitions by key and compressed; the lines are used again and again until there are 200,000.

#![allow(missing_docs, clippy::print_stdout)]

use std::time::Duration;

use ailurus::Compression;
use ailurus::producer::murmur2;
use ailurus::record::raw;
use bytes::Bytes;
use tokio::time::Instant;

const RECORDS: usize = 200_000;
const PARTITIONS: i32 = 3;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("name a file whose lines are values")?;
    let batch_bytes: usize = args.next().map_or(Ok(1_000_000), |n| n.parse())?;
    let text = std::fs::read(file)?;
    let values: Vec<&[u8]> = text.split(|b| *b == b'\n').filter(|line| !line.is_empty()).collect();
    let keys: Vec<String> = (0..10_000).map(|i| format!("order-{i}")).collect();
    let batches = split(&keys, &values, batch_bytes);

    let gzip = |level| Compression::Gzip { level };
    let codecs: Vec<Compression> = std::iter::once(Compression::None)
        .chain((1..=9).map(gzip))
        .chain([Compression::Snappy, Compression::Lz4, Compression::Zstd])
        .collect();
    println!("per million records, {} batches of up to {batch_bytes} bytes:", batches.len());
    println!("{:16} {:>8} {:>6} {:>12} {:>12}", "codec", "MB", "ratio", "compress s", "open s");
    let mut plain = 0;
    let mut building = Duration::ZERO;
    let mut reading = Duration::ZERO;
    for codec in codecs {
        let (size, encoding, decoding) = measure(&batches, codec, batch_bytes)?;
        if codec == Compression::None {
            (plain, building, reading) = (size, encoding, decoding);
        }
        let million = |x: f64| x * 1e6 / RECORDS as f64;
        println!(
            "{:16} {:8.1} {:6.2} {:12.2} {:12.2}",
            name(codec),
            million(size as f64 / 1e6),
            plain as f64 / size as f64,
            million(encoding.saturating_sub(building).as_secs_f64()),
            million(decoding.saturating_sub(reading).as_secs_f64()),
        );
    }
    Ok(())
}

fn name(codec: Compression) -> String {
    match codec {
        Compression::Gzip { level } => format!("gzip {level}"),
        other => format!("{other:?}").to_lowercase(),
    }
}

type Pair<'a> = (&'a [u8], &'a [u8]);

/// Records of one batch after the other, as their partitions' batches get full.
fn split<'a>(keys: &'a [String], values: &[&'a [u8]], batch_bytes: usize) -> Vec<Vec<Pair<'a>>> {
    let mut open = vec![(Vec::new(), 0); PARTITIONS as usize];
    let mut full = Vec::new();
    for (key, value) in keys.iter().cycle().zip(values.iter().cycle()).take(RECORDS) {
        let partition = (murmur2(key.as_bytes()) & 0x7fff_ffff) % PARTITIONS;
        let (records, size) = &mut open[partition as usize];
        let room = key.len() + value.len() + 10;
        if *size + room > batch_bytes {
            full.push(std::mem::take(records));
            *size = 0;
        }
        *size += room;
        records.push((key.as_bytes(), *value));
    }
    full.extend(open.into_iter().map(|(records, _)| records));
    full
}

/// The bytes of all batches, and the time to build and to read them: the best of three.
fn measure(batches: &[Vec<Pair<'_>>], codec: Compression, room: usize) -> ailurus::Result<(usize, Duration, Duration)> {
    let (mut size, mut encoding, mut decoding) = (0, Duration::MAX, Duration::MAX);
    for _ in 0..3 {
        let begun = Instant::now();
        let encoded: Vec<Bytes> = batches.iter().map(|b| raw::encode(b.iter().copied(), room, codec)).collect();
        encoding = encoding.min(begun.elapsed());
        size = encoded.iter().map(Bytes::len).sum();
        let begun = Instant::now();
        for batch in encoded {
            raw::decode(batch, 64 << 20)?;
        }
        decoding = decoding.min(begun.elapsed());
    }
    Ok((size, encoding, decoding))
}
