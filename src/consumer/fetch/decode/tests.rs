#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::config::Compression;
use crate::record::{BatchBuilder, ProducerSequence};

/// A batch of `count` records at `base`, as a broker stores it.
fn batch(base: i64, count: i64, compression: Compression) -> BytesMut {
    let mut builder = BatchBuilder::new(1 << 10);
    for i in 0..count {
        builder.append(1000 + i, None, Some(format!("{}", base + i).as_bytes()), None);
    }
    let mut bytes = BytesMut::from(&builder.finish(compression, ProducerSequence::NONE)[..]);
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes
}

/// Changes header bytes and the checksum.
fn changed(mut batch: BytesMut, change: impl FnOnce(&mut [u8])) -> BytesMut {
    change(&mut batch);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn join(batches: &[BytesMut]) -> Bytes {
    batches.concat().into()
}

fn offsets(u: &DecodedFetch) -> Vec<i64> {
    u.records.iter().map(|r| r.offset).collect()
}

fn up_to(max_decompressed: usize) -> DecodeLimits {
    DecodeLimits { max_decompressed, max_memory: usize::MAX, log_end: i64::MAX, buffers: BufferPool::default() }
}

#[test]
fn records_before_the_offset_are_skipped() {
    let bytes = join(&[batch(0, 5, Compression::None), batch(5, 5, Compression::None)]);
    let u = decode_fetch(bytes.clone(), 3, None, up_to(1 << 20));
    assert_eq!((offsets(&u), u.next_offset), ((3..10).collect(), 10));
    assert_eq!(u.records[0].value.as_deref(), Some(&b"3"[..]));
    let u = decode_fetch(bytes, 5, None, up_to(1 << 20));
    assert_eq!(offsets(&u), [5, 6, 7, 8, 9]);
    let u = decode_fetch(Bytes::new(), 7, None, up_to(1 << 20));
    assert_eq!((u.records.len(), u.next_offset, u.decoded_bytes), (0, 7, 0));
}

#[test]
fn an_older_batch_does_not_move_the_position_back() {
    let bytes = join(&[batch(5, 3, Compression::None), batch(0, 3, Compression::None), batch(7, 3, Compression::None)]);
    let u = decode_fetch(bytes, 5, None, up_to(1 << 20));
    assert_eq!((offsets(&u), u.next_offset), ((5..10).collect(), 10));
    assert!(u.error.is_none());
}

#[test]
fn a_batch_after_the_end_of_the_log_is_corrupt() {
    let limits = || DecodeLimits { log_end: 8, ..up_to(1 << 20) };
    let good = batch(5, 3, Compression::None);
    // The offset was corrupted in transit.
    let bad = batch(1 << 40, 3, Compression::None);
    let u = decode_fetch(join(&[good.clone(), bad.clone()]), 5, None, limits());
    assert_eq!((offsets(&u), u.next_offset, u.used_bytes), (vec![5, 6, 7], 8, good.len()));
    assert!(u.error.is_none(), "it is fetched again");
    let u = decode_fetch(bad.freeze(), 8, None, limits());
    assert_eq!((offsets(&u).len(), u.next_offset), (0, 8));
    let damage = u.error.unwrap().to_string();
    assert_eq!(damage, "the broker sent a batch up to offset 1099511627778 of a log that ends at 8");
}

#[test]
fn offsets_without_a_record_move_the_position() {
    let control = changed(batch(4, 1, Compression::None), |b| b[22] |= 1 << 5);
    let gap = changed(batch(10, 2, Compression::None), |b| b[23..27].copy_from_slice(&9_i32.to_be_bytes()));
    let u = decode_fetch(control.clone().freeze(), 2, None, up_to(1 << 20));
    assert_eq!((u.records.len(), u.next_offset), (0, 5));
    let u = decode_fetch(join(&[control, gap.clone()]), 2, None, up_to(1 << 20));
    assert_eq!((offsets(&u), u.next_offset), (vec![10, 11], 20));
    let u = decode_fetch(join(&[gap]), 15, None, up_to(1 << 20));
    assert_eq!((u.records.len(), u.next_offset), (0, 20), "from inside the gap");
}

#[test]
fn corruption_stops_after_the_last_good_record() {
    let mut broken = batch(5, 5, Compression::None);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let u = decode_fetch(
        join(&[batch(0, 5, Compression::None), broken, batch(10, 5, Compression::None)]),
        0,
        None,
        up_to(1 << 20),
    );
    assert_eq!((offsets(&u).len(), u.next_offset), (5, 5));
    assert!(u.error.unwrap().to_string().contains("offset 5"));
}

#[test]
fn decompressed_bytes_are_counted_and_bounded() {
    let gzip = Compression::gzip(6).unwrap();
    let bytes = join(&[batch(0, 1000, gzip)]);
    assert!(is_compressed(&bytes) && !is_compressed(&batch(0, 10, Compression::None)));
    let u = decode_fetch(bytes.clone(), 0, None, up_to(1 << 20));
    assert_eq!(u.records.len(), 1000);
    assert!(u.decoded_bytes > 1000 * size_of::<Record>() + 2890);
    let u = decode_fetch(bytes, 0, None, up_to(100));
    assert_eq!((u.records.len(), u.next_offset), (0, 0));
    assert!(u.error.is_some(), "more than allowed");
}

/// One of a producer's transaction, in one of its codecs.
fn of(producer: i64, batch: BytesMut) -> BytesMut {
    changed(batch, |b| {
        b[22] |= 1 << 4;
        b[43..51].copy_from_slice(&producer.to_be_bytes());
    })
}

/// The marker that ends a transaction.
fn marker(base: i64, producer: i64, commit: bool) -> BytesMut {
    let mut builder = BatchBuilder::new(1 << 10);
    builder.append(1000, Some(&[0, 0, 0, u8::from(commit)]), Some(&[0; 6]), None);
    let mut bytes = BytesMut::from(&builder.finish(Compression::None, ProducerSequence::NONE)[..]);
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    changed(of(producer, bytes), |b| b[22] |= 1 << 5)
}

fn aborted(ranges: &[(i64, i64)]) -> Option<AbortedTransactions> {
    let one = |(producer, first): &(i64, i64)| {
        AbortedTransaction::default().with_producer_id((*producer).into()).with_first_offset(*first)
    };
    Some(AbortedTransactions::new(&ranges.iter().map(one).collect::<Vec<_>>()))
}

#[test]
fn aborted_records_are_skipped() {
    let plain = |base, count| batch(base, count, Compression::None);
    let log = join(&[
        of(7, plain(0, 2)),
        of(8, plain(2, 2)),
        plain(4, 1),
        marker(5, 7, false),
        of(7, batch(6, 2, Compression::gzip(1).unwrap())),
        marker(8, 8, true),
        marker(9, 7, true),
    ]);
    let u = decode_fetch(log.clone(), 0, aborted(&[(7, 0)]), up_to(1 << 20));
    assert_eq!((offsets(&u), u.next_offset), (vec![2, 3, 4, 6, 7], 10));
    let u = decode_fetch(log.clone(), 1, None, up_to(1 << 20));
    assert_eq!(offsets(&u), [1, 2, 3, 4, 6, 7], "all, where uncommitted ones are wanted");
    let u = decode_fetch(log.slice(..plain(0, 2).len()), 0, aborted(&[(7, 0)]), up_to(1 << 20));
    assert_eq!((u.records.len(), u.next_offset), (0, 2), "nothing but aborted records");
    let broken = changed(marker(0, 7, false), |b| b[65] = 2); // its key's length is 1
    let u = decode_fetch(join(&[of(7, plain(0, 1)), broken]), 0, aborted(&[(7, 0)]), up_to(1 << 20));
    assert!(u.error.is_some());
}

#[test]
fn decoding_stops_at_another_leader_epoch() {
    let at = |base, epoch: i32| {
        changed(batch(base, 2, Compression::None), |b| b[12..16].copy_from_slice(&epoch.to_be_bytes()))
    };
    let log = join(&[at(0, 3), at(2, 3), at(4, 5)]);
    for (from, to, epoch) in [(1, 4, 3), (4, 6, 5)] {
        let u = decode_fetch(log.clone(), from, None, up_to(1 << 20));
        assert_eq!((offsets(&u), u.next_offset), ((from..to).collect(), to));
        assert_eq!(u.leader_epoch, Some(epoch));
    }
    assert_eq!(decode_fetch(log, 6, None, up_to(1 << 20)).leader_epoch, None);
}

proptest! {
    /// As Java's consumer does, by a model that looks at the whole log for each batch.
    #[test]
    fn aborted_transactions_match_a_model(
        log in proptest::collection::vec((0..4_i64, 0..6_u8, 1..4_i64), 1..20),
        ranges in proptest::collection::vec((0..4_i64, 0..50_i64), 0..6),
        offset in 0..10_i64,
    ) {
        let (mut base, mut batches) = (0, Vec::new());
        for (producer, kind, count) in log {
            let count = if kind < 2 { 1 } else { count };
            let bytes = match kind {
                0 | 1 => marker(base, producer, kind == 1),
                2 => batch(base, count, Compression::None),
                3 => of(producer, batch(base, count, Compression::gzip(1).unwrap())),
                _ => of(producer, batch(base, count, Compression::None)),
            };
            batches.push((base, base + count, producer, kind, bytes));
            base += count;
        }
        let is_aborted = |at: usize| {
            let (_, end, producer, kind, _) = &batches[at];
            *kind > 2 && ranges.iter().any(|(of, first)| {
                let from = batches.iter().position(|(_, end, ..)| first < end).unwrap_or(usize::MAX);
                let ends = |(_, _, p, kind, _): &(_, _, i64, u8, _)| p == producer && *kind == 0;
                of == producer && first < end && !batches[from..at].iter().any(ends)
            })
        };
        let live = (0..batches.len()).filter(|at| batches[*at].3 > 1 && !is_aborted(*at));
        let wanted: Vec<_> = live.flat_map(|at| batches[at].0..batches[at].1).filter(|o| *o >= offset).collect();
        let bytes = join(&batches.iter().map(|(.., bytes)| bytes.clone()).collect::<Vec<_>>());
        let u = decode_fetch(bytes.clone(), offset, aborted(&ranges), up_to(1 << 20));
        prop_assert!(u.error.is_none());
        prop_assert_eq!((&offsets(&u), u.next_offset), (&wanted, base.max(offset)));
        // And a batch at a time.
        let (mut rest, mut at, mut ranges, mut seen) = (bytes, offset, aborted(&ranges), Vec::new());
        while !rest.is_empty() {
            let u = decode_fetch(rest.clone(), at, ranges, DecodeLimits { max_memory: 0, ..up_to(1 << 20) });
            seen.extend(offsets(&u));
            (rest, at, ranges) = (rest.slice(u.used_bytes..), u.next_offset, u.aborted);
        }
        prop_assert_eq!((seen, at), (wanted, base.max(offset)));
    }

    #[test]
    fn every_offset_is_decoded_once(
        sizes in proptest::collection::vec((1..6_i64, any::<bool>(), 0..3_i64), 1..12),
        cuts in proptest::collection::vec(0..400_usize, 1..40),
    ) {
        // A log of batches, some compressed, with gaps between them.
        let (mut log, mut base, mut wanted) = (Vec::new(), 0, Vec::new());
        for (count, gzip, gap) in sizes {
            let compression = if gzip { Compression::gzip(1).unwrap() } else { Compression::None };
            wanted.extend(base..base + count);
            log.push((base, base + count, batch(base, count, compression)));
            base += count + gap;
        }
        let (mut at, mut seen, mut cuts) = (0, Vec::new(), cuts.into_iter().cycle());
        while at < wanted.last().unwrap() + 1 {
            // What a broker sends: from the batch that holds the offset, up to some size, the first one whole.
            let rest: Vec<_> = log.iter().filter(|(_, end, _)| *end > at).map(|(_, _, b)| b.clone()).collect();
            let all = join(&rest);
            let u = decode_fetch(all.slice(..(rest[0].len() + cuts.next().unwrap()).min(all.len())), at, None, up_to(1 << 20));
            prop_assert!(u.error.is_none() && u.next_offset > at);
            seen.extend(offsets(&u));
            at = u.next_offset;
        }
        prop_assert_eq!(seen, wanted);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), offset in 0..1000_i64) {
        let u = decode_fetch(bytes.into(), offset, None, up_to(1 << 16));
        prop_assert!(u.next_offset >= offset);
    }
}

#[test]
fn decoding_stops_at_the_memory_limit() {
    for compression in [Compression::None, Compression::gzip(6).unwrap()] {
        let parts: Vec<_> = (0..10).map(|i| batch(i * 5, 5, compression)).collect();
        let bytes = join(&parts);
        let whole = decode_fetch(bytes.clone(), 0, None, up_to(1 << 20));
        assert_eq!((whole.records.len(), whole.used_bytes), (50, bytes.len()));
        let mut at = 0;
        for room in [0, 1, whole.decoded_bytes / 4, usize::MAX] {
            let rest = join(&parts[at / 5..]);
            let u = decode_fetch(rest.clone(), at as i64, None, DecodeLimits { max_memory: room, ..up_to(1 << 20) });
            let used: usize = parts[at / 5..][..u.records.len() / 5].iter().map(|b| b.len()).sum();
            assert_eq!((u.records[0].offset, u.used_bytes), (at as i64, used), "whole batches, one at least");
            assert_eq!(u.next_offset, at as i64 + u.records.len() as i64);
            assert!(room > 1 || u.records.len() == 5, "{room}");
            assert!(room == usize::MAX || u.used_bytes < rest.len(), "{room}");
            at += u.records.len();
        }
        assert_eq!(at, 50);
    }
}
