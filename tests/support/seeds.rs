//! Runs what seeds decide, many at once, and sums up what came of it.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// How often each fault fired, as `request: kind`.
pub type Fired = BTreeMap<String, u64>;

/// Seeds at a time, for each core: they mostly wait.
const AT_ONCE: usize = 8;

/// Which seeds to run, and how to run one of them again.
pub struct Seeds {
    pub range: Range<u64>,
    /// One that was asked for by itself.
    pub one: Option<u64>,
    test: &'static str,
    variable: &'static str,
}

impl Seeds {
    /// `variable` names one seed, with an S at its end how many, of the test program `test`.
    pub fn of(test: &'static str, variable: &'static str, default: u64) -> Self {
        let number =
            |name: &str| env::var(name).ok().map(|t| t.parse::<u64>().unwrap_or_else(|e| panic!("{name}: {e}")));
        let one = number(variable);
        let range = match one {
            Some(seed) => seed..seed + 1,
            None => 0..number(&format!("{variable}S")).unwrap_or(default),
        };
        Self { range, one, test, variable }
    }

    /// Runs them; in their order. A panic is an outcome.
    pub fn run<T: Send>(&self, run: impl Fn(u64) -> T + Sync) -> BTreeMap<u64, Result<T, String>> {
        let (next, outcomes) = (AtomicU64::new(self.range.start), Mutex::new(BTreeMap::new()));
        let at_once = AT_ONCE * std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= self.range.end {
                            return;
                        }
                        let outcome = catch_unwind(AssertUnwindSafe(|| run(seed)));
                        outcomes.lock().unwrap().insert(seed, outcome.map_err(|_| "it panicked, see above".to_owned()));
                    }
                });
            }
        });
        outcomes.into_inner().unwrap()
    }

    /// How to run a seed again.
    pub fn again(&self, seed: u64) -> String {
        let versions =
            env::var("AILURUS_TEST_EMBEDDED").map_or(String::new(), |v| format!("AILURUS_TEST_EMBEDDED={v} "));
        let Self { test, variable, .. } = self;
        format!("\nagain: {versions}{variable}={seed} cargo test --test {test} no_fault -- --nocapture\n")
    }
}

/// Past the test harness, which keeps back what a test prints that passes.
pub fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

pub fn add(total: &mut Fired, fired: &Fired) {
    for (kind, count) in fired {
        *total.entry(kind.clone()).or_default() += count;
    }
}

/// How many fired, and a line for each request.
pub fn list(fired: &Fired) -> String {
    let mut text = format!("{} faults and events:", fired.values().sum::<u64>());
    let mut group = "";
    for (name, count) in fired {
        let (api, kind) = name.split_once(": ").unwrap_or(("cluster", name));
        let _ = match group == api {
            true => write!(text, ", {kind} {count}"),
            false => write!(text, "\n  {api}: {kind} {count}"),
        };
        group = api;
    }
    text
}
