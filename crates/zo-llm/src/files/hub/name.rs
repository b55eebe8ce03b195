//! Tells folders from names on the hub.

use std::path::{Path, PathBuf};

/// `model`, if it is a folder.
pub(super) fn folder(model: &str) -> Option<PathBuf> {
    let path = Path::new(model);
    path.is_dir().then(|| path.to_owned())
}

/// Owner, name and revision, if `model` has the form of a name on the hub.
pub(super) fn name(model: &str) -> Option<[&str; 3]> {
    let (id, revision) = model.split_once('@').unwrap_or((model, "main"));
    let (owner, name) = id.split_once('/')?;
    let is_word = |word: &str| {
        !word.is_empty()
            && !word.starts_with(['.', '-'])
            && word
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    // Branch names may contain slashes; in the cache they become paths.
    let is_revision = revision.split('/').all(is_word);
    (is_word(owner) && is_word(name) && is_revision).then_some([owner, name, revision])
}

#[cfg(test)]
mod tests {
    use super::name;

    #[test]
    fn names_are_told_from_paths() {
        let opt = ["facebook", "opt-125m"];
        assert_eq!(name("facebook/opt-125m"), Some([opt[0], opt[1], "main"]));
        assert_eq!(
            name("facebook/opt-125m@v1.0"),
            Some([opt[0], opt[1], "v1.0"])
        );
        let pull = "refs/pr/7";
        assert_eq!(
            name(&format!("facebook/opt-125m@{pull}")),
            Some([opt[0], opt[1], pull])
        );
        let paths = [
            "",
            "opt-125m",
            "./opt-125m",
            "../models/opt-125m",
            "/models",
            "/models/opt-125m",
            "models/opt/125m",
            "models/opt-125m/",
            "~/opt-125m",
            ".cache/opt-125m",
            "models/.opt",
            r"models\opt-125m",
            "C:/opt-125m",
            "my models/opt-125m",
            "facebook/opt-125m@",
            "facebook/opt-125m@../main",
            "facebook/opt-125m@a@b",
        ];
        for path in paths {
            assert_eq!(name(path), None, "{path}");
        }
    }
}
