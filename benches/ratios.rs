//! Passes as multiples of the time that reading and writing the weights takes, beside the goals.
//!
//! The cases take turns, round after round, and each ratio is the median over the rounds: whatever else the machine does affects all
//! alike.

mod common;

use burn::tensor::{DType, Device};
use clap::Parser;
use common::{Floor, InPlace, Passes, decay, low_rank, plain};
use zo_cli::device::{describe, devices};
use zo_optim::Noise::{Gaussian, Rademacher};
use zo_optim::backend::Sweep;
use zo_optim::noise::SimdLevel;

/// Print the time of passes as multiples of the time of reading and writing the weights
#[derive(Parser, Debug)]
struct Args {
    /// Weights in the tensor, as a power of two
    #[arg(long, default_value_t = 27, value_parser = clap::value_parser!(u32).range(10..=40))]
    log2_weights: u32,
    /// Rounds
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Given by cargo bench; without it, this is only a trial
    #[arg(long, hide = true)]
    bench: bool,
    /// Names of benchmarks, which cargo bench passes to all: not used
    #[arg(hide = true)]
    _filter: Vec<String>,
}

/// What passes are measured by.
const FLOOR: &str = "read and write";

/// A pass, and what its time is divided by.
struct Case {
    name: &'static str,
    sweeps: [Sweep; 2],
    /// Number of the case it is measured by; the floor if `None`.
    by: Option<usize>,
    /// The goal: the largest acceptable ratio.
    goal: Option<f64>,
}

fn cases() -> Vec<Case> {
    let case = |name, sweeps, by, goal| Case {
        name,
        sweeps,
        by,
        goal,
    };
    vec![
        case("decay", decay(), None, None),
        case("rademacher x 1", plain(Rademacher, 1), None, Some(1.3)),
        case("gaussian x 1", plain(Gaussian, 1), None, Some(4.0)),
        case("rademacher x 2", plain(Rademacher, 2), Some(1), Some(1.7)),
        case("gaussian x 2", plain(Gaussian, 2), Some(2), Some(1.7)),
        case("low-rank x 1", low_rank(1), None, Some(1.35)),
        case("low-rank x 99", low_rank(99), None, Some(1.35)),
        case("rademacher x 8", plain(Rademacher, 8), Some(1), None),
        case("gaussian x 8", plain(Gaussian, 8), Some(2), None),
    ]
}

fn main() {
    let mut args = Args::parse();
    if !args.bench {
        (args.log2_weights, args.rounds) = (16, 1);
    }
    for (name, device) in devices() {
        for dtype in [DType::F32, DType::BF16] {
            if device.supports_dtype(dtype) {
                table(name, &device, dtype, &args);
            }
        }
    }
}

fn table(name: &str, device: &Device, dtype: DType, args: &Args) {
    let (n, cases) = (1 << args.log2_weights, cases());
    let bytes = n * dtype.size();
    let mut floor = Floor::new(name, device, bytes);
    let mut passes = Passes::new(n, dtype, device, decay());
    // Seconds by round; the floor's first, then those of the cases.
    let mut rounds: Vec<Vec<f64>> = Vec::new();
    // The first round touches the memory for the first time.
    for round in 0..=args.rounds {
        let mut seconds = vec![floor.time(1).as_secs_f64()];
        for case in &cases {
            passes = passes.with(case.sweeps.clone());
            // There and back.
            seconds.push(passes.time(2).as_secs_f64() / 2.0);
        }
        if round > 0 {
            rounds.push(seconds);
        }
    }
    println!(
        "\n2^{} {} weights on {}, {} threads, {:?}; medians of {} rounds",
        args.log2_weights,
        format!("{dtype:?}").to_lowercase(),
        describe(name, device),
        rayon::current_num_threads(),
        SimdLevel::best(),
        args.rounds
    );
    println!("pass                  GB/s   ratio   to              goal");
    let rate = |place: usize| {
        let seconds = median(rounds.iter().map(|seconds| seconds[place]));
        2.0 * bytes as f64 / seconds / 1e9
    };
    println!("{FLOOR:<16} {:9.2}", rate(0));
    for (number, case) in cases.iter().enumerate() {
        let by = case.by.map_or(0, |by| by + 1);
        let ratio = median(
            rounds
                .iter()
                .map(|seconds| seconds[number + 1] / seconds[by]),
        );
        let to = case.by.map_or(FLOOR, |by| cases[by].name);
        let goal = case.goal.map_or(String::new(), |goal| {
            let met = if ratio <= goal { "met" } else { "missed" };
            format!("{goal:.2} {met}")
        });
        println!(
            "{:<16} {:9.2} {ratio:7.2}   {to:<14}  {goal}",
            case.name,
            rate(number + 1)
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
