//! How close a generated answer is to its references: F1 and exact match, as SQuAD defines them. How well classes are told apart: macro-F1 and
//! Matthews' correlation, which GLUE and SuperGLUE use for some tasks.

use std::collections::HashMap;

use crate::data::text::is_space;

/// A text in the form in which answers are compared: in lower case, without ASCII punctuation, without the words a, an and the, and with single spaces.
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|c| !c.is_ascii_punctuation())
        .collect();
    // Articles end where letters and digits do, not necessarily at a space: `the–end` begins with one.
    let ends = |c: char| !c.is_alphanumeric();
    let mut rest = String::with_capacity(kept.len());
    for piece in kept.split_inclusive(ends) {
        let word = piece.trim_end_matches(ends);
        if matches!(word, "a" | "an" | "the") {
            rest.push(' ');
            rest.push_str(&piece[word.len()..]);
        } else {
            rest.push_str(piece);
        }
    }
    let words = rest.split(is_space).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// The F1 score of the words of an answer, from 0 to 1: the highest over the references, or 0 without references.
///
/// Words count as often as they occur, after [`normalize_answer`]. If the answer or the reference has none left, the score is 1 when
/// neither has any, and 0 otherwise.
pub fn f1<S: AsRef<str>>(answer: &str, references: &[S]) -> f64 {
    let answer = normalize_answer(answer);
    let scores = references
        .iter()
        .map(|reference| overlap(&answer, &normalize_answer(reference.as_ref())));
    scores.fold(0.0, f64::max)
}

/// Whether an answer is one of the references, after [`normalize_answer`].
pub fn exact_match<S: AsRef<str>>(answer: &str, references: &[S]) -> bool {
    let answer = normalize_answer(answer);
    let mut references = references.iter();
    references.any(|reference| normalize_answer(reference.as_ref()) == answer)
}

/// The mean over the classes of their F1 scores, from 0 to 1 (SuperGLUE's for CB). Counted are the classes that occur among `labels` or
/// `chosen`; `None`, where nothing could be chosen, is right for none.
pub fn macro_f1(labels: &[usize], chosen: &[Option<usize>]) -> f64 {
    let mut classes: Vec<usize> = labels
        .iter()
        .copied()
        .chain(chosen.iter().flatten().copied())
        .collect();
    classes.sort_unstable();
    classes.dedup();
    let count = classes.len().max(1) as f64;
    let f1 = |class: usize| {
        let pairs = labels.iter().zip(chosen);
        let right = pairs.filter(|(label, chosen)| **label == class && **chosen == Some(class));
        let there = labels.iter().filter(|label| **label == class).count();
        let said = chosen
            .iter()
            .filter(|chosen| **chosen == Some(class))
            .count();
        2.0 * right.count() as f64 / (there + said) as f64
    };
    classes.into_iter().map(f1).sum::<f64>() / count
}

/// Matthews' correlation of labels and choices, from -1 to 1, for any number of classes (Gorodkin 2004; GLUE's for CoLA). 0 where all labels or
/// all choices are the same, and NaN where nothing could be chosen for a row.
pub fn matthews(labels: &[usize], chosen: &[Option<usize>]) -> f64 {
    let Some(chosen) = chosen.iter().copied().collect::<Option<Vec<usize>>>() else {
        return f64::NAN;
    };
    let classes = labels
        .iter()
        .chain(&chosen)
        .max()
        .map_or(0, |last| last + 1);
    let counts = |of: &[usize]| -> Vec<f64> {
        let mut counts = vec![0.0; classes];
        of.iter().for_each(|class| counts[*class] += 1.0);
        counts
    };
    let (there, said) = (counts(labels), counts(&chosen));
    let rows = labels.len() as f64;
    let right = labels.iter().zip(&chosen).filter(|(a, b)| a == b).count() as f64;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let spread = |counts: &[f64]| rows * rows - dot(counts, counts);
    let scale = (spread(&there) * spread(&said)).sqrt();
    match scale > 0.0 {
        true => (right * rows - dot(&there, &said)) / scale,
        false => 0.0,
    }
}

/// F1 of two normalised texts.
fn overlap(answer: &str, reference: &str) -> f64 {
    if answer.is_empty() || reference.is_empty() {
        return f64::from(u8::from(answer == reference));
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    let mut words: u32 = 0;
    for word in reference.split(' ') {
        *counts.entry(word).or_default() += 1;
        words += 1;
    }
    let mut common: u32 = 0;
    for word in answer.split(' ') {
        words += 1;
        if let Some(count) = counts.get_mut(word).filter(|count| **count > 0) {
            *count -= 1;
            common += 1;
        }
    }
    // 2 precision recall / (precision + recall)
    f64::from(2 * common) / f64::from(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalised_as_squad_does() {
        for (text, normal) in [
            ("The  Eiffel Tower!", "eiffel tower"),
            ("a theory of an Anthem", "theory of anthem"),
            ("U.S.A.", "usa"),
            ("well-known", "wellknown"),
            ("the–end", "–end"),
            ("on–the–end", "on– –end"),
            ("Ärger\tder\nDINGE", "ärger der dinge"),
            ("  THE ", ""),
            ("the", ""),
            ("a b a", "b"),
            ("a\u{1f}red\u{1c}\u{1d}house", "red house"),
            ("", ""),
        ] {
            assert_eq!(normalize_answer(text), normal, "{text:?}");
        }
    }

    #[test]
    fn f1_is_that_of_bags_of_words() {
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-12, "{got}");
        // Two of three words right, two of four found: precision 2/3, recall 1/2.
        close(f1("big red dog", &["red dog runs home"]), 4.0 / 7.0);
        // A word counts as often as both have it.
        close(f1("no no no", &["no"]), 0.5);
        close(f1("no", &["no no yes"]), 0.5);
        close(f1("The dog.", &["cat", "a dog", "dog food"]), 1.0);
        close(f1("dog", &["cat"]), 0.0);
        close(f1("the", &["a!"]), 1.0);
        close(f1("", &["cat"]), 0.0);
        close(f1("cat", &["the"]), 0.0);
        close(f1("cat", &[] as &[&str]), 0.0);
    }

    #[test]
    fn classes_are_scored_as_scikit_learn_does() {
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 1e-9, "{got}");
        let some = |chosen: &[usize]| chosen.iter().copied().map(Some).collect::<Vec<_>>();
        let labels = [0, 1, 2, 2, 1, 0, 1, 2, 0, 1];
        let chosen = some(&[0, 2, 2, 2, 1, 0, 0, 1, 1, 1]);
        close(macro_f1(&labels, &chosen), 11.0 / 18.0);
        close(matthews(&labels, &chosen), 13.0 / 33.0);
        let (labels, chosen) = ([1, 1, 0, 0, 1], some(&[1, 0, 0, 1, 1]));
        close(macro_f1(&labels, &chosen), 7.0 / 12.0);
        close(matthews(&labels, &chosen), 1.0 / 6.0);
        close(matthews(&labels, &some(&[1; 5])), 0.0);
        close(macro_f1(&labels, &some(&[1; 5])), 0.375);
        let mut missing = some(&labels);
        missing[0] = None;
        close(macro_f1(&labels, &missing), 0.9);
        assert!(matthews(&labels, &missing).is_nan());
    }

    #[test]
    fn exact_match_is_after_normalisation() {
        assert!(exact_match("the Dog.", &["cat", "dog"]));
        assert!(exact_match("", &["The"]));
        assert!(!exact_match("dogs", &["dog"]));
        assert!(!exact_match("dog", &[] as &[String]));
    }
}
