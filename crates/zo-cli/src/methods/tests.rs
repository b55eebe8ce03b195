use super::*;

fn flags(arguments: &[&str]) -> Flags {
    Flags::parse_from(arguments).unwrap()
}

fn message(name: &str, arguments: &[&str]) -> String {
    let built = find(name).and_then(|choice| choice.build(&Shared::default(), &flags(arguments)));
    built.err().map_or(String::new(), |error| error.to_string())
}

#[test]
fn every_choice_builds() {
    for choice in choices() {
        let built = choice.build(&Shared::default(), &Flags::default());
        let error = built.err().map_or(String::new(), |error| error.to_string());
        let differentiates = error.contains("cannot differentiate");
        assert!(
            error.is_empty() || (differentiates && cfg!(not(feature = "autodiff"))),
            "{error}"
        );
    }
}

#[test]
fn settings_are_those_the_optimizer_was_built_from() {
    let given = flags(&[
        "--candidates",
        "5",
        "--normalize",
        "--difference",
        "one-sided",
    ]);
    let built = find("gv")
        .unwrap()
        .build(&Shared::default(), &given)
        .unwrap();
    let sampler = &built.settings["sampler"];
    assert_eq!(sampler["candidates"], 5);
    assert_eq!(sampler["alpha"], 0.5);
    assert_eq!(sampler["normalize"], true);
    assert_eq!(built.settings["difference"], "one-sided");
    // Five candidates and a query, and L(theta).
    assert_eq!(built.forwards_per_step, 7);
}

#[test]
fn parts_combine_on_the_command_line() {
    let given = flags(&[
        "--mask",
        "random-layers",
        "--drop",
        "0.5",
        "--update",
        "adam-window",
        "--window",
        "4",
        "--noise",
        "rademacher",
        "--set",
        "mask.layers=children",
    ]);
    let built = find("gv")
        .unwrap()
        .build(&Shared::default(), &given)
        .unwrap();
    let settings = &built.settings;
    assert_eq!(settings["sampler"]["name"], "guiding-vector");
    assert_eq!(settings["mask"]["drop"], 0.5);
    assert_eq!(settings["mask"]["layers"], "children");
    assert_eq!(settings["update"]["window"], 4);
    assert_eq!(settings["noise"]["name"], "rademacher");
    // The old name of the flag.
    let built = find("mezo")
        .unwrap()
        .build(&Shared::default(), &flags(&["--sampler", "rademacher"]));
    assert_eq!(built.unwrap().settings["noise"]["name"], "rademacher");
    let built = find("mezo").unwrap().build(
        &Shared::default(),
        &flags(&["--sampler", "greedy", "--candidates", "3"]),
    );
    assert_eq!(built.unwrap().settings["sampler"]["candidates"], 3);
    let built = find("sparse-magnitude")
        .unwrap()
        .build(&Shared::default(), &flags(&["--global"]));
    assert_eq!(built.unwrap().settings["mask"]["kind"], "global-magnitude");
}

#[test]
fn learning_rates_are_round_numbers() {
    for choice in choices() {
        for tuning in ["full", "lora", "prefix"] {
            let tuning = tuning.parse().unwrap();
            let lr = learning_rate(&choice, &tuning, 1_000_000, true, None);
            assert!(lr.to_string().len() < 9, "{} {lr}", choice.name);
        }
    }
    let mezo = find("mezo").unwrap();
    let rate = |tuning: &str, scale_free| {
        let tuning = tuning.parse().unwrap();
        learning_rate(&mezo, &tuning, 135_000_000, false, scale_free)
    };
    let measured = ["full", "lora", "prefix"].map(|tuning| rate(tuning, None));
    assert_eq!(measured, [5e-5, 1.2e-2, 2e-2]);
    let lora = "lora".parse().unwrap();
    let rates = [("first-order-adam", 1e-3), ("adam", 5e-3), ("lezo", 3.6e-2)];
    for (name, lr) in rates {
        let choice = find(name).unwrap();
        let found = learning_rate(&choice, &lora, 135_000_000, false, None);
        assert_eq!(found, lr, "{name}");
    }
    for name in rate::AS_WITH_BOTH {
        assert!(find(name).is_ok(), "{name}");
    }
    // The length of a step, shared by four directions.
    assert_eq!(rate("full", Some(4)), 2.8e-3);
    assert_eq!(rounded(0.1 + 0.2), 0.3);
    assert!(rounded(f64::NAN).is_nan());
}

#[test]
fn what_does_not_belong_is_refused() {
    assert!(message("gv", &["--drop", "0.5"]).contains("--drop has no effect on --method gv"));
    assert_eq!(message("lezo", &["--drop", "0.5"]), "");
    assert!(message("mezzo", &[]).contains("use one of mezo, gv"));
    let error = Flags::parse_from(&["--mask", "dence"])
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("'dence'") && error.contains("similar value exists: 'dense'"),
        "{error}"
    );
    assert!(
        message("lezo", &["--set", "mask.dorp=1"]).contains("`mask.dorp`: use one of drop, layers")
    );
    assert!(message("lezo", &["--set", "mask.drop"]).contains("value"));
    assert!(message("lezo", &["--drop", "1.5"]).contains("drop is 1.5"));
    assert!(message("mezo", &["--top", "x"]).contains("hybrid"));
    assert!(help().contains("--drop"));
}
