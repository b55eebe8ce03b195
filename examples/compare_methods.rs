//! Every method at an equal number of forwards, each at the best learning rate of a small grid: `zo compare`, without installing it.
//!
//! ```text
//! cargo run --release --example compare_methods
//! cargo run --release --example compare_methods -- --model DIR --data DIR --task sst2 --methods mezo,lezo,gv --lr 5e-6
//! ```

use std::process::ExitCode;

use clap::Parser;
use zo_cli::compare::{CompareArgs, run};
use zo_cli::exit::exit;

fn main() -> ExitCode {
    exit(run(CompareArgs::parse()))
}
