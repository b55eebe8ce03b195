//! The flags of a run with every default resolved, as a file that `--config` reads.

use serde::{Serialize, Serializer};
use serde_json::Value;
use zo_llm::Tuning;

use super::args::TrainArgs;
use super::rate::Searched;
use super::setup::Plan;
use crate::data::in_full;
use crate::ranks::Way;
use crate::run::Log;

/// What a run is, in the order in which a person would say it. Folders and files are written in full.
#[derive(Serialize)]
pub(super) struct Resolved<'a> {
    model: Option<String>,
    device: &'a str,
    dtype: String,
    mezo_bos: bool,
    task: Option<&'a str>,
    template: Option<&'a str>,
    words: Option<&'a [String]>,
    label: Option<&'a str>,
    labels: Option<&'a [String]>,
    options: Option<&'a [String]>,
    answer: Option<&'a str>,
    answer_tokens: Option<usize>,
    data: Option<String>,
    train_file: Option<String>,
    eval_file: Option<String>,
    test_file: Option<String>,
    train_rows: Option<usize>,
    eval_rows: Option<usize>,
    per_class: Option<usize>,
    k_shot: Option<usize>,
    mezo_split: bool,
    cut: bool,
    tuning: Option<String>,
    lora_rank: Option<usize>,
    lora_alpha: Option<f64>,
    lora_targets: Option<Vec<String>>,
    lora_train_a: Option<bool>,
    virtual_tokens: Option<usize>,
    adapter: Option<String>,
    steps: usize,
    lr: Searched,
    back_off: usize,
    schedule: String,
    warmup: usize,
    epsilon: &'a Value,
    objective: Option<&'a str>,
    reward: Option<&'a str>,
    batch: usize,
    micro_batch: Option<usize>,
    rows_at_once: Option<usize>,
    queries: usize,
    #[serde(serialize_with = "number")]
    seed: u64,
    rounding: String,
    perturb: String,
    unbalanced: bool,
    group_by_length: bool,
    split: Option<&'a [Way]>,
    shards: usize,
    compare_every: usize,
    rank_timeout: u64,
    eval_every: usize,
    keep_best: bool,
    patience: Option<usize>,
    save: bool,
    max_shard: f64,
    checkpoint_every: usize,
    trajectory: bool,
    log: Option<&'a [Log]>,
    quiet: bool,
    top: Option<&'a str>,
    top_rate: Option<f64>,
    demonstrations: Option<usize>,
    method: Method<'a>,
}

#[derive(Serialize)]
struct Method<'a> {
    name: &'a str,
    #[serde(flatten)]
    parts: &'a Value,
}

/// TOML's integers end where i64 does; a text is read as well.
fn number<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    match i64::try_from(*value) {
        Ok(value) => serializer.serialize_i64(value),
        Err(_) => serializer.serialize_str(&value.to_string()),
    }
}

impl<'a> Resolved<'a> {
    /// The run that `args` describe, at learning rate `lr`.
    pub(super) fn new(args: &'a TrainArgs, plan: &'a Plan, lr: Searched) -> Self {
        let (data, task, config) = (&args.data, &args.data.task, &plan.config);
        let text = |path: &std::path::PathBuf| in_full(path).display().to_string();
        // A name on the hub stays one.
        let model = args.model.model.as_ref().map(|name| text(&name.into()));
        // An adapter brings its own.
        let tuning = Some(&plan.tuning).filter(|_| args.tune.adapter.is_none());
        let lora = match tuning {
            Some(Tuning::Lora(config)) => Some(config),
            _ => None,
        };
        let own = task.template.is_some();
        let labelled = own && task.answer.is_none();
        let hybrid = plan.method.has_top();
        Self {
            model,
            device: &args.model.device,
            dtype: args.model.dtype.to_string(),
            mezo_bos: args.model.mezo_bos,
            task: (!own).then_some(&task.task),
            template: task.template.as_deref(),
            words: task.words.as_deref(),
            label: labelled.then_some(&task.label),
            labels: task.labels.as_deref(),
            options: task.options.as_deref(),
            answer: task.answer.as_deref(),
            answer_tokens: task.answer_tokens,
            data: data.data.as_ref().map(text),
            train_file: data.train_file.as_ref().map(text),
            eval_file: data.eval_file.as_ref().map(text),
            test_file: data.test_file.as_ref().map(text),
            train_rows: data.train_rows,
            eval_rows: data.eval_rows,
            per_class: data.per_class,
            k_shot: data.k_shot,
            mezo_split: data.mezo_split,
            cut: data.cut,
            tuning: tuning.map(Tuning::to_string),
            lora_rank: lora.map(|lora| lora.rank),
            lora_alpha: lora.map(|lora| lora.alpha),
            lora_targets: lora.map(|lora| lora.targets.clone()),
            // An adapter's files do not say it.
            lora_train_a: (lora.is_some() || args.tune.lora_train_a)
                .then_some(args.tune.lora_train_a),
            virtual_tokens: match tuning {
                Some(Tuning::Prefix { length } | Tuning::Prompt { length }) => Some(*length),
                _ => None,
            },
            adapter: args.tune.adapter.as_ref().map(text),
            // As given: methods that do not train have none, which is not theirs to say.
            steps: args.steps,
            lr,
            back_off: args.back_off,
            schedule: config.schedule.to_string(),
            warmup: config.warmup,
            epsilon: &config.method["epsilon"],
            objective: args.reward.is_none().then_some(&args.objective),
            reward: args.reward.as_deref(),
            batch: config.batch,
            micro_batch: config.micro_batch,
            rows_at_once: config.rows_at_once,
            queries: args.queries_of(&config.method),
            seed: config.seed,
            rounding: args.rounding.to_string(),
            perturb: plan.shared.perturbation.to_string(),
            unbalanced: args.unbalanced,
            group_by_length: config.group_by_length,
            split: (!args.split.is_empty()).then_some(&args.split),
            shards: config.split.shards,
            compare_every: config.split.compare_every,
            rank_timeout: args.rank_timeout,
            eval_every: config.eval_every,
            keep_best: config.keep_best,
            patience: config.patience,
            save: args.save,
            max_shard: args.max_shard,
            checkpoint_every: config.checkpoint_every,
            trajectory: args.trajectory,
            log: (!args.log.is_empty()).then_some(&args.log),
            quiet: args.quiet,
            top: args.flags.top.as_deref(),
            top_rate: hybrid.then(|| args.flags.top_rate()),
            demonstrations: args.flags.demonstrations,
            method: Method {
                name: plan.method.name,
                parts: &plan.table,
            },
        }
    }

    /// As a file. `above` is a comment at its top.
    pub(super) fn to_toml(&self, above: &str) -> Result<String, toml::ser::Error> {
        let above = above.lines().map(|line| format!("# {line}\n"));
        Ok(above.chain([toml::to_string(self)?]).collect())
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    /// A flag that is added must be written, or left out on purpose.
    #[test]
    fn every_setting_is_written() {
        let left_out = [
            "config",
            "dry-run",
            "method-help",
            "out",
            "resume",
            "set",
            "noise",
            "sampler",
            "mask",
            "coefficients",
            "update",
            "difference",
        ];
        let args = TrainArgs::parse_from(["train"]);
        let plan = Plan::new(&args).unwrap();
        let all = serde_json::to_value(Resolved::new(&args, &plan, Searched::Given(1.0))).unwrap();
        let command = TrainArgs::command();
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let name = arg.get_long().unwrap();
            let written = all.get(name.replace('-', "_")).is_some();
            assert_ne!(written, left_out.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_same_run_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.toml");
        let again = |flags: &[&str]| {
            let args = TrainArgs::parse_from([&["train"], flags].concat());
            let plan = Plan::new(&args).unwrap();
            let text = Resolved::new(&args, &plan, Searched::Given(1e-5))
                .to_toml("above")
                .unwrap();
            assert!(text.starts_with("# above\n"), "{text}");
            std::fs::write(&path, &text).unwrap();
            let config = path.display().to_string();
            let argv = ["train", "--config", &config].map(std::ffi::OsString::from);
            let command = TrainArgs::command();
            let argv = crate::config::expand(&command, &command, argv.into(), 1).unwrap();
            let read = TrainArgs::parse_from(argv);
            let same = Plan::new(&read).unwrap();
            assert_eq!(same.config.method, plan.config.method, "{text}");
            assert_eq!(
                Resolved::new(&read, &same, Searched::Given(1e-5))
                    .to_toml("above")
                    .unwrap(),
                text
            );
            let of = |plan: &Plan| serde_json::to_value(&plan.config).unwrap();
            let (mut before, mut after) = (of(&plan), of(&same));
            // Read from the file, it is given.
            (before["lr"], after["lr"]) = (Value::Null, Value::Null);
            assert_eq!(before, after);
        };
        again(&[]);
        again(&[
            "--method",
            "gv",
            "--sampler",
            "none",
            "--difference",
            "one-sided",
        ]);
        again(&[
            "--method",
            "gv",
            "--candidates",
            "3",
            "--normalize",
            "--noise",
            "rademacher",
        ]);
        again(&[
            "--method",
            "lezo",
            "--drop",
            "0.3",
            "--set",
            "weight_decay=0.1",
            "--seed",
            "18446744073709551615",
        ]);
        again(&[
            "--method",
            "sparse-magnitude",
            "--global",
            "--tuning",
            "lora",
            "--lora-targets",
            "q_proj,k_proj",
            "--lora-train-a",
        ]);
        again(&[
            "--tuning",
            "prefix",
            "--virtual-tokens",
            "3",
            "--objective",
            "accuracy",
            "--keep-best",
            "--patience",
            "2",
        ]);
        again(&[
            "--template",
            "{passage} {question}?\n",
            "--words",
            "No,Yes",
            "--reward",
            "sh 'a b.sh'",
        ]);
        again(&[
            "--template",
            "{passage}\\n",
            "--answer",
            "question",
            "--answer-tokens",
            "5",
            "--group-by-length",
            "false",
        ]);
        again(&[
            "--method",
            "icl",
            "--demonstrations",
            "2",
            "--log",
            "csv,tensorboard",
        ]);
        again(&["--split", "queries,candidates", "--shards", "2"]);
    }
}
