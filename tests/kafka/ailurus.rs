//! The command as a user runs it: in an empty directory, with no settings but those of the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use ailurus_test_support::process::{Ended, Process, run};
use serde_json::Value;
use tempfile::TempDir;

use crate::tools::built;

/// The command `ailurus` with settings.
#[derive(Clone)]
pub struct Ailurus {
    /// An emulator with its arguments, and the binary.
    program: Vec<PathBuf>,
    settings: Vec<(String, String)>,
    directory: Arc<TempDir>,
}

impl Ailurus {
    /// Returns the command of this workspace on the brokers at `bootstrap`.
    pub fn new(bootstrap: &str) -> Self {
        Self::of(vec![built().join("ailurus")]).set("REDPANDA_BROKERS", bootstrap)
    }

    /// Returns another binary, after the emulator that runs it, without settings.
    pub fn of(program: Vec<PathBuf>) -> Self {
        Self { program, settings: Vec::new(), directory: Arc::new(TempDir::new().unwrap()) }
    }

    /// Returns the same with another setting.
    pub fn set(&self, name: &str, value: impl Into<String>) -> Self {
        let mut other = self.clone();
        other.settings.retain(|(n, _)| n != name);
        other.settings.push((name.to_owned(), value.into()));
        other
    }

    /// Returns the working directory.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program[0]);
        command.env_clear().current_dir(self.directory.path());
        command.args(&self.program[1..]).args(args);
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
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

    /// Runs to the end; returns its output. It must succeed.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let ended = self.run(args);
        assert_eq!(ended.code, 0, "ailurus {}: {}{}", args.join(" "), ended.stdout, ended.stderr);
        ended.stdout
    }

    /// Runs with `--json` to the end; returns what it prints, which is one value. It must succeed.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let printed = self.ok(&[args, &["--json"]].concat());
        serde_json::from_str(&printed).unwrap_or_else(|e| panic!("ailurus {}: {e}: {printed}", args.join(" ")))
    }

    /// Starts it and leaves it running.
    pub fn start(&self, args: &[&str]) -> Process {
        Process::spawn(self.command(args))
    }

    /// Writes numbered records, one a line, `PREFIX1` to `PREFIXn`.
    #[track_caller]
    pub fn produce_numbers(&self, prefix: &str, n: u32, args: &[&str]) {
        let lines: String = (1..=n).map(|i| format!("{prefix}{i}\n")).collect();
        self.feed(&[&["produce"], args].concat(), lines.as_bytes()).expect(0);
    }

    /// Returns the records of a topic as `consume` prints them in JSON.
    #[track_caller]
    pub fn consume(&self, args: &[&str]) -> Vec<Value> {
        let ended = self.run(&[&["consume"], args, &["--json"]].concat());
        assert_eq!(ended.code, 0, "ailurus consume {}: {}", args.join(" "), ended.stderr);
        ended.json_lines()
    }

    /// Writes a file into the working directory; returns its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.directory.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }
}
