//! The task and its rows: `--task` or `--template`, `--data`, and which of its rows are used.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;
use zo_llm::LmTokenizer;
use zo_llm::dataset::{Dataset, Demonstration, Encoding, Split};
use zo_llm::task::rows::{RowExample, read_file, read_split};
use zo_llm::task::split::{SplitSizes, k_shot, sample_per_class};
use zo_llm::task::{Kind, Task};

use crate::bundled::{self, LAYOUT};
use crate::exit::Usage;
use crate::task::TaskArgs;

/// The task and its rows.
#[derive(Args, Debug, Clone)]
pub struct DataArgs {
    /// The task.
    #[command(flatten)]
    pub task: TaskArgs,
    /// Folder of the data set: train.* and dev.* (or validation.*), as jsonl, tsv, csv, json or parquet [default: bundled synthetic rows in the layout of boolq]
    #[arg(long, help_heading = "Data")]
    pub data: Option<PathBuf>,
    /// File of the rows to train on, in place of the folder's
    #[arg(long, help_heading = "Data")]
    pub train_file: Option<PathBuf>,
    /// File of the held-out rows, in place of the folder's
    #[arg(long, help_heading = "Data")]
    pub eval_file: Option<PathBuf>,
    /// File of rows to report on once, at the very end; k-shot folders of LM-BFF have one, test.tsv or test.csv
    #[arg(long, help_heading = "Data", conflicts_with_all = ["mezo_split", "k_shot"])]
    pub test_file: Option<PathBuf>,
    /// Train on the first N rows only
    #[arg(long, help_heading = "Data", value_name = "N")]
    pub train_rows: Option<usize>,
    /// Evaluate on the first N rows only
    #[arg(long, help_heading = "Data", value_name = "N")]
    pub eval_rows: Option<usize>,
    /// Train on N rows of each class, drawn by the seed
    #[arg(long, help_heading = "Data", value_name = "N", conflicts_with_all = ["train_rows", "mezo_split"])]
    pub per_class: Option<usize>,
    /// Draw LM-BFF's rows by the seed: of each class N to train on and N others to choose by, both of the training file, and up to 1000 of the dev file to report on
    #[arg(long, help_heading = "Data", value_name = "N", conflicts_with_all = ["train_rows", "eval_rows", "per_class", "mezo_split"])]
    pub k_shot: Option<usize>,
    /// Draw MeZO's rows by the seed: 1000 to train on and 500 to choose by, both of the training file, and 1000 of the dev file to report on
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set,
        conflicts_with_all = ["train_rows", "eval_rows"])]
    pub mezo_split: bool,
    /// Cut prompts that do not fit into the context at the front (a method that puts examples before them always cuts)
    #[arg(long, help_heading = "Data", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        hide_default_value = true, hide_possible_values = true, value_name = "BOOL", action = clap::ArgAction::Set)]
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
    /// The rows to train on and the held-out ones, as they were read.
    pub read: [Vec<RowExample>; 2],
}

/// Which rows a run used.
#[derive(Debug, Clone, Serialize)]
pub struct About {
    /// What they are called: the task's name, but never for the bundled rows, which are not a published data set.
    pub name: String,
    /// The folder, in full; `None` for the bundled rows.
    pub folder: Option<PathBuf>,
    /// The file of the rows to train on, in full, if it was given.
    pub train_file: Option<PathBuf>,
    /// The file of the held-out rows, in full, if it was given.
    pub eval_file: Option<PathBuf>,
    /// The file of the rows to report on, in full, if it was given.
    pub test_file: Option<PathBuf>,
    /// The template of the prompts, if it was given.
    pub template: Option<String>,
    /// Which of its rows: `--train-rows`, `--eval-rows`, `--per-class`, `--k-shot`, `--mezo-split`, `--cut`.
    pub train_rows: Option<usize>,
    /// As above.
    pub eval_rows: Option<usize>,
    /// As above.
    pub per_class: Option<usize>,
    /// As above.
    pub k_shot: Option<usize>,
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
    pub fn check(&self, task: &dyn Task) -> Result<(), Usage> {
        for (flag, rows) in [
            ("train-rows", self.train_rows),
            ("eval-rows", self.eval_rows),
            ("per-class", self.per_class),
            ("k-shot", self.k_shot),
        ] {
            if rows == Some(0) {
                return Err(Usage(format!("--{flag} is 0: it must be at least 1")));
            }
        }
        let drawn = [("per-class", self.per_class), ("k-shot", self.k_shot)];
        let drawn = drawn.into_iter().find(|(_, rows)| rows.is_some());
        if let (Some((flag, _)), true) = (drawn, task.kind() != Kind::Classification) {
            return Err(Usage(format!(
                "--{flag} is for classification: {} has no classes",
                task.name()
            )));
        }
        match (&self.data, &self.train_file, &self.eval_file) {
            (None, Some(_), None) => Err(Usage(
                "--train-file needs the held-out rows too: give --eval-file, or the folder of both as --data".to_owned(),
            )),
            (None, None, Some(_)) => Err(Usage(
                "--eval-file needs the rows to train on too: give --train-file, or the folder of both as --data".to_owned(),
            )),
            (None, None, None) => self.task.check_bundled(task),
            _ => Ok(()),
        }
    }

    /// The rows of a split, as they are in its file.
    ///
    /// # Errors
    /// If the file cannot be read, or a row is malformed.
    pub fn read(
        &self,
        task: &dyn Task,
        split: Split,
        limit: Option<usize>,
    ) -> Result<Vec<RowExample>, Box<dyn Error>> {
        let file = match split {
            Split::Train => &self.train_file,
            Split::Dev => &self.eval_file,
        };
        Ok(match (file, &self.data) {
            (Some(file), _) => read_file(task, file, limit, true)?,
            (None, Some(dir)) => read_split(task, dir, split, limit)?,
            (None, None) => read_split(task, bundled::rows()?.path(), split, limit)?,
        })
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
        let mut train = self.read(task, Split::Train, self.train_rows)?;
        let mut dev = self.read(task, Split::Dev, self.eval_rows)?;
        let mut test = None;
        if self.mezo_split {
            let sizes = SplitSizes::of_task(task.name());
            let subsets = sizes.draw(train.len(), dev.len(), seed)?;
            test = Some(pick(&dev, &subsets.test));
            dev = pick(&train, &subsets.dev);
            train = pick(&train, &subsets.train);
        }
        if let Some(path) = &self.test_file {
            test = Some(read_file(task, path, None, true)?);
        }
        if let Some(k) = self.k_shot {
            let labels = train.iter().map(|row| row.example.label().unwrap_or(0));
            let subsets = k_shot(&labels.collect::<Vec<_>>(), k, dev.len(), seed)?;
            test = Some(pick(&dev, &subsets.test));
            dev = pick(&train, &subsets.dev);
            train = pick(&train, &subsets.train);
        }
        if let Some(k) = self.per_class {
            let labels = train.iter().map(|row| row.example.label().unwrap_or(0));
            let rows = sample_per_class(&labels.collect::<Vec<_>>(), k, seed)?;
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
                .map(|row| Demonstration::new(task, &train[*row].example))
                .collect()
        };
        let shown = match demonstrations {
            0 => plain,
            _ => Encoding {
                demonstrations: &shown,
                cut: true,
            },
        };
        let encode = |rows: &[RowExample], encoding: &Encoding<'_>| {
            encode(task, rows, tokenizer, context, encoding)
        };
        let read = [train, dev];
        let (train, dev) = (encode(&read[0], &plain)?, encode(&read[1], &shown)?);
        let test = test.map(|test| encode(&test, &shown)).transpose()?;
        let full = |path: &Option<PathBuf>| path.as_deref().map(in_full);
        let about = About {
            name: self.name(task),
            folder: full(&self.data),
            train_file: full(&self.train_file),
            eval_file: full(&self.eval_file),
            test_file: full(&self.test_file),
            template: self.task.template.clone(),
            train_rows: self.train_rows,
            eval_rows: self.eval_rows,
            per_class: self.per_class,
            k_shot: self.k_shot,
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
            read,
        })
    }

    /// What the rows are called.
    pub fn name(&self, task: &dyn Task) -> String {
        match &self.train_file {
            Some(_) => task.name().to_owned(),
            None => rows_name(self.data.as_deref(), task),
        }
    }
}

/// Tokenises rows.
///
/// # Errors
/// If one is too long, or cannot be tokenised.
pub fn encode(
    task: &dyn Task,
    rows: &[RowExample],
    tokenizer: &LmTokenizer,
    context: usize,
    encoding: &Encoding<'_>,
) -> Result<Dataset, Box<dyn Error>> {
    let examples = rows
        .iter()
        .map(|row| (row.example.clone(), row.place.clone()));
    let examples: Vec<_> = examples.collect();
    Ok(Dataset::encode(
        task, &examples, tokenizer, context, encoding,
    )?)
}

/// What the rows in the folder `data` are called, or the bundled ones. These share nothing with a data set but its layout, so they never go by
/// its name alone.
pub fn rows_name(data: Option<&Path>, task: &dyn Task) -> String {
    match data {
        Some(dir) if !bundled::are_rows(dir) => task.name().to_owned(),
        _ => format!("bundled synthetic rows ({LAYOUT}'s layout)"),
    }
}

/// The path from the root, if it exists.
pub fn in_full(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn pick<T: Clone>(items: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|place| items[*place].clone()).collect()
}
