//! Downloads from the Hugging Face hub.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::{Path, PathBuf};

use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, HFResult, RepoTypeModel};

use super::error::HubError;
use super::name::{folder, name};
use crate::files::folder::{COMPANIONS, WEIGHTS, has_tokenizer, index_of, weight_map};

/// A hub to download from. Settings that are not given come from the environment, as in other programs: the server from `HF_ENDPOINT`, the
/// cache from `HF_HUB_CACHE` or `HF_HOME`, a token from `HF_TOKEN` or the login in the cache.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    endpoint: Option<String>,
    cache: Option<PathBuf>,
    retries: Option<usize>,
}

impl Hub {
    /// Asks the server at this URL.
    pub fn with_endpoint(mut self, url: impl Into<String>) -> Self {
        self.endpoint = Some(url.into());
        self
    }

    /// Keeps downloads in this folder, laid out as the hub's cache.
    pub fn with_cache(mut self, dir: impl Into<PathBuf>) -> Self {
        self.cache = Some(dir.into());
        self
    }

    /// How often a request is repeated when the server cannot be reached or is overloaded, after growing pauses (default 5).
    pub fn with_retries(mut self, retries: usize) -> Self {
        self.retries = Some(retries);
        self
    }

    /// As [`resolve`](super::resolve), with these settings. A model that is complete in the cache is used without asking
    /// the server; otherwise the configuration, the tokenizer, `generation_config.json` and one format of the weights are downloaded.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn resolve(&self, model: &str) -> Result<PathBuf, HubError> {
        if let Some(dir) = folder(model) {
            return Ok(dir);
        }
        let Some([owner, name, revision]) = name(model) else {
            return Err(HubError::NotAFolder {
                model: model.to_owned(),
            });
        };
        let endpoint = self.endpoint.as_deref().unwrap_or("the hub");
        let client = self
            .client()
            .map_err(|error| explain(model, endpoint, &error))?;
        let endpoint = client.endpoint().to_owned();
        let client =
            HFClientSync::from_inner(client).map_err(|error| explain(model, &endpoint, &error))?;
        let lookup = Lookup {
            model,
            endpoint,
            repo: client.model(owner, name),
            revision,
        };
        lookup.cached().map_or_else(|| lookup.download(), Ok)
    }

    fn client(&self) -> HFResult<HFClient> {
        let mut builder = HFClient::builder();
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(cache) = &self.cache {
            builder = builder.cache_dir(cache);
        }
        if let Some(retries) = self.retries {
            builder = builder.retry_max_attempts(retries);
        }
        builder.build()
    }
}

/// One model on the hub.
struct Lookup<'a> {
    model: &'a str,
    endpoint: String,
    repo: HFRepositorySync<RepoTypeModel>,
    revision: &'a str,
}

impl Lookup<'_> {
    /// The model's folder in the cache, if nothing is missing there.
    fn cached(&self) -> Option<PathBuf> {
        let lookup = self.repo.snapshot_download().revision(self.revision);
        let dir = lookup.local_files_only(true).send().ok()?;
        is_complete(&dir).then_some(dir)
    }

    fn download(&self) -> Result<PathBuf, HubError> {
        let list = self.repo.list_tree().revision(self.revision).send();
        let list = list.map_err(|error| self.explain(&error))?;
        let there: BTreeSet<String> = list
            .into_iter()
            .filter_map(|entry| match entry {
                RepoTreeEntry::File { path, .. } => Some(path),
                RepoTreeEntry::Directory { .. } => None,
            })
            .collect();
        if !there.contains("config.json") {
            return Err(self.lacks("config.json"));
        }
        let mut wanted = self.weights(&there)?;
        let others = ["config.json"].into_iter().chain(COMPANIONS);
        wanted.extend(
            others
                .filter(|name| there.contains(*name))
                .map(str::to_owned),
        );
        let download = self.repo.snapshot_download().revision(self.revision);
        let dir = download.allow_patterns(wanted).send();
        dir.map_err(|error| self.explain(&error))
    }

    /// Names of the files with the weights.
    fn weights(&self, there: &BTreeSet<String>) -> Result<Vec<String>, HubError> {
        for single in WEIGHTS {
            if there.contains(single) {
                return Ok(vec![single.to_owned()]);
            }
            let index = index_of(single);
            if there.contains(&index) {
                let download = self.repo.download_file().filename(index.as_str());
                let path = download.revision(self.revision).send();
                let path = path.map_err(|error| self.explain(&error))?;
                let shards = weight_map(&path).map_err(HubError::Index)?;
                let shards: BTreeSet<String> = shards.into_values().collect();
                return Ok(std::iter::once(index).chain(shards).collect());
            }
        }
        Err(self.lacks("readable weights (model.safetensors or pytorch_model.bin, or shards)"))
    }

    fn explain(&self, error: &HFError) -> HubError {
        explain(self.model, &self.endpoint, error)
    }

    fn lacks(&self, what: &str) -> HubError {
        HubError::NotAModel {
            model: self.model.to_owned(),
            endpoint: self.endpoint.clone(),
            lacks: what.to_owned(),
        }
    }
}

/// Whether the folder holds everything that [`load()`](crate::load()) needs.
fn is_complete(dir: &Path) -> bool {
    let has = |name: &str| dir.join(name).exists();
    let has_weights = WEIGHTS.iter().any(|single| {
        has(single)
            || weight_map(&dir.join(index_of(single)))
                .is_ok_and(|map| !map.is_empty() && map.values().all(|shard| has(shard)))
    });
    has_weights && has("config.json") && has_tokenizer(dir)
}

fn explain(model: &str, endpoint: &str, error: &HFError) -> HubError {
    let (model, endpoint) = (model.to_owned(), endpoint.to_owned());
    let status = match error {
        HFError::Http { context } => context.status.as_u16(),
        HFError::AuthRequired { .. } | HFError::Forbidden { .. } => 403,
        HFError::RepoNotFound { .. }
        | HFError::RevisionNotFound { .. }
        | HFError::EntryNotFound { .. } => 404,
        _ => 0,
    };
    match status {
        401 | 403 => HubError::Denied {
            model,
            endpoint,
            message: with_causes(error),
        },
        404 => HubError::NotFound { model, endpoint },
        _ => HubError::Download {
            model,
            endpoint,
            message: with_causes(error),
        },
    }
}

/// An error with those of its causes that its message does not already include.
fn with_causes(error: &HFError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
