//! Errors of the database.

use std::fmt::Display;

use ailurus::{Error, ErrorKind};

pub(crate) fn failed(doing: impl Display, error: tokio_postgres::Error) -> Error {
    Error::with_source(ErrorKind::Io, format!("PostgreSQL: {doing} failed"), error)
}
