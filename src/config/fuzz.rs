//! Fuzzing of `.env`: see `crate::fuzzing`.

use super::{ConfigBuilder, dotenv, env};

/// Parses a `.env` and applies it; nothing but `REDPANDA_*` may be found in it.
pub(crate) fn file(data: &[u8]) {
    let Ok(settings) = dotenv::parse(data) else { return };
    assert!(settings.keys().all(|name| name.starts_with("REDPANDA_")));
    let mut builder = ConfigBuilder::default();
    env::apply(&mut builder, |name| settings.get(name).cloned());
    _ = builder.build();
}
