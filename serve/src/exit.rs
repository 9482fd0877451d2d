//! Exit codes, and the text of an error that ends a command.

use std::io;
use std::process::ExitCode;

use ailurus::ErrorKind;

use crate::text::note;

/// The end of a command that has reported its results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Success,
    /// The work failed or is not complete, and the command has reported why.
    Failure,
    /// The command line or a setting is wrong.
    Usage,
    /// The topic, partition, group, transaction, broker or dead letter does not exist.
    NotFound,
    /// The topic to create exists already.
    Exists,
    /// No broker, or not the one needed, could be reached or responded in time.
    Unreachable,
    /// A broker refused the request.
    Refused,
    /// A signal ended the command early.
    Interrupted,
}

impl Exit {
    /// Returns the exit code; `ailurus --help` lists them.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failure => 1,
            Exit::Usage => 2,
            Exit::NotFound => 3,
            Exit::Exists => 4,
            Exit::Unreachable => 5,
            Exit::Refused => 6,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// An error that ends a command with an exit of its own, with its text.
macro_rules! exit_error {
    ($(#[doc = $doc:literal] $name:ident)+) => {$(
        #[doc = $doc]
        #[derive(Debug)]
        pub struct $name(pub String);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::error::Error for $name {}
    )+};
}

exit_error! {
    /// An error in the command line or a setting that the parser of arguments can't find.
    Usage
    /// A name of the command line that does not exist, where no error of the library says so.
    NotFound
    /// A request that this command refuses because another command is running.
    Refused
}

/// Prints the error on stderr, if there is one, and returns the exit code's name.
pub fn report(result: anyhow::Result<Exit>) -> Exit {
    result.unwrap_or_else(|error| {
        let exit = exit_of(&error);
        if exit != Exit::Success {
            note(format_args!("error: {}", text(&error)));
        }
        exit
    })
}

/// Returns the error and its causes as text, each of them once.
pub fn text(error: &anyhow::Error) -> String {
    let (mut text, mut last) = (String::new(), String::new());
    for cause in error.chain() {
        let library = cause.downcast_ref::<ailurus::Error>();
        let cause = library.map_or_else(|| cause.to_string(), |e| format!("{e:#}"));
        if text.is_empty() {
            text.clone_from(&cause);
        } else if !text.contains(&cause) {
            // A cause may begin with the words of the error that it caused.
            text.push_str(
                cause.strip_prefix(&last).filter(|rest| rest.starts_with(": ")).unwrap_or(&format!(": {cause}")),
            );
        }
        last = cause;
        if library.is_some() {
            break; // its own causes are in its text
        }
    }
    text
}

/// Returns the exit of a command that ended with an error.
pub fn exit_of(error: &anyhow::Error) -> Exit {
    for cause in error.chain() {
        if cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
            return Exit::Success; // the reader of stdout has closed it, as in `ailurus consume … | head`
        }
        if cause.is::<Usage>() {
            return Exit::Usage;
        }
        if cause.is::<NotFound>() {
            return Exit::NotFound;
        }
        if cause.is::<Refused>() {
            return Exit::Refused;
        }
        if let Some(e) = cause.downcast_ref::<ailurus::Error>() {
            return exit_of_kind(e);
        }
    }
    Exit::Failure
}

fn exit_of_kind(error: &ailurus::Error) -> Exit {
    use ErrorKind::{
        Authentication, Authorization, Broker, Config, GroupMembership, RecordTooLarge, TopicExists, UnknownTopic,
        Unsupported,
    };
    /// The protocol's code of a group that does not exist.
    const GROUP_ID_NOT_FOUND: i16 = 69;
    /// The protocol's code of a transactional id that does not exist.
    const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;
    match error.kind() {
        Config => Exit::Usage,
        UnknownTopic | Broker(GROUP_ID_NOT_FOUND | TRANSACTIONAL_ID_NOT_FOUND) => Exit::NotFound,
        TopicExists => Exit::Exists,
        // Retriable for a client that runs for long; final for a command.
        Authentication => Exit::Refused,
        _ if error.is_retriable() => Exit::Unreachable,
        Authorization | GroupMembership | RecordTooLarge | Unsupported | Broker(_) => Exit::Refused,
        _ => Exit::Failure,
    }
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
    }

    #[test]
    fn what_is_to_be_done_about_an_error_shows_in_the_code() {
        let of = |kind| exit_of(&anyhow!(ailurus::Error::new(kind, "x")).context("deleting")).code();
        assert_eq!([ErrorKind::UnknownTopic, ErrorKind::Broker(69), ErrorKind::Broker(105)].map(of), [3; 3]);
        assert_eq!(of(ErrorKind::TopicExists), 4);
        let transient = [ErrorKind::Connect, ErrorKind::Disconnected, ErrorKind::Timeout, ErrorKind::Broker(5)];
        assert_eq!(transient.map(of), [5; 4]);
        let refused = [ErrorKind::Authentication, ErrorKind::Authorization, ErrorKind::GroupMembership];
        assert_eq!(refused.map(of), [6; 3]);
        assert_eq!([of(ErrorKind::Broker(68)), of(ErrorKind::Unsupported)], [6, 6]);
        assert_eq!([of(ErrorKind::Io), of(ErrorKind::Indeterminate)], [1, 1]);
        assert_eq!(exit_of(&anyhow!("x")), Exit::Failure);
        assert_eq!(exit_of(&anyhow!(NotFound("x".into())).context("y")), Exit::NotFound);
        assert_eq!(exit_of(&anyhow!(Refused("x".into())).context("y")), Exit::Refused);
    }

    #[test]
    fn a_cause_is_printed_once() {
        let cause =
            ailurus::Error::with_source(ErrorKind::Connect, "a:1 refused: no route", io::Error::other("no route"));
        assert_eq!(text(&anyhow!(cause).context("a:1 refused").context("reading")), "reading: a:1 refused: no route");
        assert_eq!(text(&anyhow!("b").context("a")), "a: b");
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let e = Err::<(), _>(io::Error::from(io::ErrorKind::BrokenPipe)).context("writing").map_err(|e| exit_of(&e));
        assert_eq!(e, Err(Exit::Success));
    }
}
