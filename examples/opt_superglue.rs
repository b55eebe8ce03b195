//! Fine-tunes an OPT or Llama model on a SuperGLUE-style task by forward passes alone: `zo train`, without installing it.
//!
//! ```text
//! cargo run --release --example opt_superglue
//! cargo run --release --example opt_superglue -- --model DIR --data DIR --task sst2
//! cargo run --release --features hub --example opt_superglue -- --model facebook/opt-125m --data DIR --task rte --tuning lora
//! ```

use std::process::ExitCode;

fn main() -> ExitCode {
    zo_cli::train::main()
}
