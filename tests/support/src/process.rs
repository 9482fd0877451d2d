//! Child processes of tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::time::Instant;

/// Maximum time of every wait; then the test fails.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// Result of a run.
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

    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    /// Returns the peak memory so far, in KiB; 0 where the system does not report it.
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

/// Sends `GET path`; returns the status, the head and the body.
pub fn fetch(address: &str, path: &str, accept: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nConnection: close\r\n\r\n").ok()?;
    let mut response = String::new();
    stream.read_to_string(&mut response).ok()?;
    let status = response.split_whitespace().nth(1)?.parse().ok()?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((status, head.to_owned(), body.to_owned()))
}

/// Sends `GET path`; returns the status and the body, if that is JSON.
pub fn get(address: &str, path: &str) -> Option<(u16, Value)> {
    let (status, _, body) = fetch(address, path, "*/*")?;
    Some((status, serde_json::from_str(&body).ok()?))
}

/// Waits for the line with the URL that a server prints; returns its address.
pub fn address_of(server: &Process) -> String {
    let line = server.line(|l| l.starts_with("http://"));
    line.trim_start_matches("http://").split('/').next().unwrap().to_owned()
}
