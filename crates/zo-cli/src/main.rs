//! Fine-tunes language models with forward passes alone: see `zo --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    zo_cli::main()
}
