//! Runs the binary as a user would: clean environment, empty working directory, a broker of its own.
//!
//! The broker is `ailurus broker` on a free port, as the preset that AILURUS_TEST_EMBEDDED names, or what
//! AILURUS_TEST_BROKERS names; there the topics made here are deleted again, and no others.

#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// Every wait here ends after this time, with a failure.
pub const DEADLINE: Duration = Duration::from_secs(90);

/// A broker, a working directory, and names that nobody else uses.
pub struct Bed {
    pub brokers: String,
    broker: Option<Process>,
    pub dir: TempDir,
    prefix: String,
    topics: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    pub fn json_lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect()
    }
}

impl Bed {
    pub fn new() -> Self {
        match std::env::var("AILURUS_TEST_BROKERS") {
            Ok(brokers) => {
                refuse_remote(&brokers);
                Self::on(brokers, None, TempDir::new().unwrap())
            }
            Err(_) => Self::embedded(),
        }
    }

    /// On the embedded broker, whatever others there are.
    pub fn embedded() -> Self {
        let dir = TempDir::new().unwrap();
        let versions = std::env::var("AILURUS_TEST_EMBEDDED").unwrap_or_else(|_| "redpanda-24.3".into());
        let mut command = command(dir.path());
        command.args(["broker", "--listen", "127.0.0.1:0", "--versions", &versions]);
        let broker = Process::spawn(command);
        let line = broker.line(|_| true);
        Self::on(line.strip_prefix("listening on ").expect(&line).to_owned(), Some(broker), dir)
    }

    /// On a broker of the test's own.
    pub fn of(brokers: String) -> Self {
        Self::on(brokers, None, TempDir::new().unwrap())
    }

    fn on(brokers: String, broker: Option<Process>, dir: TempDir) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cli-test-{now}-{}-{count}", std::process::id());
        Self { brokers, broker, dir, prefix, topics: Vec::new() }
    }

    /// Lets the embedded broker hang: connections stay open, and nothing is answered.
    pub fn stop_broker(&self) {
        let broker = self.broker.as_ref().expect("an embedded broker");
        broker.signal(Signal::SIGSTOP);
        // None of its threads answers any more.
        waitpid(broker.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
    }

    /// A name of our own.
    pub fn name(&self, what: &str) -> String {
        format!("{}-{what}", self.prefix)
    }

    /// Creates a topic through the command; with 0 partitions it has as many as the broker gives it.
    pub fn topic(&mut self, what: &str, partitions: u32) -> String {
        self.topic_with(what, partitions, &[])
    }

    /// With more arguments.
    pub fn topic_with(&mut self, what: &str, partitions: u32, more: &[&str]) -> String {
        let (name, count) = (self.name(what), partitions.to_string());
        let count = if partitions > 0 { &["--partitions", &count][..] } else { &[] };
        self.run(&[&["topic", "create", &name], count, more].concat()).expect(0);
        self.topics.push(name.clone());
        name
    }

    /// Counts topics of these names that are made from now on as made here; those that are there are not.
    pub fn adopt_new(&mut self, names: &[&str]) {
        let listed = self.run(&["topic", "list", "--json"]).expect(0).json_lines().remove(0);
        let is_there = |name: &str| listed.as_array().is_some_and(|all| all.iter().any(|t| t["name"] == name));
        self.topics.extend(names.iter().filter(|name| !is_there(name)).map(ToString::to_string));
    }

    /// The command on our broker, with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command(self.dir.path());
        command.env("REDPANDA_BROKERS", &self.brokers).args(args);
        command
    }

    /// Runs to the end without input.
    pub fn run(&self, args: &[&str]) -> Ended {
        self.feed(args, b"")
    }

    /// Runs to the end with this input.
    pub fn feed(&self, args: &[&str], input: &[u8]) -> Ended {
        run(self.command(args), input)
    }

    /// Starts and leaves it running.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::spawn(self.command(args))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if self.broker.is_none() {
            for topic in &self.topics {
                let _ = self.command(&["topic", "delete", topic, "--yes"]).output();
            }
        }
    }
}

/// The binary with nothing from outside.
pub fn command(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ailurus"));
    command.env_clear().current_dir(dir);
    command
}

/// Runs a command to its end.
pub fn run(mut command: Command, input: &[u8]) -> Ended {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let feeder = thread::spawn(move || {
        let _ = stdin.write_all(&input); // it may end without reading all
    });
    let read = |mut from: Box<dyn Read + Send>| {
        thread::spawn(move || {
            let mut text = Vec::new();
            from.read_to_end(&mut text).unwrap();
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let stdout = read(Box::new(child.stdout.take().unwrap()));
    let stderr = read(Box::new(child.stderr.take().unwrap()));
    let code = wait(&mut child);
    feeder.join().unwrap();
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let code = code.unwrap_or_else(|| panic!("no end within {DEADLINE:?}: {command:?}\n{stdout}\n{stderr}"));
    Ended { code, stdout, stderr }
}

/// The exit code; -1 for a signal; `None` (and killed) at the deadline.
fn wait(child: &mut Child) -> Option<i32> {
    let ended = until(|| child.try_wait().unwrap());
    if ended.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    ended.map(|status| status.code().unwrap_or(-1))
}

/// Looks again and again until there is something, or the deadline has passed.
pub fn until<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    while begun.elapsed() < DEADLINE {
        if let Some(found) = look() {
            return Some(found);
        }
        thread::park_timeout(Duration::from_millis(10));
    }
    None
}

/// A running command whose output is read line by line. Killed when dropped.
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// Lines of stderr that were waited for.
    seen: std::cell::RefCell<String>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self::of(command.spawn().unwrap())
    }

    /// A child that runs already; its stdout may be closed.
    pub fn of(mut child: Child) -> Self {
        let (tx, stdout) = sync_channel(1_000_000);
        if let Some(out) = child.stdout.take() {
            let mut lines = BufReader::new(out).lines().map_while(Result::ok);
            thread::spawn(move || lines.try_for_each(|line| tx.send(line)));
        }
        let (tx, stderr) = sync_channel(1_000_000);
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                if tx.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let stdin = child.stdin.take();
        Self { child, stdin, stdout, stderr, seen: Default::default() }
    }

    /// Waits for a line of stdout.
    #[track_caller]
    pub fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            match self.stdout.recv_timeout(DEADLINE.saturating_sub(begun.elapsed())) {
                Ok(line) if wanted(&line) => return line,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("the line did not come within {DEADLINE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("stdout ended before the line came"),
            }
        }
    }

    /// Waits for a line of stderr.
    #[track_caller]
    pub fn error_line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let begun = Instant::now();
        loop {
            let line = self.stderr.recv_timeout(DEADLINE.saturating_sub(begun.elapsed()));
            let line = line.unwrap_or_else(|e| panic!("the line did not come: {e}; {}", self.seen.borrow()));
            self.seen.borrow_mut().push_str(&line);
            if wanted(line.trim_end()) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// The lines that have come so far and were not taken yet.
    pub fn lines(&self) -> Vec<String> {
        self.stdout.try_iter().collect()
    }

    /// Waits for one more line if there is none.
    #[track_caller]
    pub fn some_lines(&self) -> Vec<String> {
        let mut lines = vec![self.line(|_| true)];
        lines.extend(self.lines());
        lines
    }

    pub fn write(&mut self, input: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        let written = stdin.write_all(input.as_bytes()).and_then(|()| stdin.flush());
        // A command that has ended before it read everything says why itself.
        assert!(written.as_ref().err().is_none_or(|e| e.kind() == std::io::ErrorKind::BrokenPipe), "{written:?}");
    }

    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// The most memory that it has had so far, in KiB; 0 where the system does not tell.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end, its stdin as it is; the rest of stdout comes with it.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let code = wait(&mut self.child);
        let stdout = self.stdout.iter().collect::<Vec<_>>().join("\n");
        let stderr = self.seen.take() + &self.stderr.iter().collect::<String>();
        let code = code.unwrap_or_else(|| panic!("no end within {DEADLINE:?}\n{stdout}\n{stderr}"));
        Ended { code, stdout, stderr }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Tests create and delete topics: only on this machine, unless that is meant.
fn refuse_remote(brokers: &str) {
    let local = |b: &str| ["127.", "localhost:", "[::1]:"].iter().any(|l| b.trim().starts_with(l));
    let allowed = std::env::var("AILURUS_TEST_ALLOW_REMOTE").as_deref() == Ok("1");
    assert!(
        allowed || brokers.split(',').all(local),
        "AILURUS_TEST_BROKERS={brokers} is not on loopback: set AILURUS_TEST_ALLOW_REMOTE=1 if that is meant"
    );
}
