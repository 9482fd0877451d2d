//! Exponential backoff between attempts.

use std::time::Duration;

use tokio::time::Instant;

/// Delays that double from `first` to `max`, each with a jitter of a fifth to either side, so that
/// clients that failed together do not retry together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    attempts: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, attempts: 0 }
    }

    /// Returns the next delay.
    pub(crate) fn next(&mut self) -> Duration {
        let delay = self.after(self.attempts);
        self.attempts = self.attempts.saturating_add(1);
        delay
    }

    /// Returns the delay that comes after this number of others.
    pub(crate) fn after(&self, delays: u32) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(delays.min(31)).unwrap_or(u32::MAX));
        doubled.min(self.max).mul_f64(0.8 + 0.4 * fastrand::f64())
    }

    /// Starts over, after a success.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// Attempts with a backoff between them, until a deadline.
#[derive(Debug)]
pub(crate) struct Attempts {
    pub(super) deadline: Instant,
    pub(super) backoff: Backoff,
}

impl Attempts {
    /// Waits until the next attempt. Returns false, at once, if it would begin after the deadline.
    pub(crate) async fn wait(&mut self) -> bool {
        let at = Instant::now() + self.backoff.next();
        if at <= self.deadline {
            tokio::time::sleep_until(at).await;
        }
        at <= self.deadline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_maximum_and_start_over() {
        let ms = Duration::from_millis;
        let mut b = Backoff::new(ms(100), ms(1000));
        for want in [100, 200, 400, 800, 1000, 1000] {
            let got = b.next();
            assert!(got >= ms(want * 8 / 10) && got <= ms(want * 12 / 10), "{got:?} for {want}");
        }
        (0..100).for_each(|_| assert!(b.next() <= ms(1200)));
        b.reset();
        assert!(b.next() <= ms(120));
    }
}
