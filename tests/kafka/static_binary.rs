//! A static `ailurus`, and a publisher made with the library alone: how they are linked, their size,
//! and whether they run, also where there is nothing else.
//!
//! `scripts/build-static` builds them and sets:
//!
//! - `AILURUS_STATIC`: the command's binary; without it, nothing here is run.
//! - `AILURUS_STATIC_PUBLISHER`: the publisher; with it, sizes are checked, too.
//! - `AILURUS_STATIC_RUNNER`: an emulator with its arguments, for binaries of other CPUs.
//! - `AILURUS_TEST_BROKERS`: the brokers; without it, each test starts `ailurus broker`.

use std::env;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ailurus_test_support::process::{Ended, Process, address_of, fetch, run, until};
use ailurus_test_support::refuse_remote;
use serde_json::Value;

use crate::ailurus::Ailurus;
use crate::tools::{has_programs, report};

/// The command is to have 6 MB one day; this keeps it from growing. All of it for size and without
/// unwinding has 8.3.
const MAX_COMMAND_BYTES: u64 = 11_500_000;
const MAX_PUBLISHER_BYTES: u64 = 2_500_000;
/// Resident memory of an idle `ailurus serve`.
const MAX_IDLE_KIB: u64 = 12_000;
/// A few rounds of polls, heartbeats and health.
const IDLE: Duration = Duration::from_secs(15);
const RECORDS: u32 = 1000;

struct Subject {
    command: PathBuf,
    publisher: Option<PathBuf>,
    runner: Vec<PathBuf>,
}

fn subject() -> Option<Subject> {
    let path = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(command) = path("AILURUS_STATIC") else {
        report(module_path!(), "not run: scripts/build-static builds the binaries and runs this");
        return None;
    };
    let runner = env::var("AILURUS_STATIC_RUNNER").unwrap_or_default();
    let runner = runner.split_whitespace().map(PathBuf::from).collect();
    Some(Subject { command, publisher: path("AILURUS_STATIC_PUBLISHER"), runner })
}

impl Subject {
    /// Returns whether it runs on this CPU by itself, and resolves names by itself: glibc takes that
    /// from files beside a static binary.
    fn needs_nothing(&self) -> bool {
        self.runner.is_empty() && self.command.to_string_lossy().contains("musl")
    }

    fn ailurus(&self, program: &Path) -> Ailurus {
        let mut all = self.runner.clone();
        all.push(program.to_owned());
        Ailurus::of(all)
    }

    /// Returns the brokers of the environment, or of the command itself.
    fn brokers(&self) -> (String, Option<Process>) {
        if let Some(brokers) = env::var("AILURUS_TEST_BROKERS").ok().filter(|brokers| !brokers.is_empty()) {
            refuse_remote(&brokers);
            return (brokers, None);
        }
        let broker = self.ailurus(&self.command).start(&["broker", "--listen", "127.0.0.1:0"]);
        let line = broker.line(|line| line.starts_with("listening on "));
        (line.trim_start_matches("listening on ").to_owned(), Some(broker))
    }
}

/// Fails unless the binary is linked statically and has at most this many bytes.
#[track_caller]
fn check_file(binary: &Path, max_bytes: Option<u64>) {
    let mut file = Command::new("file");
    file.arg("-b").arg(binary);
    let kind = run(file, b"").expect(0).stdout;
    let (bytes, name) = (fs::metadata(binary).unwrap().len(), binary.display());
    report(module_path!(), format_args!("{name}: {bytes} bytes; {}", kind.trim_end()));
    let is_static = ["statically linked", "static-pie linked"].iter().any(|how| kind.contains(how));
    assert!(is_static, "{name} is not linked statically: {kind}");
    assert!(max_bytes.is_none_or(|max| bytes <= max), "{name} has {bytes} bytes, {max_bytes:?} are allowed");
}

#[test]
fn binaries_are_static_and_small() {
    let Some(subject) = subject() else { return };
    if !has_programs(module_path!(), &["file"]) {
        return;
    }
    check_file(&subject.command, subject.publisher.is_some().then_some(MAX_COMMAND_BYTES));
    if let Some(publisher) = &subject.publisher {
        check_file(publisher, Some(MAX_PUBLISHER_BYTES));
    }
}

#[test]
fn a_group_reads_what_the_binaries_write() {
    let Some(subject) = subject() else { return };
    let (brokers, _broker) = subject.brokers();
    let ailurus = subject.ailurus(&subject.command).set("REDPANDA_BROKERS", &brokers);
    let health = ailurus.ok(&["health"]);
    report(module_path!(), format_args!("health: {}", health.lines().next().unwrap_or_default()));

    let topic = format!("static-{}", std::process::id());
    ailurus.ok(&["topic", "create", &topic, "--partitions", "3"]);
    let events: Vec<String> = (1..=RECORDS).map(|i| format!(r#"{{"id":"{i}"}}"#)).collect();
    let input = events.join("\n") + "\n";
    let produce = ["produce", &topic, "--key-field", "id", "--compression", "gzip"];
    ailurus.feed(&produce, input.as_bytes()).expect(0);
    let mut written = events.clone();
    if let Some(publisher) = &subject.publisher {
        let publisher = subject.ailurus(publisher).set("REDPANDA_BROKERS", &brokers);
        publisher.feed(&[&topic, "a-key"], input.as_bytes()).expect(0);
        written.extend(events);
    }
    let records = ailurus.consume(&[&topic, "--group", &topic, "--from", "earliest", "--exit-at-end"]);
    let value = |record: &Value| record["value"].as_str().unwrap().to_owned();
    let mut read: Vec<String> = records.iter().map(value).collect();
    read.sort_unstable();
    written.sort_unstable();
    assert!(read == written, "the group read {} records, and not the {} written", read.len(), written.len());
    report(module_path!(), format_args!("a group has read the {} records that were written", read.len()));
    ailurus.ok(&["group", "describe", &topic]);
    ailurus.ok(&["topic", "delete", &topic, "--yes"]);
}

/// Responds to name queries at this address: `broker.ailurus.test` is 127.0.0.1, and no other name is known.
fn serve_names(address: &str) {
    const NAME: &[u8] = b"\x06broker\x07ailurus\x04test\x00";
    let server = UdpSocket::bind((address, 53)).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((n, client)) = server.recv_from(&mut buffer) {
            let query = &buffer[..n];
            let Some(end) = query[12..].iter().position(|b| *b == 0).map(|at| 12 + at + 5) else { continue };
            let Some(question) = query.get(12..end) else { continue };
            // The question: labels, type (A is 1), class.
            let (name, kind) = question.split_at(question.len() - 4);
            let is_known = name == NAME;
            let has_address = is_known && kind[..2] == [0, 1];
            let mut response = query[..2].to_vec();
            response.extend(if is_known { [0x81, 0x80] } else { [0x81, 0x83] });
            response.extend([0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
            response.extend(question);
            if has_address {
                response.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01");
            }
            _ = server.send_to(&response, client); // the client may have ended
        }
    });
}

#[test]
fn the_command_alone_in_an_empty_root_reaches_brokers_by_name() {
    let Some(subject) = subject().filter(Subject::needs_nothing) else { return };
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return report(module_path!(), "the empty root is left out: chroot needs root");
    }
    let (brokers, _broker) = subject.brokers();
    let port = brokers.split(',').next().and_then(|first| first.rsplit(':').next()).unwrap();
    serve_names("127.0.0.97");
    let root = tempfile::TempDir::new().unwrap();
    let certificates = root.path().join("etc/ssl/certs");
    fs::create_dir_all(&certificates).unwrap();
    fs::copy(&subject.command, root.path().join("ailurus")).unwrap();
    let authorities = "ca-certificates.crt";
    _ = fs::copy(Path::new("/etc/ssl/certs").join(authorities), certificates.join(authorities)); // not all have it
    fs::write(root.path().join("etc/hosts"), "127.0.0.1 broker.hosts.test\n").unwrap();
    fs::write(root.path().join("etc/resolv.conf"), "nameserver 127.0.0.97\n").unwrap();
    let health = |host: &str| -> Ended {
        let mut chroot = Command::new("chroot");
        chroot.arg(root.path()).args(["/ailurus", "health", "--brokers", &format!("{host}:{port}")]);
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("REDPANDA_")) {
            chroot.env_remove(name);
        }
        run(chroot, b"")
    };
    for (host, by) in [("broker.hosts.test", "etc/hosts"), ("broker.ailurus.test", "DNS")] {
        let health = health(host).expect(0).stdout;
        report(
            module_path!(),
            format_args!("in an empty root, by {by}: {}", health.lines().next().unwrap_or_default()),
        );
    }
    let unknown = health("unknown.ailurus.test");
    assert_ne!(unknown.code, 0, "a name that nobody knows led to a broker: {}", unknown.stdout);
    let error = unknown.stderr.lines().find(|line| line.contains("unknown"));
    report(module_path!(), format_args!("by a name that nobody knows: {}", error.expect("the error has the name")));
}

#[test]
fn an_idle_server_is_small() {
    let Some(subject) = subject().filter(Subject::needs_nothing) else { return };
    let (brokers, _broker) = subject.brokers();
    let ailurus = subject.ailurus(&subject.command).set("REDPANDA_BROKERS", brokers);
    let server = ailurus.start(&["serve", "--listen", "127.0.0.1:0"]);
    let address = address_of(&server);
    let is_ready = || fetch(&address, "/health/ready", "*/*").is_some_and(|(status, ..)| status == 200);
    until(|| is_ready().then_some(())).expect("it is ready");
    let begun = Instant::now();
    while begun.elapsed() < IDLE {
        thread::park_timeout(IDLE);
    }
    assert!(is_ready(), "it is no longer ready");
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let field = |name: &str| -> u64 {
        let field = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.and_then(|value| value.split_whitespace().next()).and_then(|value| value.parse().ok()).expect(name)
    };
    let (resident, own, most) = (field("VmRSS"), field("RssAnon"), field("VmHWM"));
    let threads = field("Threads");
    report(
        module_path!(),
        format_args!("an idle serve has {resident} KiB resident ({own} of its own), {most} at most, {threads} threads"),
    );
    assert!(resident <= MAX_IDLE_KIB, "{resident} KiB are resident, {MAX_IDLE_KIB} are allowed");
}
