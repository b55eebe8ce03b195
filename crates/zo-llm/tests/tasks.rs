//! The official files of the eleven tasks: prompts, options, labels and references as MeZO's templates define them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use zo_llm::dataset::Split;
use zo_llm::task::rows::{At, Place, RowsError, read_examples};
use zo_llm::task::{Answer, Example, task};

type Read = Result<Vec<(Example, Place)>, RowsError>;

/// The training examples of a folder with one file.
fn read(name: &str, file: &str, text: &str) -> Read {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(file), text).unwrap();
    let task = task(name).unwrap();
    read_examples(task.as_ref(), dir.path(), Split::Train, None)
}

/// Checks prompts, options and labels.
fn choices(read: Read, expected: &[(&str, &[&str], usize)]) {
    let examples = read.unwrap();
    assert_eq!(examples.len(), expected.len());
    for ((example, _), (prompt, words, right)) in examples.iter().zip(expected) {
        let Answer::Choice { options, label, .. } = &example.answer else {
            panic!("{example:?}")
        };
        assert_eq!((example.prompt.as_str(), label), (*prompt, right));
        assert_eq!(options, words);
    }
}

/// Checks prompts and references.
fn texts(read: Read, expected: &[(&str, &[&str])]) {
    let examples = read.unwrap();
    assert_eq!(examples.len(), expected.len());
    for ((example, _), (prompt, answers)) in examples.iter().zip(expected) {
        let Answer::Text { references } = &example.answer else {
            panic!("{example:?}")
        };
        assert_eq!(example.prompt, *prompt);
        assert_eq!(references, answers);
    }
}

/// Checks that the error says all of this.
fn refused(read: Read, words: &[&str]) {
    let message = read.unwrap_err().to_string();
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

#[test]
fn glue_has_tsv() {
    let words: &[&str] = &[" terrible", " great"];
    let text = "sentence\tlabel\nhides its \"secrets \t0\na film , by the way , \t1\n";
    let expected = [
        ("hides its \"secrets It was", words, 0),
        ("a film , by the way , It was", words, 1),
    ];
    choices(read("sst2", "train.tsv", text), &expected);
    let crlf = text.replace('\n', "\r\n");
    let examples = read("sst2", "train.tsv", &crlf).unwrap();
    assert_eq!(examples[1].1.at, At::Line(3));
    choices(Ok(examples), &expected);
    let text = "index\tsentence1\tsentence2\tlabel\n0\tIt rains.\tIt is wet.\tnot_entailment\n";
    let prompt = "It rains.\nDoes this mean that \"It is wet.\" is true? Yes or No?\n";
    choices(
        read("rte", "train.tsv", text),
        &[(prompt, &["Yes", "No"], 1)],
    );
}

/// MeZO strips texts in Python, which treats the separators U+001C to U+001F as white space.
#[test]
fn white_space_is_pythons() {
    let row = r#"{"sentence": "\u001f fine \u001c", "label": 1}"#;
    let words: &[&str] = &[" terrible", " great"];
    choices(
        read("sst2", "train.jsonl", row),
        &[("fine It was", words, 1)],
    );
    let row = r#"{"passage": "\u001eRed.\u001e", "question": "\u001dis it?\u001d", "label": 1}"#;
    let words: &[&str] = &["No", "Yes"];
    choices(
        read("boolq", "train.jsonl", row),
        &[("Red. Is it?\n", words, 1)],
    );
    let row = r#"{"premise": "Wet.\u001f", "choice1": "\u001fA", "choice2": "B\u001f", "question": "effect", "label": 0}"#;
    choices(
        read("copa", "train.jsonl", row),
        &[("Wet so", &[" a", " b"], 0)],
    );
    let row = r#"{"title": "T", "context": "C", "question": "Q?\u001c", "answers": {"text": ["\u001f", "A"]}}"#;
    let prompt = "Title: T\nContext: C\nQuestion: Q?\nAnswer:";
    texts(read("squad", "train.jsonl", row), &[(prompt, &["A"])]);
    let row = r#"{"passage": "P", "question": "\u001fQ?", "answers_spans": {"spans": ["A"]}}"#;
    let prompt = "Passage: P\nQuestion: Q?\nAnswer:";
    texts(read("drop", "train.jsonl", row), &[(prompt, &["A"])]);
}

#[test]
fn superglue_and_hugging_face_name_or_number_the_labels() {
    let row = |label: &str| {
        let label = format!("{{\"premise\": \"A!\", \"hypothesis\": \"B.\", \"label\": {label}}}");
        label + "\n"
    };
    let rte = "A!\nDoes this mean that \"B.\" is true? Yes or No?\n";
    let rows = ["\"entailment\"", "\"not_entailment\"", "0", "1"]
        .map(row)
        .concat();
    let expected = [0, 1, 0, 1].map(|label| (rte, &["Yes", "No"][..], label));
    choices(read("rte", "train.jsonl", &rows), &expected);
    let cb = "Suppose A! Can we infer that \"B.\"? Yes, No, or Maybe?\n";
    let rows = ["\"entailment\"", "\"contradiction\"", "\"neutral\"", "2"];
    let expected = [0, 1, 2, 2].map(|label| (cb, &["Yes", "No", "Maybe"][..], label));
    choices(
        read("cb", "train.jsonl", &rows.map(row).concat()),
        &expected,
    );
    refused(
        read("rte", "train.jsonl", &row("\"neutral\"")),
        &[
            "train.jsonl, line 1",
            "`label` is \"neutral\"",
            "entailment",
        ],
    );
    refused(
        read("rte", "train.jsonl", &row("true")),
        &["`label` is true"],
    );
}

#[test]
fn yes_no_tasks() {
    let words: &[&str] = &["No", "Yes"];
    let boolq = r#"{"passage": "Anna ran. ", "question": "did anna run", "label": true}
{"passage": "Anna ran.", "question": "did ben run?", "title": "Anna", "answer": false}"#;
    let expected = [
        ("Anna ran. Did anna run?\n", words, 1),
        ("Anna ran. Did ben run?\n", words, 0),
    ];
    choices(read("boolq", "train.jsonl", boolq), &expected);
    let expected =
        expected.map(|(prompt, words, label)| (prompt.replace("Did", "did"), words, label));
    let expected = expected
        .each_ref()
        .map(|(prompt, words, label)| (prompt.as_str(), *words, *label));
    choices(read("opinions", "train.jsonl", boolq), &expected);

    let wsc = r#"{"text": "Mark told Pete lies. He fled.", "label": true, "idx": 0, "target":
 {"span1_index": 0, "span1_text": "Mark", "span2_index": 4, "span2_text": "He"}}"#;
    let flat = r#"{"text": "Mark told Pete lies. He fled.", "span1_text": "Pete", "span2_text": "he", "label": 0}"#;
    let wsc = format!("{}\n{flat}", wsc.replace('\n', ""));
    let prompt = |noun: &str| {
        let asked = format!("does the pronoun \"he\" refer to {noun}? Yes or No?\n");
        format!("Mark told Pete lies. He fled.\nIn the previous sentence, {asked}")
    };
    let (mark, pete) = (prompt("Mark"), prompt("Pete"));
    let expected = [(mark.as_str(), words, 1), (pete.as_str(), words, 0)];
    choices(read("wsc", "train.jsonl", &wsc), &expected);

    let wic = r#"{"word": "bank", "sentence1": "A river bank.", "sentence2": "A bank loan.", "label": false}"#;
    let prompt = "Does the word \"bank\" have the same meaning in these two sentences? Yes, No?\nA river bank.\nA bank loan.\n";
    choices(read("wic", "train.jsonl", wic), &[(prompt, words, 0)]);
}

#[test]
fn multirc_nests_answers_below_questions() {
    let nested = r#"{"idx": 0, "passage": {"text": "Ann ate.", "questions": [
{"question": "Who?", "answers": [{"text": "Ann", "label": 1}, {"text": "Ben", "label": 0}]},
{"question": "What?", "answers": [{"text": "Soup", "label": 0}]}]}}"#
        .replace('\n', "");
    let prompt = |question: &str, answer: &str| {
        format!(
            "Ann ate.\nQuestion: {question}\nI found this answer \"{answer}\". Is that correct? Yes or No?\n"
        )
    };
    let prompts = [("Who?", "Ann"), ("Who?", "Ben"), ("What?", "Soup")].map(|(q, a)| prompt(q, a));
    let words: &[&str] = &["No", "Yes"];
    let expected = [
        (prompts[0].as_str(), words, 1),
        (prompts[1].as_str(), words, 0),
        (prompts[2].as_str(), words, 0),
    ];
    choices(read("multirc", "train.jsonl", &nested), &expected);
    let flat = r#"{"paragraph": "Ann ate.", "question": "Who?", "answer": "Ann", "label": 1}"#;
    choices(read("multirc", "train.jsonl", flat), &expected[..1]);
    refused(
        read(
            "multirc",
            "train.jsonl",
            &format!("\n{}", nested.replace("Soup\",", "Soup\"}, {")),
        ),
        &[
            "train.jsonl, line 2",
            "`passage.questions[1].answers[0].label` is missing",
        ],
    );
}

#[test]
fn copa_chooses_between_sentences() {
    let text = r#"{"premise": "The man fell. ", "choice1": "I pushed him.", "choice2": "Ice Was there.", "question": "cause", "label": 1}
{"premise": "It rained!", "choice1": "It got wet.", "choice2": "No.", "question": "effect", "label": 0}"#;
    choices(
        read("copa", "train.jsonl", text),
        &[
            (
                "The man fell because",
                &[" I pushed him.", " ice Was there."],
                1,
            ),
            ("It rained! so", &[" it got wet.", " no."], 0),
        ],
    );
    refused(
        read("copa", "train.jsonl", &text.replace("effect", "why")),
        &["line 2", "`question` is \"why\"", "`cause` or `effect`"],
    );
}

#[test]
fn record_fills_gaps_with_names() {
    // Positions count characters, of which é is one; a name that occurs twice is one option.
    let nested =
        r#"{"source": "x", "passage": {"text": "André met Ben.\n@highlight\nBen won", "entities":
 [{"start": 0, "end": 4}, {"start": 10, "end": 12}, {"start": 26, "end": 28}]}, "qas":
 [{"query": "@placeholder lost.", "answers": [{"start": 0, "end": 4, "text": "André"}]},
 {"query": "He is @placeholder", "answers": [{"text": "Ben"}, {"text": "André"}]}]}"#
            .replace('\n', "");
    let prompt = "André met Ben.\n- Ben won\n-";
    let expected: [(&str, &[&str], usize); 2] = [
        (prompt, &[" André lost.", " Ben lost."], 0),
        (prompt, &[" He is André", " He is Ben"], 0),
    ];
    choices(read("record", "train.jsonl", &nested), &expected);
    let second = &read("record", "train.jsonl", &nested).unwrap()[1].0;
    assert!(second.is_right(0) && second.is_right(1) && !second.is_right(2));

    let flat = r#"{"passage": "André met Ben.\n@highlight\nBen won", "query": "@placeholder lost.",
 "entities": ["Ben", "André"], "answers": ["André", "Andre"]}"#
        .replace('\n', "");
    let options: &[&str] = &[" Ben lost.", " André lost.", " Andre lost."];
    choices(
        read("record", "train.jsonl", &flat),
        &[(prompt, options, 1)],
    );
    let far = nested.replace("\"end\": 28", "\"end\": 280");
    refused(
        read("record", "train.jsonl", &far),
        &["`passage.entities[2].end` is 280"],
    );
    let none = flat.replace("[\"André\", \"Andre\"]", "[]");
    refused(
        read("record", "train.jsonl", &none),
        &["`answers` is []", "one answer"],
    );
    let whole = flat.replace("@placeholder", "Ann");
    refused(
        read("record", "train.jsonl", &whole),
        &["`query` is \"Ann lost.\""],
    );
}

#[test]
fn squad_has_articles_or_rows() {
    let article = r#"{"version": "1.1", "data": [{"title": "Super_Bowl", "paragraphs": [{"context": "Denver won.", "qas": [
{"id": "a", "question": " Who won?", "answers": [{"answer_start": 0, "text": "Denver"}, {"text": "Denver won"}, {"text": "Denver"}]},
{"id": "b", "question": "Why?", "answers": [], "is_impossible": true}]}]}]}"#;
    let prompt = "Title: Super_Bowl\nContext: Denver won.\nQuestion: Who won?\nAnswer:";
    let expected: [(&str, &[&str]); 1] = [(prompt, &["Denver", "Denver won"])];
    texts(read("squad", "train-v1.1.json", article), &expected);
    let flat = r#"{"id": "a", "title": "Super_Bowl", "context": "Denver won.", "question": "Who won?",
 "answers": {"text": ["Denver", "Denver won"], "answer_start": [0, 0]}}"#;
    texts(
        read("squad", "train.jsonl", &flat.replace('\n', "")),
        &expected,
    );
    texts(read("squad", "train.json", &format!("[{flat}]")), &expected);
    refused(
        read(
            "squad",
            "train-v1.1.json",
            &article.replace("\"text\": \"Denver\"}]", "\"text\": 5}]"),
        ),
        &[
            "train-v1.1.json, data[0]: ",
            "`paragraphs[0].qas[0].answers[2].text` is 5",
        ],
    );
}

#[test]
fn drop_has_sections_or_rows() {
    let none = r#""date": {"day": "", "month": "", "year": ""}"#;
    let sections = format!(
        r#"{{"nfl_2": {{"passage": "P.", "qa_pairs": [
{{"question": "Who?", "answer": {{"number": "", {none}, "spans": ["Ann", "Bob"]}}}}]}},
"nfl_1": {{"passage": "Q.", "wiki_url": "x", "qa_pairs": [
{{"question": "How many? ", "answer": {{"number": "3", {none}, "spans": []}},
 "validated_answers": [{{"number": "4", {none}, "spans": []}}, {{"number": "3", {none}, "spans": []}}]}},
{{"question": "Nothing?", "answer": {{"number": "", {none}, "spans": []}}}},
{{"question": "When?", "answer": {{"number": "", "date": {{"day": "7", "month": "May", "year": ""}}, "spans": []}}}}]}}}}"#
    );
    let expected: [(&str, &[&str]); 3] = [
        ("Passage: Q.\nQuestion: How many?\nAnswer:", &["3", "4"]),
        ("Passage: Q.\nQuestion: When?\nAnswer:", &["7 May"]),
        ("Passage: P.\nQuestion: Who?\nAnswer:", &["Ann", "Bob"]),
    ];
    texts(
        read("drop", "drop_dataset_train.json", &sections),
        &expected,
    );
    let flat = r#"{"section_id": "nfl_2", "query_id": "q", "passage": "P.", "question": "Who?", "answers_spans": {"spans": ["Ann", "Bob"], "types": ["span", "span"]}}"#;
    texts(read("drop", "train.jsonl", flat), &expected[2..]);
    let bad = sections.replace("\"spans\": [\"Ann\", \"Bob\"]", "\"span\": 1");
    refused(
        read("drop", "drop_dataset_train.json", &bad),
        &[
            "drop_dataset_train.json, nfl_2: ",
            "`qa_pairs[0].answer.spans` is missing",
        ],
    );
}
