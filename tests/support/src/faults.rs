//! Faults drawn from a seed, and their injection into an embedded broker.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ailurus_broker::{Broker, Fault, RequestInfo};
use fastrand::Rng;
use tokio::time::{sleep, timeout};

use crate::seeds::FaultCounts;

/// A kind of fault, with its name in summaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    TransientError,
    PermanentError,
    Close,
    DropResponse,
    Delay,
    DelayPastTimeout,
    DelayResponse,
    DelayResponsePastTimeout,
}

impl FaultKind {
    pub const ALL: [Self; 8] = [
        Self::TransientError,
        Self::PermanentError,
        Self::Close,
        Self::DropResponse,
        Self::Delay,
        Self::DelayPastTimeout,
        Self::DelayResponse,
        Self::DelayResponsePastTimeout,
    ];
}

/// Faults of the requests of one API.
#[derive(Clone, Debug)]
pub struct FaultProfile {
    /// Percentage of requests with a fault.
    pub rate: u32,
    /// Number of requests of each node that may have a fault, from its first.
    pub max_requests: u32,
    pub kinds: Vec<FaultKind>,
}

/// Position of a request among those of its API and node. Its fault depends on nothing else, so the
/// order in which requests reach different nodes does not matter.
#[derive(Clone, Copy, Debug)]
pub struct RequestPosition {
    pub seed: u64,
    pub api: i16,
    pub node: i32,
    pub index: u32,
}

impl FaultProfile {
    /// Returns the fault of a request; `error_code` selects a transient or permanent error.
    pub fn fault(
        &self,
        position: RequestPosition,
        request_timeout: Duration,
        error_code: impl FnOnce(FaultKind, &mut Rng) -> i16,
    ) -> Option<(FaultKind, Fault)> {
        let hash = (position.api as u64) << 40 | (position.node as u64) << 32 | u64::from(position.index);
        let mut rng = Rng::with_seed(mix(position.seed, hash + 1));
        if position.index >= self.max_requests || rng.u32(0..100) >= self.rate {
            return None;
        }
        let kind = *pick(&mut rng, &self.kinds);
        let short = ms(rng.u64(1..20));
        let long = request_timeout.mul_f64(1.1 + rng.f64());
        Some((
            kind,
            match kind {
                FaultKind::TransientError | FaultKind::PermanentError => Fault::Error(error_code(kind, &mut rng)),
                FaultKind::Close => Fault::Close,
                FaultKind::DropResponse => Fault::DropResponse,
                FaultKind::Delay => Fault::Delay(short),
                FaultKind::DelayPastTimeout => Fault::Delay(long),
                FaultKind::DelayResponse => Fault::DelayResponse(short),
                FaultKind::DelayResponsePastTimeout => Fault::DelayResponse(long),
            },
        ))
    }
}

/// Returns the fault of a transaction's marker, with its name, by the percentages of delayed and of
/// held ones.
pub fn marker_fault(rng: &mut Rng, (delayed, held): (u32, u32)) -> Option<(String, Fault)> {
    match rng.u32(0..100) {
        n if n < held => Some(("marker: Hold".into(), Fault::Hold)),
        n if n < held + delayed => Some(("marker: Delay".into(), Fault::Delay(ms(rng.u64(1..40))))),
        _ => None,
    }
}

/// Sets a hook that injects faults and counts them by name. `fault` gets each request, with its
/// number among those of its API and node.
pub fn inject_faults(
    broker: &Broker,
    fault: impl Fn(&RequestInfo<'_>, u32) -> Option<(String, Fault)> + Send + Sync + 'static,
) -> Arc<Mutex<FaultCounts>> {
    let counts = Arc::new(Mutex::new(FaultCounts::new()));
    let request_counts = Mutex::new(HashMap::<(i16, i32), u32>::new());
    let fired = Arc::clone(&counts);
    broker.set_hook(move |request| {
        let index = {
            let mut request_counts = request_counts.lock().unwrap();
            let count = request_counts.entry((request.api_key, request.node)).or_default();
            std::mem::replace(count, *count + 1)
        };
        let (name, fault) = fault(request, index)?;
        *fired.lock().unwrap().entry(name).or_default() += 1;
        Some(fault)
    });
    counts
}

/// Returns the address that the broker of a seed listens on. Each seed of each test (`test` is a
/// number of its own) has its own if the system allows it, so that no other takes the port of a
/// stopped node.
pub fn listen_address(test: u8, seed: u64) -> SocketAddr {
    let [.., a, b] = seed.to_be_bytes();
    let ip = if cfg!(target_os = "linux") { Ipv4Addr::new(127, test, a, b) } else { Ipv4Addr::LOCALHOST };
    SocketAddr::from((ip, 0))
}

/// Waits until all connections are closed: a delayed request is served even if its connection is.
///
/// # Errors
/// The number of connections that are open after `limit`.
pub async fn await_closed_connections(broker: &Broker, limit: Duration) -> Result<(), String> {
    let closed = async {
        while broker.connection_count() > 0 {
            sleep(ms(3)).await;
        }
    };
    timeout(limit, closed).await.map_err(|_| format!("{} connections were left open", broker.connection_count()))
}

pub fn pick<'a, T>(rng: &mut Rng, items: &'a [T]) -> &'a T {
    &items[rng.usize(..items.len())]
}

pub fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// Mixes two numbers into one (the finaliser of splitmix64).
pub fn mix(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
