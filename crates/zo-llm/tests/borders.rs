//! Where a prompt ends and its continuation begins, with tokenizers that blur the boundary.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};
use zo_llm::dataset::{Dataset, DatasetError, Demonstration, Encoding};
use zo_llm::task::rows::{At, Place};
use zo_llm::task::{Example, Fields, Kind, Task, TaskError};
use zo_llm::{LmTokenizer, ModelConfig};

const BEGIN: u32 = 0;
const END: u32 = 1;
const Q: u32 = 2;
const COLON: u32 = 3;
const SPACE: u32 = 4;
const P: u32 = 5;
const R: u32 = 6;
const LINE: u32 = 7;
const COLON_SPACE: u32 = 8;
const COLON_P: u32 = 9;

const CONTEXT: usize = 16;

/// Reads letter by letter, but `: ` and `: P` are one token each. `around` are the tokens before and after a text.
fn tokenizer(around: [&[u32]; 2]) -> LmTokenizer {
    let special = |id: &u32| {
        let name = ["<s>", "</s>"][*id as usize];
        json!({"SpecialToken": {"id": name, "type_id": 0}})
    };
    let mut single: Vec<Value> = around[0].iter().map(special).collect();
    single.push(json!({"Sequence": {"id": "A", "type_id": 0}}));
    single.extend(around[1].iter().map(special));
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "pre_tokenizer": null, "decoder": null,
        "added_tokens": [],
        "post_processor": {
            "type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": {
                "<s>": {"id": "<s>", "ids": [BEGIN], "tokens": ["<s>"]},
                "</s>": {"id": "</s>", "ids": [END], "tokens": ["</s>"]},
            },
        },
        "model": {
            "type": "BPE",
            "vocab": {"<s>": BEGIN, "</s>": END, "Q": Q, ":": COLON, " ": SPACE, "P": P, "R": R, "\n": LINE,
                ": ": COLON_SPACE, ": P": COLON_P},
            "merges": [[":", " "], [": ", "P"]],
        },
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    let config = json!({
        "model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "max_position_embeddings": CONTEXT, "bos_token_id": null, "eos_token_id": END,
    });
    let config = ModelConfig::from_json(&config.to_string()).unwrap();
    LmTokenizer::from_dir(dir.path(), &config).unwrap()
}

struct Ask(Kind);

impl Task for Ask {
    fn name(&self) -> &str {
        "ask"
    }
    fn kind(&self) -> Kind {
        self.0
    }
    fn label_words(&self) -> Vec<&str> {
        vec![" P", " R"]
    }
    fn read(&self, _: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        Ok(Vec::new())
    }
    fn answer_format(&self) -> zo_llm::task::AnswerFormat {
        zo_llm::task::AnswerFormat {
            max_tokens: 4,
            ..Default::default()
        }
    }
}

fn encode(
    kind: Kind,
    prompt: &str,
    around: [&[u32]; 2],
    encoding: &Encoding<'_>,
) -> Result<Dataset, DatasetError> {
    let prompt = prompt.to_owned();
    let example = match kind {
        Kind::Generation => Example::text(prompt, vec!["P".to_owned()]),
        _ => Example::choice(prompt, &[" P", " R"], 0),
    };
    let place = Place {
        path: "rows.jsonl".into(),
        at: At::Line(1),
    };
    Dataset::encode(
        &Ask(kind),
        &[(example, place)],
        &tokenizer(around),
        CONTEXT,
        encoding,
    )
}

/// No, one or two tokens before a text, and no or one token after it.
const AROUND: [[&[u32]; 2]; 4] = [
    [&[], &[]],
    [&[BEGIN], &[]],
    [&[], &[END]],
    [&[BEGIN, BEGIN], &[END]],
];

#[test]
fn a_prompt_to_be_continued_is_its_own_tokens() {
    for around in AROUND {
        let data = encode(Kind::Generation, "Q:", around, &Encoding::default()).unwrap();
        let example = &data.examples[0];
        let begin = around[0];
        assert_eq!(
            example.prompt(),
            [begin, &[Q, COLON]].concat(),
            "{around:?}"
        );
        // What is taught begins with the token across the boundary, and nothing follows the line end.
        let taught = example.target();
        assert_eq!(taught.tokens, [begin, &[Q, COLON_P, LINE]].concat());
        assert_eq!(taught.last(), [COLON_P, LINE]);
        assert_eq!(
            (data.generation.end, data.generation.stop),
            (vec![END], vec!["\n".to_owned()])
        );
    }
}

#[test]
fn label_words_are_scored_whatever_surrounds_a_text() {
    for around in AROUND {
        for kind in [Kind::Classification, Kind::MultipleChoice] {
            let begin = around[0];
            let data = encode(kind, "QQ", around, &Encoding::default()).unwrap();
            let [first, second] = &data.examples[0].sequences[..] else {
                panic!("{data:?}")
            };
            assert_eq!(data.examples[0].prompt(), [begin, &[Q, Q]].concat());
            assert_eq!(
                (first.last(), second.last()),
                (&[SPACE, P][..], &[SPACE, R][..])
            );
            // Across the boundary.
            let data = encode(kind, "Q:", around, &Encoding::default()).unwrap();
            let [first, second] = &data.examples[0].sequences[..] else {
                panic!("{data:?}")
            };
            assert_eq!(first.tokens, [begin, &[Q, COLON_P]].concat());
            assert_eq!(
                (first.last(), second.last()),
                (&[COLON_P][..], &[COLON_SPACE, R][..])
            );
            assert_eq!(data.words, None);
        }
    }
}

#[test]
fn demonstrations_move_no_boundary_and_are_cut_after_the_first_tokens() {
    let shown = Demonstration::new(
        &Ask(Kind::Generation),
        &Example::text("Q:".to_owned(), vec!["P".to_owned()]),
    );
    assert_eq!(shown.0, "Q: P");
    for around in AROUND {
        let begin = around[0];
        let encoding = Encoding {
            demonstrations: std::slice::from_ref(&shown),
            cut: false,
        };
        let data = encode(Kind::Generation, "Q:", around, &encoding).unwrap();
        let prompt = [begin, &[Q, COLON_P, LINE, LINE, Q, COLON]].concat();
        assert_eq!(data.examples[0].prompt(), prompt);
        assert_eq!(data.examples[0].target().last(), [COLON_P, LINE]);

        let many = vec![shown.clone(); 6];
        let cut = Encoding {
            demonstrations: &many,
            cut: true,
        };
        let data = encode(Kind::Generation, "Q:", around, &cut).unwrap();
        let prompt = data.examples[0].prompt();
        // Room for the answer.
        assert_eq!(prompt.len(), CONTEXT - 4);
        assert_eq!(
            (&prompt[..begin.len()], &prompt[prompt.len() - 2..]),
            (begin, &[Q, COLON][..])
        );
        let taught = data.examples[0].target();
        assert!(taught.prompt + 4 <= CONTEXT && taught.tokens.starts_with(begin));
        assert_eq!(taught.last(), [COLON_P, LINE]);
    }
}

#[test]
fn a_continuation_with_nothing_before_it_is_refused() {
    let error = encode(Kind::Generation, ":", [&[], &[]], &Encoding::default());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("line 1") && error.contains("longer prompt"),
        "{error}"
    );
    encode(Kind::Generation, ":", [&[BEGIN], &[]], &Encoding::default()).unwrap();
}
