#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn key(hex: &str) -> Option<Vec<u8>> {
    match hex {
        "null" => None,
        "-" => Some(Vec::new()),
        hex => Some((0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()),
    }
}

/// The fields of each line of a file in `tests/vectors`, where a README says how it was made.
fn vectors(file: &str) -> Vec<Vec<String>> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    let vectors: Vec<_> = lines.map(|l| l.split(' ').map(str::to_owned).collect()).collect();
    assert!(vectors.len() > 300, "only {} vectors", vectors.len());
    vectors
}

#[test]
fn murmur2_is_that_of_kafkas_java_client() {
    for line in vectors("murmur2.txt") {
        let key = key(&line[0]);
        assert_eq!(murmur2(key.as_deref().unwrap()), line[1].parse::<i32>().unwrap(), "{line:?}");
        let PartitionChoice::KeyHash(hash) = PartitionChoice::of(&PartitionerKind::Murmur2, None, key.as_deref())
        else {
            panic!("{line:?}")
        };
        for (n, want) in [1, 2, 3, 7, 12, 100].into_iter().zip(&line[2..]) {
            assert_eq!(partition_of_hash(hash, n), want.parse::<usize>().unwrap(), "{line:?}");
        }
    }
}

#[test]
fn keys_map_to_the_partitions_of_librdkafka() {
    let mut seen = 0;
    for line in vectors("librdkafka.txt") {
        let kind = match line[0].as_str() {
            "consistent_random" => PartitionerKind::ConsistentRandom,
            "murmur2_random" => PartitionerKind::Murmur2,
            _ => continue, // not supported: they send all records without key to one partition
        };
        let target = PartitionChoice::of(&kind, None, key(&line[1]).as_deref());
        for (n, want) in [1, 2, 3, 5, 7, 12, 13, 100, 1009].into_iter().zip(&line[2..]) {
            match target {
                PartitionChoice::Sticky => assert_eq!(want, "*", "{line:?}"),
                PartitionChoice::KeyHash(hash) => assert_eq!(partition_of_hash(hash, n).to_string(), *want, "{line:?}"),
                other => panic!("{other:?} for {line:?}"),
            }
            seen += 1;
        }
    }
    assert!(seen > 5000, "only {seen}");
}

#[test]
fn a_records_own_partition_overrides_every_partitioner() {
    for kind in [PartitionerKind::Murmur2, PartitionerKind::ConsistentRandom, PartitionerKind::RoundRobin] {
        assert_eq!(PartitionChoice::of(&kind, Some(3), Some(b"key")), PartitionChoice::Partition(3));
    }
    assert_eq!(PartitionChoice::of(&PartitionerKind::RoundRobin, None, Some(b"key")), PartitionChoice::RoundRobin);
}

#[derive(Debug)]
struct Fixed(Option<i32>);

impl Partitioner for Fixed {
    fn partition(&self, _: &PartitionInput<'_>) -> Option<i32> {
        self.0
    }
}

#[test]
fn a_custom_partitioner_must_choose_an_existing_partition() {
    let record = PartitionInput::new("t", 3, &[0, 2]);
    assert_eq!(custom_partition(&Fixed(None), &record).unwrap(), PartitionChoice::Sticky);
    assert_eq!(custom_partition(&Fixed(Some(0)), &record).unwrap(), PartitionChoice::Partition(0));
    assert_eq!(
        custom_partition(&Fixed(Some(1)), &record).unwrap(),
        PartitionChoice::Partition(1),
        "it has no leader now, and may get one"
    );
    for partition in [-1, 3, i32::MAX, i32::MIN] {
        let error = custom_partition(&Fixed(Some(partition)), &record).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecord);
        assert!(error.to_string().contains(&format!("chose partition {partition} ")), "{error}");
        assert!(error.to_string().contains("which has 3, from 0 to 2"), "{error}");
    }
}

fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(11)
}

fn partitioner(leaders: &[Option<i32>]) -> BuiltInPartitioner {
    let mut partitioner = BuiltInPartitioner::new(&mut random());
    partitioner.update(leaders, &mut random());
    partitioner
}

/// Counts how often each of `n` partitions is chosen in so many draws.
fn counts(n: usize, draws: usize, mut draw: impl FnMut() -> usize) -> Vec<usize> {
    let mut counts = vec![0; n];
    (0..draws).for_each(|_| counts[draw()] += 1);
    counts
}

#[test]
fn partitions_with_more_batches_are_chosen_less_often() {
    let (mut partitioner, mut random) = (partitioner(&[Some(1); 3]), random());
    // The example of Java's BuiltInPartitioner: queues of 0, 3 and 1 are chosen as 4, 1 and 3 of 8.
    let mut draw = |batches: [usize; 3], silent: &[usize]| {
        counts(3, 8000, || {
            partitioner.switch_by_load(&mut random, |p| PartitionLoad {
                queued_batches: batches[p],
                responds: !silent.contains(&p),
            });
            partitioner.sticky()
        })
    };
    let near = |counts: Vec<usize>, want: [usize; 3]| {
        assert!(counts.iter().zip(want).all(|(c, w)| c.abs_diff(w) <= w / 10), "{counts:?} is not about {want:?}");
    };
    near(draw([0, 3, 1], &[]), [4000, 1000, 3000]);
    near(draw([5, 5, 5], &[]), [2667, 2667, 2667]);
    near(draw([0, 3, 1], &[0]), [0, 2000, 6000]);
    near(draw([9, 0, 0], &[1, 2]), [8000, 0, 0]);
    near(draw([0, 3, 1], &[0, 1, 2]), [4000, 1000, 3000]); // if none responds, it is not the partitions
}

#[test]
fn partitions_without_leader_are_skipped_unless_all_are() {
    let mut random = random();
    let mut partitioner = partitioner(&[Some(1), None, Some(1), None]);
    let equal = |_| PartitionLoad { queued_batches: 0, responds: true };
    for _ in 0..100 {
        assert_eq!(partitioner.next_round_robin() % 2, 0);
        partitioner.switch_random(&mut random);
        assert_eq!(partitioner.sticky() % 2, 0);
        partitioner.switch_by_load(&mut random, equal);
        assert_eq!(partitioner.sticky() % 2, 0);
    }
    // What sticks to a partition leaves it when its leader is gone, and stays otherwise.
    let before = partitioner.sticky();
    let mut leaders = [Some(1); 4];
    partitioner.update(&leaders, &mut random);
    assert_eq!(partitioner.sticky(), before);
    leaders[before] = None;
    partitioner.update(&leaders, &mut random);
    assert_ne!(partitioner.sticky(), before);
    partitioner.update(&[None; 4], &mut random);
    assert_eq!(**partitioner.available(), [0, 1, 2, 3]);
    assert!(counts(4, 400, || partitioner.next_round_robin()).iter().all(|n| *n == 100));
}

#[test]
fn plain_sticky_switches_to_all_others_alike() {
    let (mut partitioner, mut random) = (partitioner(&[Some(1); 5]), random());
    let counts = counts(5, 5000, || {
        let before = partitioner.sticky();
        partitioner.switch_random(&mut random);
        assert_ne!(partitioner.sticky(), before);
        partitioner.sticky()
    });
    assert!(counts.iter().all(|n| n.abs_diff(1000) < 100), "{counts:?}");
}

/// Returns the bytes that stick to a partition before it is switched, in records of a size. `batch`
/// returns the number of the open batch of the n-th.
fn sent_before_switch(batch_size: usize, size: usize, batch: impl Fn(usize) -> Option<u64>) -> usize {
    let mut partitioner = partitioner(&[Some(1); 3]);
    for n in 0.. {
        if partitioner.should_switch(batch(n), size, batch_size, true) {
            return n * size;
        }
        partitioner.record_appended(batch(n).unwrap_or(1_000_000 + n as u64), size);
    }
    0
}

#[test]
fn adaptive_sticky_stays_for_the_size_of_a_batch() {
    for (batch_size, size) in [(10_000, 100), (1024, 100), (16 << 10, 1000), (16 << 10, 7)] {
        let allowed = batch_size - size - BATCH_HEADER_BYTES..=batch_size;
        // Each record finds that its batch has gone.
        let sent = sent_before_switch(batch_size, size, |_| None);
        assert!(allowed.contains(&sent), "{sent} of {batch_size}");
        // The batch stays open: it is not cut short, but is not filled forever.
        let sent = sent_before_switch(batch_size, size, |n| (n > 0).then_some(1_000_000));
        assert!(
            (2 * batch_size - size - BATCH_HEADER_BYTES..=2 * batch_size).contains(&sent),
            "{sent} of {batch_size}"
        );
    }
    // However large batches may be.
    let sent = sent_before_switch(1_000_000, 100, |_| None);
    assert!((STICKY_BYTES - 200..=STICKY_BYTES).contains(&sent), "{sent}");
    // A record that is larger than all that goes alone.
    assert_eq!(sent_before_switch(1024, 5000, |_| None), 5000);
}

#[test]
fn plain_sticky_stays_for_one_batch() {
    let mut partitioner = partitioner(&[Some(1); 3]);
    assert!(!partitioner.should_switch(None, 10, 1000, false), "nothing was sent yet");
    partitioner.record_appended(1, 10);
    assert!(!partitioner.should_switch(Some(1), 10, 1000, false));
    assert!(partitioner.should_switch(None, 10, 1000, false), "its batch is closed");
    assert!(partitioner.should_switch(Some(2), 10, 1000, false), "its batch is closed, and others have begun the next");
}

proptest! {
    #[test]
    fn chosen_partitions_exist(
        updates in vec((vec(prop::option::of(0..3i32), 1..20), vec((0..3u8, 0..9usize, any::<bool>()), 0..30)), 1..8),
        seed in any::<u64>(),
        hash in any::<u32>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut partitioner = BuiltInPartitioner::new(&mut random);
        for (leaders, choices) in updates {
            partitioner.update(&leaders, &mut random);
            let good = |p: usize| p < leaders.len() && (leaders[p].is_some() || leaders.iter().all(Option::is_none));
            prop_assert!(partitioner.available().iter().all(|p| good(*p as usize)) && good(partitioner.sticky()));
            prop_assert!(partition_of_hash(hash, leaders.len()) < leaders.len());
            for (how, batches, responds) in choices {
                match how {
                    0 => partitioner.switch_random(&mut random),
                    1 => partitioner.switch_by_load(&mut random, |p| PartitionLoad { queued_batches: batches * p, responds: responds || p > 2 }),
                    _ => prop_assert!(good(partitioner.next_round_robin())),
                }
                prop_assert!(good(partitioner.sticky()));
            }
        }
    }

    #[test]
    fn round_robin_serves_available_partitions_alike(
        leaders in vec(prop::option::of(Just(1)), 1..20),
        rounds in 1..20usize,
    ) {
        let mut partitioner = partitioner(&leaders);
        let available = partitioner.available().to_vec();
        let counts = counts(leaders.len(), rounds * available.len(), || partitioner.next_round_robin());
        for (p, count) in counts.into_iter().enumerate() {
            prop_assert_eq!(count, if available.contains(&(p as i32)) { rounds } else { 0 });
        }
    }
}
