//! A `.env` for fuzzing: see `crate::fuzzing`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::env;

/// What is in a `.env`. Errors name the file and never repeat what a line holds.
pub(crate) fn dotenv(data: &[u8]) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let file = std::env::temp_dir().join(format!("ailurus-fuzz-{}-{number}.env", std::process::id()));
    if std::fs::write(&file, data).is_err() {
        return;
    }
    let outcome = env::read(&file, |_| None);
    _ = std::fs::remove_file(&file);
    match outcome {
        Ok(builder) => _ = builder.build(),
        Err(e) => assert!(e.to_string().contains(&file.display().to_string()), "{e}"),
    }
}
