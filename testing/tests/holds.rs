//! Seeded outages of the dependencies of handlers: these come and go, members join, leave and die, and
//! in the end each record was handled in the order of its key, or is a dead letter because it is bad.
//! None is one because of an outage.
//!
//! `AILURUS_HOLD_SEEDS=1000` runs that many seeds, `AILURUS_HOLD_SEED=17` one of them.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus::processor::{
    Batching, BoxError, ExactlyOnce, FailurePolicy, Hold, HoldScope, Outputs, Unavailable, find_cause,
};
use ailurus::{Client, HandlerOrdering, Message, OffsetReset, Outcome, Processor, ProducerRecord, Subscription};
use ailurus_testing::{TestCluster, TestError};
use tokio::time::Instant;

const SEEDS: u64 = 40;
const GROUP: &str = "billing";
const DEPENDENCIES: [&str; 2] = ["postgres", "prices"];

/// Longest test time that a shutdown may take: handlers take up to a second.
const PROMPT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
enum Mode {
    Records,
    Batches,
    Pipeline,
}

/// The way in which a handler reports that a dependency is down.
#[derive(Debug, Clone, Copy)]
enum Words {
    Outcome,
    Error,
    Classifier,
}

#[derive(Debug, Clone)]
struct Plan {
    seed: u64,
    mode: Mode,
    words: Words,
    ordering: HandlerOrdering,
    scope: HoldScope,
    partitions: i32,
    keys: u32,
    records: u32,
    is_poison: BTreeSet<u32>,
}

#[derive(Debug)]
enum Step {
    Publish(u32),
    Toggle(usize),
    Join,
    Leave(usize),
    Kill(usize),
}

impl Plan {
    fn new(seed: u64) -> (Self, Vec<(Duration, Step)>) {
        let mut rng = fastrand::Rng::with_seed(seed);
        let records = rng.u32(20..120);
        let plan = Self {
            seed,
            mode: [Mode::Records, Mode::Records, Mode::Batches, Mode::Pipeline][rng.usize(..4)],
            words: [Words::Outcome, Words::Error, Words::Classifier][rng.usize(..3)],
            ordering: [HandlerOrdering::Partition, HandlerOrdering::Key][rng.usize(..2)],
            scope: [HoldScope::Subscription, HoldScope::Partition, HoldScope::Lane][rng.usize(..3)],
            partitions: rng.i32(1..6),
            keys: rng.u32(2..12),
            records,
            is_poison: (0..rng.u32(..4)).map(|_| rng.u32(..records)).collect(),
        };
        let mut steps = Vec::new();
        let (mut published, mut members) = (0, 1_usize);
        while published < records {
            let wait = Duration::from_millis(rng.u64(..20_000));
            let step = match rng.u32(..20) {
                0..8 => {
                    let count = rng.u32(1..=(records - published).min(30));
                    published += count;
                    Step::Publish(count)
                }
                8..15 => Step::Toggle(rng.usize(..2)),
                15..17 if members < 4 => {
                    members += 1;
                    Step::Join
                }
                17 if members > 1 => {
                    members -= 1;
                    Step::Leave(rng.usize(..8))
                }
                18 if members > 1 => {
                    members -= 1;
                    Step::Kill(rng.usize(..8))
                }
                _ => Step::Toggle(rng.usize(..2)),
            };
            steps.push((wait, step));
        }
        (plan, steps)
    }
}

/// The dependencies of handlers, and what they handled.
#[derive(Debug, Default)]
struct World {
    is_down: [bool; 2],
    /// Numbers of each key, in the order in which they were handled first.
    handled: BTreeMap<String, Vec<u32>>,
    refused: usize,
}

type Shared = Arc<Mutex<World>>;

fn number(message: &Message) -> u32 {
    message.text().unwrap().unwrap().parse().unwrap()
}

/// The error of a driver.
#[derive(Debug)]
struct Refused(&'static str);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} refuses connections", self.0)
    }
}

impl std::error::Error for Refused {}

/// Takes some time, then stores all of the records or none.
async fn store(plan: &Plan, world: &Shared, messages: &[Message]) -> Result<(), BoxError> {
    // Every third record needs the second dependency, all need the first.
    let needed = |message: &Message| if number(message) % 3 == 0 { &DEPENDENCIES[..] } else { &DEPENDENCIES[..1] };
    let time = Duration::from_millis(u64::from(number(&messages[0]) % 7) * 100);
    tokio::time::sleep(time).await;
    let mut world = world.lock().unwrap();
    for message in messages {
        for (dependency, is_down) in needed(message).iter().zip(world.is_down) {
            if is_down {
                world.refused += 1;
                return Err(match plan.words {
                    Words::Error => {
                        Unavailable::new(Hold::on(*dependency).scope(plan.scope), Refused(dependency)).into()
                    }
                    _ => Refused(dependency).into(),
                });
            }
        }
        if plan.is_poison.contains(&number(message)) {
            return Err("no such price".into());
        }
    }
    for message in messages {
        let key = String::from_utf8_lossy(message.key.as_deref().unwrap()).into_owned();
        let numbers = world.handled.entry(key).or_default();
        if !numbers.contains(&number(message)) {
            numbers.push(number(message));
        }
    }
    Ok(())
}

/// Says which dependency is down by the outcome.
fn outcome(plan: &Plan, stored: Result<(), BoxError>, done: Outcome) -> Outcome {
    use ailurus::processor::IntoOutcome;
    match stored {
        Ok(()) => done,
        Err(e) => match e.downcast_ref::<Refused>() {
            Some(Refused(dependency)) if matches!(plan.words, Words::Outcome) => {
                Outcome::hold(Hold::on(*dependency).scope(plan.scope), e)
            }
            _ => Err::<(), _>(e).into_outcome(),
        },
    }
}

async fn subscribe(plan: &Plan, client: &Client, world: &Shared) -> Result<Subscription, TestError> {
    let scope = plan.scope;
    let mut processor: Processor = client.processor(GROUP).ordering(plan.ordering);
    if matches!(plan.words, Words::Classifier) {
        processor = processor.on_failure(move |_, error| match find_cause::<Refused>(error) {
            Some(Refused(dependency)) => FailurePolicy::hold(Hold::on(*dependency).scope(scope)),
            None => FailurePolicy::Retry,
        });
    }
    let (plan, world) = (Arc::new(plan.clone()), Arc::clone(world));
    let mode = plan.mode;
    Ok(match mode {
        Mode::Records => {
            let handle = move |message: Message| {
                let (plan, world) = (Arc::clone(&plan), Arc::clone(&world));
                async move { outcome(&plan, store(&plan, &world, &[message]).await, Outcome::Done) }
            };
            processor.subscribe(["orders"], handle).await?
        }
        Mode::Batches => {
            let handle = move |messages: Vec<Message>| {
                let (plan, world) = (Arc::clone(&plan), Arc::clone(&world));
                async move { outcome(&plan, store(&plan, &world, &messages).await, Outcome::Done) }
            };
            processor.subscribe_batches(["orders"], Batching::new(10, Duration::from_millis(50)), handle).await?
        }
        Mode::Pipeline => {
            let handle = move |message: Message| {
                let (plan, world) = (Arc::clone(&plan), Arc::clone(&world));
                async move {
                    let stored = store(&plan, &world, std::slice::from_ref(&message)).await;
                    let output = ProducerRecord::to("stored").value(number(&message).to_string());
                    outcome(&plan, stored, Outcome::Send(Outputs::new().send(output)))
                }
            };
            processor.exactly_once(ExactlyOnce::new()).subscribe(["orders"], handle).await?
        }
    })
}

async fn run(plan: &Plan, steps: Vec<(Duration, Step)>) -> Result<usize, TestError> {
    let cluster = TestCluster::builder().seed(plan.seed).start().await?;
    cluster.topic("orders", plan.partitions)?;
    cluster.topic("stored", 1)?;
    let world = Shared::default();
    let (mut members, mut joined, mut published) = (Vec::new(), 0, 0);
    let join = async |joined: &mut usize| -> Result<Subscription, TestError> {
        *joined += 1;
        let config = cluster.config().client_id(format!("m{joined}"));
        let client = Client::connect(config.consumer(|c| c.offset_reset(OffsetReset::Earliest)).build()?).await?;
        subscribe(plan, &client, &world).await
    };
    members.push(join(&mut joined).await?);
    for (wait, step) in steps {
        cluster.advance(wait).await;
        match step {
            Step::Publish(count) => {
                for n in published..published + count {
                    cluster.send("orders", &format!("k{}", n % plan.keys), n.to_string()).await?;
                }
                published += count;
            }
            Step::Toggle(which) => {
                let is_down = &mut world.lock().unwrap().is_down[which];
                *is_down = !*is_down;
            }
            Step::Join => members.push(join(&mut joined).await?),
            Step::Leave(which) => {
                let member = members.swap_remove(which % members.len());
                let started = Instant::now();
                member.shutdown().await?;
                assert!(started.elapsed() < PROMPT, "a shutdown took {:?}", started.elapsed());
            }
            Step::Kill(which) => members.swap_remove(which % members.len()).abort().await,
        }
    }
    world.lock().unwrap().is_down = [true; 2];
    cluster.advance(Duration::from_secs(600)).await; // ten minutes without any
    world.lock().unwrap().is_down = [false; 2];
    cluster.until_idle().await?;

    let world = world.lock().unwrap();
    let mut handled: Vec<_> = world.handled.values().flatten().copied().collect();
    handled.sort_unstable();
    let expected: Vec<_> = (0..plan.records).filter(|n| !plan.is_poison.contains(n)).collect();
    assert_eq!(handled, expected, "each record is handled, but the bad ones");
    assert!(world.handled.values().all(|numbers| numbers.is_sorted()), "out of order: {:?}", world.handled);
    assert_eq!(cluster.handled(GROUP).len(), plan.records as usize, "each is committed");
    let letters = cluster.letters("orders");
    let bad: BTreeSet<_> = letters.iter().map(|letter| letter.record.value_text().parse().unwrap()).collect();
    assert_eq!(bad, plan.is_poison, "dead letters: {letters:?}");
    assert!(letters.iter().all(|letter| letter.details.error.contains("no such price")), "{letters:?}");
    if matches!(plan.mode, Mode::Pipeline) {
        assert_eq!(cluster.records("stored").len(), expected.len(), "outputs are written once");
        assert_eq!(letters.len(), bad.len(), "dead letters, too");
    }
    assert!(members.iter().all(|member| member.health().waiting_for.is_empty()));
    Ok(world.refused)
}

fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("AILURUS_HOLD_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("AILURUS_HOLD_SEEDS").unwrap_or(SEEDS)).collect(),
    }
}

#[test]
fn outages_lose_nothing_keep_the_order_and_make_no_dead_letter() {
    let (mut refused, started) = (0, std::time::SystemTime::now());
    let seeds = seeds();
    for seed in &seeds {
        let (plan, steps) = Plan::new(*seed);
        let text = format!("AILURUS_HOLD_SEED={seed}: {plan:?}\n{steps:#?}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| runtime.block_on(run(&plan, steps))));
        match result {
            Ok(Ok(count)) => refused += count,
            Ok(Err(e)) => panic!("{e}\n{text}"),
            Err(panic) => {
                eprintln!("{text}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(refused > seeds.len(), "the dependencies were needed while they were down");
    eprintln!("{} seeds, {refused} refused attempts, {:.1?}", seeds.len(), started.elapsed().unwrap());
}
