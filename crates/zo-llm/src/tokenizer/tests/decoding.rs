//! Decoded texts.

use super::*;

/// As transformers does, whose BPEs keep their spaces unless the folder insists.
#[test]
fn spaces_before_punctuation_are_left_out_where_the_folder_says_so() {
    let ids = [0, 1, 2, 3];
    let words = |files: &[File]| {
        let dir = tempfile::tempdir().unwrap();
        let vocab = json!({"it": 0, "'s": 1, "done": 2, "!": 3, "[UNK]": 4});
        let model = json!({"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"});
        let text = json!({"version": "1.0", "model": model}).to_string();
        std::fs::write(dir.path().join("tokenizer.json"), text).unwrap();
        for (name, value) in files {
            std::fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        load(&dir).decode(&ids).unwrap()
    };
    let clean = |more: Value| {
        let mut config = json!({"clean_up_tokenization_spaces": true});
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        ("tokenizer_config.json", config)
    };
    assert_eq!(words(&[]), "it 's done !");
    assert_eq!(words(&[clean(json!({}))]), "it's done!");
    let bpe = |more: Value| {
        let tokenizer = load(&with(&[clean(more)], None));
        tokenizer
            .decode(&tokenizer.encode_word("so , so .").unwrap())
            .unwrap()
    };
    assert_eq!(bpe(json!({})), "so , so .");
    let insists = "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output";
    assert_eq!(bpe(json!({ insists: true })), "so, so.");
}
