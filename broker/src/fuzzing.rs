//! Fuzz target: serves requests decoded from arbitrary bytes. The broker must not panic nor reserve
//! memory by a claimed length, and each request must get a response or close its connection. Only
//! for tests and `fuzz/`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::sync::Notify;

use crate::cluster::{Cluster, NewTopic};
use crate::connection;
use crate::sasl::Auth;
use crate::shared::Shared;
use crate::timers;
use crate::{BrokerConfig, Sasl, Versions};

/// Maximum number of requests of one input.
const MAX_REQUESTS: usize = 16;
/// Time limit of a request. The tests' paused clock advances by itself, so there the limit exceeds
/// the longest wait a client can request, and a response is required. The fuzzer's clock is real.
const RESPONSE_TIMEOUT: Duration =
    if cfg!(test) { Duration::from_secs(60 * 24 * 3600) } else { Duration::from_millis(2) };

/// Serves the requests of an input: a byte selects the kind of broker; each request is API,
/// version, length of the body in two bytes, and the body.
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
        let ticker = tokio::spawn(timers::run(shared.clone()));
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
            "a request of API {api} got no response within {RESPONSE_TIMEOUT:?}"
        );
        if let Ok(Err(_)) = response {
            state = auth(); // the next one comes over another connection
        }
    }
}

/// Maps two bytes to an offered API and version.
pub(crate) fn choose_api(shared: &Shared, api: u8, version: u8) -> Option<(ApiKey, i16)> {
    let served: Vec<_> = (0..100).filter_map(|key| Some((key, shared.config.versions.range(key)?))).collect();
    let (key, (min, max)) = *served.get(usize::from(api) % served.len().max(1))?;
    Some((ApiKey::try_from(key).ok()?, min + i16::from(version) % (max - min + 1)))
}

/// Builds a request frame, without its length.
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
mod tests;
