//! The commands of `zo`.

use std::error::Error;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use zo_llm::task::{Kind, tasks};

use crate::compare::{self, CompareArgs};
use crate::config::expand;
use crate::eval::{self, EvalArgs};
use crate::exit::{Usage, exit};
use crate::generate::{self, GenerateArgs};
use crate::memory::keep_freed;
use crate::methods;
use crate::predict::{self, PredictArgs};
use crate::ranks::launched;
use crate::train::{self, TrainArgs};
use crate::trajectory::{self, DiffArgs, ReplayArgs, VerifyArgs};

/// Fine-tune language models with forward passes alone.
#[derive(Parser, Debug)]
#[command(name = "zo", version, propagate_version = true, max_term_width = 120)]
struct Zo {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Train(Box<TrainArgs>),
    Eval(EvalArgs),
    Predict(PredictArgs),
    Generate(GenerateArgs),
    Compare(CompareArgs),
    /// Raise the learning rate until the loss rises, and say which rate to train with; the flags are those of zo train
    LrFind(Box<TrainArgs>),
    Replay(ReplayArgs),
    Verify(VerifyArgs),
    Diff(DiffArgs),
    /// List the methods with their settings, and the parts they are made of
    Methods,
    /// List the tasks
    Tasks,
    /// Print the settings that the flags of `zo train` come to, as TOML
    Config(Box<TrainArgs>),
    Completions(CompletionsArgs),
}

/// Print completions for a shell, as in `zo completions bash > ~/.local/share/bash-completion/completions/zo`
#[derive(Args, Debug)]
struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// The program.
pub fn main() -> ExitCode {
    keep_freed();
    exit(run(std::env::args_os().collect()))
}

fn run(argv: Vec<OsString>) -> Result<(), Box<dyn Error>> {
    let name = argv.get(1).map(|name| name.to_string_lossy().into_owned());
    let known = Zo::command();
    let reads_files = ["train", "config", "lr-find", "eval", "predict"];
    let own = name.filter(|name| reads_files.contains(&name.as_str()));
    let own = own.and_then(|name| known.find_subcommand(name));
    let argv = match own {
        Some(own) => expand(own, &TrainArgs::command(), argv, 2).map_err(Usage::of)?,
        None => argv,
    };
    let command = Zo::parse_from(argv).command;
    if launched() > 1 && !matches!(command, Command::Train(_)) {
        let usage = "mpirun has started several processes, and only zo train shares its work among them: start this command without mpirun";
        return Err(Usage(usage.to_owned()).into());
    }
    match command {
        Command::Train(args) => train::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Generate(args) => generate::run(&args),
        Command::Compare(args) => compare::run(args),
        Command::LrFind(args) => train::find_rate(&args),
        Command::Replay(args) => trajectory::replay(&args),
        Command::Verify(args) => trajectory::verify(&args),
        Command::Diff(args) => trajectory::diff(&args),
        Command::Methods => told(&methods::help()),
        Command::Tasks => told(&task_list()),
        Command::Config(args) => told(&train::resolved(&args)?),
        Command::Completions(CompletionsArgs { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Zo::command(), "zo", &mut text);
            told(&String::from_utf8_lossy(&text))
        }
    }
}

/// Prints a text. A reader that closes the pipe early, as `head` does, is not an error.
fn told(text: &str) -> Result<(), Box<dyn Error>> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn task_list() -> String {
    let mut text = String::from(
        "Tasks, with what may follow a prompt and the field that says what is right:\n\n",
    );
    for task in tasks() {
        let follows = match task.kind() {
            Kind::Classification => {
                let words = task.label_words().into_iter().map(str::trim);
                words.collect::<Vec<_>>().join(", ")
            }
            Kind::MultipleChoice => "the options of the row".to_owned(),
            Kind::Generation => "a text".to_owned(),
        };
        let answers = match task.answer_fields()[..] {
            [] => "needs its answers".to_owned(),
            ref names => names.join(" or "),
        };
        text += &format!("  --task {:8} {follows:24} {answers}\n", task.name());
    }
    text += "\nYour own: --template \"{field} ..\" with --words, --options or --answer: see zo train --help.\n";
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_well_formed() {
        Zo::command().debug_assert();
        TrainArgs::command().debug_assert();
    }
}
