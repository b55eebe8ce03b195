//! How close a generated answer is to its references: F1 and exact match, as SQuAD defines them.

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
    fn exact_match_is_after_normalisation() {
        assert!(exact_match("the Dog.", &["cat", "dog"]));
        assert!(exact_match("", &["The"]));
        assert!(!exact_match("dogs", &["dog"]));
        assert!(!exact_match("dog", &[] as &[String]));
    }
}
