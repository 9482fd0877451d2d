//! Supertraits that seal the handler traits, so that new implementations can be added without
//! breaking callers.

use super::Outcome;
use super::handler::{BoxError, ByService};

pub trait Handler<A> {}
pub trait BatchHandler<A> {}
pub trait RouteHandler<S, T, A> {}
pub trait IntoOutcome {}
pub trait IntoOutcomes {}

impl<H: Fn(A) -> F, A, F> Handler<(A,)> for H {}
impl<H: Fn(A, crate::Message) -> F, A, F> Handler<(A, crate::Message)> for H {}
impl<S: tower_service::Service<crate::Message>> Handler<ByService> for S {}
impl<S> Handler<super::ByRouter> for super::Router<S> {}

impl<H: Fn(Vec<A>) -> F, A, F> BatchHandler<(A,)> for H {}

impl IntoOutcome for () {}
impl IntoOutcome for Outcome {}
impl IntoOutcome for super::Outputs {}
impl<T: IntoOutcome, E: Into<BoxError>> IntoOutcome for Result<T, E> {}

impl<T: IntoOutcome> IntoOutcomes for T {}
impl<T: IntoOutcome> IntoOutcomes for Vec<T> {}
