//! Compares our logits with those stored by another implementation: `cargo run --release --example parity -- DIR...`.
//!
//! Each DIR is a Hugging Face folder with a file `golden.safetensors` beside the weights: `input_ids` and `attention_mask`
//! (i64, `[batch, seq]`) and `logits` (f32, `[batch, seq, vocab]`). Prints the largest absolute difference at unpadded
//! positions of each folder, and fails above 1e-4.

#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use burn::tensor::Device;
use clap::Parser;
use safetensors::{Dtype as FileDtype, SafeTensors};
use zo_cli::exit::text;
use zo_llm::{Dtype, TokenBatch, load_model};

/// Largest difference allowed.
const TOLERANCE: f32 = 1e-4;

/// Compare logits with the golden.safetensors of Hugging Face folders
#[derive(Parser)]
struct Args {
    /// Folders holding config.json, the weights and golden.safetensors
    #[arg(required = true)]
    dirs: Vec<PathBuf>,
    /// Backend to compute on: flex or ndarray
    #[arg(long, default_value = "flex")]
    device: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let device = match device(&args.device) {
        Ok(device) => device,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut passed = true;
    for dir in &args.dirs {
        match compare(dir, &device) {
            Ok(difference) => {
                // A NaN is not within the tolerance.
                let within = difference <= TOLERANCE;
                passed &= within;
                println!(
                    "{}: {difference:.2e} {}",
                    dir.display(),
                    if within { "ok" } else { "TOO LARGE" }
                );
            }
            Err(error) => {
                passed = false;
                println!("{}: FAILED: {}", dir.display(), text(error.as_ref()));
            }
        }
    }
    if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

#[allow(unreachable_patterns, reason = "reachable without the features above")]
fn device(name: &str) -> Result<Device, String> {
    match name {
        #[cfg(feature = "flex")]
        "flex" => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        "ndarray" => Ok(Device::ndarray()),
        "flex" | "ndarray" => Err(format!(
            "this build has no `{name}` backend: add --features {name}"
        )),
        other => Err(format!("unknown device `{other}`: use flex or ndarray")),
    }
}

/// The largest absolute difference at unpadded positions; NaN if any logit is not finite.
fn compare(dir: &Path, device: &Device) -> Result<f32, Box<dyn Error>> {
    let (_, model) = load_model(dir, Dtype::F32, device)?;
    let path = dir.join("golden.safetensors");
    let bytes =
        std::fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let golden = SafeTensors::deserialize(&bytes)?;
    let ids = integers(&golden, "input_ids")?;
    let mask = integers(&golden, "attention_mask")?;
    let tensor = golden.tensor("logits")?;
    let (FileDtype::F32, &[batch, seq, vocab]) = (tensor.dtype(), tensor.shape()) else {
        return Err(format!(
            "logits are {:?} {:?} instead of F32 [batch, seq, vocab]",
            tensor.dtype(),
            tensor.shape()
        )
        .into());
    };
    if [ids.len(), mask.len()] != [batch * seq; 2] {
        return Err("input_ids, attention_mask and logits differ in shape".into());
    }
    let expected = tensor
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));

    let id_rows = ids
        .chunks(seq)
        .map(|row| row.iter().map(|id| u32::try_from(*id)).collect());
    let id_rows: Vec<Vec<u32>> = id_rows.collect::<Result<_, _>>()?;
    let mask_rows: Vec<Vec<bool>> = mask
        .chunks(seq)
        .map(|row| row.iter().map(|real| *real != 0).collect())
        .collect();
    let logits = model.logits(&TokenBatch::from_mask(&id_rows, &mask_rows, device)?);
    if logits.dims() != [batch, seq, vocab] {
        return Err(format!(
            "our logits are {:?} instead of {:?}",
            logits.dims(),
            [batch, seq, vocab]
        )
        .into());
    }
    let found = logits.into_data();

    let positions = mask
        .iter()
        .flat_map(|real| std::iter::repeat_n(*real != 0, vocab));
    let pairs = found
        .iter::<f32>()
        .zip(expected)
        .zip(positions)
        .filter(|(_, real)| *real);
    Ok(pairs
        .map(|((found, expected), _)| (found - expected).abs())
        .fold(0.0, |largest, difference| {
            if difference.is_nan() || difference > largest {
                difference
            } else {
                largest
            }
        }))
}

fn integers(golden: &SafeTensors<'_>, name: &str) -> Result<Vec<i64>, Box<dyn Error>> {
    let tensor = golden.tensor(name)?;
    if tensor.dtype() != FileDtype::I64 {
        return Err(format!("{name} is {:?} instead of I64", tensor.dtype()).into());
    }
    let values = tensor.data().chunks_exact(8);
    Ok(values
        .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
        .collect())
}
