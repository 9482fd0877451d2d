//! What a hostile client may send, as a function that takes any bytes: whatever they are, the broker neither panics nor takes memory
//! for what is not there, and each request is answered or its connection closed. Only there for tests and for the target in `fuzz/`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::sync::Notify;

use crate::broker;
use crate::cluster::{Cluster, NewTopic};
use crate::connection;
use crate::sasl::Auth;
use crate::shared::Shared;
use crate::{BrokerConfig, Sasl, Versions};

/// Requests of one input, at most.
const MAX_REQUESTS: usize = 16;
/// Time that a request is given. With the clock of tests, which goes on by itself when nothing else does, that is more than the longest
/// wait that a client can ask for, and each request must be answered in it; the fuzzer's clock is the system's, and it goes on.
const RESPONSE_TIMEOUT: Duration =
    if cfg!(test) { Duration::from_secs(60 * 24 * 3600) } else { Duration::from_millis(2) };

/// The requests that an input stands for: a byte for the broker's kind, then of each the API, the version, the length of its body in
/// two bytes, and the body.
pub fn requests(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    #[cfg(test)]
    builder.start_paused(true);
    let Ok(runtime) = builder.enable_time().build() else { return };
    runtime.block_on(async {
        let mut config = BrokerConfig::default().versions(match kind % 3 {
            0 => Versions::redpanda_24_3(),
            1 => Versions::redpanda_26_2(),
            _ => Versions::kafka(),
        });
        if kind & 0x80 != 0 {
            config = config.sasl(Sasl::default());
        }
        let cluster = Cluster::new([(9092, 9092)], &config.racks);
        let shared = Arc::new(Shared::new(config, cluster));
        let new = NewTopic { partitions: 2, replication: -1, ..NewTopic::default() };
        _ = shared.cluster().create_topic(&shared.config, "t", new).map(drop);
        let ticker = tokio::spawn(broker::run_group_timers(shared.clone()));
        serve(&shared, data).await;
        ticker.abort();
    });
}

async fn serve(shared: &Shared, mut data: &[u8]) {
    let (wake, peer) = (Arc::new(Notify::new()), SocketAddr::from(([127, 0, 0, 1], 1)));
    let auth = || shared.config.sasl.is_some().then(Auth::new);
    let mut state = auth();
    for _ in 0..MAX_REQUESTS {
        if data.remaining() < 4 {
            return;
        }
        let (api, version, len) = (data.get_u8(), data.get_u8(), usize::from(data.get_u16()));
        let body = &data[..len.min(data.len())];
        data = &data[body.len()..];
        let Some(frame) = frame(shared, api, version, body) else { continue };
        let response = tokio::time::timeout(
            RESPONSE_TIMEOUT,
            connection::handle_request(shared, 0, &mut state, frame, peer, &wake),
        )
        .await;
        assert!(
            response.is_ok() || cfg!(not(test)),
            "a request of API {api} was not answered within {RESPONSE_TIMEOUT:?}"
        );
        if let Ok(Err(_)) = response {
            state = auth(); // the next one comes over another connection
        }
    }
}

/// The API and the version that two bytes choose, of those that are served.
pub(crate) fn choose_api(shared: &Shared, api: u8, version: u8) -> Option<(ApiKey, i16)> {
    let served: Vec<_> = (0..100).filter_map(|key| Some((key, shared.config.versions.range(key)?))).collect();
    let (key, (min, max)) = *served.get(usize::from(api) % served.len().max(1))?;
    Some((ApiKey::try_from(key).ok()?, min + i16::from(version) % (max - min + 1)))
}

/// A request with its header, as it comes behind its length.
fn frame(shared: &Shared, api: u8, version: u8, body: &[u8]) -> Option<Bytes> {
    let (api, version) = choose_api(shared, api, version)?;
    let mut frame = BytesMut::new();
    frame.put_i16(api as i16);
    frame.put_i16(version);
    frame.put_i32(1);
    if api.request_header_version(version) > 0 {
        frame.put_i16(1);
        frame.put_u8(b'f');
    }
    if api.request_header_version(version) > 1 {
        frame.put_u8(0);
    }
    frame.put_slice(body);
    Some(frame.freeze())
}

#[cfg(test)]
#[path = "fuzzing_tests.rs"]
mod tests;
