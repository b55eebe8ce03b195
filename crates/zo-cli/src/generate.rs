//! `zo generate`: what a model writes after a prompt.

use std::error::Error;
use std::io::{BufRead, Write};

use clap::Args;
use serde_json::json;
use zo_llm::generate::{GenerateConfig, Sampling, generate};

use crate::device::device;
use crate::exit::Usage;
use crate::model::ReadyArgs;

/// Complete a prompt, or each line of standard input.
#[derive(Args, Debug, Clone)]
pub struct GenerateArgs {
    /// The prompt [default: each line of standard input is one]
    pub prompt: Option<String>,
    /// The model.
    #[command(flatten)]
    pub ready: ReadyArgs,
    /// Tokens at most
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub max_tokens: usize,
    /// A text that ends the answer; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub stop: Vec<String>,
    /// How random the choice of tokens is: 0 takes the likeliest
    #[arg(long, default_value_t = 0.0, allow_hyphen_values = true)]
    pub temperature: f64,
    /// Choose among so many of the likeliest tokens; 0 for all
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability
    #[arg(long, default_value_t = 1.0, value_name = "SHARE")]
    pub top_p: f64,
    /// Seed of the choice
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// Print JSON, one object per prompt, instead of the text
    #[arg(long)]
    pub json: bool,
}

/// Generates as the flags say.
///
/// # Errors
/// What is wrong with them, or what went wrong.
pub fn run(args: &GenerateArgs) -> Result<(), Box<dyn Error>> {
    let sampling = match args.temperature {
        0.0 => Sampling::Greedy,
        temperature => Sampling::Random {
            temperature,
            top_k: args.top_k,
            top_p: args.top_p,
            seed: args.seed,
        },
    };
    let mut config = GenerateConfig {
        max_tokens: args.max_tokens,
        stop: args.stop.clone(),
        end: Vec::new(),
        sampling,
    };
    config.validate().map_err(Usage::of)?;
    let device = device(&args.ready.model.device)?;
    let (checkpoint, _) = args.ready.load(&device)?;
    config.end = checkpoint.tokenizer.end_tokens().to_vec();
    let lines: Box<dyn Iterator<Item = std::io::Result<String>>> = match &args.prompt {
        Some(prompt) => Box::new(std::iter::once(Ok(prompt.clone()))),
        None => Box::new(std::io::stdin().lock().lines()),
    };
    for prompt in lines {
        let prompt = prompt?;
        let tokens = checkpoint.tokenizer.encode_prompt(&prompt)?;
        let found = generate(
            &checkpoint.model,
            &checkpoint.tokenizer,
            &[tokens],
            &config,
            &device,
        )?;
        let mut out = std::io::stdout().lock();
        for text in found {
            match args.json {
                true => writeln!(
                    out,
                    "{}",
                    json!({ "prompt": prompt, "text": text.text, "ending": text.ending })
                )?,
                false => writeln!(out, "{}", text.text)?,
            }
        }
        out.flush()?;
    }
    Ok(())
}
