//! The commands of `zo`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::compare::{self, CompareArgs};
use crate::exit::exit;
use crate::train::{self, TrainArgs};

/// Fine-tune language models with forward passes alone.
#[derive(Parser, Debug)]
#[command(name = "zo", version, propagate_version = true)]
struct Zo {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Fine-tune a model
    Train(Box<TrainArgs>),
    /// Compare methods at an equal number of forward passes
    Compare(CompareArgs),
}

/// The program.
pub fn main() -> ExitCode {
    let zo = Zo::parse();
    exit(match zo.command {
        Command::Train(args) => train::run(&args),
        Command::Compare(args) => compare::run(args),
    })
}
