use super::*;
use serde_json::json;
use zo_core::{Direction, Query};

fn report(step: u64) -> StepReport {
    let query = |projected_gradient| Query {
        direction: Direction::zero(),
        loss_plus: 1.0,
        loss_other: 2.0,
        projected_gradient,
    };
    StepReport {
        step,
        queries: vec![query(-1.0), query(3.0)],
        kappa: Some(0.75),
        forwards: 4,
        passes: 5,
        seconds_forward: 0.25,
        seconds_sweep: 0.125,
        ..StepReport::default()
    }
}

fn step(step: u64) -> Record {
    Record::of_step(&report(step - 1), 1e-3, 0.5)
}

fn evaluation(step: usize) -> Record {
    Record::new(step)
        .with("eval_accuracy", 0.5)
        .with("eval_f1", None::<f64>)
        .with("eval_loss", f64::NAN)
        .with("note", "a \"quoted\", long\nnote")
}

/// Before the first step, after it, after the second, which evaluates.
fn run(logger: &mut impl Logger) {
    for record in [evaluation(0), step(1), step(2), evaluation(2)] {
        logger.log(&record).unwrap();
    }
}

#[test]
fn records_are_objects() {
    assert_eq!(
        step(1).to_json(),
        json!({
            "step": 1, "loss": 1.5, "projected_gradients": [-1.0, 3.0], "learning_rate": 1e-3, "kappa": 0.75, "forwards": 4, "passes": 5,
            "skipped": false, "seconds": 0.5, "seconds_forward": 0.25, "seconds_sweep": 0.125,
        })
    );
    let note = "a \"quoted\", long\nnote";
    assert_eq!(
        evaluation(7).to_json(),
        json!({"step": 7, "eval_accuracy": 0.5, "eval_f1": null, "eval_loss": null, "note": note})
    );
}

#[test]
fn several_numbers_are_one_by_their_mean_absolute_value() {
    let record = Record::new(0)
        .with("g", vec![-1.0, 3.0])
        .with("none", Vec::new())
        .with("skipped", true)
        .with("count", 3usize)
        .with("text", "text")
        .with("missing", None::<u64>);
    let numbers: Vec<_> = record.numbers().collect();
    let expected = [("mean_abs_g", 2.0), ("skipped", 1.0), ("count", 3.0)];
    assert_eq!(
        numbers,
        expected.map(|(name, number)| (name.to_owned(), number))
    );
}

#[test]
fn lines_are_there_at_once_and_those_past_the_checkpoint_go() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.jsonl");
    std::fs::write(&path, "of another run").unwrap();
    let mut logger = JsonLines::new(&path);
    run(&mut logger);
    let expected = [evaluation(0), step(1), step(2), evaluation(2)].map(|r| r.to_json());
    let text: String = expected.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);

    // Half a line, of a process that died.
    std::fs::write(&path, text.clone() + "{\"step\": 2").unwrap();
    let mut logger = JsonLines::new(&path);
    logger.resume(1, true).unwrap();
    assert_eq!(logger.read().unwrap(), expected[..2]);
    logger.log(&step(2)).unwrap();
    logger.log(&evaluation(2)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    // The same logger may go on, too.
    logger.resume(2, true).unwrap();
    assert_eq!(logger.read().unwrap(), expected);
    logger.resume(0, true).unwrap();
    assert_eq!(logger.read().unwrap(), expected[..1]);
}

const TABLE: &str = r#"step,eval_accuracy,eval_loss,note,loss,mean_abs_projected_gradients,learning_rate,kappa,forwards,passes,skipped,seconds,seconds_forward,seconds_sweep
0,0.5,NaN,"a ""quoted"", long
note",,,,,,,,,,
1,,,,1.5,2,0.001,0.75,4,5,0,0.5,0.25,0.125
2,,,,1.5,2,0.001,0.75,4,5,0,0.5,0.25,0.125
2,0.5,NaN,"a ""quoted"", long
note",,,,,,,,,,
"#;

#[test]
fn tables_have_a_column_for_each_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.csv");
    std::fs::write(&path, "of another run").unwrap();
    let mut logger = Csv::new(&path);
    run(&mut logger);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), TABLE);

    std::fs::write(&path, format!("{TABLE}3,half")).unwrap();
    let mut logger = Csv::new(&path);
    logger.resume(1, true).unwrap();
    let first = TABLE.find("\n2,").unwrap() + 1;
    assert_eq!(std::fs::read_to_string(&path).unwrap(), TABLE[..first]);
    logger.log(&step(2)).unwrap();
    logger.log(&evaluation(2)).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), TABLE);

    // A run that was not logged so far.
    std::fs::remove_file(&path).unwrap();
    let mut logger = Csv::new(&path);
    logger.resume(1, true).unwrap();
    logger.log(&Record::new(2).with("loss", 0.5)).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "step,loss\n2,0.5\n"
    );
}

#[test]
fn what_is_not_a_table_of_a_run_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("metrics.csv");
    std::fs::write(&path, "a,b\n1,2\n").unwrap();
    let error = Csv::new(&path).resume(1, true).unwrap_err().to_string();
    assert!(
        error.contains("metrics.csv") && error.contains("`step`"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a,b\n1,2\n");
}

#[test]
fn errors_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let inside = file.join("inside");
    let mut loggers: Vec<Box<dyn Logger>> = vec![
        Box::new(JsonLines::new(&inside)),
        Box::new(Csv::new(&inside)),
        Box::new(TensorBoard::new(&inside)),
    ];
    for logger in &mut loggers {
        for failed in [logger.log(&step(1)), logger.resume(1, true)] {
            let error = failed.unwrap_err().to_string();
            assert!(
                error.contains("a-file") && error.contains("inside"),
                "{error}"
            );
        }
    }
}

#[test]
fn several_loggers_are_told_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|name| JsonLines::new(dir.path().join(name)));
    let mut both: Vec<Box<dyn Logger>> = vec![Box::new(a), Box::new(b)];
    run(&mut both);
    both.resume(1, true).unwrap();
    let [a, b] = ["a", "b"].map(|name| std::fs::read_to_string(dir.path().join(name)).unwrap());
    assert_eq!((a.lines().count(), &a), (2, &b));
}

/// A process died between the log and whatever remembers that the evaluation is done.
#[test]
fn an_evaluation_that_comes_again_is_there_once() {
    let dir = tempfile::tempdir().unwrap();
    let size = || {
        let files = std::fs::read_dir(dir.path()).unwrap();
        let sizes = files.map(|file| file.unwrap().metadata().unwrap().len());
        sizes.sum::<u64>()
    };
    let json = dir.path().join("metrics.jsonl");
    let csv = dir.path().join("metrics.csv");
    let make: [&dyn Fn() -> Box<dyn Logger>; 3] = [
        &|| Box::new(JsonLines::new(&json)),
        &|| Box::new(Csv::new(&csv)),
        &|| Box::new(TensorBoard::new(dir.path())),
    ];
    for make in make {
        let before = size();
        let mut logger = make();
        for record in [evaluation(0), step(1), step(2)] {
            logger.log(&record).unwrap();
        }
        let without = size() - before;
        logger.log(&evaluation(2)).unwrap();
        let whole = size() - before;
        let mut logger = make();
        logger.resume(2, true).unwrap();
        assert_eq!(size() - before, whole, "it is done");
        logger.resume(2, false).unwrap();
        assert_eq!(size() - before, without, "it comes again");
        logger.log(&evaluation(2)).unwrap();
        assert_eq!(size() - before, whole);
    }
}
