use serde_json::{Map, Value, json};

use super::*;
use crate::data::task::{Answer, read_row, read_unlabelled};

fn row(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn read(task: &TemplateTask, value: Value) -> Example {
    let mut examples = read_row(task, &row(value)).unwrap();
    assert_eq!(examples.len(), 1);
    examples.remove(0)
}

fn refused(task: &TemplateTask, value: Value) -> String {
    read_row(task, &row(value)).unwrap_err().to_string()
}

#[test]
fn labels_come_in_every_form() {
    let task = TemplateTask::classification("{s} It was", &["bad", "so-so", " good"], "label");
    let task = task.unwrap();
    assert_eq!(task.label_words(), [" bad", " so-so", " good"]);
    for (label, index) in [
        (json!(0), 0),
        (json!("2"), 2),
        (json!(1.0), 1),
        (json!("Good"), 2),
        (json!("so-so"), 1),
    ] {
        let example = read(&task, json!({"s": "A film.", "label": label}));
        assert_eq!(
            (example.prompt.as_str(), example.label()),
            ("A film. It was", Some(index))
        );
    }
    let error = refused(&task, json!({"s": "x", "label": 3}));
    assert!(
        error.contains("`label` is 3, expected one of bad, so-so, good"),
        "{error}"
    );
    assert!(refused(&task, json!({"s": "x", "label": true})).contains("is true"));
    assert!(refused(&task, json!({"label": 1})).contains("field `s` is missing"));

    let named = task.with_labels(&["neg", "mid", "pos"]).unwrap();
    assert_eq!(
        read(&named, json!({"s": "x", "label": "POS"})).label(),
        Some(2)
    );
    assert!(refused(&named, json!({"s": "x", "label": "good"})).contains("neg, mid, pos"));
    // Stars: names that are numbers.
    let stars = TemplateTask::classification("{s}", &["bad", "so-so", "good"], "stars").unwrap();
    let stars = stars.with_labels(&["1", "2", "3"]).unwrap();
    for stars_given in [json!(1), json!("1")] {
        assert_eq!(
            read(&stars, json!({"s": "x", "stars": stars_given})).label(),
            Some(0)
        );
    }
    let two = TemplateTask::classification("{s}?", &["No", "Yes"], "l").unwrap();
    assert_eq!(read(&two, json!({"s": "x", "l": true})).label(), Some(1));
}

#[test]
fn templates_have_fields_braces_and_lines() {
    let task = TemplateTask::classification("{{{a.b}}} \\\\ {n}?\\n", &["No", "Yes"], "l").unwrap();
    let example = read(&task, json!({"a": {"b": " x "}, "n": 2.0, "l": 0}));
    assert_eq!(example.prompt, "{x} \\ 2?\n");
    // After a new line no space is needed.
    assert_eq!(task.label_words(), ["No", "Yes"]);
    let spaced = TemplateTask::classification("{n} is  ", &["No", "Yes"], "l").unwrap();
    assert_eq!(read(&spaced, json!({"n": "x", "l": 0})).prompt, "x is");
    assert_eq!(spaced.label_words(), [" No", " Yes"]);
    let error = |template: &str| {
        TemplateTask::generation(template, "a")
            .unwrap_err()
            .to_string()
    };
    assert!(error("{a").contains("`{` without its partner"));
    assert!(error("a} {b}").contains("`}` without its partner"));
    assert!(error("{a{b}}").contains("`{` without"));
    assert!(error("It was").contains("names no field"));
    let missing = refused(&task, json!({"a": {"c": 1}, "n": 1, "l": 0}));
    assert!(missing.contains("`a.b` is missing"), "{missing}");
}

#[test]
fn words_and_labels_must_go_together() {
    let words = |words: &[&str]| TemplateTask::classification("{s}", words, "l");
    let error = |result: Result<TemplateTask, TemplateError>| result.unwrap_err().to_string();
    assert!(error(words(&["a"])).contains("1 words: give at least 2"));
    assert!(error(words(&["a", "b", "a"])).contains("word `a` is given twice"));
    let task = words(&["a", "b"]).unwrap();
    let error = |names: &[&str]| task.clone().with_labels(names).unwrap_err().to_string();
    assert!(error(&["x"]).contains("1 labels for 2 words"));
    assert!(error(&["x", "x"]).contains("label `x` is given twice"));
}

#[test]
fn options_are_columns_or_a_list() {
    let columns = TemplateTask::choice("{premise} so", &["a", "b"], "label").unwrap();
    for (label, index) in [(json!("b"), 1), (json!(0), 0), (json!("it rained"), 1)] {
        let value = json!({"premise": "x", "a": "it snowed", "b": "it rained", "label": label});
        let example = read(&columns, value);
        assert_eq!(example.label(), Some(index));
        let Answer::Choice { options, .. } = example.answer else {
            panic!("a choice")
        };
        assert_eq!(options, [" it snowed", " it rained"]);
    }
    let list = TemplateTask::choice("{q}\n", &["choices"], "label").unwrap();
    let example = read(
        &list,
        json!({"q": "x", "choices": ["u", "v", 3], "label": "v"}),
    );
    assert_eq!(example.label(), Some(1));
    let error = refused(&list, json!({"q": "x", "choices": ["u"], "label": 0}));
    assert!(error.contains("at least two options"), "{error}");
    assert!(refused(&list, json!({"q": "x", "choices": ["u", "v"], "label": 2})).contains("is 2"));
    assert!(TemplateTask::choice("{q}", &["a", "a"], "l").is_err());
}

#[test]
fn answers_are_texts_numbers_or_lists() {
    let task = TemplateTask::generation("{q} A:", "a")
        .unwrap()
        .with_max_tokens(7);
    assert_eq!(task.answer_format().max_tokens, 7);
    for (answer, expected) in [
        (json!(" Paris "), vec!["Paris"]),
        (json!(3), vec!["3"]),
        (json!(["one", "", "two"]), vec!["one", "two"]),
    ] {
        let example = read(&task, json!({"q": "x", "a": answer}));
        let Answer::Text { references } = example.answer else {
            panic!("a text")
        };
        assert_eq!(references, expected);
    }
    assert_eq!(
        read_row(&task, &row(json!({"q": "x", "a": " "}))).unwrap(),
        []
    );
    assert_eq!(
        TemplateTask::generation("{q}\n", "a")
            .unwrap()
            .answer_format()
            .lead,
        ""
    );
}

#[test]
fn rows_without_an_answer_can_be_predicted() {
    let words = TemplateTask::classification("{s} It was", &["bad", "good"], "label").unwrap();
    let text = TemplateTask::generation("{s}", "answer").unwrap();
    let options = TemplateTask::choice("{s}", &["a", "b"], "label").unwrap();
    let value = row(json!({"s": "x", "a": "u", "b": "v"}));
    for task in [words.clone(), text, options] {
        let (examples, labelled) = read_unlabelled(&task, &value).unwrap();
        assert_eq!((examples.len(), labelled), (1, false));
    }
    let (examples, labelled) =
        read_unlabelled(&words, &row(json!({"s": "x", "label": 1}))).unwrap();
    assert_eq!((examples[0].label(), labelled), (Some(1), true));
    // A prompt's field is not made up, nor a label that is wrong.
    let error = |value| {
        read_unlabelled(&words, &row(value))
            .unwrap_err()
            .to_string()
    };
    assert!(error(json!({"t": "x"})).contains("`s` is missing"));
    assert!(error(json!({"s": "x", "label": 7})).contains("`label` is 7"));
    for (name, fields) in [
        (
            "squad",
            json!({"title": "t", "context": "c", "question": "q"}),
        ),
        ("drop", json!({"passage": "p", "question": "q"})),
        ("boolq", json!({"passage": "p", "question": "q"})),
        (
            "copa",
            json!({"premise": "p", "question": "cause", "choice1": "a", "choice2": "b"}),
        ),
    ] {
        let task = crate::data::task::task(name).unwrap();
        let (examples, labelled) = read_unlabelled(task.as_ref(), &row(fields)).unwrap();
        assert_eq!((examples.len(), labelled), (1, false), "{name}");
    }
    let record = crate::data::task::task("record").unwrap();
    let fields = json!({"passage": "p", "query": "@placeholder", "entities": ["a"]});
    let error = read_unlabelled(record.as_ref(), &row(fields)).unwrap_err();
    assert!(
        error.to_string().contains("`answers` is missing"),
        "{error}"
    );
}
