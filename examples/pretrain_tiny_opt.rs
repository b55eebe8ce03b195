//! Makes everything in `crates/zo-cli/assets/`: the synthetic task, and a tiny OPT pretrained on the synthetic corpus.
//!
//! ```text
//! cargo run --release --features autodiff --example pretrain_tiny_opt
//! ```
//!
//! The task's files and the tokenizer come out the same on every machine; the weights come out the same on the same machine, and may
//! differ in the last bits on another processor. The only example that needs automatic differentiation: a model has to come from
//! somewhere before zeroth-order fine-tuning can start.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor, TensorData};
use clap::Parser;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};
use zo_cli::exit::exit;
use zo_llm::config::OptConfig;
use zo_llm::dataset::{Dataset, Split, evaluate};
use zo_llm::replace::replace_bytes;
use zo_llm::synthetic::{SyntheticConfig, generate, to_jsonl};
use zo_llm::task::Opinions;
use zo_llm::{CausalLm, Dtype, LmTokenizer, ModelConfig, PaddingSide, TokenBatch, save_model};

/// The largest vocabulary: the bytes, OPT's special tokens and the corpus's words; the corpus has no more merges than fit.
const VOCAB: usize = 768;
const PAD: u32 = 1;
/// OPT begins and ends every text with this token.
const END: u32 = 2;

/// Generate the synthetic task and pretrain the tiny OPT on its corpus.
#[derive(Parser)]
struct Args {
    /// Folder to write to [default: the repository's crates/zo-cli/assets]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Training steps
    #[arg(long, default_value_t = 3000)]
    steps: usize,
    /// Documents in a batch
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Peak learning rate of Adam
    #[arg(long, default_value_t = 2e-3)]
    lr: f64,
    /// Seed of the data, the initial weights and the order of the documents
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> ExitCode {
    exit(run())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let out = args.out.clone();
    let out =
        out.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/zo-cli/assets"));
    let (data_dir, model_dir) = (out.join("synthetic"), out.join("tiny-opt"));
    std::fs::create_dir_all(&data_dir)?;
    std::fs::create_dir_all(&model_dir)?;

    let data = generate(&SyntheticConfig {
        seed: args.seed,
        ..Default::default()
    });
    for (split, rows) in [(Split::Train, &data.train), (Split::Dev, &data.dev)] {
        replace_bytes(&data_dir.join(split.file()), to_jsonl(rows)?.as_bytes())?;
    }

    let tokenizer = train_tokenizer(&data.corpus).map_err(|error| error.to_string())?;
    let path = model_dir.join("tokenizer.json");
    tokenizer
        .save(path, true)
        .map_err(|error| error.to_string())?;
    let config = ModelConfig::Opt(OptConfig {
        init_std: 0.05,
        ..OptConfig::new(tokenizer.get_vocab_size(true), 64, 4, 4, 96)
    });
    let tokenizer = LmTokenizer::from_dir(&model_dir, &config)?;
    let encode = |text: &String| {
        let mut tokens = tokenizer.encode(text)?;
        tokens.push(END);
        Ok(tokens)
    };
    let corpus: Result<Vec<Vec<u32>>, Box<dyn Error>> = data.corpus.iter().map(encode).collect();

    let model = pretrain(&corpus?, &config, &args)?;
    save_model(&model_dir, &config, &model, Dtype::F32)?;

    let (device, context) = (Device::default(), config.context());
    let dev = Dataset::load(&Opinions, &data_dir, Split::Dev, None, &tokenizer, context)?;
    let result = evaluate(&model, &dev, 50, PAD, &device)?;
    let (rows, accuracy, loss) = (dev.len(), result.accuracy, result.loss);
    println!("wrote {}", out.display());
    println!("zero-shot on {rows} dev rows: accuracy {accuracy:.3}, loss {loss:.3}");
    Ok(())
}

/// A byte-level BPE with OPT's special tokens, which puts `</s>` before every text.
fn train_tokenizer(corpus: &[String]) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let byte_level = ByteLevel::new(false, true, true);
    tokenizer
        .with_pre_tokenizer(Some(byte_level))
        .with_decoder(Some(byte_level));
    let special = ["<s>", "<pad>", "</s>", "<unk>"];
    let trainer = BpeTrainer::builder()
        .vocab_size(VOCAB)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(
            special
                .iter()
                .map(|token| AddedToken::from(*token, true))
                .collect(),
        )
        .build();
    tokenizer.train(&mut TrainerWrapper::BpeTrainer(trainer), corpus.iter())?;
    let template = TemplateProcessing::builder()
        .try_single("</s> $A")?
        .try_pair("</s> $A </s> $B")?
        .special_tokens(vec![("</s>", END)])
        .build()?;
    tokenizer.with_post_processor(Some(template));
    Ok(tokenizer)
}

/// Next-token training with Adam; the learning rate rises over the first hundred steps and falls along a cosine.
fn pretrain(
    corpus: &[Vec<u32>],
    config: &ModelConfig,
    args: &Args,
) -> Result<CausalLm, Box<dyn Error>> {
    let device = Device::default().autodiff();
    device.seed(args.seed);
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(args.seed);
    let mut model = CausalLm::new(config, &device)?;
    println!(
        "{} parameters, {} documents",
        model.num_params(),
        corpus.len()
    );
    let mut adam = AdamConfig::new()
        .with_beta_2(0.98)
        .with_epsilon(1e-8)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(1.0)))
        .init();
    let start = Instant::now();
    let mut mean = 0.0;
    for step in 0..args.steps {
        let pick = |_| &corpus[(rng.next_u64() % corpus.len() as u64) as usize];
        let documents: Vec<&Vec<u32>> = (0..args.batch).map(pick).collect();
        let loss = next_token_loss(&model, &documents, &device)?;
        let value = f64::from(loss.clone().into_scalar::<f32>());
        if !value.is_finite() {
            return Err(format!(
                "diverged: the loss of step {step} is {value}; lower --lr. The files of the task are written, the model is as it was"
            )
            .into());
        }
        mean += value;
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        let warm_up = ((step + 1) as f64 / 100.0).min(1.0);
        let cosine = 0.5 + 0.5 * (std::f64::consts::PI * step as f64 / args.steps as f64).cos();
        model = adam.step(args.lr * warm_up * cosine, model, gradients);
        if (step + 1) % 100 == 0 {
            let seconds = start.elapsed().as_secs_f64();
            println!(
                "step {:5}  loss {:.4}  {seconds:.0} s",
                step + 1,
                mean / 100.0
            );
            mean = 0.0;
        }
    }
    Ok(model.valid())
}

/// Mean cross-entropy of every token after the first, over the documents' own tokens: `[1]`.
fn next_token_loss(
    model: &CausalLm,
    documents: &[&Vec<u32>],
    device: &Device,
) -> Result<Tensor<1>, Box<dyn Error>> {
    let inputs: Vec<&[u32]> = documents.iter().map(|d| &d[..d.len() - 1]).collect();
    let batch = TokenBatch::new(&inputs, PAD, PaddingSide::Right, device)?;
    let [rows, seq] = batch.shape();
    let (mut targets, mut weights) = (vec![0; rows * seq], vec![0.0; rows * seq]);
    for (row, document) in documents.iter().enumerate() {
        for (column, token) in document[1..].iter().enumerate() {
            targets[row * seq + column] = *token as i32;
            weights[row * seq + column] = 1.0 / batch.real_tokens() as f32;
        }
    }
    let targets = TensorData::new(targets, [rows * seq, 1]);
    let targets = Tensor::<2, Int>::from_data(targets, device);
    let weights = Tensor::<2>::from_data(TensorData::new(weights, [rows * seq, 1]), device);
    let logits = model.logits(&batch);
    let vocab = logits.dims()[2];
    let log_probabilities = log_softmax(logits.reshape([rows * seq, vocab]), 1);
    Ok(-(log_probabilities.gather(1, targets) * weights).sum())
}
