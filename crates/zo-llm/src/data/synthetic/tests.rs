use super::*;

fn small() -> SyntheticConfig {
    SyntheticConfig {
        train_rows: 300,
        dev_rows: 60,
        documents: 500,
        ..Default::default()
    }
}

/// The person's opinion sentence holds a pair of this kind for the thing asked about.
fn held_out_pairs(row: &SyntheticRow) -> Vec<bool> {
    let thing = THINGS
        .iter()
        .position(|(_, noun)| row.question.ends_with(&format!(" {noun}")))
        .unwrap();
    let words: Vec<&str> = row.passage.split([' ', '.']).collect();
    let lists = ADJECTIVES
        .iter()
        .map(|words| words.as_slice())
        .chain(VERBS.iter().map(|words| words.as_slice()));
    let found = lists.flat_map(|list| {
        list.iter()
            .enumerate()
            .filter(|(_, word)| words.contains(word))
    });
    found.map(|(index, _)| is_held_out(index, thing)).collect()
}

#[test]
fn the_same_configuration_gives_the_same_text() {
    let data = generate(&small());
    assert_eq!(data, generate(&small()));
    assert_eq!(
        (data.train.len(), data.dev.len(), data.corpus.len()),
        (300, 60, 500)
    );
    let other = generate(&SyntheticConfig { seed: 1, ..small() });
    assert!(data.train != other.train && data.dev != other.dev && data.corpus != other.corpus);
    // The size of one part does not change the others, nor its own first rows.
    let fewer = generate(&SyntheticConfig {
        train_rows: 100,
        ..small()
    });
    assert_eq!(
        (&fewer.train[..], &fewer.dev),
        (&data.train[..100], &data.dev)
    );
}

#[test]
fn dev_rows_consist_of_held_out_pairs_and_training_rows_have_none() {
    let data = generate(&small());
    for row in &data.dev {
        let pairs = held_out_pairs(row);
        assert!(
            !pairs.is_empty() && pairs.iter().all(|held_out| *held_out),
            "{row:?}"
        );
    }
    for row in &data.train {
        let pairs = held_out_pairs(row);
        assert!(
            !pairs.is_empty() && pairs.iter().all(|held_out| !held_out),
            "{row:?}"
        );
    }
}

#[test]
fn dev_passages_occur_nowhere_else_and_rows_do_not_repeat() {
    let data = generate(&SyntheticConfig::default());
    let train: HashSet<_> = data.train.iter().map(|row| &row.passage).collect();
    let rows: HashSet<_> = data.train.iter().chain(&data.dev).collect();
    assert_eq!(rows.len(), data.train.len() + data.dev.len());
    let corpus = data.corpus.join("\n");
    for row in &data.dev {
        assert!(
            !train.contains(&row.passage) && !corpus.contains(&row.passage),
            "{row:?}"
        );
    }
}

#[test]
fn labels_are_balanced_in_every_even_number_of_leading_rows() {
    let data = generate(&small());
    for rows in [&data.train, &data.dev] {
        for pair in rows.chunks(2) {
            assert_eq!(pair[0].label + pair[1].label, 1);
        }
    }
}

#[test]
fn the_corpus_answers_yes_far_too_often() {
    let data = generate(&SyntheticConfig {
        documents: 4000,
        ..small()
    });
    let count = |answer: &str| {
        data.corpus
            .iter()
            .filter(|text| text.contains(answer))
            .count() as f64
    };
    let share = count("?\nYes.") / (count("?\nYes.") + count("?\nNo."));
    assert!((0.8..0.9).contains(&share), "{share}");
}
