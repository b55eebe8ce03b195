//! `--reward`: a command scores answers.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use thiserror::Error;
use zo_llm::dataset::Split;
use zo_llm::finetune::{Reward, RewardError, RowAnswer};
use zo_llm::task::rows::RowExample;

/// Longest output shown in an error, in characters.
const SHOWN: usize = 400;

/// Why a command gave no reward.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It cannot be run.
    #[error("--reward {command}: {source}")]
    Run {
        /// The command.
        command: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// It failed.
    #[error("--reward {command} ended with {status}{}", printed(.output))]
    Failed {
        /// The command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it printed.
        output: String,
    },
    /// It printed something else than a reward.
    #[error(
        "--reward {command}: {reason}; it must print the mean reward as a number, or one number for each of the {answers} answers, a line each{}",
        printed(.output)
    )]
    Output {
        /// The command.
        command: String,
        /// What is wrong.
        reason: String,
        /// The answers it was asked about.
        answers: usize,
        /// What it printed.
        output: String,
    },
}

fn printed(output: &str) -> String {
    let output = output.trim();
    if output.is_empty() {
        return "; it printed nothing".to_owned();
    }
    let cut = output.char_indices().nth(SHOWN);
    let shown = cut.map_or(output.to_owned(), |(end, _)| {
        format!("{}..", &output[..end])
    });
    format!("; it printed:\n{shown}")
}

/// A command that scores answers. It is run by the shell, once for each evaluation of the objective; its standard input are the answers, one
/// JSON object per line: `{"prompt": .., "answer": .., "row": {..}}`.
#[derive(Debug)]
pub struct CommandReward {
    command: String,
    /// The rows to train on and those held out.
    rows: [Vec<RowExample>; 2],
}

impl CommandReward {
    /// The command, for the rows to train on and those held out.
    pub fn new(command: &str, rows: [Vec<RowExample>; 2]) -> Self {
        let command = command.to_owned();
        Self { command, rows }
    }

    /// Runs the command on this input.
    fn run(&self, input: Vec<u8>) -> std::io::Result<Output> {
        let mut child = shell(&self.command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let stdin = child.stdin.take();
        // From a thread of its own: a program that writes before it has read everything must not wait for us, nor we for it.
        let writer = std::thread::spawn(move || match stdin {
            Some(mut stdin) => stdin.write_all(&input),
            None => Ok(()),
        });
        let output = child.wait_with_output()?;
        match writer.join() {
            // A program need not read everything.
            Ok(Err(error)) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(output),
        }
    }
}

impl Reward for CommandReward {
    fn reward(&self, split: Split, answers: &[RowAnswer]) -> Result<f64, RewardError> {
        let command = || self.command.clone();
        let rows = match split {
            Split::Train => &self.rows[0],
            Split::Dev => &self.rows[1],
        };
        let mut input = Vec::new();
        for RowAnswer { row, answer } in answers {
            let read = rows.get(*row);
            let prompt = read.map_or("", |read| read.example.prompt.as_str());
            let fields = read.map_or(Value::Null, |read| Value::Object((*read.fields).clone()));
            let line = json!({ "prompt": prompt, "answer": answer, "row": fields });
            input.extend_from_slice(line.to_string().as_bytes());
            input.push(b'\n');
        }
        let output = self.run(input).map_err(|source| CommandError::Run {
            command: command(),
            source,
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(Box::new(CommandError::Failed {
                command: command(),
                status: output.status,
                output: format!("{text}{errors}"),
            }));
        }
        mean(&text, answers.len()).map_err(|reason| -> RewardError {
            Box::new(CommandError::Output {
                command: command(),
                reason,
                answers: answers.len(),
                output: text,
            })
        })
    }
}

/// The mean of the numbers that were printed: one, or one for each answer.
fn mean(text: &str, answers: usize) -> Result<f64, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let number = |line: &str| match line.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(number) => Err(format!("{number} is not finite")),
        Err(_) => Err(format!("`{line}` is not a number")),
    };
    let numbers = lines.map(number).collect::<Result<Vec<f64>, String>>()?;
    match numbers.len() {
        1 => Ok(numbers[0]),
        count if count == answers && count > 0 => Ok(numbers.iter().sum::<f64>() / count as f64),
        count => Err(format!("there are {count} numbers")),
    }
}

/// The command, run by the system's shell.
fn shell(command: &str) -> Command {
    #[cfg(windows)]
    {
        let mut shell = Command::new("cmd");
        shell.args(["/C", command]);
        shell
    }
    #[cfg(not(windows))]
    {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        // Ctrl-C is for this program: the step under way, and so the command, is to finish.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        shell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_or_one_for_each_answer() {
        assert_eq!(mean("0.5\n", 3), Ok(0.5));
        assert_eq!(mean("1\n\n 0 \n0.5\n", 3), Ok(0.5));
        assert!(mean("1\n0\n", 3).unwrap_err().contains("2 numbers"));
        assert!(mean("", 3).unwrap_err().contains("0 numbers"));
        assert!(mean("NaN", 1).unwrap_err().contains("not finite"));
        assert!(mean("good", 1).unwrap_err().contains("`good`"));
    }

    #[cfg(unix)]
    #[test]
    fn commands_see_the_answers_and_their_failures_are_shown() {
        let answers: Vec<RowAnswer> = (0..3)
            .map(|row| RowAnswer {
                row,
                answer: "Yes".to_owned(),
            })
            .collect();
        let reward = |command: &str| {
            let reward = CommandReward::new(command, [Vec::new(), Vec::new()]);
            reward
                .reward(Split::Train, &answers)
                .map_err(|e| e.to_string())
        };
        assert_eq!(reward("grep -c '\"answer\":\"Yes\"'"), Ok(3.0));
        // One that reads nothing.
        assert_eq!(reward("echo 2"), Ok(2.0));
        let error = reward("cat; echo no such thing >&2; exit 3").unwrap_err();
        assert!(
            error.contains("exit status: 3") && error.contains("no such thing"),
            "{error}"
        );
        assert!(error.contains("\"prompt\""), "{error}");
        let error = reward("echo nan").unwrap_err();
        assert!(
            error.contains("not finite") && error.contains("it printed:\nnan"),
            "{error}"
        );
        assert!(reward("true").unwrap_err().contains("it printed nothing"));
    }
}
