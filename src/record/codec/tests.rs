#![allow(clippy::unwrap_used)]

use std::io::Read;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

impl Codec {
    pub(in crate::record) fn decompress(self, data: &[u8], limit: usize) -> Result<Vec<u8>> {
        self.decompress_using(data, limit, &BufferPool::default())
    }
}

const ALL: [Compression; 4] =
    [Compression::Gzip { level: 6 }, Compression::Snappy, Compression::Lz4, Compression::Zstd];

fn pack(compression: Compression, data: &[u8]) -> (Codec, Vec<u8>) {
    compress(compression, data, Vec::new()).unwrap()
}

fn any_codec() -> impl Strategy<Value = Compression> {
    prop_oneof![
        (1..=9u32).prop_map(|level| Compression::Gzip { level }),
        Just(Compression::Snappy),
        Just(Compression::Lz4),
        Just(Compression::Zstd)
    ]
}

/// Noise, runs and repetitions, mixed.
fn data() -> impl Strategy<Value = Vec<u8>> {
    let noise = vec(any::<u8>(), 0..600);
    let run = (any::<u8>(), 0..3000usize).prop_map(|(b, n)| vec![b; n]);
    let text = (vec("[a-f]{1,12}", 1..6), 1..300usize).prop_map(|(words, n)| words.concat().repeat(n).into_bytes());
    vec(prop_oneof![noise, run, text], 0..8).prop_map(|parts| parts.concat())
}

#[test]
fn sizes_around_block_limits_round_trip() {
    for compression in ALL {
        for size in [0, 1, 63, 64, 65, 1000, 65_535, 65_536, 65_537, 131_073, 1 << 20] {
            let data: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let (codec, packed) = pack(compression, &data);
            assert_eq!(codec.decompress(&packed, size).unwrap(), data, "{codec:?} {size}");
            assert_eq!(Codec::from_attributes(codec.bits()).unwrap(), codec);
        }
    }
}

#[test]
fn decompression_stops_at_the_limit() {
    for compression in ALL {
        let (codec, bomb) = pack(compression, &vec![0; 64 << 20]);
        let error = codec.decompress(&bomb, 1 << 20).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("max_decompressed_bytes"), "{codec:?}: {error}");
        let (_, packed) = pack(compression, &[0; 101]);
        assert!(codec.decompress(&packed, 100).is_err(), "{codec:?}");
        let (_, packed) = pack(compression, &[0; 100]);
        assert!(codec.decompress(&packed, 100).is_ok(), "{codec:?}");
    }
}

#[test]
fn impossible_claimed_sizes_are_not_reserved() {
    // A zstd frame and a snappy block that claim 1 GiB and are nearly empty.
    let zstd = [&0xFD2F_B528_u32.to_le_bytes()[..], &[0xA0], &(1_u32 << 30).to_le_bytes(), &[1, 0, 0]].concat();
    let snappy = [0x80, 0x80, 0x80, 0x80, 0x04, 0];
    for (codec, data) in [(Codec::Zstd, &zstd[..]), (Codec::Snappy, &snappy[..])] {
        let error = codec.decompress(data, 2 << 30).unwrap_err();
        assert!(error.full().contains("larger than it can be"), "{codec:?}: {}", error.full());
    }
}

#[test]
fn concatenated_streams_are_read_as_one() {
    for compression in [Compression::Gzip { level: 6 }, Compression::Lz4, Compression::Zstd] {
        let (codec, mut both) = pack(compression, b"one ");
        both.extend(pack(compression, b"two").1);
        assert_eq!(codec.decompress(&both, 100).unwrap(), b"one two", "{codec:?}");
        both.extend(b"and some junk");
        assert!(codec.decompress(&both, 100).is_err(), "{codec:?}");
    }
}

#[test]
fn snappy_is_read_with_and_without_framing() {
    let data = b"some bytes, some bytes, some bytes ".repeat(5000);
    let raw = snap::raw::Encoder::new().compress_vec(&data).unwrap();
    assert_eq!(Codec::Snappy.decompress(&raw, data.len()).unwrap(), data);
    // Blocks of 32 KiB, as Java writes them, and of a few bytes.
    for block in [32 << 10, 7] {
        let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
        for part in data.chunks(block) {
            let part = snap::raw::Encoder::new().compress_vec(part).unwrap();
            framed.extend((part.len() as u32).to_be_bytes());
            framed.extend(part);
        }
        assert_eq!(Codec::Snappy.decompress(&framed, data.len()).unwrap(), data);
        assert!(Codec::Snappy.decompress(&framed, data.len() - 1).is_err());
    }
}

#[test]
fn truncated_data_is_an_error() {
    let data = b"some bytes that are worth compressing, compressing, compressing";
    for compression in ALL {
        let (codec, good) = pack(compression, data);
        for cut in 0..good.len() {
            let plain = codec.decompress(&good[..cut], 1000);
            assert!(plain.is_err() || plain.is_ok_and(|o| o.is_empty()) || codec == Codec::Lz4, "{codec:?} at {cut}");
        }
    }
    // lz4 data cut between two blocks looks complete; the missing records are noticed later.
    let (codec, good) = pack(Compression::Lz4, data);
    assert!((0..good.len() - 4).all(|cut| codec.decompress(&good[..cut], 1000).map_or(true, |o| o.is_empty())));
}

fn unzstd_independently(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(data).unwrap().read_to_end(&mut out).unwrap();
    out
}

proptest! {
    #[test]
    fn compressed_data_round_trips(data in data(), compression in any_codec(), front in vec(any::<u8>(), 0..80)) {
        let (codec, packed) = compress(compression, &data, front.clone()).unwrap();
        prop_assert_eq!(&packed[..front.len()], &front[..]);
        let packed = &packed[front.len()..];
        prop_assert_eq!(&codec.decompress(packed, data.len()).unwrap(), &data);
        if !data.is_empty() {
            let error = codec.decompress(packed, data.len() - 1).unwrap_err();
            prop_assert!(error.to_string().contains("max_decompressed_bytes"));
        }
    }

    #[test]
    fn zstd_is_interoperable_with_ruzstd(data in data()) {
        prop_assert_eq!(&unzstd_independently(&pack(Compression::Zstd, &data).1), &data);
        let theirs = ruzstd::encoding::compress_to_vec(&data[..], ruzstd::encoding::CompressionLevel::Fastest);
        prop_assert_eq!(&Codec::Zstd.decompress(&theirs, data.len()).unwrap(), &data);
    }

    #[test]
    fn damaged_data_neither_panics_nor_exceeds_the_limit(
        data in data(),
        compression in any_codec(),
        flips in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        limit in 0..20_000usize,
    ) {
        let (codec, mut packed) = pack(compression, &data);
        for (at, byte) in flips {
            let at = at.index(packed.len());
            packed[at] = byte;
        }
        for damaged in [&packed[..], &packed[..cut.index(packed.len())]] {
            if let Ok(plain) = codec.decompress(damaged, limit) {
                prop_assert!(plain.len() <= limit);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(mut bytes in vec(any::<u8>(), 0..200), codec in 0..5i16, begin: bool) {
        let codec = Codec::from_attributes(codec).unwrap();
        if begin {
            let magic: &[u8] = match codec {
                Codec::None => &[],
                Codec::Gzip => &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
                Codec::Snappy => b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01",
                Codec::Lz4 => &[0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82],
                Codec::Zstd => &[0x28, 0xb5, 0x2f, 0xfd],
            };
            bytes.splice(0..0, magic.iter().copied());
        }
        if let Ok(plain) = codec.decompress(&bytes, 10_000) {
            prop_assert!(plain.len() <= 10_000);
        }
    }
}
