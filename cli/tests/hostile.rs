//! A broken network or broker: a proxy changes bytes of a broker's responses to every command. No command panics or hangs, shows a
//! record that was not written, or takes memory for a broken length.
//!
//! `AILURUS_HOSTILE_SEEDS` is the number of seeds, `AILURUS_HOSTILE_SEED` runs one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use support::{Bed, DEADLINE, Ended, Process, until};
use tokio::time::Instant;

const RECORDS: usize = 400;
/// One byte in so many is changed.
const RATES: [u64; 3] = [1_000, 4_000, 15_000];
/// Time after which a command that still reads, to an end that does not exist, gets a signal.
const PATIENCE: Duration = Duration::from_secs(15);
/// Time for which `serve` runs.
const SERVING: Duration = Duration::from_secs(6);
/// Memory that a command may take beyond the same commands on a sound broker, in KiB.
const MORE: u64 = 100 << 10;

/// Numbers by chance (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// State of the proxies of a seed.
struct Line {
    seed: u64,
    rate: u64,
    /// Advertised addresses of brokers, and those of the proxies, which replace them.
    names: Vec<(Vec<u8>, Vec<u8>)>,
    connections: AtomicU64,
    changed: AtomicU64,
}

/// Returns a host and a port as in a broker's response.
fn name(host: &str, port: u16) -> Vec<u8> {
    [host.as_bytes(), &i32::from(port).to_be_bytes()].concat()
}

/// Starts a proxy before each of the brokers; their addresses.
fn proxies(brokers: &str, seed: u64, rate: u64) -> (String, Arc<Line>) {
    let mut line = Line { seed, rate, names: vec![], connections: AtomicU64::new(0), changed: AtomicU64::new(0) };
    let mut ways = Vec::new();
    for broker in brokers.split(',') {
        let (host, port) = broker.trim().rsplit_once(':').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        line.names.push((name(host, port.parse().unwrap()), name(host, own)));
        ways.push((listener, broker.trim().to_owned(), format!("{host}:{own}")));
    }
    let line = Arc::new(line);
    let addresses = ways.iter().map(|(.., address)| address.clone()).collect::<Vec<_>>().join(",");
    for (listener, broker, _) in ways {
        let line = Arc::clone(&line);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&broker) else { continue };
                let number = line.connections.fetch_add(1, Ordering::Relaxed);
                let (mut up, mut down) = ((client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client));
                thread::spawn(move || {
                    let _ = std::io::copy(&mut up.0, &mut up.1);
                    let _ = up.1.shutdown(Shutdown::Both);
                });
                let line = Arc::clone(&line);
                thread::spawn(move || {
                    let _ = line.forward_responses(&mut down.0, &mut down.1, number);
                    let _ = down.1.shutdown(Shutdown::Both);
                    let _ = down.0.shutdown(Shutdown::Both);
                });
            }
        });
    }
    (addresses, line)
}

impl Line {
    /// Forwards a connection's responses.
    fn forward_responses(&self, from: &mut TcpStream, to: &mut TcpStream, number: u64) -> std::io::Result<()> {
        let mut chance = Chance(self.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut gap = chance.below(2 * self.rate);
        loop {
            let mut frame = vec![0; 4];
            from.read_exact(&mut frame)?;
            let len = u32::from_be_bytes(frame[..].try_into().unwrap()) as usize;
            frame.resize(4 + len, 0);
            from.read_exact(&mut frame[4..])?;
            for (advertised, replacement) in &self.names {
                let at: Vec<_> = (4..frame.len()).filter(|at| frame[*at..].starts_with(advertised)).collect();
                at.into_iter().for_each(|at| frame[at..at + replacement.len()].copy_from_slice(replacement));
            }
            let mut at = gap;
            while at < frame.len() as u64 {
                frame[at as usize] ^= 1 + chance.below(255) as u8;
                self.changed.fetch_add(1, Ordering::Relaxed);
                at += 1 + chance.below(2 * self.rate);
            }
            gap = at - frame.len() as u64;
            to.write_all(&frame)?;
        }
    }
}

/// A record says of itself that it is whole.
fn record(i: usize) -> String {
    let mut chance = Chance(i as u64);
    let text: String = (0..80).map(|_| char::from(b'a' + chance.below(26) as u8)).collect();
    format!("record-{i}-{text}")
}

/// Returns the value in a line of `consume`, which is behind position and key.
fn value(line: &str) -> &str {
    line.rsplit('\t').next().unwrap_or(line)
}

fn records() -> BTreeSet<String> {
    (0..RECORDS).map(record).collect()
}

/// Result of a command.
struct Run {
    ended: Ended,
    /// True if it got a signal to end.
    signalled: bool,
    /// Peak memory, in KiB.
    memory: u64,
}

fn finish(mut command: Command, args: &[&str], input: &str) -> Run {
    command.envs([("REDPANDA_REQUEST_TIMEOUT", "2000"), ("REDPANDA_DELIVERY_TIMEOUT", "8000")]);
    command.envs([("REDPANDA_CONNECT_TIMEOUT", "2000"), ("REDPANDA_SHUTDOWN_TIMEOUT", "5000")]);
    // What could not leave its group does not keep it for long.
    command.envs([("REDPANDA_SESSION_TIMEOUT", "6000"), ("REDPANDA_HEARTBEAT_INTERVAL", "500")]);
    let mut process = Process::spawn(command);
    process.write(input);
    process.close_stdin();
    let begun = Instant::now();
    let (mut signalled, mut memory) = (false, 0);
    while !process.has_ended() {
        assert!(begun.elapsed() < DEADLINE, "{args:?} did not end");
        if !signalled && begun.elapsed() > PATIENCE {
            process.signal(Signal::SIGINT);
            signalled = true;
        }
        memory = memory.max(process.peak_memory());
        thread::park_timeout(Duration::from_millis(5));
    }
    Run { ended: process.end(), signalled, memory }
}

/// Runs `serve` under requests for some seconds, or until it has ended by itself.
fn serve(command: Command, args: &[&str]) -> Run {
    const PAGES: [&str; 5] = ["/", "/health/live", "/health/ready", "/health/redpanda", "/metrics"];
    let mut command = command;
    command.envs([("REDPANDA_REQUEST_TIMEOUT", "2000"), ("REDPANDA_SHUTDOWN_TIMEOUT", "5000")]);
    let mut process = Process::spawn(command);
    let line = process.line(|l| l.starts_with("http://"));
    let begun = Instant::now(); // it may start slowly: broken responses are requested again
    let address = line.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    let (mut responses, mut memory) = (0, 0);
    for page in PAGES.iter().cycle() {
        if begun.elapsed() > SERVING || process.has_ended() {
            break;
        }
        responses += u32::from(get(&address, page).is_ok_and(|response| response.starts_with("HTTP/1.1 ")));
        memory = memory.max(process.peak_memory());
        thread::park_timeout(Duration::from_millis(20));
    }
    // A broken response may end it before the first request.
    let has_ended = process.has_ended();
    assert!(responses > 0 || has_ended, "{args:?} sent no response");
    if !has_ended {
        process.signal(Signal::SIGTERM);
    }
    Run { ended: process.end(), signalled: true, memory }
}

fn get(address: &str, page: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {page} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

/// Writes a dead letter of each of our records, which says that it failed in the first partition of `origin`.
fn write_dead_letters(bed: &Bed, dead_letters: &str, origin: &str, input: &str) {
    let headers_of = ["dlq-error=boom".into(), format!("dlq-topic={origin}"), "dlq-partition=0".into()];
    let more = ["dlq-offset=1", "dlq-timestamp=1234567", "dlq-group=g", "dlq-attempts=4"].map(str::to_owned);
    let headers: Vec<_> = headers_of.iter().chain(&more).flat_map(|header| ["--header", header]).collect();
    bed.feed(&[&["produce", dead_letters], &headers[..]].concat(), input.as_bytes()).expect(0);
}

/// The values of a topic's records, all of which must be known.
fn values(bed: &Bed, topic: &str, known: &BTreeSet<String>, again: &str) -> Vec<String> {
    let there = bed.run(&["consume", topic, "--exit-at-end"]).expect(0).stdout;
    let there: Vec<_> = there.lines().map(|line| value(line).to_owned()).collect();
    assert!(there.iter().all(|value| known.contains(value)), "{topic}: {again}");
    there
}

fn assert_sound(ended: &Ended, args: &[&str], again: &str) {
    assert!(
        (0..=6).contains(&ended.code) || ended.code == 130,
        "{args:?} ended with {}: {again}\n{}",
        ended.code,
        ended.stderr
    );
    let panicked = ended.stderr.contains("panicked at") || ended.stderr.contains("RUST_BACKTRACE");
    assert!(!panicked, "{args:?}: {again}\n{}", ended.stderr);
}

/// Runs all commands at once, and looks at what they say and have written; gives the most memory that one of them took. `sound` is a way
/// to the broker that changes nothing.
fn all_commands(sound: &mut Bed, hostile: &Bed, round: &str, again: &str, codes: &mut BTreeMap<i32, u32>) -> u64 {
    let topic = sound.topic(&format!("read-{round}"), 3);
    let input: String = records().iter().map(|r| format!("{r}\n")).collect();
    sound.feed(&["produce", &topic], input.as_bytes()).expect(0);
    let (written, other, group) = (
        sound.topic(&format!("written-{round}"), 3),
        sound.name(&format!("other-{round}")),
        sound.name(&format!("group-{round}")),
    );
    let dead_letters = sound.topic(&format!("read-{round}.dlq"), 3);
    let origin = sound.topic(&format!("origin-{round}"), 1);
    write_dead_letters(sound, &dead_letters, &origin, &input);
    let group_too = sound.name(&format!("group-too-{round}"));
    let commands: [&[&str]; 23] = [
        &["produce", &written],
        &["consume", &topic, "--exit-at-end"],
        &["consume", &topic, "--exit-at-end", "--group", &group],
        &["consume", &topic, "--exit-at-end", "--group", &group_too],
        &["topic", "list"],
        &["topic", "describe", &topic],
        &["topic", "create", &other, "--partitions", "2"],
        &["topic", "add-partitions", &other, "--partitions", "4"],
        &["topic", "delete", &other, "--yes"],
        &["group", "list"],
        &["group", "describe", &group],
        &["group", "reset", &group, "--to", "earliest", "--topic", &topic],
        &["health"],
        &["cluster", "describe"],
        &["cluster", "api-versions"],
        &["config", "describe", "--topic", &topic],
        &["acl", "list"],
        &["dlq", "list", &dead_letters],
        &["dlq", "show", &dead_letters, "--last", "400"],
        &["dlq", "discard", &dead_letters],
        &["dlq", "replay", &dead_letters, "--yes"],
        &["records", "delete", &topic, "--before", "1"],
        &["serve", "--listen", "127.0.0.1:0"],
    ];
    let known = records();
    let outcomes: Vec<_> = thread::scope(|scope| {
        let running: Vec<_> = commands
            .iter()
            .map(|args| {
                let input = if args[0] == "produce" { &input[..] } else { "" };
                let command = hostile.command(args);
                let run = move || if args[0] == "serve" { serve(command, args) } else { finish(command, args, input) };
                scope.spawn(run)
            })
            .collect();
        running.into_iter().map(|run| run.join().unwrap()).collect()
    });
    for (args, Run { ended, signalled, .. }) in commands.iter().zip(&outcomes) {
        assert_sound(ended, args, again);
        assert!(ended.code != 2, "{args:?} is wrong: {}", ended.stderr);
        *codes.entry(ended.code).or_default() += 1;
        let reads_on = ["consume", "dlq", "serve"].contains(&args[0]);
        assert!(!signalled || reads_on, "{args:?} needed a signal to end: {again}\n{}", ended.stderr);
        if args[0] == "consume" {
            for line in ended.stdout.lines() {
                assert!(known.contains(value(line)), "{args:?} shows what nobody wrote: {line:?}: {again}");
            }
        }
    }
    let code_of = |args: &[&str]| commands.iter().position(|c| c.starts_with(args)).map(|i| outcomes[i].ended.code);
    for (topic, args) in [(&written, &["produce"][..]), (&origin, &["dlq", "replay"])] {
        let there = values(sound, topic, &known, again);
        if code_of(args) == Some(0) {
            let distinct = there.iter().collect::<BTreeSet<_>>().len();
            assert_eq!(there.len(), distinct, "{args:?} wrote a record twice: {again}");
            // A changed byte that lowers the end of a log looks like a shorter log: what is behind it stays open, and
            // the replay over a sound line finds it.
            let all = distinct == RECORDS || args[0] == "dlq";
            assert!(all, "{args:?} reported that all is written: {distinct} are: {again}");
        }
    }
    // What the broken line kept back is replayed over a sound one, when the member that could not leave is out of the group.
    let replay = || Some(sound.run(&["dlq", "replay", &dead_letters, "--yes"])).filter(|ended| ended.code != 6);
    until(replay).expect("the group is free").expect(0);
    let there: BTreeSet<_> = values(sound, &origin, &known, again).into_iter().collect();
    assert_eq!(there.len(), RECORDS, "every dead letter is replayed: {again}");
    outcomes.iter().map(|run| run.memory).max().unwrap_or_default()
}

#[test]
fn a_broken_peer_costs_an_error_and_no_more() {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().expect("a number"));
    let seeds = match number("AILURUS_HOSTILE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("AILURUS_HOSTILE_SEEDS").unwrap_or(RATES.len() as u64),
    };
    let (mut bed, mut codes) = (Bed::new(), BTreeMap::new());
    let plain = Bed::of(bed.brokers.clone());
    let usual = all_commands(&mut bed, &plain, "sound", "nothing was changed", &mut codes);
    let (mut changed, mut most, mut codes) = (0, 0, BTreeMap::new());
    for seed in seeds {
        let rate = RATES[(seed % RATES.len() as u64) as usize];
        let again = format!("AILURUS_HOSTILE_SEED={seed} cargo test -p ailurus-cli --test hostile");
        let (addresses, line) = proxies(&bed.brokers, seed, rate);
        let memory = all_commands(&mut bed, &Bed::of(addresses), &seed.to_string(), &again, &mut codes);
        assert!(memory < usual + MORE, "{memory} KiB, and {usual} as a rule: {again}");
        changed += line.changed.load(Ordering::Relaxed);
        most = most.max(memory);
    }
    assert!(changed > 0);
    let text = format!("{changed} bytes changed; exit codes {codes:?}; {most} KiB at most, {usual} as a rule\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}
