//! A program of `examples/` that runs for a while beside the faults of a test.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ailurus_test_support::process::{Ended, Process};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::ailurus::Ailurus;
use crate::tools::{built, kafka_libs};

/// Maximum time from the end of the load to that of the process, whose own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(240);

const POLL: Duration = Duration::from_millis(100);

/// The example's process, and those that it starts: all are killed when this is dropped.
pub struct Load {
    process: Option<Process>,
    group: Pid,
    begun: Instant,
    time: Duration,
}

impl Load {
    /// Starts an example in the command's directory; it loads the brokers for `time`.
    pub fn start(example: &str, args: &[&str], time: Duration, ailurus: &Ailurus) -> Self {
        let mut command = Command::new(built().join("examples").join(example));
        command.args(args).current_dir(ailurus.directory()).process_group(0);
        command.env("AILURUS", built().join("ailurus")).env("KAFKA_LIBS", kafka_libs());
        let process = Process::spawn(command);
        Self { group: process.pid(), process: Some(process), begun: Instant::now(), time }
    }

    /// Returns whether the load will go on for this long.
    pub fn goes_on_for(&mut self, more: Duration) -> bool {
        !self.has_ended() && self.begun.elapsed() + more < self.time
    }

    /// Lets the load run for this long, or to its end.
    pub fn run_for(&mut self, time: Duration) {
        let begun = Instant::now();
        while begun.elapsed() < time && !self.has_ended() {
            thread::park_timeout(POLL);
        }
    }

    fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(Process::has_ended)
    }

    /// Waits until the process ends; returns its last line. It must succeed.
    #[track_caller]
    pub fn end(mut self) -> String {
        self.run_for((self.time + PATIENCE).saturating_sub(self.begun.elapsed()));
        let Ended { code, stdout, stderr } = self.process.take().unwrap().end();
        assert_eq!(code, 0, "{stdout}\n{stderr}");
        stdout.lines().last().unwrap_or_default().to_owned()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        _ = killpg(self.group, Signal::SIGKILL); // it has ended where the test passed
    }
}
