//! Pretrains the bundled tiny OPT.
fn main() {}
