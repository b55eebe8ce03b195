//! Steps along low-rank directions as multiples of the time of their two forwards, and of MeZO's step: in place, by the side path, and with both
//! signs in one forward.
//!
//! The cases take turns, round after round: whatever else the machine does affects all alike. The model is an OPT of random weights, or one in
//! a folder; the rows are random tokens, the loss is the cross-entropy of two label words after the last.

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use clap::{Parser, ValueEnum};
use rand::{RngExt, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use zo_cli::memory::peak_rss_mib;
use zo_examples::random::random_model;
use zo_llm::dataset::option_loss;
use zo_llm::{CausalLm, Dtype, ModelConfig, OptConfig, PaddingSide, TokenBatch, load_model};
use zo_optim::low_rank::Lozo;
use zo_optim::prelude::*;
use zo_optim::{Loss, Objective, Session, ZeroOrder};

/// Time steps along low-rank directions against their forwards and MeZO's step
#[derive(Parser, Debug)]
struct Args {
    /// Folder of a model; without it an OPT of random weights
    #[arg(long)]
    model: Option<PathBuf>,
    /// Size of the random OPT
    #[arg(long, value_enum, default_value_t = Size::Tiny)]
    size: Size,
    /// Type of the weights: f32, bf16 or f16
    #[arg(long, default_value = "f32")]
    dtype: Dtype,
    /// Rows in a batch
    #[arg(long, default_value_t = 16)]
    rows: usize,
    /// Tokens in a row
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Rounds
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// The cases; memory is told apart with a process for each [default: all]
    #[arg(long, value_delimiter = ',')]
    only: Vec<Case>,
    /// Given by cargo bench; without it, this is only a trial
    #[arg(long, hide = true)]
    bench: bool,
    /// Names of benchmarks, which cargo bench passes to all: not used
    #[arg(hide = true)]
    _filter: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Size {
    #[value(name = "tiny")]
    Tiny,
    #[value(name = "125m")]
    M125,
    #[value(name = "1.3b")]
    B1_3,
}

impl Size {
    fn config(self) -> OptConfig {
        let (hidden, layers, heads) = match self {
            Self::Tiny => (64, 2, 4),
            Self::M125 => (768, 12, 12),
            Self::B1_3 => (2048, 24, 32),
        };
        OptConfig::new(50_272, hidden, layers, heads, 2048)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// Two forwards at the weights
    Forwards,
    /// A step of MeZO, in place
    Mezo,
    /// A step of LOZO, in place
    InPlace,
    /// A step of LOZO by the side path, a forward for each sign
    SidePath,
    /// A step of LOZO by the side path, both signs in one forward
    Both,
}

/// Small enough to leave the weights as they are.
const LR: f64 = 1e-9;

/// The rows of a batch.
struct Rows {
    batch: TokenBatch,
    labels: Vec<usize>,
}

impl Rows {
    fn random(args: &Args, vocabulary: usize, device: &Device) -> Result<Self, Box<dyn Error>> {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(0);
        let last = vocabulary.min(50_000) as u32;
        let mut row = || {
            (0..args.tokens)
                .map(|_| rng.random_range(10..last))
                .collect()
        };
        let rows: Vec<Vec<u32>> = (0..args.rows).map(|_| row()).collect();
        Ok(Self {
            batch: TokenBatch::new(&rows, 1, PaddingSide::Right, device)?,
            labels: (0..args.rows).map(|row| row % 2).collect(),
        })
    }

    fn loss(&self, model: &CausalLm) -> Tensor<1> {
        option_loss(model.last_logits(&self.batch, &[5, 6]), &self.labels)
    }
}

struct Evaluated<'a> {
    rows: &'a Rows,
    at_once: usize,
}

impl Objective<CausalLm> for Evaluated<'_> {
    type Loss = Tensor<1>;

    fn loss(&mut self, model: &CausalLm) -> Tensor<1> {
        self.rows.loss(model)
    }

    fn at_once(&self) -> usize {
        self.at_once
    }

    fn losses(&mut self, model: &CausalLm, displacements: usize) -> Vec<Tensor<1>> {
        let batch = self.rows.batch.repeated(displacements);
        let logits = model.last_logits(&batch, &[5, 6]);
        let each = logits.chunk(displacements, 0).into_iter();
        each.map(|logits| option_loss(logits, &self.rows.labels))
            .collect()
    }
}

/// A case at work, with its optimizer.
struct Turn {
    case: Case,
    optim: Option<ZeroOrder>,
    seconds: Vec<f64>,
    passes: usize,
}

impl Turn {
    fn new(case: Case) -> Result<Self, Box<dyn Error>> {
        let lozo = zo_optim::low_rank::lozo().with_noise(Lozo::new());
        let on_the_fly = lozo.clone().with_perturbation(Perturbation::OnTheFly);
        let method = match case {
            Case::Forwards => None,
            Case::Mezo => Some(mezo()),
            Case::InPlace => Some(lozo),
            Case::SidePath | Case::Both => Some(on_the_fly),
        };
        Ok(Self {
            case,
            optim: method.map(|method| method.init()).transpose()?,
            seconds: Vec::new(),
            passes: 0,
        })
    }

    fn take(&mut self, model: CausalLm, rows: &Rows) -> Result<CausalLm, Box<dyn Error>> {
        let Some(optim) = self.optim.take() else {
            let start = Instant::now();
            for _ in 0..2 {
                rows.loss(&model).value()?;
            }
            self.seconds.push(start.elapsed().as_secs_f64());
            return Ok(model);
        };
        let mut session: Session<CausalLm, ZeroOrder> =
            optim.session(model).map_err(|failed| failed.error)?;
        let at_once = if self.case == Case::Both { 2 } else { 1 };
        let start = Instant::now();
        let report = session.step_on(LR, Evaluated { rows, at_once })?;
        self.seconds.push(start.elapsed().as_secs_f64());
        self.passes = report.passes;
        // The update waits, for the next step's first pass or in the bank: it is made outside the time.
        let (optim, model) = session.into_parts();
        self.optim = Some(optim);
        Ok(model)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = Args::parse();
    if !args.bench {
        args.rounds = 1;
    }
    let device = Device::default();
    let mut model = match &args.model {
        Some(dir) => load_model(dir, args.dtype, &device)?.1,
        None => random_model(
            &ModelConfig::Opt(args.size.config()),
            DType::from(args.dtype),
            &device,
        )?,
    };
    let rows = Rows::random(&args, model.vocab_size(), &device)?;
    let cases = match args.only.is_empty() {
        true => Case::value_variants().to_vec(),
        false => args.only.clone(),
    };
    let mut turns = cases
        .into_iter()
        .map(Turn::new)
        .collect::<Result<Vec<_>, _>>()?;
    // The first round computes what is held for an interval, and is not counted.
    for _ in 0..=args.rounds {
        for turn in &mut turns {
            model = turn.take(model, &rows)?;
        }
    }
    println!(
        "{} parameters in {}, {} rows of {} tokens, {} threads, {} rounds",
        model.num_params(),
        args.dtype,
        args.rows,
        args.tokens,
        rayon::current_num_threads(),
        args.rounds
    );
    let of = |case: Case| turns.iter().find(|turn| turn.case == case);
    let ratio = |turn: &Turn, case: Case| match of(case) {
        Some(other) => {
            let rounds = turn.seconds.iter().zip(&other.seconds).skip(1);
            format!("{:8.3}", median(rounds.map(|(a, b)| a / b).collect()))
        }
        None => format!("{:>8}", "-"),
    };
    println!("case         median s    best s  passes   to two forwards   to mezo");
    for turn in &turns {
        let seconds = &turn.seconds[1..];
        let best = seconds.iter().copied().fold(f64::INFINITY, f64::min);
        println!(
            "{:<12} {:8.3}  {best:8.3} {:7}  {}          {}",
            turn.case
                .to_possible_value()
                .map_or_else(String::new, |value| value.get_name().to_owned()),
            median(seconds.to_vec()),
            turn.passes,
            ratio(turn, Case::Forwards),
            ratio(turn, Case::Mezo)
        );
    }
    if let Some(peak) = peak_rss_mib() {
        println!("peak resident: {peak:.0} MiB");
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
