//! `--task`, `--data` and which of its rows are used.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_xoshiro::Xoshiro256PlusPlus;
use zo_llm::LmTokenizer;
use zo_llm::dataset::{Dataset, Demonstration, Encoding, Split};
use zo_llm::task::rows::read_examples;
use zo_llm::task::split::{SplitSizes, sample_per_class};
use zo_llm::task::{Kind, Task};

/// The task and its rows.
#[derive(Args, Debug, Clone)]
pub struct DataArgs {
    /// Task: sst2, rte, cb, boolq, wsc, wic, multirc, copa, record, squad or drop
    #[arg(long, default_value = "boolq")]
    pub task: String,
    /// Folder of the data set: train.* and dev.* (or validation.*), as jsonl, tsv, json or parquet [default: the bundled synthetic data]
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
    /// Cut prompts that do not fit into the context at the front (a method that puts examples before them always does)
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
    /// To be evaluated once, when all is done.
    pub test: Option<Dataset>,
}

impl DataArgs {
    /// Reads and tokenises the rows; `demonstrations` solved training rows, drawn by the seed, stand before each held-out one.
    ///
    /// # Errors
    /// If the files cannot be read, a row is malformed or too long, or there are too few rows.
    pub fn rows(
        &self,
        task: &dyn Task,
        assets: &Path,
        tokenizer: &LmTokenizer,
        context: usize,
        demonstrations: usize,
        seed: u64,
    ) -> Result<Rows, Box<dyn Error>> {
        let dir = self
            .data
            .clone()
            .unwrap_or_else(|| assets.join("synthetic"));
        let mut train = read_examples(task, &dir, Split::Train, self.train_rows)?;
        let mut dev = read_examples(task, &dir, Split::Dev, self.eval_rows)?;
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
        Ok(Rows {
            train: encode(&train, &plain)?,
            dev: encode(&dev, &shown)?,
            test: test.map(|test| encode(&test, &shown)).transpose()?,
        })
    }
}

fn pick<T: Clone>(items: &[T], places: &[usize]) -> Vec<T> {
    places.iter().map(|place| items[*place].clone()).collect()
}
