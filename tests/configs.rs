//! The files of the papers' experiments, as far as that goes without the papers' models.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, Parser};
use zo_cli::config::expand;
use zo_cli::train::{TrainArgs, resolved};

#[test]
fn every_file_is_read_and_says_how_it_is_launched() {
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    let mut read = 0;
    for entry in configs.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let content = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let launched = format!("#     zo train --config configs/{name}\n");
        assert!(
            content.starts_with("# ") && content.contains(&launched),
            "{name}"
        );

        let config = path.display().to_string();
        // These tests run without a GPU.
        let argv = ["train", "--config", &config, "--device", "flex"].map(OsString::from);
        let command = TrainArgs::command();
        let argv = expand(&command, &command, argv.into(), 1).unwrap();
        let text = resolved(&TrainArgs::try_parse_from(argv).unwrap()).unwrap();
        // What the file says is what would run.
        let said = |line: &str| content.contains(line) && text.contains(line);
        for line in [
            "batch = 16",
            "task = \"sst2\"",
            "mezo_split = true",
            "keep_best = true",
        ] {
            assert!(said(line), "{name}: {line}\n{text}");
        }
        let method = content
            .split("[method]\n")
            .nth(1)
            .unwrap()
            .lines()
            .next()
            .unwrap();
        assert!(said(method), "{name}: {method}\n{text}");
        read += 1;
    }
    assert!(read >= 12, "{read}");
}
