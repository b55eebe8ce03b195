//! From the command line to a run in which everything that can be checked has been, and no file written.

use std::error::Error;
use std::path::PathBuf;

use crate::bundled;
use crate::data::Rows;
use crate::device::device;
use crate::methods::{self, AnyOptimizer, Built, Choice, Shared, autodiff, rounded};
use burn::module::Module;
use burn::tensor::Device;
use serde_json::json;
use zo_llm::batches::Order;
use zo_llm::finetune::{FinetuneConfig, Objective, SavedRun, last_checkpoint};
use zo_llm::{CausalLm, Checkpoint, ModelConfig, Tuning, hub, load};
use zo_optim::tensors;

use super::args::TrainArgs;

/// The folder of checkpoints in a run's folder.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// A run that can begin.
pub(super) struct Setup {
    pub(super) method: Choice,
    pub(super) optimizer: AnyOptimizer,
    pub(super) tuning: Tuning,
    pub(super) device: Device,
    /// The model's folder; `None` for the bundled one.
    pub(super) model_dir: Option<PathBuf>,
    pub(super) model_config: ModelConfig,
    pub(super) parameters: usize,
    pub(super) trained_parameters: usize,
    pub(super) rows: Rows,
    /// The checkpoint that the run continues from.
    pub(super) resumed: Option<SavedRun>,
    /// The settings, except for the folder of checkpoints.
    pub(super) config: FinetuneConfig,
    /// Whether there is such a folder.
    pub(super) saves: bool,
}

/// What `args` ask for, and the model.
pub(super) fn setup(args: &TrainArgs) -> Result<(Setup, CausalLm), Box<dyn Error>> {
    let bundled = args.model.is_none();
    let method = methods::find(&args.method)?;
    let tuning = args.tune.tuning()?;
    if method.has_top() && tuning != Tuning::Full {
        return Err(format!(
            "--method {} chooses what trains by --top: use --tuning full",
            method.name
        )
        .into());
    }
    let device = device(&args.device)?;
    let task = zo_llm::task::task(&args.data.task)?;
    args.data.check(task.as_ref())?;
    let objective = args.objective(task.kind())?;
    let resumed = resumed(args)?;
    // A score moves only if answers change; the bundled model, which begins with the same answer to everything, must be moved far.
    let far = bundled && objective == Objective::Score;
    let epsilon = args
        .epsilon
        .unwrap_or_else(|| rounded(tuning.epsilon() * if far { 30.0 } else { 1.0 }));
    let shared = Shared {
        epsilon,
        queries: args.queries,
        noise: None,
        seed: args.seed,
        perturbation: args.perturb,
        trainable: tuning.trainable(),
        rounding: args.rounding,
    };
    let Built {
        optimizer,
        settings,
        differentiates,
        ..
    } = method.build(&shared, &args.flags)?;
    let demonstrations = match method.name {
        "icl" => args.flags.demonstrations.unwrap_or(32),
        _ => 0,
    };
    let steps = if method.trains() { args.steps } else { 0 };
    let before = resumed.as_ref().map(|saved| &saved.settings);
    let eval_every = before.and_then(|settings| settings["eval_every"].as_u64());
    let default = if bundled { steps / 10 } else { 0 };
    let saves = args.keep_best || args.resume || args.checkpoint_every > 0;
    let mut config = FinetuneConfig {
        steps,
        batch: args.batch,
        micro_batch: args.micro_batch,
        // If not given, known once the model is.
        lr: args.lr.unwrap_or(0.0),
        schedule: args.schedule,
        warmup: args.warmup,
        objective,
        eval_every: args
            .eval_every
            .unwrap_or_else(|| eval_every.map_or(default, |every| every as usize)),
        eval_batch: args.micro_batch.unwrap_or(args.batch),
        order: if args.unbalanced {
            Order::Shuffled
        } else {
            Order::Balanced
        },
        group_by_length: args.group_by_length,
        seed: args.seed,
        pad: 0,
        autodiff_device: differentiates.then(|| autodiff(&device)),
        keep_best: args.keep_best,
        patience: args.patience,
        checkpoint_dir: saves.then(|| CHECKPOINTS.into()),
        checkpoint_every: args.checkpoint_every,
        resume: args.resume,
        trained: tuning.trainable(),
        method: json!({
            "name": method.name, "settings": settings, "epsilon": epsilon, "demonstrations": demonstrations,
        }),
    };
    // Before the model, whose loading may take minutes.
    config.validate()?;

    let model_dir = match &args.model {
        Some(name) => Some(hub::resolve(name)?),
        None => None,
    };
    let Checkpoint {
        config: mut model_config,
        model,
        tokenizer,
    } = match &model_dir {
        Some(dir) => load(dir, args.dtype, &device)?,
        None => load(bundled::model()?.path(), args.dtype, &device)?,
    };
    let parameters = model.num_params();
    let (model, tuning) = args.tune.apply(model, tuning, args.seed)?;
    if tuning == Tuning::Head {
        model_config.untie();
    }
    let trained = tensors(&model, &tuning.trainable())?;
    let trained = trained.iter().filter(|tensor| tensor.trainable);
    let trained_parameters = trained.map(|tensor| tensor.elements()).sum();
    let rows = args.data.rows(
        task.as_ref(),
        &tokenizer,
        model.context(),
        demonstrations,
        args.seed,
    )?;
    config.pad = model_config.pad_token_id();
    config.lr = args.lr.unwrap_or_else(|| {
        let lr = methods::learning_rate(&method, &tuning, parameters, bundled);
        if far { rounded(3.0 * lr) } else { lr }
    });
    config.validate()?;
    let setup = Setup {
        method,
        optimizer,
        tuning,
        device,
        model_dir,
        model_config,
        parameters,
        trained_parameters,
        rows,
        resumed,
        config,
        saves,
    };
    Ok((setup, model))
}

/// The checkpoint in `--out` that `--resume` is to continue from.
fn resumed(args: &TrainArgs) -> Result<Option<SavedRun>, Box<dyn Error>> {
    let Some(out) = args.out.as_ref().filter(|_| args.resume) else {
        return Ok(None);
    };
    let dir = out.join(CHECKPOINTS);
    match last_checkpoint(&dir)? {
        Some(saved) => Ok(Some(saved)),
        None => Err(format!(
            "--resume: {} holds no checkpoint to continue from; give the --out of a run that had --checkpoint-every or --keep-best, or leave \
             out --resume to start from the beginning",
            dir.display()
        )
        .into()),
    }
}
