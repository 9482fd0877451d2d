//! Fields of forms and queries.

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;

use super::context::Context;
use crate::control::Refusal;

/// Fields in order; a name may be there several times.
#[derive(Debug, Default)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    pub(super) fn parse(text: &str) -> Self {
        let decode = |part: &str| percent_decode_str(&part.replace('+', " ")).decode_utf8_lossy().into_owned();
        let field = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        };
        Self(text.split('&').filter(|pair| !pair.is_empty()).map(field).collect())
    }

    /// Returns the first field of a name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Returns a field, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|text| !text.is_empty())
    }

    /// Returns the fields of a name.
    pub(super) fn all<'a, 'n>(&'a self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns a field that must be there.
    pub(super) fn needed(&self, name: &str) -> Result<&str, Refusal> {
        self.text(name).ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, format!("the field {name} is missing")))
    }

    /// Returns a number that must be there.
    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<T, Refusal> {
        let text = self.needed(name)?;
        let wrong = |_| Refusal::new(StatusCode::BAD_REQUEST, format!("{name} is {text:?}: it is no such number"));
        text.parse().map_err(wrong)
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            let what = "a form is application/x-www-form-urlencoded";
            return Err((StatusCode::UNSUPPORTED_MEDIA_TYPE, what).into_response());
        }
        let body = Bytes::from_request(request, state).await.map_err(IntoResponse::into_response)?;
        Ok(Self::parse(&String::from_utf8_lossy(&body)))
    }
}

/// A form of a page of the session: not one that another site has sent.
#[derive(Debug)]
pub(super) struct Posted(pub(super) Form);

impl<S: Send + Sync> FromRequest<S> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let context = request.extensions().get::<Context>().cloned();
        let form = Form::from_request(request, state).await?;
        let Some(context) = context else { return Err(StatusCode::UNAUTHORIZED.into_response()) };
        if !context.is_sent_by_page(form.get("csrf").unwrap_or_default()) {
            let why = "this form is not of your session: load its page again";
            return Err(context.refused(&Refusal::new(StatusCode::FORBIDDEN, why)));
        }
        Ok(Self(form))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_may_be_repeated() {
        let form = Form::parse("at=0%2F17&at=1/2&text=a+b%2Bc%0D%0A%C3%A4&empty=&flag&=x&bad=%zz%ff");
        assert_eq!(form.all("at").collect::<Vec<_>>(), ["0/17", "1/2"]);
        assert_eq!(form.get("text"), Some("a b+c\r\nä"));
        assert_eq!((form.get("empty"), form.text("empty"), form.get("flag")), (Some(""), None, Some("")));
        assert_eq!(form.get("bad"), Some("%zz\u{fffd}"));
        assert!(form.number::<i64>("text").is_err() && form.number::<i64>("none").is_err());
        assert_eq!(Form::parse("").get(""), None);
    }
}
