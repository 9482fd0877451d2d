//! Waits between tries.

use std::time::Duration;

/// Doubles from a first wait up to a longest one; each is spread by a fifth to either side, so that clients that failed
/// together do not come back together.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    first: Duration,
    max: Duration,
    tries: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, tries: 0 }
    }

    /// The next wait.
    pub(crate) fn next(&mut self) -> Duration {
        let doubled = self.first.saturating_mul(1_u32.checked_shl(self.tries.min(31)).unwrap_or(u32::MAX));
        self.tries = self.tries.saturating_add(1);
        doubled.min(self.max).mul_f64(0.8 + 0.4 * fastrand::f64())
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_over() {
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
