//! How a program ends.

use std::error::Error;
use std::process::ExitCode;

use thiserror::Error;
use zo_optim::ConfigError;

/// The exit code of a command line that makes no sense, as clap's.
const USAGE: u8 = 2;

/// The exit code of a run that Ctrl-C ended.
pub const INTERRUPTED: u8 = 130;

/// What was asked for makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Usage(pub String);

impl Usage {
    /// This error, as one of usage.
    pub fn of(error: impl Error) -> Self {
        Self(text(&error))
    }
}

/// Ctrl-C ended a run, which was saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("interrupted")]
pub struct Interrupted;

/// Two runs differ, as has been said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the runs differ")]
pub struct Differ;

/// The exit code of `main`: 0, 1 if it failed, 2 if what was asked for makes no sense, 130 if it was interrupted. An error goes to standard
/// error in readable form: its text and those of its sources, not its `Debug` form.
pub fn exit(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The report has said so.
        Err(error) if error.is::<Interrupted>() => ExitCode::from(INTERRUPTED),
        Err(error) if error.is::<Differ>() => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {}", text(error.as_ref()));
            match error.is::<Usage>() || error.is::<ConfigError>() {
                true => ExitCode::from(USAGE),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// An error's text, and below it those of its sources that it does not quote itself.
pub fn text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let reason = source.to_string();
        if !text.contains(&reason) {
            text += &format!("\n  because: {reason}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("{0}")]
    struct Quotes(#[source] Tells);

    #[derive(Debug, Error)]
    #[error("the disk is full")]
    struct Tells(#[source] std::io::Error);

    #[test]
    fn sources_are_told_once() {
        let error = Quotes(Tells(std::io::Error::other("no space on /dev/x")));
        assert_eq!(
            text(&error),
            "the disk is full\n  because: no space on /dev/x"
        );
    }
}
