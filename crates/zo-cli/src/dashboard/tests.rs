use super::*;
use crate::run::{Curves, Measured};
use burn::tensor::Device;
use zo_llm::dataset::{Encoding, Split};
use zo_llm::task::rows::read_examples;
use zo_llm::task::{Example, Opinions};
use zo_llm::{Dtype, load};

/// Four bundled rows, whose answers are these options.
fn rows(labels: [usize; 4]) -> Dataset {
    let (model, data) = (
        crate::bundled::model().unwrap(),
        crate::bundled::rows().unwrap(),
    );
    let loaded = load(model.path(), Dtype::F32, &Device::flex()).unwrap();
    let mut examples = read_examples(&Opinions, data.path(), Split::Dev, Some(4)).unwrap();
    for ((example, _), label) in examples.iter_mut().zip(labels) {
        *example = Example::choice(example.prompt.clone(), &[" No", " Yes"], label);
    }
    Dataset::encode(
        &Opinions,
        &examples,
        &loaded.tokenizer,
        96,
        &Encoding::default(),
    )
    .unwrap()
}

fn ended(predictions: Value) -> Ended {
    let losses = (0..9000).map(|step| (f64::from(step), 0.5)).collect();
    Ended {
        measured: Measured::default(),
        curves: Curves {
            losses,
            eval_losses: vec![(0.0, f64::NAN), (9.0, 0.25)],
            ..Curves::default()
        },
        predictions,
    }
}

/// What a browser reads as the data.
fn data(page: &str) -> Value {
    let start =
        page.find("type=\"application/json\">").unwrap() + "type=\"application/json\">".len();
    let end = page[start..].find("</script>").unwrap();
    serde_json::from_str(&page[start..start + end]).unwrap()
}

#[test]
fn rows_that_changed_are_told_with_their_texts() {
    let rows = rows([1, 0, 1, 0]);
    // Now right, now wrong, the same, an answer that is gone.
    let predictions = json!({"before": [0, 0, 1, 1], "after": [1, 1, 1, null]});
    let page = page("a run", &json!({}), &ended(predictions), &rows).unwrap();
    let answers = &data(&page)["answers"];
    let counts = ["rows", "fixed", "broken", "other"].map(|name| &answers[name]);
    assert_eq!(counts, [4, 1, 1, 1]);
    let shown = answers["shown"].as_array().unwrap();
    let told = shown
        .iter()
        .map(|row| ["row", "change", "before", "after", "right"].map(|name| row[name].clone()));
    assert_eq!(
        told.collect::<Vec<_>>(),
        [
            [
                json!(0),
                json!("fixed"),
                json!("No"),
                json!("Yes"),
                json!("Yes")
            ],
            [
                json!(1),
                json!("broken"),
                json!("No"),
                json!("Yes"),
                json!("No")
            ],
            [
                json!(3),
                json!("other"),
                json!("Yes"),
                Value::Null,
                json!("No")
            ],
        ]
    );
    assert_eq!(shown[0]["prompt"].as_str(), rows.prompt_text(0).as_deref());
    assert!(shown[0]["prompt"].as_str().unwrap().len() > 20);
}

#[test]
fn nothing_in_the_data_can_leave_its_script() {
    let title = "</script><script>alert(1)</script><!-- {{data}}";
    let page = page(
        title,
        &json!({"model": title}),
        &ended(json!({})),
        &rows([0; 4]),
    )
    .unwrap();
    assert_eq!(
        page.matches("</script>").count(),
        TEMPLATE.matches("</script>").count()
    );
    assert!(!page.contains("<!--"));
    let data = data(&page);
    assert_eq!([&data["title"], &data["report"]["model"]], [title; 2]);
}

#[test]
fn curves_are_thinned_and_hold_only_numbers() {
    let page = page("a run", &json!({}), &ended(json!({})), &rows([0; 4])).unwrap();
    let curves = &data(&page)["curves"];
    let count = |name: &str| curves[name].as_array().unwrap().len();
    assert!(
        (1000..=POINTS + 1).contains(&count("loss")),
        "{}",
        count("loss")
    );
    assert_eq!((count("loss_smooth"), count("score")), (count("loss"), 0));
    assert_eq!(curves["eval_loss"], json!([[9.0, 0.25]]));
}

#[test]
fn the_page_needs_no_network() {
    for outside in ["src=", "href=", "@import", "url(", "fetch("] {
        assert!(!TEMPLATE.contains(outside), "{outside}");
    }
    // Names of XML are not fetched.
    let links = TEMPLATE.matches("http").count();
    assert_eq!(
        links - TEMPLATE.matches("http-equiv").count(),
        TEMPLATE.matches("http://www.w3.org/").count()
    );
    assert_eq!(TEMPLATE.matches(PLACE).count(), 1);
}

#[test]
fn long_prompts_lose_their_middle() {
    let prompt = format!("begin {} end", "é".repeat(2 * PROMPT));
    let cut = cut(&prompt);
    assert!(cut.starts_with("begin é") && cut.ends_with("é end"));
    assert_eq!(cut.chars().count(), PROMPT + " [...] ".len());
    assert_eq!(super::cut("short"), "short");
}
