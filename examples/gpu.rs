//! What a device does with passes and steps: one line of JSON.
//!
//! ```text
//! cargo run --release --example gpu -- --size tiny
//! cargo build --release --features cuda --example gpu
//! target/release/examples/gpu --device cuda --size 1.3b --dtype bf16 --batch 16 --seq 64 --steps 10
//! ```
//!
//! `benches/gpu.py` runs it, watches the memory of the card, and prints tables. The model is an OPT of random weights; its loss is the
//! cross-entropy of each sequence's last token over the whole vocabulary.

use std::error::Error;
use std::process::ExitCode;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use clap::{Parser, ValueEnum};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use serde::Serialize;
use serde_json::{Value, json};
use zo_cli::device::{describe, device, is_host};
use zo_cli::exit::text;
use zo_cli::memory::peak_rss_mib;
use zo_examples::random::{random_model, weights};
use zo_llm::{CausalLm, Dtype, ModelConfig, OptConfig, PaddingSide, TokenBatch};
use zo_optim::backend::{Sweep, sweep};
use zo_optim::prelude::*;
use zo_optim::{Direction, Loss, TensorKey};

/// Measure passes and steps on a device; prints one line of JSON
#[derive(Parser, Debug)]
struct Args {
    /// Device: flex, ndarray, cuda or wgpu
    #[arg(long, default_value = "flex")]
    device: String,
    /// Size of the model
    #[arg(long, value_enum, default_value_t = Size::Tiny)]
    size: Size,
    /// Type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "bf16")]
    dtype: Dtype,
    /// Sequences in a batch
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Tokens in a sequence
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=2048))]
    seq: u32,
    /// Steps, and forwards of inference, that are timed
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// What to measure; memory is best told apart with a process for each
    #[arg(long, value_enum, default_value_t = Part::All)]
    part: Part,
    /// Size of the tensor that is copied, and of those that passes go over, in MiB [default: 1024; 16 for the tiny model]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    mib: Option<u32>,
}

/// Shapes of published OPT models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
enum Size {
    #[value(name = "tiny")]
    #[serde(rename = "tiny")]
    Tiny,
    #[value(name = "125m")]
    #[serde(rename = "125m")]
    M125,
    #[value(name = "1.3b")]
    #[serde(rename = "1.3b")]
    B1_3,
    #[value(name = "6.7b")]
    #[serde(rename = "6.7b")]
    B6_7,
}

impl Size {
    fn config(self) -> OptConfig {
        let (hidden, layers, heads) = match self {
            Self::Tiny => (64, 2, 4),
            Self::M125 => (768, 12, 12),
            Self::B1_3 => (2048, 24, 32),
            Self::B6_7 => (4096, 32, 32),
        };
        OptConfig::new(VOCABULARY, hidden, layers, heads, 2048)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Inference, steps, and passes
    All,
    /// The copy, and passes over a tensor
    Passes,
    /// Forwards
    Infer,
    /// Forwards, then steps
    Step,
}

/// Rows of OPT's embedding.
const VOCABULARY: usize = 50_272;

/// Steps and forwards before the timed ones: kernels are compiled and chosen in them.
const WARM_UP: u32 = 2;

/// Measurements of a pass or copy, of which the fastest counts, and passes or copies per measurement.
const TRIES: usize = 10;
const EACH: usize = 4;

/// The learning rate: small enough to leave the weights as they are.
const LR: f64 = 1e-9;

type Failure = Box<dyn Error>;

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}", text(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<Value, Failure> {
    let device = device(&args.device)?;
    let dtype = DType::from(args.dtype);
    if !device.supports_dtype(dtype) {
        return Err(format!("{} does not compute in {}", args.device, args.dtype).into());
    }
    let mut report = json!({ "device": describe(&args.device, &device) });
    if args.part != Part::Passes {
        add(&mut report, measure_model(args, &device)?);
    }
    if matches!(args.part, Part::Passes | Part::All) {
        add(&mut report, measure_passes(args, &device)?);
    }
    Ok(report)
}

/// Adds the entries of `more`.
fn add(report: &mut Value, more: Value) {
    if let (Value::Object(report), Value::Object(more)) = (report, more) {
        report.extend(more);
    }
}

/// Seconds of forwards and steps of a random model, and its memory.
fn measure_model(args: &Args, device: &Device) -> Result<Value, Failure> {
    let config = ModelConfig::Opt(args.size.config());
    let mut model = random_model(&config, args.dtype.into(), device)?;
    device.sync()?;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
    let sequences: Vec<Vec<u32>> = (0..args.batch)
        .map(|_| {
            (0..args.seq)
                .map(|_| rng.random_range(10..50_000))
                .collect()
        })
        .collect();
    let last: Vec<Vec<u32>> = sequences
        .iter()
        .map(|sequence| sequence[sequence.len() - 1..].to_vec())
        .collect();
    let batch = TokenBatch::new(&sequences, 1, PaddingSide::Right, device)?;
    let loss = |model: &CausalLm| -> Tensor<1> { -model.log_probs(&batch, &last).mean() };

    let (parameters, of_weights) = (model.num_params(), memory_gib(args, device));
    let mut forwards = Vec::new();
    for _ in 0..WARM_UP + args.steps {
        device.sync()?;
        let start = Instant::now();
        loss(&model).value()?;
        forwards.push(start.elapsed().as_secs_f64());
    }
    let of_inference = memory_gib(args, device);
    let mut steps = Vec::new();
    let distributions: &[Noise] = match args.part {
        Part::Infer => &[],
        _ => &[Noise::Gaussian, Noise::Rademacher],
    };
    for noise in distributions {
        let (next, step) = measure_steps(args, model, device, *noise, &loss)?;
        model = next;
        steps.push(step);
    }
    let of_steps = (!steps.is_empty()).then(|| memory_gib(args, device));
    Ok(json!({
        "size": args.size, "parameters": parameters, "dtype": args.dtype.to_string(),
        "batch": args.batch, "seq": args.seq, "tokens": batch.real_tokens(),
        "infer_s": median(&forwards[WARM_UP as usize..]), "steps": steps,
        "memory": {
            "source": if is_host(&args.device) { "peak resident" } else { "reserved by burn" },
            "weights_gib": of_weights, "infer_gib": of_inference, "step_gib": of_steps.flatten(),
        },
    }))
}

/// Seconds of MeZO's steps. The device is waited for between passes and forwards, so that each is charged with its own time.
fn measure_steps(
    args: &Args,
    mut model: CausalLm,
    device: &Device,
    noise: Noise,
    loss: &dyn Fn(&CausalLm) -> Tensor<1>,
) -> Result<(CausalLm, Value), Failure> {
    let mut optim = mezo().with_noise(noise).init()?;
    let (mut totals, mut in_passes, mut in_forwards) = (vec![], vec![], vec![]);
    let mut copied = 0;
    for _ in 0..WARM_UP + args.steps {
        device.sync()?;
        let (start, mut forwards) = (Instant::now(), 0.0);
        let objective = |model: &CausalLm| -> Result<f64, Box<dyn Error + Send + Sync>> {
            device.sync().map_err(|error| error.to_string())?;
            let start = Instant::now();
            let value = loss(model).value()?;
            forwards += start.elapsed().as_secs_f64();
            Ok(value)
        };
        let stepped = optim.step(LR, model, objective);
        let (next, report) = stepped.map_err(|failed| failed.error)?;
        device.sync()?;
        let total = start.elapsed().as_secs_f64();
        model = next;
        totals.push(total);
        in_forwards.push(forwards);
        in_passes.push(total - forwards);
        copied += report.copied;
    }
    let warm = WARM_UP as usize;
    let step = json!({
        "noise": noise, "step_s": median(&totals[warm..]), "sweep_s": median(&in_passes[warm..]),
        "forward_s": median(&in_forwards[warm..]), "copied": copied,
    });
    Ok((model, step))
}

/// GB/s, read and written, of a copy and of passes by type and noise.
fn measure_passes(args: &Args, device: &Device) -> Result<Value, Failure> {
    let mib = args.mib.unwrap_or(match args.size {
        Size::Tiny => 16,
        _ => 1024,
    });
    let bytes = mib as usize * (1 << 20);
    let rate = |seconds: f64| 2.0 * bytes as f64 / seconds / 1e9;
    let copy = {
        let source = weights(bytes / DType::F32.size(), DType::F32, device);
        // Out of place, because the source has another owner.
        let seconds = fastest(device, || source.clone().mul_scalar(1.5))?;
        rate(seconds)
    };
    let mut passes = Vec::new();
    for dtype in [DType::F32, DType::BF16] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        let mut tensor = Some(weights(bytes / dtype.size(), dtype, device));
        for noise in [Noise::Gaussian, Noise::Rademacher] {
            let plus = Direction::noise(noise, 1).scaled(1e-3);
            let minus = plus.scaled(-1.0);
            let key = TensorKey::new("w");
            let sweeps =
                [(&plus, &minus), (&minus, &plus)].map(|(from, to)| Sweep::new(key, 1.0, from, to));
            let mut turn = 0;
            let seconds = fastest(device, || {
                tensor = tensor.take().map(|t| sweep(t, sweeps[turn % 2].clone()));
                turn += 1;
            })?;
            passes.push(json!({
                "dtype": format!("{dtype:?}").to_lowercase(), "noise": noise,
                "gb_s": rate(seconds), "share": rate(seconds) / copy,
            }));
        }
    }
    Ok(json!({ "mib": mib, "copy_gb_s": copy, "passes": passes }))
}

/// Seconds that `work` takes at its fastest.
fn fastest<T>(device: &Device, mut work: impl FnMut() -> T) -> Result<f64, Failure> {
    let mut seconds = f64::INFINITY;
    // The first try is to compile kernels.
    for attempt in 0..=TRIES {
        device.sync()?;
        let start = Instant::now();
        for _ in 0..EACH {
            let result = work();
            // A device that fuses operations would merge several into one, and skip those whose result is dropped.
            device.flush()?;
            drop(result);
        }
        device.sync()?;
        if attempt > 0 {
            seconds = seconds.min(start.elapsed().as_secs_f64() / EACH as f64);
        }
    }
    Ok(seconds)
}

/// Memory so far, in GiB: for a GPU what burn's allocator has reserved, which it gives back only when asked; else the peak of this
/// process.
fn memory_gib(args: &Args, device: &Device) -> Option<f64> {
    if is_host(&args.device) {
        return peak_rss_mib().map(|mib| mib / 1024.0);
    }
    let usage = device.memory_pool_usage()?;
    Some(usage.bytes_reserved as f64 / f64::from(1 << 30))
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
