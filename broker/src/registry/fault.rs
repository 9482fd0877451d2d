//! Faults of the registry, and what a hook sees of a request.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A fault that the registry [injects](super::Registry::inject) into a request.
///
/// ```
/// use std::time::Duration;
/// use ailurus_broker::registry::RegistryFault;
///
/// let overloaded = RegistryFault::Error { status: 429, error_code: 42901, message: "too many requests".into() };
/// let slow = RegistryFault::Delay(Duration::from_secs(2));
/// # let _ = (overloaded, slow);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RegistryFault {
    /// Waits, then serves the request.
    Delay(Duration),
    /// Neither serves the request nor responds, until the client closes the connection.
    Hang,
    /// Closes the connection without serving the request.
    Close,
    /// Serves the request, then closes the connection without a response: the client cannot distinguish it from `Close`.
    DropResponse,
    /// Responds with an error, without serving the request.
    Error {
        /// HTTP status, 400 to 599; another one counts as 500.
        status: u16,
        /// Error code in the body, such as 50001.
        error_code: u32,
        /// Message in the body.
        message: String,
    },
    /// Responds with this status and body, without serving the request: as a proxy does that is in the way.
    Response {
        /// HTTP status, 200 to 599; another one counts as 500.
        status: u16,
        /// Content type.
        content_type: String,
        /// Body.
        body: String,
    },
}

/// A request that the registry received.
///
/// ```
/// use ailurus_broker::registry::{RegistryFault, RegistryRequest};
///
/// fn registrations_fail(request: &RegistryRequest) -> Option<RegistryFault> {
///     let is_registration = request.method == "POST" && request.path.ends_with("/versions");
///     is_registration.then_some(RegistryFault::Close)
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RegistryRequest {
    /// Method, such as `GET`.
    pub method: String,
    /// Path with its query, percent-encoded as it was sent, such as `/schemas/ids/1?subject=orders-value`.
    pub path: String,
}

impl RegistryRequest {
    pub(super) fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned() }
    }
}

impl fmt::Display for RegistryRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

type Hook = Arc<dyn Fn(&RegistryRequest) -> Option<RegistryFault> + Send + Sync>;

/// Faults to come: those of the next requests, then the hook's.
#[derive(Clone, Default)]
pub(super) struct Faults {
    /// Each for a number of requests.
    pub next: VecDeque<(u64, RegistryFault)>,
    pub hook: Option<Hook>,
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults").field("next", &self.next).field("has_hook", &self.hook.is_some()).finish()
    }
}

impl Faults {
    /// Returns the fault of the next request.
    pub fn take(&mut self, request: &RegistryRequest) -> Option<RegistryFault> {
        while let Some((left, fault)) = self.next.front_mut() {
            if *left > 0 {
                *left -= 1;
                return Some(fault.clone());
            }
            self.next.pop_front();
        }
        self.hook.as_ref().and_then(|hook| hook(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_their_order_and_number_before_the_hook() {
        let request = RegistryRequest::new("GET", "/subjects");
        let mut faults = Faults::default();
        faults.next.extend([(2, RegistryFault::Close), (0, RegistryFault::DropResponse), (1, RegistryFault::Hang)]);
        faults.hook = Some(Arc::new(|_| Some(RegistryFault::DropResponse)));
        let taken: Vec<_> = std::iter::repeat_with(|| faults.take(&request)).take(4).flatten().collect();
        use RegistryFault::{Close, DropResponse, Hang};
        assert_eq!(taken, [Close, Close, Hang, DropResponse]);
    }
}
