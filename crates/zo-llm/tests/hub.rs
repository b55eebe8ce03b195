//! Folders are taken as they are, names on the hub come from its cache or from a server, and errors say how to proceed without.
//! The only server is in this file, on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use common::golden;
use zo_llm::hub::{HubError, resolve};

#[track_caller]
fn says(error: &HubError, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

#[test]
fn a_folder_is_taken_as_it_is() {
    let dir = golden("opt-pre-norm");
    assert_eq!(resolve(dir.to_str().unwrap()).unwrap(), dir);
}

#[test]
fn a_mistyped_path_is_not_looked_up() {
    let file = golden("opt-pre-norm").join("config.json");
    let paths = [
        "no-such-folder",
        "./no-such-folder",
        "../no/such/folder",
        "/no-such-folder",
        ".no/such",
        file.to_str().unwrap(),
    ];
    for path in paths {
        let error = resolve(path).unwrap_err();
        assert!(matches!(error, HubError::NotAFolder { .. }), "{error}");
        says(&error, &[path, "OWNER/NAME@REVISION"]);
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn a_name_needs_the_feature() {
    let error = resolve("facebook/opt-125m").unwrap_err();
    let parts = [
        "facebook/opt-125m",
        "--features hub",
        "config.json",
        "tokenizer.json",
        "pytorch_model.bin",
        "--model DIR",
    ];
    says(&error, &parts);
}

#[cfg(feature = "hub")]
mod hub {
    use std::collections::BTreeMap;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use burn::tensor::Device;
    use zo_llm::hub::{Hub, HubError};
    use zo_llm::{Dtype, load_model};

    use super::common::{Golden, golden};
    use super::says;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
    /// Nothing listens there.
    const NOWHERE: &str = "http://127.0.0.1:9";

    fn hub(endpoint: &str, cache: &Path) -> Hub {
        let hub = Hub::default().with_endpoint(endpoint).with_retries(0);
        hub.with_cache(cache)
    }

    /// Files of a repository that has its weights twice: as shards and as `pytorch_model.bin`.
    fn files() -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(golden("llama-gqa-shards")).unwrap();
        let mut files: BTreeMap<String, Vec<u8>> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read(entry.path()).unwrap())
            })
            .collect();
        let others = [
            "README.md",
            "pytorch_model.bin",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        files.extend(others.map(|name| (name.to_owned(), b"{}".to_vec())));
        files
    }

    fn names(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        names
    }

    /// A hub with one model, `org/tiny`, which answers everything with `status` if that is given.
    struct Server {
        endpoint: String,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Server {
        fn start(files: BTreeMap<String, Vec<u8>>, status: Option<&'static str>) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let requests = Arc::new(Mutex::new(Vec::new()));
            let (log, files) = (Arc::clone(&requests), Arc::new(files));
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    let (log, files) = (Arc::clone(&log), Arc::clone(&files));
                    std::thread::spawn(move || answer(stream.unwrap(), &files, status, &log));
                }
            });
            Self { endpoint, requests }
        }
    }

    fn answer(
        mut stream: TcpStream,
        files: &BTreeMap<String, Vec<u8>>,
        status: Option<&str>,
        log: &Mutex<Vec<String>>,
    ) {
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        let Some(Ok(request)) = lines.next() else {
            return;
        };
        // The headers end with an empty line.
        while !lines.next().unwrap().unwrap().is_empty() {}
        let mut words = request.split([' ', '?']);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        log.lock().unwrap().push(path.to_owned());

        let file = path
            .strip_prefix("/org/tiny/resolve/")
            .and_then(|rest| rest.split_once('/'));
        let (status, body) = match (status, file.map(|(_, name)| files.get(name))) {
            (Some(status), _) => (status, Vec::new()),
            (None, Some(Some(body))) => ("200 OK", body.clone()),
            (None, None) if path.starts_with("/api/models/org/tiny/tree/") => {
                let entry = |(name, body): (&String, &Vec<u8>)| {
                    let size = body.len();
                    format!(r#"{{"type":"file","oid":"0","size":{size},"path":"{name}"}}"#)
                };
                let list: Vec<_> = files.iter().map(entry).collect();
                ("200 OK", format!("[{}]", list.join(",")).into_bytes())
            }
            (None, None) if path.starts_with("/api/models/org/tiny/revision/") => {
                ("200 OK", format!(r#"{{"sha":"{COMMIT}"}}"#).into_bytes())
            }
            _ => ("404 Not Found", Vec::new()),
        };
        let name = file.map_or("none", |(_, name)| name);
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\nETag: \"{name}\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             Connection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        if method != "HEAD" {
            stream.write_all(&body).unwrap();
        }
    }

    #[test]
    fn a_model_is_downloaded_once_without_what_is_not_needed() {
        let server = Server::start(files(), None);
        let cache = tempfile::tempdir().unwrap();
        let dir = hub(&server.endpoint, cache.path())
            .resolve("org/tiny")
            .unwrap();
        let expected = [
            "config.json",
            "model-00001-of-00004.safetensors",
            "model-00002-of-00004.safetensors",
            "model-00003-of-00004.safetensors",
            "model-00004-of-00004.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ];
        assert_eq!(names(&dir), expected);
        assert!(dir.starts_with(cache.path()) && dir.ends_with(COMMIT));
        let device = Device::default();
        let (_, model) = load_model(&dir, Dtype::F32, &device).unwrap();
        assert!(Golden::read("llama-gqa-shards").difference(&model, &device) < 1e-4);

        // From here on the cache is enough, with and without a server.
        let before = server.requests.lock().unwrap().len();
        let commit = format!("org/tiny@{COMMIT}");
        for endpoint in [server.endpoint.as_str(), NOWHERE] {
            let hub = hub(endpoint, cache.path());
            for name in ["org/tiny", "org/tiny@main", commit.as_str()] {
                assert_eq!(hub.resolve(name).unwrap(), dir);
            }
        }
        assert_eq!(server.requests.lock().unwrap().len(), before);

        // A file that went missing is fetched again.
        std::fs::remove_file(dir.join("model-00002-of-00004.safetensors")).unwrap();
        says(
            &hub(NOWHERE, cache.path()).resolve("org/tiny").unwrap_err(),
            &["org/tiny", NOWHERE],
        );
        assert_eq!(
            hub(&server.endpoint, cache.path())
                .resolve("org/tiny")
                .unwrap(),
            dir
        );
        assert_eq!(names(&dir), expected);
    }

    #[test]
    fn a_folder_of_the_cache_is_enough() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--org--tiny");
        let snapshot = repository.join("snapshots").join(COMMIT);
        std::fs::create_dir_all(&snapshot).unwrap();
        std::fs::create_dir(repository.join("refs")).unwrap();
        std::fs::write(repository.join("refs/main"), COMMIT).unwrap();
        let hub = hub(NOWHERE, cache.path());
        for name in ["config.json", "vocab.json", "merges.txt"] {
            std::fs::write(snapshot.join(name), "{}").unwrap();
            assert!(hub.resolve("org/tiny").is_err(), "{name}");
        }
        std::fs::write(snapshot.join("pytorch_model.bin"), "").unwrap();
        assert_eq!(hub.resolve("org/tiny").unwrap(), snapshot);
    }

    #[test]
    fn without_a_connection_the_error_says_what_to_put_where() {
        let cache = tempfile::tempdir().unwrap();
        let error = hub(NOWHERE, cache.path())
            .resolve("facebook/opt-125m")
            .unwrap_err();
        assert!(matches!(error, HubError::Download { .. }), "{error}");
        let parts = [
            "facebook/opt-125m",
            NOWHERE,
            "config.json",
            "tokenizer.json",
            "vocab.json",
            "merges.txt",
            "model.safetensors",
            "pytorch_model.bin",
            ".index.json",
            "--model DIR",
        ];
        says(&error, &parts);
    }

    #[test]
    fn refusals_name_the_token() {
        let cache = tempfile::tempdir().unwrap();
        for status in ["401 Unauthorized", "403 Forbidden", "404 Not Found"] {
            let server = Server::start(BTreeMap::new(), Some(status));
            let error = hub(&server.endpoint, cache.path())
                .resolve("meta-llama/gated@v2")
                .unwrap_err();
            let denied = matches!(error, HubError::Denied { .. });
            assert_eq!(denied, !status.starts_with("404"), "{error}");
            let parts = [
                "meta-llama/gated@v2",
                server.endpoint.as_str(),
                "HF_TOKEN",
                "--model DIR",
            ];
            says(&error, &parts);
        }
    }

    #[test]
    fn repositories_of_other_things_are_refused() {
        let cache = tempfile::tempdir().unwrap();
        let missing = [
            ("config.json", "no config.json"),
            ("model.safetensors.index.json", "no readable weights"),
        ];
        for (name, message) in missing {
            let mut files = files();
            files.remove("pytorch_model.bin");
            files.remove(name);
            let server = Server::start(files, None);
            let error = hub(&server.endpoint, cache.path())
                .resolve("org/tiny")
                .unwrap_err();
            assert!(matches!(error, HubError::NotAModel { .. }), "{error}");
            says(&error, &["org/tiny", message]);
        }
    }
}
