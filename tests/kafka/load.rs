//! A program of `examples/` that runs for a while beside the faults of a test.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ailurus_test_support::process::{Ended, Process};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::ailurus::Ailurus;
use crate::cluster::Kafka;
use crate::tools::{built, kafka_libs};

/// Maximum time from the end of the load to that of the process, whose own deadlines are shorter.
const PATIENCE: Duration = Duration::from_secs(240);

const POLL: Duration = Duration::from_millis(100);

/// Times of [`Load::kill_and_pause`].
pub struct Faults {
    pub pause: Duration,
    /// Time from a kill to the restart.
    pub down: Duration,
    /// Time from one fault to the next.
    pub between: Duration,
}

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

    /// Kills and pauses nodes, one at a time, while it goes on: three kills, a pause, and so on. `next` returns the node of
    /// the fault with a number, and what it is; `say` gets each step. Returns what was done.
    pub fn kill_and_pause(
        &mut self,
        kafka: &Kafka,
        Faults { pause, down, between }: Faults,
        next: impl Fn(usize) -> (i64, String),
        say: impl Fn(String),
    ) -> String {
        let (mut kills, mut pauses) = (0, 0);
        while self.goes_on_for(pause) || kills == 0 {
            let (node, what) = next(kills + pauses);
            if kills >= (pauses + 1) * 3 {
                say(format!("pause node {node}, {what}, for {pause:?}"));
                kafka.pause(node);
                self.run_for(pause);
                kafka.resume(node);
                pauses += 1;
            } else {
                say(format!("kill node {node}, {what}"));
                kafka.kill(node);
                self.run_for(down);
                kafka.restart(node);
                say(format!("node {node} is back"));
                kills += 1;
            }
            self.run_for(between);
        }
        format!("{kills} coordinators killed and restarted, {pauses} paused for {pause:?}")
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
