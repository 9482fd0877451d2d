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
fn murmur2_is_that_of_kafka_s_java_client() {
    for line in vectors("murmur2.txt") {
        let key = key(&line[0]);
        assert_eq!(murmur2(key.as_deref().unwrap()), line[1].parse::<i32>().unwrap(), "{line:?}");
        let Target::Hash(hash) = Target::of(&PartitionerKind::Murmur2, None, key.as_deref()) else {
            panic!("{line:?}")
        };
        for (n, want) in [1, 2, 3, 7, 12, 100].into_iter().zip(&line[2..]) {
            assert_eq!(partition_of(hash, n), want.parse::<usize>().unwrap(), "{line:?}");
        }
    }
}

#[test]
fn keys_go_where_librdkafka_sends_them_and_anywhere_where_it_draws_lots() {
    let mut seen = 0;
    for line in vectors("librdkafka.txt") {
        let kind = match line[0].as_str() {
            "consistent_random" => PartitionerKind::ConsistentRandom,
            "murmur2_random" => PartitionerKind::Murmur2,
            _ => continue, // not ours: they send all that has no key to one partition
        };
        let target = Target::of(&kind, None, key(&line[1]).as_deref());
        for (n, want) in [1, 2, 3, 5, 7, 12, 13, 100, 1009].into_iter().zip(&line[2..]) {
            match target {
                Target::Any => assert_eq!(want, "*", "{line:?}"),
                Target::Hash(hash) => assert_eq!(partition_of(hash, n).to_string(), *want, "{line:?}"),
                other => panic!("{other:?} for {line:?}"),
            }
            seen += 1;
        }
    }
    assert!(seen > 5000, "only {seen}");
}

#[test]
fn a_partition_that_is_named_goes_before_every_partitioner() {
    for kind in [PartitionerKind::Murmur2, PartitionerKind::ConsistentRandom, PartitionerKind::RoundRobin] {
        assert_eq!(Target::of(&kind, Some(3), Some(b"key")), Target::Partition(3));
    }
    assert_eq!(Target::of(&PartitionerKind::RoundRobin, None, Some(b"key")), Target::Next);
}

#[derive(Debug)]
struct Fixed(Option<i32>);

impl Partitioner for Fixed {
    fn partition(&self, _: &PartitionInput<'_>) -> Option<i32> {
        self.0
    }
}

#[test]
fn a_program_s_partitioner_may_leave_it_open_and_must_not_choose_what_is_not_there() {
    let record = PartitionInput::new("t", 3, &[0, 2]);
    assert_eq!(ask(&Fixed(None), &record).unwrap(), Target::Any);
    assert_eq!(ask(&Fixed(Some(0)), &record).unwrap(), Target::Partition(0));
    assert_eq!(ask(&Fixed(Some(1)), &record).unwrap(), Target::Partition(1), "it has no leader now, and may get one");
    for partition in [-1, 3, i32::MAX, i32::MIN] {
        let error = ask(&Fixed(Some(partition)), &record).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRecord);
        assert!(error.to_string().contains(&format!("chose partition {partition} ")), "{error}");
        assert!(error.to_string().contains("which has 3, from 0 to 2"), "{error}");
    }
}

fn random() -> fastrand::Rng {
    fastrand::Rng::with_seed(11)
}

fn spread(leaders: &[Option<i32>]) -> Spread {
    let mut spread = Spread::new(&mut random());
    spread.update(leaders, &mut random());
    spread
}

/// How often each of `n` partitions is chosen in so many draws.
fn counts(n: usize, draws: usize, mut draw: impl FnMut() -> usize) -> Vec<usize> {
    let mut counts = vec![0; n];
    (0..draws).for_each(|_| counts[draw()] += 1);
    counts
}

#[test]
fn the_more_batches_a_partition_has_the_less_it_is_chosen() {
    let (mut spread, mut random) = (spread(&[Some(1); 3]), random());
    // The example of Java's BuiltInPartitioner: queues of 0, 3 and 1 are chosen as 4, 1 and 3 of 8.
    let mut draw = |batches: [usize; 3], silent: &[usize]| {
        counts(3, 8000, || {
            spread.move_by_load(&mut random, |p| Load { batches: batches[p], responds: !silent.contains(&p) });
            spread.sticky()
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
fn partitions_without_a_leader_are_left_out_unless_all_are() {
    let mut random = random();
    let mut spread = spread(&[Some(1), None, Some(1), None]);
    let equal = |_| Load { batches: 0, responds: true };
    for _ in 0..100 {
        assert_eq!(spread.next() % 2, 0);
        spread.move_on(&mut random);
        assert_eq!(spread.sticky() % 2, 0);
        spread.move_by_load(&mut random, equal);
        assert_eq!(spread.sticky() % 2, 0);
    }
    // What sticks to a partition leaves it when its leader is gone, and stays otherwise.
    let before = spread.sticky();
    let mut leaders = [Some(1); 4];
    spread.update(&leaders, &mut random);
    assert_eq!(spread.sticky(), before);
    leaders[before] = None;
    spread.update(&leaders, &mut random);
    assert_ne!(spread.sticky(), before);
    spread.update(&[None; 4], &mut random);
    assert_eq!(**spread.available(), [0, 1, 2, 3]);
    assert!(counts(4, 400, || spread.next()).iter().all(|n| *n == 100));
}

#[test]
fn plain_sticky_goes_to_every_other_partition_alike() {
    let (mut spread, mut random) = (spread(&[Some(1); 5]), random());
    let counts = counts(5, 5000, || {
        let before = spread.sticky();
        spread.move_on(&mut random);
        assert_ne!(spread.sticky(), before);
        spread.sticky()
    });
    assert!(counts.iter().all(|n| n.abs_diff(1000) < 100), "{counts:?}");
}

/// Sends records of a size until the partition is left; `batch` gives the number of the open batch for the n-th.
fn sent_before_it_is_left(batch_size: usize, size: usize, batch: impl Fn(usize) -> Option<u64>) -> usize {
    let mut spread = spread(&[Some(1); 3]);
    for n in 0.. {
        if spread.is_over(batch(n), size, batch_size, true) {
            return n * size;
        }
        spread.stuck(batch(n).unwrap_or(1_000_000 + n as u64), size);
    }
    0
}

#[test]
fn adaptive_stays_for_a_batch_s_size_whatever_closes_batches() {
    for (batch_size, size) in [(10_000, 100), (1024, 100), (16 << 10, 1000), (16 << 10, 7)] {
        let allowed = batch_size - size - BATCH_HEADER..=batch_size;
        // Each record finds that its batch has gone.
        let sent = sent_before_it_is_left(batch_size, size, |_| None);
        assert!(allowed.contains(&sent), "{sent} of {batch_size}");
        // The batch stays open: it is not cut short, but not for ever.
        let sent = sent_before_it_is_left(batch_size, size, |n| (n > 0).then_some(1_000_000));
        assert!((2 * batch_size - size - BATCH_HEADER..=2 * batch_size).contains(&sent), "{sent} of {batch_size}");
    }
    // However large batches may be.
    let sent = sent_before_it_is_left(1_000_000, 100, |_| None);
    assert!((STICKY_BYTES - 200..=STICKY_BYTES).contains(&sent), "{sent}");
    // A record that is larger than all that goes alone.
    assert_eq!(sent_before_it_is_left(1024, 5000, |_| None), 5000);
}

#[test]
fn plain_sticky_stays_for_a_batch() {
    let mut spread = spread(&[Some(1); 3]);
    assert!(!spread.is_over(None, 10, 1000, false), "nothing was sent yet");
    spread.stuck(1, 10);
    assert!(!spread.is_over(Some(1), 10, 1000, false));
    assert!(spread.is_over(None, 10, 1000, false), "its batch is closed");
    assert!(spread.is_over(Some(2), 10, 1000, false), "its batch is closed, and others have begun the next");
}

proptest! {
    #[test]
    fn what_is_chosen_is_there(
        updates in vec((vec(prop::option::of(0..3i32), 1..20), vec((0..3u8, 0..9usize, any::<bool>()), 0..30)), 1..8),
        seed in any::<u64>(),
        hash in any::<u32>(),
    ) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut spread = Spread::new(&mut random);
        for (leaders, choices) in updates {
            spread.update(&leaders, &mut random);
            let good = |p: usize| p < leaders.len() && (leaders[p].is_some() || leaders.iter().all(Option::is_none));
            prop_assert!(spread.available().iter().all(|p| good(*p as usize)) && good(spread.sticky()));
            prop_assert!(partition_of(hash, leaders.len()) < leaders.len());
            for (how, batches, responds) in choices {
                match how {
                    0 => spread.move_on(&mut random),
                    1 => spread.move_by_load(&mut random, |p| Load { batches: batches * p, responds: responds || p > 2 }),
                    _ => prop_assert!(good(spread.next())),
                }
                prop_assert!(good(spread.sticky()));
            }
        }
    }

    #[test]
    fn round_robin_gives_every_available_partition_as_much(
        leaders in vec(prop::option::of(Just(1)), 1..20),
        rounds in 1..20usize,
    ) {
        let mut spread = spread(&leaders);
        let available = spread.available().to_vec();
        let counts = counts(leaders.len(), rounds * available.len(), || spread.next());
        for (p, count) in counts.into_iter().enumerate() {
            prop_assert_eq!(count, if available.contains(&(p as i32)) { rounds } else { 0 });
        }
    }
}
