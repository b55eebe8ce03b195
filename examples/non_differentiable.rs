//! Training on what cannot be differentiated: an objective of your own, here the share of wrong answers, counted on the host.
//!
//! ```text
//! cargo run --release --example non_differentiable
//! ```
//!
//! The objective is any closure from the model to a number. There is no loss anywhere: the model learns only how many answers of a batch
//! are wrong (MeZO, section 3.3).

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

use burn::tensor::Device;
use zo_cli::exit::exit;
use zo_llm::batches::{BatchSampler, Order};
use zo_llm::dataset::{Dataset, Split, evaluate};
use zo_llm::{CausalLm, Checkpoint, Dtype, PaddingSide, TokenBatch, load, task};
use zo_optim::prelude::*;

const STEPS: usize = 300;
/// Many rows: the share of wrong answers moves in steps of one row.
const BATCH: usize = 32;

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/zo-cli/assets");
    let device = Device::default();
    let Checkpoint {
        config,
        mut model,
        tokenizer,
    } = load(&assets.join("tiny-opt"), Dtype::F32, &device)?;
    let task = task::task("opinions")?;
    let read = |split| {
        Dataset::load(
            task.as_ref(),
            &assets.join("synthetic"),
            split,
            None,
            &tokenizer,
            config.context(),
        )
    };
    let (train, dev) = (read(Split::Train)?, read(Split::Dev)?);
    let words = train
        .words
        .clone()
        .ok_or("the label words are single tokens here")?;
    let pad = config.pad_token_id();

    // A larger radius than for a loss: a step must change some answers.
    let mut optim = mezo().with_epsilon(3e-2).init()?;
    let mut batches = BatchSampler::new(&train.labels(), Order::Balanced, BATCH, 0)?;
    let before = evaluate(&model, &dev, BATCH, pad, &device)?.accuracy;
    for step in 0..STEPS {
        let rows = batches.next_batch();
        let prompts: Vec<&[u32]> = rows
            .iter()
            .map(|row| train.examples[*row].prompt())
            .collect();
        let right: Vec<usize> = rows
            .iter()
            .map(|row| train.examples[*row].label())
            .collect();
        let batch = TokenBatch::new(&prompts, pad, PaddingSide::Right, &device)?;

        let wrong_answers = |model: &CausalLm| -> f64 {
            let chosen = model.last_logits(&batch, &words).argmax(1).into_data();
            let wrong = chosen
                .iter::<i64>()
                .zip(&right)
                .filter(|(a, b)| *a as usize != **b);
            wrong.count() as f64 / right.len() as f64
        };
        let (next, report) = optim.step(3e-4, model, wrong_answers)?;
        model = next;
        if (step + 1) % 50 == 0 {
            println!(
                "step {:3}  wrong answers in the batch {:.3}",
                step + 1,
                report.loss()
            );
        }
    }
    let after = evaluate(&model, &dev, BATCH, pad, &device)?.accuracy;
    println!(
        "accuracy on {} held-out rows: {before:.3} -> {after:.3}",
        dev.len()
    );
    Ok(())
}
