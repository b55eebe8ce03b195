//! How an example ends.

use std::error::Error;
use std::process::ExitCode;

/// The exit code of `main`. An error goes to standard error in readable form: its text and those of its sources, not its `Debug` form.
pub fn exit(result: Result<(), Box<dyn Error>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", text(error.as_ref()));
            ExitCode::FAILURE
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
