//! Takes the Rust out of the README and the docs, for `examples/common/lib.rs` to run as doctests: all else there is for readers, and rustdoc would
//! take some of it (indented commands) for Rust.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut pages = vec![PathBuf::from("README.md")];
    find(Path::new("docs/src"), &mut pages)?;
    pages.sort();
    println!("cargo::rerun-if-changed=README.md");
    println!("cargo::rerun-if-changed=docs/src");
    let mut modules = String::new();
    for page in pages {
        let name = page.with_extension("").to_string_lossy().to_lowercase();
        let name = name.replace(|letter: char| !letter.is_ascii_alphanumeric(), "_");
        fs::write(
            out.join(format!("{name}.md")),
            rust(&fs::read_to_string(page)?),
        )?;
        modules += &format!(
            "#[doc = include_str!(concat!(env!(\"OUT_DIR\"), \"/{name}.md\"))] pub mod {name} {{}}\n"
        );
    }
    fs::write(out.join("pages.rs"), modules)?;
    Ok(())
}

/// The pages below a folder.
fn find(dir: &Path, pages: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            find(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(())
}

/// The blocks of Rust on a page, at the lines where they are.
fn rust(page: &str) -> String {
    let mut inside = false;
    let line = |line: &str| {
        let begins = !inside && line.starts_with("```rust");
        let kept = inside || begins;
        inside = begins || inside && line != "```";
        if kept {
            format!("{line}\n")
        } else {
            "\n".to_owned()
        }
    };
    page.lines().map(line).collect()
}
