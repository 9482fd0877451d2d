//! Functions of the application for dead letters: the choice of their topic, and a hook that runs
//! after each is written.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};

use super::DeadLetter;
use crate::consumer::Message;

/// Maximum time of a hook: its record's lane is blocked until it has ended.
const HOOK_TIMEOUT: Duration = Duration::from_secs(10);

/// A dead letter that is written: the argument of [`Processor::on_dead_letter`](crate::Processor::on_dead_letter).
///
/// ```
/// use ailurus::processor::WrittenDeadLetter;
///
/// fn subject(written: &WrittenDeadLetter) -> String {
///     let at = &written.letter.origin;
///     format!("{}/{}@{} is in {}: {}", at.topic, at.partition, at.offset, written.topic, written.letter.error)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WrittenDeadLetter {
    /// The record, as its handler got it.
    pub message: Message,
    /// Error, attempts, times and origin of the dead letter, and what it lacks.
    pub letter: DeadLetter,
    /// Topic of the dead letter.
    pub topic: String,
    /// Its partition, if it is known: a pipeline may learn of a committed transaction without it.
    pub partition: Option<i32>,
    /// Its offset, if it is known: a broker that had the record from an earlier request may return none.
    pub offset: Option<i64>,
}

type ChooseTopicFn = dyn Fn(&Message, &(dyn std::error::Error + 'static)) -> Option<String> + Send + Sync;

/// The function that chooses the topic of a dead letter.
#[derive(Clone)]
pub(in crate::processor) struct ChooseTopic(pub(in crate::processor) Arc<ChooseTopicFn>);

impl ChooseTopic {
    /// Returns the topic for a record and its last error; `None` is the default one.
    ///
    /// # Errors
    /// The function panicked.
    pub(super) fn call(
        &self,
        message: &Message,
        error: &(dyn std::error::Error + 'static),
    ) -> Result<Option<String>, &'static str> {
        catch_unwind(AssertUnwindSafe(|| (self.0)(message, error))).map_err(|_| "the function panicked")
    }
}

impl fmt::Debug for ChooseTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChooseTopic")
    }
}

type HookFn = dyn Fn(WrittenDeadLetter) -> BoxFuture<'static, ()> + Send + Sync;

/// The hook that runs after a dead letter is written.
#[derive(Clone)]
pub(in crate::processor) struct Hook(pub(in crate::processor) Arc<HookFn>);

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}

/// One call of a hook.
pub(in crate::processor) struct HookCall {
    pub(in crate::processor) hook: Hook,
    pub(in crate::processor) written: WrittenDeadLetter,
}

impl HookCall {
    /// Runs the hook until it ends, panics or [times out](HOOK_TIMEOUT).
    pub(in crate::processor) async fn run(self) {
        let Self { hook, written } = self;
        let topic = written.topic.clone();
        let run = AssertUnwindSafe(async move { (hook.0)(written).await }).catch_unwind();
        match tokio::time::timeout(HOOK_TIMEOUT, run).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => tracing::error!(dead_letter_topic = %topic, "the hook for dead letters panicked"),
            Err(_) => tracing::error!(
                dead_letter_topic = %topic, "the hook for dead letters did not end within {HOOK_TIMEOUT:?} and was cancelled"
            ),
        }
    }
}
