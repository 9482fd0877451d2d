//! The file that the processes have their tokens from, and the times when it is not there.

use std::path::PathBuf;
use std::time::Duration;

use ailurus::{Error, ErrorKind, Result};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::time::Instant;

/// Validity of a token; a new one is written after half of it.
const VALID: Duration = Duration::from_secs(20);
/// Time without the file: beyond the expiry of the last token and of every session that started with it.
const AWAY: Duration = Duration::from_secs(45);
/// Time from the start, and from its return, to its removal.
const BETWEEN: Duration = Duration::from_secs(75);

pub(crate) struct Source {
    file: PathBuf,
    renewed: Instant,
    /// When it goes away next, or went.
    away_at: Instant,
    is_away: bool,
    times: u32,
    /// The end of the run: it is not away then.
    end: Instant,
}

impl Source {
    pub(crate) fn new(file: PathBuf, now: Instant, end: Instant) -> Result<Self> {
        let source = Self { file, renewed: now, away_at: now + BETWEEN, is_away: false, times: 0, end };
        source.write()?;
        Ok(source)
    }

    pub(crate) fn times_away(&self) -> u32 {
        self.times
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) -> Result<()> {
        if self.is_away {
            if now < self.away_at + AWAY {
                return Ok(());
            }
            println!("the token's source is back");
            self.is_away = false;
            self.away_at = now + BETWEEN;
        } else if now >= self.away_at && now + AWAY < self.end {
            println!("the token's source goes away for {AWAY:?}");
            self.is_away = true;
            self.times += 1;
            return std::fs::remove_file(&self.file).map_err(failed);
        } else if now < self.renewed + VALID / 2 {
            return Ok(());
        }
        self.renewed = now;
        self.write()
    }

    /// Writes a token that nobody has signed, as Kafka's test of OAUTHBEARER takes them.
    fn write(&self) -> Result<()> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let claims = format!(r#"{{"sub":"alice","iat":{now},"exp":{}}}"#, now + VALID.as_secs());
        let text = format!("{}.{}.", part(r#"{"alg":"none"}"#.to_owned()), part(claims));
        let fresh = self.file.with_extension("fresh");
        std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.file)).map_err(failed)
    }
}

fn failed(e: std::io::Error) -> Error {
    Error::with_source(ErrorKind::Config, "the token can't be written", e)
}
