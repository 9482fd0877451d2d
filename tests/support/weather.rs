//! Faults drawn from a seed: what becomes of the requests that a broker gets.

#![allow(dead_code, reason = "each program uses a part")]

use std::time::Duration;

use ailurus_broker::Fault;
use fastrand::Rng;

/// A kind of fault, as the summaries call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    ErrorThatPasses,
    ErrorThatStays,
    Close,
    DropResponse,
    Delay,
    DelayPastTimeout,
    DelayResponse,
    DelayResponsePastTimeout,
}

pub const KINDS: [Kind; 8] = [
    Kind::ErrorThatPasses,
    Kind::ErrorThatStays,
    Kind::Close,
    Kind::DropResponse,
    Kind::Delay,
    Kind::DelayPastTimeout,
    Kind::DelayResponse,
    Kind::DelayResponsePastTimeout,
];

/// What happens to the requests of one API.
#[derive(Clone, Debug)]
pub struct Weather {
    /// Of 100 requests.
    pub rate: u32,
    /// How many requests of each node may be spoilt, counted from its first.
    pub until: u32,
    pub kinds: Vec<Kind>,
}

/// A request, by its place among those of its API that a node gets. What becomes of it depends on nothing else, so that the
/// order in which requests reach different nodes does not matter.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub seed: u64,
    pub api: i16,
    pub node: i32,
    pub n: u32,
}

impl Weather {
    /// `errors` gives the code for an error that passes (or one that stays).
    pub fn fault(
        &self,
        at: Place,
        request_timeout: Duration,
        errors: impl FnOnce(Kind, &mut Rng) -> i16,
    ) -> Option<(Kind, Fault)> {
        let place = (at.api as u64) << 40 | (at.node as u64) << 32 | u64::from(at.n);
        let mut r = Rng::with_seed(mix(at.seed, place + 1));
        if at.n >= self.until || r.u32(0..100) >= self.rate {
            return None;
        }
        let kind = *pick(&mut r, &self.kinds);
        let short = ms(r.u64(1..20));
        let long = request_timeout.mul_f64(1.1 + r.f64());
        Some((
            kind,
            match kind {
                Kind::ErrorThatPasses | Kind::ErrorThatStays => Fault::Error(errors(kind, &mut r)),
                Kind::Close => Fault::Close,
                Kind::DropResponse => Fault::DropResponse,
                Kind::Delay => Fault::Delay(short),
                Kind::DelayPastTimeout => Fault::Delay(long),
                Kind::DelayResponse => Fault::DelayResponse(short),
                Kind::DelayResponsePastTimeout => Fault::DelayResponse(long),
            },
        ))
    }
}

pub fn pick<'a, T>(r: &mut Rng, of: &'a [T]) -> &'a T {
    &of[r.usize(..of.len())]
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Two numbers to one that looks like neither (the finaliser of splitmix64).
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
