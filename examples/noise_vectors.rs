//! Prints the noise contract's golden values: `cargo run --example noise_vectors > docs/noise-vectors.json`.

use std::io::{Write, stdout};

fn main() -> std::io::Result<()> {
    stdout().write_all(zo_examples::noise_vectors::text().as_bytes())
}
