//! `--task`, `--data` and which of its rows are used.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;
use zo_llm::LmTokenizer;
use zo_llm::dataset::{Dataset, Demonstration, Encoding, Split};
use zo_llm::task::rows::read_examples;
use zo_llm::task::split::{SplitSizes, sample_per_class};
use zo_llm::task::{Kind, Task};

use crate::bundled::{self, LAYOUT};

/// The task and its rows.
#[derive(Args, Debug, Clone)]
pub struct DataArgs {
    /// Task: sst2, rte, cb, boolq, wsc, wic, multirc, copa, record, squad or drop
    #[arg(long, default_value = "boolq")]
    pub task: String,
    /// Folder of the data set: train.* and dev.* (or validation.*), as jsonl, tsv, csv, json or parquet [default: bundled synthetic rows in the layout of boolq]
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// Train on the first N rows only
    #[arg(long)]
    pub train_rows: Option<usize>,
    /// Evaluate on the first N rows only
    #[arg(long)]
    pub eval_rows: Option<usize>,
    /// Train on N rows of each class, drawn by the seed
    #[arg(long, conflicts_with_all = ["train_rows", "mezo_split"])]
    pub per_class: Option<usize>,
    /// Draw MeZO's rows by the seed: 1000 to train on and 500 to choose by, both of the training file, and 1000 of the dev file to report on
    #[arg(long, conflicts_with_all = ["train_rows", "eval_rows"])]
    pub mezo_split: bool,
    /// Cut prompts that do not fit into the context at the front (a method that puts examples before them always cuts)
    #[arg(long)]
    pub cut: bool,
}

/// Tokenised rows.
#[derive(Debug)]
pub struct Rows {
    /// To train on.
    pub train: Dataset,
    /// Held out.
    pub dev: Dataset,
    /// Evaluated once, at the very end.
    pub test: Option<Dataset>,
    /// What they are, for the report.
    pub about: About,
}

/// Which rows a run used.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// What they are called: the task's name, but never for the bundled rows, which are not a published data set.
    pub name: String,
    /// The folder, in full; `None` for the bundled rows.
    pub folder: Option<PathBuf>,
    /// Which of its rows: `--train-rows`, `--eval-rows`, `--per-class`, `--mezo-split`, `--cut`.
    pub train_rows: Option<usize>,
    /// As above.
    pub eval_rows: Option<usize>,
    /// As above.
    pub per_class: Option<usize>,
    /// As above.
    pub mezo_split: bool,
    /// As above.
    pub cut: bool,
    /// The number and a digest of the tokenised rows to train on.
    pub train: Fingerprint,
    /// Of the held-out rows.
    pub dev: Fingerprint,
    /// Of those evaluated once.
    pub test: Option<Fingerprint>,
}

/// The number of rows, and a digest that tells them apart from others.
#[derive(Debug, Clone, Serialize)]
pub struct Fingerprint {
    /// Rows.
    pub rows: usize,
    /// See [`Dataset::fingerprint`].
    pub digest: String,
}

impl Fingerprint {
    fn new(dataset: &Dataset) -> Self {
        Self {
            rows: dataset.len(),
            digest: dataset.fingerprint(),
        }
    }
}

impl DataArgs {
    /// Finds whatever makes no sense before anything is loaded.
    ///
    /// # Errors
    /// If no rows are requested, or the bundled ones for a task whose layout they do not have.
    pub fn check(&self, task: &dyn Task) -> Result<(), String> {
        for (flag, rows) in [
            ("train-rows", self.train_rows),
            ("eval-rows", self.eval_rows),
            ("per-class", self.per_class),
        ] {
            if rows == Some(0) {
                return Err(format!("--{flag} is 0: it must be at least 1"));
            }
        }
        if self.data.is_none() && task.name() != LAYOUT {
            return Err(format!(
                "--task {} needs --data, the folder of its rows: the bundled synthetic rows have only the layout of {LAYOUT}",
                task.name()
            ));
        }
        Ok(())
    }

    /// Reads and tokenises the rows; `demonstrations` solved training rows, drawn by the seed, stand before each held-out one.
    ///
    /// # Errors
    /// If the files cannot be read, a row is malformed or too long, or there are too few rows.
    pub fn rows(
        &self,
        task: &dyn Task,
        tokenizer: &LmTokenizer,
        context: usize,
        demonstrations: usize,
        seed: u64,
    ) -> Result<Rows, Box<dyn Error>> {
        let unpacked;
        let dir = match &self.data {
            Some(dir) => dir,
            None => {
                unpacked = bundled::rows()?;
                unpacked.path()
            }
        };
        let mut train = read_examples(task, dir, Split::Train, self.train_rows)?;
        let mut dev = read_examples(task, dir, Split::Dev, self.eval_rows)?;
        let mut test = None;
        if self.mezo_split {
            let sizes = SplitSizes::of_task(task.name());
            let subsets = sizes.draw(train.len(), dev.len(), seed)?;
            test = Some(pick(&dev, &subsets.test));
            dev = pick(&train, &subsets.dev);
            train = pick(&train, &subsets.train);
        }
        if let Some(k) = self.per_class {
            if task.kind() != Kind::Classification {
                return Err(format!(
                    "--per-class is for classification: {} has no classes",
                    task.name()
                )
                .into());
            }
            let labels: Vec<usize> = train.iter().map(|(e, _)| e.label().unwrap_or(0)).collect();
            let rows = sample_per_class(&labels, k, seed)?;
            train = pick(&train, &rows);
        }
        let plain = Encoding {
            cut: self.cut,
            ..Encoding::default()
        };
        let shown: Vec<Demonstration> = {
            let mut rows: Vec<usize> = (0..train.len()).collect();
            rows.shuffle(&mut Xoshiro256PlusPlus::seed_from_u64(seed));
            rows.truncate(demonstrations);
            rows.iter()
                .map(|row| Demonstration::new(task, &train[*row].0))
                .collect()
        };
        let shown = match demonstrations {
            0 => plain,
            _ => Encoding {
                demonstrations: &shown,
                cut: true,
            },
        };
        let encode = |rows: &[_], encoding: &Encoding<'_>| {
            Dataset::encode(task, rows, tokenizer, context, encoding)
        };
        let (train, dev) = (encode(&train, &plain)?, encode(&dev, &shown)?);
        let test = test.map(|test| encode(&test, &shown)).transpose()?;
        let folder = self.data.as_ref();
        let about = About {
            name: rows_name(self.data.as_deref(), task),
            folder: folder.map(|dir| dir.canonicalize().unwrap_or_else(|_| dir.clone())),
            train_rows: self.train_rows,
            eval_rows: self.eval_rows,
            per_class: self.per_class,
            mezo_split: self.mezo_split,
            cut: self.cut,
            train: Fingerprint::new(&train),
            dev: Fingerprint::new(&dev),
            test: test.as_ref().map(Fingerprint::new),
        };
        Ok(Rows {
            train,
            dev,
            test,
            about,
        })
    }
}

/// What the rows in the folder `data` are called, or the bundled ones. These share nothing with a data set but its layout, so they never go by
/// its name alone.
pub fn rows_name(data: Option<&Path>, task: &dyn Task) -> String {
    match data {
        Some(dir) if !bundled::are_rows(dir) => task.name().to_owned(),
        _ => format!("bundled synthetic rows ({}'s layout)", task.name()),
    }
}

fn pick<T: Clone>(items: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|place| items[*place].clone()).collect()
}
