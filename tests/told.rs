//! What the README, the docs and the lock file say is so.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use zo_cli::methods::choices;

/// The README lists every choice and nothing else; the pages of the methods name them all.
#[test]
fn the_readme_lists_the_methods_there_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let rows = readme.lines().filter(|line| line.starts_with("| ["));
    let rows = rows.chain(readme.lines().filter(|line| line.contains("| `zo-")));
    let mut listed: Vec<&str> = Vec::new();
    for row in rows.filter(|row| row.contains("| `zo-")) {
        let cell = row.split('|').nth(3).unwrap();
        listed.extend(
            cell.split('`')
                .skip(1)
                .step_by(2)
                .filter_map(|text| text.split(' ').next()),
        );
    }
    let choices = choices();
    for choice in &choices {
        let told = readme.contains(&format!("`{}`", choice.name));
        assert!(told, "README does not name {}", choice.name);
        let in_table = listed.contains(&choice.name);
        assert!(
            in_table || !choice.is_preset(),
            "no row for {}",
            choice.name
        );
    }
    for name in listed {
        assert!(
            choices.iter().any(|choice| choice.name == name),
            "`{name}` is not a method"
        );
    }
    let pages = std::fs::read_dir(root.join("docs/src/methods")).unwrap();
    let pages: String = pages
        .map(|page| std::fs::read_to_string(page.unwrap().path()).unwrap())
        .collect();
    for choice in choices.iter().filter(|choice| choice.is_preset()) {
        let told = pages.contains(&format!("--method {}", choice.name))
            || pages.contains(&format!("`{}`", choice.name));
        assert!(told, "no page names {}", choice.name);
    }
}

#[test]
fn the_version_of_burn_is_that_of_the_lock_file() {
    let lock = include_str!("../Cargo.lock");
    let burn = zo_cli::train::BURN;
    assert!(lock.contains(&format!("name = \"burn\"\nversion = \"{burn}\"\n")));
}

/// Whatever Rust the docs show compiles: `build.rs` makes doctests of it.
#[test]
fn no_block_of_the_docs_is_ignored() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    for dir in ["docs/src", "docs/src/methods"] {
        let entries = std::fs::read_dir(root.join(dir)).unwrap();
        pages.extend(entries.map(|entry| entry.unwrap().path()));
    }
    for page in pages.iter().filter(|page| page.is_file()) {
        let text = std::fs::read_to_string(page).unwrap();
        let mut fences = text.lines().filter(|line| line.starts_with("```"));
        let ignored = fences.find(|fence| fence.contains("ignore"));
        assert_eq!(ignored, None, "{}", page.display());
    }
}

#[test]
fn the_page_on_trajectories_has_the_bytes_that_are_measured() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    let page = read("docs/src/trajectory.md");
    for row in read("crates/zo-optim/tests/trajectories/bytes.md").lines() {
        assert!(page.contains(row), "the page lacks {row}");
    }
}
