//! From the command line to a run in which everything that can be checked has been, and no file written.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Device;
use serde_json::{Value, json};
use zo_llm::batches::Order;
use zo_llm::finetune::{
    FinetuneConfig, FoundEpsilon, FoundRate, Objective, Reward, SavedRun, TrajectoryConfig,
    last_checkpoint, last_step,
};
use zo_llm::probing::linear_probe;
use zo_llm::task::Task;
use zo_llm::tuning::lora;
use zo_llm::{CausalLm, Checkpoint, ModelConfig, Tuning};
use zo_optim::{Perturbation, ZerothOrderOptimizer, tensors};

use super::args::TrainArgs;
use super::back_off::Abandoned;
use super::rate::{self, Searched};
use crate::TRAJECTORY;
use crate::data::Rows;
use crate::device::device;
use crate::exit::Usage;
use crate::methods::{self, AnyOptimizer, Built, Choice, PROBING, Shared, autodiff, rounded};
use crate::reward::CommandReward;

/// The folder of checkpoints in a run's folder.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// What was asked for, checked as far as that goes without the model and the rows.
pub(super) struct Plan {
    pub(super) method: Choice,
    pub(super) optimizer: AnyOptimizer,
    /// The method as the registry reads it; null for one of another kind.
    pub(super) table: Value,
    pub(super) tuning: Tuning,
    pub(super) device: Device,
    pub(super) task: Box<dyn Task>,
    pub(super) demonstrations: usize,
    /// The checkpoint or the trajectory that the run continues from.
    pub(super) resumed: Option<SavedRun>,
    /// The settings, except for the folder of checkpoints and what only the model can tell.
    pub(super) config: FinetuneConfig,
    /// Whether there is such a folder.
    pub(super) saves: bool,
    /// See [`Built::scale_free`].
    pub(super) scale_free: Option<usize>,
    /// Whether what is learnt is a LoRA adapter, beside weights that stay.
    pub(super) adapts: bool,
    pub(super) shared: Shared,
}

/// A run that can begin.
pub(super) struct Setup {
    pub(super) plan: Plan,
    /// The model's folder; `None` for the bundled one.
    pub(super) model_dir: Option<PathBuf>,
    pub(super) model_config: ModelConfig,
    pub(super) parameters: usize,
    pub(super) trained_parameters: usize,
    pub(super) rows: Rows,
    /// How the learning rate and the radius were found, if they were.
    pub(super) found: Option<FoundRate>,
    pub(super) radius: Option<FoundEpsilon>,
    /// Attempts that diverged, with `--back-off`.
    pub(super) abandoned: Vec<Abandoned>,
    /// Processes that train together.
    pub(super) ranks: usize,
}

impl Plan {
    /// The optimizer before its first step, once more.
    pub(super) fn optimizer(&self, args: &TrainArgs) -> Result<AnyOptimizer, Box<dyn Error>> {
        Ok(self.method.build(&self.shared, &args.flags)?.optimizer)
    }

    /// What `args` ask for.
    pub(super) fn new(args: &TrainArgs) -> Result<Self, Box<dyn Error>> {
        let bundled = args.model.model.is_none();
        let method = methods::find(&args.method)?;
        let tuning = args.tune.tuning()?;
        if method.has_top() && tuning != Tuning::Full {
            return Err(Usage(format!(
                "--method {} chooses what trains by --top: use --tuning full",
                method.name
            ))
            .into());
        }
        if method.name == PROBING && tuning != Tuning::Full {
            return Err(Usage(format!(
                "--method {PROBING} fits the head by itself: use --tuning full"
            ))
            .into());
        }
        if !(args.max_shard > 0.0 && args.max_shard.is_finite()) {
            return Err(Usage(format!(
                "--max-shard is {}: it must be positive",
                args.max_shard
            ))
            .into());
        }
        let device = device(&args.model.device)?;
        let task = args.data.task.task()?;
        args.data.check(task.as_ref())?;
        let objective = args.objective(task.kind())?;
        let resumed = resumed(args)?;
        // A score moves only if answers change; the bundled model, which begins with the same answer to everything, must be moved far.
        let far = bundled && objective != Objective::Loss;
        let saved = resumed
            .as_ref()
            .map(|saved| &saved.settings["method"]["epsilon"]);
        let epsilon = match args.epsilon {
            Some(Searched::Given(epsilon)) => Some(epsilon),
            Some(Searched::Auto) => saved.and_then(Value::as_f64),
            None => None,
        };
        let epsilon = epsilon.unwrap_or_else(|| {
            let far = if far { 30.0 } else { 1.0 };
            rounded(tuning.epsilon() * method.epsilon_factor() * far)
        });
        let mut shared = Shared {
            epsilon,
            queries: args.queries,
            noise: None,
            seed: args.seed,
            perturbation: args.perturb.unwrap_or_default(),
            trainable: tuning.trainable(),
            rounding: args.rounding,
        };
        let mut built = method.build(&shared, &args.flags)?;
        let may_adapt = args.perturb != Some(Perturbation::InPlace) && tuning == Tuning::Full;
        let rank = held_rank(&built.settings).filter(|_| may_adapt);
        if let Some(rank) = rank {
            // Its parameters are lazy: nothing is drawn.
            let model = CausalLm::new(&args.model.config()?, &device)?;
            shared.trainable = lora::linear_weights(&model, rank);
            shared.perturbation = Perturbation::OnTheFly;
            built = method.build(&shared, &args.flags)?;
        }
        let Built {
            optimizer,
            settings,
            table,
            differentiates,
            scale_free,
            ..
        } = built;
        let demonstrations = match method.name {
            "icl" => args.flags.demonstrations.unwrap_or(32),
            _ => 0,
        };
        let steps = if method.trains() { args.steps } else { 0 };
        let before = resumed.as_ref().map(|saved| &saved.settings);
        let eval_every = before.and_then(|settings| settings["eval_every"].as_u64());
        let default = if bundled { steps / 10 } else { 0 };
        let had = args.resume
            && args
                .out
                .as_ref()
                .is_some_and(|out| out.join(CHECKPOINTS).exists());
        let saves = args.keep_best || had || args.checkpoint_every > 0;
        let records = args.trajectory && steps > 0 && optimizer.replays();
        let config = FinetuneConfig {
            steps,
            batch: args.batch,
            micro_batch: args.micro_batch,
            rows_at_once: args.rows_at_once,
            // If not given, known once the model is.
            lr: match args.lr {
                Some(Searched::Given(lr)) => lr,
                _ => 0.0,
            },
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
            // The command, before there are rows for it.
            reward: reward(args, [Vec::new(), Vec::new()]),
            keep_best: args.keep_best,
            patience: args.patience,
            checkpoint_dir: saves.then(|| CHECKPOINTS.into()),
            checkpoint_every: args.checkpoint_every,
            resume: args.resume,
            trajectory: records.then(|| TrajectoryConfig::new(TRAJECTORY)),
            trained: shared.trainable.clone(),
            split: args.split(),
            method: json!({
                "name": method.name, "settings": settings, "epsilon": epsilon, "demonstrations": demonstrations,
            }),
        };
        config.validate()?;
        Ok(Self {
            method,
            optimizer,
            table,
            tuning,
            device,
            task,
            demonstrations,
            resumed,
            config,
            saves,
            scale_free,
            adapts: rank.is_some(),
            shared,
        })
    }

    /// Whether a setting is to be searched. A resumed run has it.
    fn searches(&self, setting: Option<Searched>) -> bool {
        setting == Some(Searched::Auto) && self.resumed.is_none() && self.config.steps > 0
    }

    /// The learning rate for a model with so many parameters, as far as it is known without a search.
    pub(super) fn rate(&self, args: &TrainArgs, parameters: usize) -> f64 {
        let bundled = args.model.model.is_none();
        let saved = self.resumed.as_ref().map(|saved| &saved.settings["lr"]);
        let known = match args.lr {
            // It may have been lowered.
            _ if args.back_off > 0 && saved.is_some() => saved.and_then(Value::as_f64),
            Some(Searched::Given(lr)) => Some(lr),
            Some(Searched::Auto) => saved.and_then(Value::as_f64),
            None => None,
        };
        known.unwrap_or_else(|| {
            let lr = methods::learning_rate(
                &self.method,
                &self.tuning,
                parameters,
                bundled,
                self.scale_free,
            );
            match bundled && self.config.objective != Objective::Loss {
                true => rounded(3.0 * lr),
                false => lr,
            }
        })
    }
}

/// The rank of a method's noise, if it is of low rank and its subspace is held for ever: what is learnt is then a LoRA adapter.
fn held_rank(settings: &Value) -> Option<usize> {
    let noise = &settings["noise"];
    let never = noise["interval"] == "never";
    noise["rank"]
        .as_u64()
        .filter(|_| never)
        .map(|rank| rank as usize)
}

/// What `args` ask for, and the model.
pub(super) fn setup(args: &TrainArgs) -> Result<(Setup, CausalLm), Box<dyn Error>> {
    let (mut setup, model) = at_radius(args)?;
    if !setup.plan.searches(args.lr) {
        return Ok((setup, model));
    }
    // Only one model at a time.
    drop(model);
    let found = rate::search(args, &setup)?;
    if !args.quiet {
        println!("{}", rate::summary(&found));
    }
    setup.plan.config.lr = found.lr;
    setup.found = Some(found);
    let model = rate::model(args, &setup)?;
    Ok((setup, model))
}

/// What `args` ask for, except for the learning rate, and the model.
pub(super) fn at_radius(args: &TrainArgs) -> Result<(Setup, CausalLm), Box<dyn Error>> {
    let (setup, model) = prepared(args)?;
    if !setup.plan.searches(args.epsilon) {
        return Ok((setup, model));
    }
    drop(model);
    let found = rate::search_epsilon(args, &setup)?;
    if !args.quiet {
        println!("{}", rate::radius(&found));
    }
    let epsilon = Some(Searched::Given(found.epsilon));
    let given = TrainArgs {
        epsilon,
        ..args.clone()
    };
    let (mut setup, model) = prepared(&given)?;
    setup.radius = Some(found);
    Ok((setup, model))
}

/// What `args` ask for, except for searches, and the model.
fn prepared(args: &TrainArgs) -> Result<(Setup, CausalLm), Box<dyn Error>> {
    // Before the model, whose loading may take minutes.
    let mut plan = Plan::new(args)?;
    let model_dir = args.model.folder()?;
    let Checkpoint {
        config: mut model_config,
        model,
        tokenizer,
    } = args.model.load(model_dir.as_deref(), &plan.device)?;
    let parameters = model.num_params();
    let (model, tuning) = args.tune.apply(model, plan.tuning, args.seed)?;
    plan.tuning = tuning;
    if plan.tuning == Tuning::Head {
        model_config.untie();
    }
    let trained = tensors(&model, &plan.config.trained)?;
    let trained = trained.iter().filter(|tensor| tensor.trainable);
    let trained_parameters = trained.map(|tensor| tensor.elements()).sum();
    let mut rows = args.data.rows(
        plan.task.as_ref(),
        &tokenizer,
        model.context(),
        plan.demonstrations,
        args.seed,
    )?;
    plan.config.pad = model_config.pad_token_id();
    let mut model = model;
    if plan.method.name == PROBING {
        let (batch, pad) = (plan.config.eval_batch, plan.config.pad);
        let probe = linear_probe(&model, &rows.train, batch, pad, &plan.device)?;
        let unseen = probe.held_out_accuracy;
        let unseen = unseen.map(|accuracy| format!(", accuracy {accuracy:.4} in cross-validation"));
        eprintln!(
            "linear probing: strength {:e}{}",
            probe.strength,
            unseen.unwrap_or_default()
        );
        model = probe.apply(model);
        model_config.untie();
    }
    plan.config.lr = plan.rate(args, parameters);
    plan.config.reward = reward(args, std::mem::take(&mut rows.read));
    plan.config.validate()?;
    let setup = Setup {
        plan,
        model_dir,
        model_config,
        parameters,
        trained_parameters,
        rows,
        found: None,
        radius: None,
        abandoned: Vec::new(),
        ranks: 1,
    };
    Ok((setup, model))
}

fn reward(
    args: &TrainArgs,
    read: [Vec<zo_llm::task::rows::RowExample>; 2],
) -> Option<Arc<dyn Reward>> {
    let command = args.reward.as_ref()?;
    let reward: Arc<dyn Reward> = Arc::new(CommandReward::new(command, read));
    Some(reward)
}

/// The trajectory or the checkpoint in `--out` that `--resume` is to continue from.
fn resumed(args: &TrainArgs) -> Result<Option<SavedRun>, Box<dyn Error>> {
    let Some(out) = args.out.as_ref().filter(|_| args.resume) else {
        return Ok(None);
    };
    let recorded = match args.trajectory {
        true => last_step(&out.join(TRAJECTORY))?,
        false => None,
    };
    match recorded.map_or_else(|| last_checkpoint(&out.join(CHECKPOINTS)), |run| Ok(Some(run)))? {
        Some(saved) => Ok(Some(saved)),
        None => Err(format!(
            "--resume: {} holds no trajectory and no checkpoint to continue from; give the --out of a run that has one, or leave out --resume \
             to start from the beginning",
            out.display()
        )
        .into()),
    }
}
