use clap::{CommandFactory, Parser};
use zo_optim::Perturbation;

use super::*;
use crate::train::{Searched, TrainArgs};

fn expanded(file: &str, args: &[&str]) -> Result<Vec<String>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, file).unwrap();
    let path = path.display().to_string();
    let argv = [&["train", "--config", &path], args].concat();
    let argv = argv.into_iter().map(OsString::from).collect();
    let command = TrainArgs::command();
    let all = expand(&command, &command, argv, 1).map_err(|error| error.to_string())?;
    let all = all.iter().map(|arg| arg.to_string_lossy().into_owned());
    Ok(all
        .filter(|arg| !arg.contains(&path) && arg != "--config")
        .collect())
}

fn parsed(file: &str, args: &[&str]) -> TrainArgs {
    TrainArgs::try_parse_from(expanded(file, args).unwrap()).unwrap()
}

#[test]
fn keys_are_flags_and_flags_override_them() {
    let file = "steps = 7\nlr = 1e-7\nkeep_best = true\nlora-targets = ['a', 'b']\ntuning = 'lora'\ngroup_by_length = false";
    let args = parsed(file, &[]);
    assert_eq!(
        (args.steps, args.lr, args.keep_best),
        (7, Some(Searched::Given(1e-7)), true)
    );
    assert_eq!(args.tune.lora_targets.unwrap(), ["a", "b"]);
    assert!(!args.group_by_length);
    let args = parsed(
        file,
        &["--steps", "9", "--keep-best=false", "--lora-targets=c"],
    );
    assert_eq!((args.steps, args.keep_best), (9, false));
    assert_eq!(args.tune.lora_targets.unwrap(), ["c"]);
    // Without a file nothing changes.
    let command = TrainArgs::command();
    let argv: Vec<OsString> = ["train", "--steps", "3"].map(OsString::from).into();
    assert_eq!(expand(&command, &command, argv.clone(), 1).unwrap(), argv);
}

#[test]
fn what_contradicts_a_flag_is_left_out() {
    let file =
        "template = '{s}?'\nwords = 'No,Yes'\nlabel = 'l'\nper_class = 4\nobjective = 'accuracy'";
    let args = parsed(file, &[]);
    assert_eq!(args.data.task.words.unwrap(), ["No", "Yes"]);
    let args = parsed(
        file,
        &["--task", "rte", "--train-rows", "5", "--reward", "x"],
    );
    assert_eq!(
        (args.data.task.template, args.data.task.words),
        (None, None)
    );
    assert_eq!((args.data.per_class, args.data.train_rows), (None, Some(5)));
    assert_eq!(args.reward.unwrap(), "x");
}

#[test]
fn methods_are_tables_or_names() {
    assert_eq!(parsed("method = 'lezo'", &[]).method, "lezo");
    let file = "[method]\nname = 'lezo'\nepsilon = 0.5\nperturbation = 'on-the-fly'\nmask = { drop = 0.25 }";
    let args = parsed(file, &[]);
    assert_eq!(
        (args.method.as_str(), args.epsilon),
        ("lezo", Some(Searched::Given(0.5)))
    );
    assert_eq!(args.perturb, Some(Perturbation::OnTheFly));
    let built = |args: &TrainArgs| {
        let choice = crate::methods::find(&args.method).unwrap();
        choice
            .build(&Default::default(), &args.flags)
            .unwrap()
            .settings
    };
    assert_eq!(built(&args)["mask"]["drop"], 0.25);
    assert_eq!(
        built(&parsed(file, &["--drop", "0.5"]))["mask"]["drop"],
        0.5
    );
    assert_eq!(
        built(&parsed(file, &["--set", "mask.drop=0.1"]))["mask"]["drop"],
        0.1
    );
    assert_eq!(
        built(&parsed(file, &["--mask", "dense"]))["mask"]["name"],
        "dense"
    );
    // Another method: the settings of the file's parts are not its own.
    assert_eq!(
        built(&parsed(file, &["--method", "mezo"]))["mask"]["name"],
        "dense"
    );
    let error = expanded("epsilon = 1\n[method]\nepsilon = 2", &[]).unwrap_err();
    assert!(error.contains("`epsilon` stands both"), "{error}");
}

#[test]
fn unknown_keys_and_values_are_refused() {
    let error = expanded("stepps = 3", &[]).unwrap_err();
    assert!(
        error.contains("run.toml: unknown key `stepps`: use one of "),
        "{error}"
    );
    assert!(
        error.contains("lora_rank") && !error.contains("dry_run"),
        "{error}"
    );
    assert!(
        expanded("dry_run = true", &[])
            .unwrap_err()
            .contains("`dry_run`")
    );
    assert!(
        expanded("steps = {}", &[])
            .unwrap_err()
            .contains("`steps` is {}")
    );
    assert!(expanded("steps =", &[]).unwrap_err().contains("not TOML"));
    assert!(
        expanded("resume = 3", &[])
            .unwrap_err()
            .contains("true or false")
    );
    let error = expanded("tuning = 'lorra'", &[]).unwrap_err();
    assert!(
        error.contains("run.toml: invalid value 'lorra' for '--tuning"),
        "{error}"
    );
    assert!(
        error.contains("lorra") && error.contains("similar value exists: 'lora'"),
        "{error}"
    );
}

#[test]
fn one_file_serves_several_commands() {
    let small = Command::new("small").arg(Arg::new("steps").long("steps"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.toml");
    std::fs::write(&path, "steps = 3\nlr = 1\n[method]\nname = 'lezo'").unwrap();
    let config = format!("--config={}", path.display());
    let argv = vec![OsString::from("small"), OsString::from(config.clone())];
    let all = expand(&small, &TrainArgs::command(), argv, 1).unwrap();
    assert_eq!(all, ["small", "--steps=3", &config].map(OsString::from));
}
