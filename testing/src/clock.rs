//! Tokio's clock: pauses it, and runs a test on it.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, RuntimeFlavor};
use tokio::time::Instant;

use crate::error::TestError;

/// Real time after which a clock that has not moved is paused. Far above a clock's resolution.
const RESOLUTION: Duration = Duration::from_micros(5);

/// Pauses the runtime's clock, unless it is paused.
///
/// # Errors
/// [`TestError::Runtime`] if the runtime has several threads: their clock can't be paused.
pub(crate) fn pause() -> Result<(), TestError> {
    if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
        return Err(TestError::Runtime);
    }
    if !is_paused() {
        tokio::time::pause();
    }
    Ok(())
}

/// Returns whether the clock stands still while real time passes: tokio has no call for it.
#[allow(clippy::disallowed_methods, reason = "the real clock is what the paused one is compared with")]
fn is_paused() -> bool {
    let (real, clock) = (std::time::Instant::now(), Instant::now());
    while real.elapsed() < RESOLUTION {
        std::hint::spin_loop();
    }
    Instant::now() == clock
}

/// Runs a seed's test: on one thread, with the clock paused, and with random choices that follow
/// from the seed, as far as the [crate](crate#what-is-the-same-in-each-run) says.
///
/// ```
/// use ailurus_testing::{TestCluster, TestError};
///
/// for seed in 0..3 {
///     ailurus_testing::run(seed, async {
///         let cluster = TestCluster::builder().seed(seed).start().await?;
///         // …
///         Ok::<(), TestError>(())
///     })?;
/// }
/// # Ok::<(), TestError>(())
/// ```
///
/// # Errors
/// Those of the test; [`TestError::Start`] if the system has no resources for a runtime.
pub fn run<T, E: From<TestError>>(seed: u64, test: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let mut builder = Builder::new_current_thread();
    builder.enable_all().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    let runtime = builder.build().map_err(TestError::Start)?;
    fastrand::seed(seed);
    runtime.block_on(test)
}
