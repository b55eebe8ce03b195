//! Whole MeZO steps, and the shares of forwards and passes in them.
//!
//! `tiny-opt` is the bundled model on a batch of its task, `llama-20m` a random Llama on 16 sequences of 64 tokens.

use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zo_cli::device::{devices, is_host};
use zo_examples::random::random_model;
use zo_llm::dataset::{Dataset, Split, TrainBatch, option_loss};
use zo_llm::task::Opinions;
use zo_llm::{
    CausalLm, Checkpoint, Dtype, LlamaConfig, ModelConfig, PaddingSide, TokenBatch, load,
};
use zo_optim::ZeroOrder;
use zo_optim::prelude::*;

/// Rows in a batch.
const BATCH: usize = 16;

/// Tokens in a sequence of the random model.
const SEQ: usize = 64;

/// Small enough to leave the weights as they are.
const LR: f64 = 1e-9;

/// A model with a batch for it.
struct Case {
    name: &'static str,
    model: CausalLm,
    tokens: usize,
    loss: Box<dyn Fn(&CausalLm) -> Tensor<1>>,
}

/// The bundled model and the first rows of its task.
fn tiny_opt(dtype: Dtype, device: &Device) -> Result<Case, Box<dyn Error>> {
    let assets = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/zo-cli/assets");
    let Checkpoint {
        config,
        model,
        tokenizer,
    } = load(&assets.join("tiny-opt"), dtype, device)?;
    let (dir, context) = (assets.join("synthetic"), config.context());
    let data = Dataset::load(
        &Opinions,
        &dir,
        Split::Train,
        Some(BATCH),
        &tokenizer,
        context,
    )?;
    let rows: Vec<usize> = (0..data.len()).collect();
    let batch = TrainBatch::new(&data, &rows, config.pad_token_id(), device)?;
    Ok(Case {
        name: "tiny-opt",
        model,
        tokens: batch.tokens()[1],
        loss: Box::new(move |model| batch.loss(model)),
    })
}

/// A Llama of about 20 million weights, which answers with one of two tokens.
fn llama(dtype: Dtype, device: &Device) -> Result<Case, Box<dyn Error>> {
    let mut config = LlamaConfig::new(8192, 512, 1408, 5, 8, 2 * SEQ);
    config.tie_word_embeddings = true;
    let vocabulary = config.vocab_size;
    let model = random_model(&ModelConfig::Llama(config), DType::from(dtype), device)?;
    let token =
        |row: usize, place: usize| ((row * SEQ + place) * 2_654_435_761 % vocabulary) as u32;
    let sequences: Vec<Vec<u32>> = (0..BATCH)
        .map(|row| (0..SEQ).map(|place| token(row, place)).collect())
        .collect();
    let batch = TokenBatch::new(&sequences, 0, PaddingSide::Right, device)?;
    let labels: Vec<usize> = (0..BATCH).map(|row| row % 2).collect();
    Ok(Case {
        name: "llama-20m",
        model,
        tokens: BATCH * SEQ,
        loss: Box::new(move |model| option_loss(model.last_logits(&batch, &[1, 2]), &labels)),
    })
}

/// Where the time of the steps went, in seconds.
#[derive(Default)]
struct Spent {
    steps: u64,
    total: f64,
    forwards: f64,
    passes: f64,
}

impl Spent {
    fn print(&self) {
        if self.steps == 0 {
            return;
        }
        let share = |seconds: f64| 100.0 * seconds / self.total;
        println!(
            "    forwards {:.1} %, passes {:.1} %, the rest {:.1} % of {} steps of {:.3} ms",
            share(self.forwards),
            share(self.passes),
            share(self.total - self.forwards - self.passes),
            self.steps,
            1e3 * self.total / self.steps as f64
        );
    }
}

/// This many steps. The device is waited for between passes and forwards, so that each is charged with its own time.
fn run(
    optim: &mut ZeroOrder,
    mut model: CausalLm,
    loss: &dyn Fn(&CausalLm) -> Tensor<1>,
    (device, host): (&Device, bool),
    steps: u64,
    spent: &mut Spent,
) -> Result<(CausalLm, Duration), Box<dyn Error>> {
    let begin = Instant::now();
    for _ in 0..steps {
        let (start, mut forwards) = (Instant::now(), 0.0);
        let objective = |model: &CausalLm| -> Result<f64, Box<dyn Error + Send + Sync>> {
            device.sync().map_err(|error| error.to_string())?;
            let start = Instant::now();
            let value = zo_optim::Loss::value(loss(model))?;
            forwards += start.elapsed().as_secs_f64();
            Ok(value)
        };
        let stepped = optim.step(LR, model, objective);
        let (next, report) = stepped.map_err(|failed| failed.error)?;
        device.sync()?;
        let total = start.elapsed().as_secs_f64();
        model = next;
        spent.steps += 1;
        spent.total += total;
        spent.forwards += forwards;
        // A device that executes lazily has done its passes while it was waited for.
        spent.passes += match host {
            true => report.seconds_sweep,
            false => total - forwards,
        };
    }
    Ok((model, begin.elapsed()))
}

fn steps(c: &mut Criterion) {
    for (name, device) in devices() {
        if let Err(error) = device_steps(c, name, &device) {
            panic!("{name}: {error}");
        }
    }
}

fn device_steps(c: &mut Criterion, name: &str, device: &Device) -> Result<(), Box<dyn Error>> {
    let mut group = c.benchmark_group(format!("step/{name}"));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(4));
    for dtype in [Dtype::F32, Dtype::Bf16] {
        if !device.supports_dtype(DType::from(dtype)) {
            continue;
        }
        for case in [tiny_opt(dtype, device)?, llama(dtype, device)?] {
            group.throughput(Throughput::Elements(case.tokens as u64));
            let weights = case.model.num_params();
            let mut model = Some(case.model);
            for noise in [Noise::Rademacher, Noise::Gaussian] {
                let config = mezo().with_noise(noise);
                let (mut optim, mut spent) = (config.init()?, Spent::default());
                let id = BenchmarkId::new(format!("{}, {noise}", case.name), dtype);
                group.bench_function(id, |bencher| {
                    bencher.iter_custom(|times| {
                        let Some(at) = model.take() else {
                            panic!("{name}: a failed step has taken the model");
                        };
                        match run(
                            &mut optim,
                            at,
                            &case.loss,
                            (device, is_host(name)),
                            times,
                            &mut spent,
                        ) {
                            Ok((next, elapsed)) => {
                                model = Some(next);
                                elapsed
                            }
                            Err(error) => panic!("{name}: {error}"),
                        }
                    });
                });
                spent.print();
            }
            println!("    {} has {weights} weights", case.name);
        }
    }
    group.finish();
    Ok(())
}

criterion_group!(benches, steps);
criterion_main!(benches);
