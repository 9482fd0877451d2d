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

/// The same with other attributes or another last offset.
fn changed(mut batch: BytesMut, change: impl FnOnce(&mut [u8])) -> BytesMut {
    change(&mut batch);
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn join(batches: &[BytesMut]) -> Bytes {
    batches.concat().into()
}

fn offsets(u: &Unpacked) -> Vec<i64> {
    u.records.iter().map(|r| r.offset).collect()
}

#[test]
fn records_before_the_offset_are_left_out() {
    let bytes = join(&[batch(0, 5, Compression::None), batch(5, 5, Compression::None)]);
    let u = unpack(bytes.clone(), 3, 1 << 20);
    assert_eq!((offsets(&u), u.next_offset), ((3..10).collect(), 10));
    assert_eq!(u.records[0].value.as_deref(), Some(&b"3"[..]));
    let u = unpack(bytes, 5, 1 << 20);
    assert_eq!(offsets(&u), [5, 6, 7, 8, 9]);
    let u = unpack(Bytes::new(), 7, 1 << 20);
    assert_eq!((u.records.len(), u.next_offset, u.grown), (0, 7, 0));
}

#[test]
fn offsets_without_a_record_move_the_position() {
    let control = changed(batch(4, 1, Compression::None), |b| b[22] |= 1 << 5);
    let gap = changed(batch(10, 2, Compression::None), |b| b[23..27].copy_from_slice(&9_i32.to_be_bytes()));
    let u = unpack(control.clone().freeze(), 2, 1 << 20);
    assert_eq!((u.records.len(), u.next_offset), (0, 5));
    let u = unpack(join(&[control, gap.clone()]), 2, 1 << 20);
    assert_eq!((offsets(&u), u.next_offset), (vec![10, 11], 20));
    let u = unpack(join(&[gap]), 15, 1 << 20);
    assert_eq!((u.records.len(), u.next_offset), (0, 20), "from inside the gap");
}

#[test]
fn damage_ends_it_behind_the_last_good_record() {
    let mut broken = batch(5, 5, Compression::None);
    let last = broken.len() - 1;
    broken[last] ^= 1;
    let u = unpack(join(&[batch(0, 5, Compression::None), broken, batch(10, 5, Compression::None)]), 0, 1 << 20);
    assert_eq!((offsets(&u).len(), u.next_offset), (5, 5));
    assert!(u.damage.unwrap().to_string().contains("offset 5"));
}

#[test]
fn what_is_opened_counts_and_is_bounded() {
    let gzip = Compression::gzip(6).unwrap();
    let bytes = join(&[batch(0, 1000, gzip)]);
    assert!(is_compressed(&bytes) && !is_compressed(&batch(0, 10, Compression::None)));
    let u = unpack(bytes.clone(), 0, 1 << 20);
    assert_eq!(u.records.len(), 1000);
    assert!(u.grown > 1000 * size_of::<Record>() + 2890);
    let u = unpack(bytes, 0, 100);
    assert_eq!((u.records.len(), u.next_offset), (0, 0));
    assert!(u.damage.is_some(), "more than allowed");
}

proptest! {
    #[test]
    fn every_offset_comes_once_wherever_fetches_begin_and_end(
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
            let u = unpack(all.slice(..(rest[0].len() + cuts.next().unwrap()).min(all.len())), at, 1 << 20);
            prop_assert!(u.damage.is_none() && u.next_offset > at);
            seen.extend(offsets(&u));
            at = u.next_offset;
        }
        prop_assert_eq!(seen, wanted);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), offset in 0..1000_i64) {
        let u = unpack(bytes.into(), offset, 1 << 16);
        prop_assert!(u.next_offset >= offset);
    }
}
