//! Progress of long work: on stderr, and only if that is a terminal.

use std::fmt;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::note;

/// A line with the progress of the work; nothing where stderr is not a terminal.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Counts towards `total`, or just counts.
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let template = match total {
            Some(_) => "{msg} [{bar:30}] {human_pos} of {human_len}",
            None => "{spinner} {msg} {human_pos} in {elapsed}",
        };
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        if !bar.is_hidden() {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Self(bar)
    }

    /// Returns one that shows nothing.
    pub fn hidden() -> Self {
        Self(ProgressBar::hidden())
    }

    /// Removes the line.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }

    /// Sets the number of units that are done.
    pub fn set(&self, done: u64) {
        self.0.set_position(done);
    }

    /// Writes a line on stderr that stays.
    pub fn note(&self, line: fmt::Arguments<'_>) {
        self.0.suspend(|| note(line));
    }

    /// Runs something that writes to the terminal itself.
    pub fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        self.0.suspend(f)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
