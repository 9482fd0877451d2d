//! Sessions of operators, in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use uuid::Uuid;

/// Name of the cookie.
const NAME: &str = "ailurus_session";
/// Time after which a session ends.
const MAX_AGE: Duration = Duration::from_secs(12 * 3600);
/// Maximum number of sessions: the oldest ends when there are more.
const MAX_SESSIONS: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<VecDeque<Arc<Session>>>);

#[derive(Debug)]
pub(super) struct Session {
    id: String,
    /// Secret of its forms.
    csrf: String,
    end: Instant,
    /// Outcome of the last action, for the next page.
    notice: Mutex<Option<String>>,
}

impl Sessions {
    /// Begins a session; returns its cookie.
    pub(super) fn begin(&self) -> String {
        let secret = || Uuid::new_v4().simple().to_string(); // 122 bits of the operating system's generator
        let end = Instant::now() + MAX_AGE;
        let session = Session { id: secret(), csrf: secret(), end, notice: Mutex::default() };
        // Without a path it is sent to where these routes are mounted, whatever a proxy does to that.
        let cookie = format!("{NAME}={}; HttpOnly; SameSite=Strict; Max-Age={}", session.id, MAX_AGE.as_secs());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == MAX_SESSIONS {
            all.pop_front();
        }
        all.push_back(Arc::new(session));
        cookie
    }

    /// Returns the session of a request.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<Arc<Session>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        all.retain(|session| session.end > now);
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut ids =
            cookies.flat_map(|value| value.split(';')).filter_map(|c| c.trim().strip_prefix(NAME)?.strip_prefix('='));
        ids.find_map(|id| all.iter().find(|session| is_same(&session.id, id)).cloned())
    }

    /// Ends a session; returns the cookie that removes its own.
    pub(super) fn end(&self, session: Option<&Arc<Session>>) -> String {
        if let Some(session) = session {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|s| s.id != session.id);
        }
        format!("{NAME}=; HttpOnly; SameSite=Strict; Max-Age=0")
    }
}

impl Session {
    pub(super) fn csrf(&self) -> &str {
        &self.csrf
    }

    pub(super) fn is_csrf(&self, given: &str) -> bool {
        is_same(&self.csrf, given)
    }

    pub(super) fn set_notice(&self, notice: String) {
        *self.notice.lock().unwrap_or_else(PoisonError::into_inner) = Some(notice);
    }

    pub(super) fn take_notice(&self) -> Option<String> {
        self.notice.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn is_same(secret: &str, given: &str) -> bool {
    bool::from(secret.as_bytes().ct_eq(given.as_bytes()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use axum::http::HeaderValue;

    use super::*;

    fn headers(cookie: &str) -> HeaderMap {
        HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).unwrap())])
    }

    fn pair(cookie: &str) -> String {
        cookie.split(';').next().unwrap().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_ends_after_its_time_or_when_it_is_ended() {
        let sessions = Sessions::default();
        let (first, second) =
            (headers(&pair(&sessions.begin())), headers(&format!("a=b; {}", pair(&sessions.begin()))));
        assert!(sessions.find(&HeaderMap::new()).is_none());
        assert!(sessions.find(&headers("ailurus_session=")).is_none());
        let found = sessions.find(&first);
        assert!(found.is_some() && sessions.find(&second).is_some());
        sessions.end(found.as_ref());
        assert!(sessions.find(&first).is_none() && sessions.find(&second).is_some());
        tokio::time::advance(MAX_AGE).await;
        assert!(sessions.find(&second).is_none());
    }

    #[tokio::test]
    async fn of_too_many_sessions_the_oldest_end() {
        let sessions = Sessions::default();
        let all: Vec<_> = (0..=MAX_SESSIONS).map(|_| headers(&pair(&sessions.begin()))).collect();
        let found: Vec<_> = all.iter().map(|h| sessions.find(h).is_some()).collect();
        assert!(!found[0] && found[1..].iter().all(|found| *found));
    }
}
