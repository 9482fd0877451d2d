//! How the process ends: exit codes, and errors in words.

use std::io;
use std::process::ExitCode;

use ailurus::ErrorKind;

use crate::output::note;

/// How a command ended that could report its own results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Success,
    /// The work failed or is not complete, and the command has said why.
    Failure,
    /// Nothing could be tried: the command line or a setting is wrong.
    Usage,
    /// A signal came before the end.
    Interrupted,
}

impl Exit {
    /// The code that the shell sees; `ailurus --help` lists them.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// A mistake on the command line that the parser of arguments can't see.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Says on stderr what went wrong, if anything did.
pub fn report(result: anyhow::Result<Exit>) -> Exit {
    result.unwrap_or_else(|error| {
        let exit = exit_of(&error);
        if exit != Exit::Success {
            note(format_args!("error: {error:#}"));
        }
        exit
    })
}

fn exit_of(error: &anyhow::Error) -> Exit {
    let closed_pipe = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
    for cause in error.chain() {
        if cause.downcast_ref::<io::Error>().is_some_and(closed_pipe) {
            return Exit::Success; // the reader of our output has seen enough, as in `ailurus consume … | head`
        }
        if cause.is::<Usage>() || cause.downcast_ref().is_some_and(|e: &ailurus::Error| e.kind() == ErrorKind::Config) {
            return Exit::Usage;
        }
    }
    Exit::Failure
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn settings_are_usage_errors_wherever_they_stand_in_the_chain() {
        let e = ailurus::Error::new(ErrorKind::Config, "session timeout is 0");
        assert_eq!(exit_of(&anyhow!(e).context("starting")), Exit::Usage);
        assert_eq!(exit_of(&anyhow!(Usage("x".into()))), Exit::Usage);
        assert_eq!(exit_of(&anyhow!(ailurus::Error::new(ErrorKind::Connect, "no broker"))), Exit::Failure);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let e = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing").map_err(|e| exit_of(&e));
        assert_eq!(e, Err(Exit::Success));
    }
}
