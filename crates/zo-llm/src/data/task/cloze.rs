//! Prompts for masked language models: a text with a gap, to be filled with a label word.

use crate::data::text::strip;

/// A text with a gap for a label word, as LM-BFF (Gao et al. 2021, arXiv 2012.15723) lays it out for masked language models.
///
/// Each piece of text is tokenised by itself. The tokens that every text begins and ends with stand around the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cloze {
    /// Texts and the gap, of which there is one.
    pub pieces: Vec<Piece>,
    /// What may fill the gap, in the order of the example's options, without the space before it; empty (the default) for the options
    /// themselves.
    pub words: Vec<String>,
    /// Tokens of the whole; what is beyond them is cut off, as is what is beyond the model's context.
    pub max_tokens: usize,
}

/// A piece of a [`Cloze`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// A text.
    Text {
        /// The text, with its leading space where it has one.
        text: String,
        /// Its tokens; what is beyond them is cut off. Default: all.
        max_tokens: Option<usize>,
    },
    /// The gap: the mask token.
    Mask,
}

impl Piece {
    /// A text of any length.
    pub fn text(text: impl Into<String>) -> Self {
        Self::limited(text, None)
    }

    /// A text of at most so many tokens.
    pub fn limited(text: impl Into<String>, max_tokens: impl Into<Option<usize>>) -> Self {
        Self::Text {
            text: text.into(),
            max_tokens: max_tokens.into(),
        }
    }
}

impl Cloze {
    /// With these words for the gap.
    #[must_use]
    pub fn with_words(self, words: &[&str]) -> Self {
        let words = words.iter().map(|word| (*word).to_owned()).collect();
        Self { words, ..self }
    }

    /// `{sentence} It was{mask}.`, in 128 tokens.
    pub(super) fn sentiment(sentence: &str, max_tokens: Option<usize>) -> Self {
        let pieces = vec![
            Piece::limited(strip(sentence), max_tokens),
            Piece::text(" It was"),
            Piece::Mask,
            Piece::text("."),
        ];
        Self {
            pieces,
            words: Vec::new(),
            max_tokens: 128,
        }
    }

    /// `{premise}?{mask}, {hypothesis}`, in 256 tokens: the premise, up to 240 of them, loses its last character, and the hypothesis
    /// begins with a lower-case letter.
    pub(super) fn inference(premise: &str, hypothesis: &str) -> Self {
        let mut premise = strip(premise).to_owned();
        premise.pop();
        let mut rest = strip(hypothesis).chars();
        let first = rest.next().map(|first| first.to_lowercase().to_string());
        let hypothesis = format!(" {}{}", first.unwrap_or_default(), rest.as_str());
        let pieces = vec![
            Piece::limited(premise, 240),
            Piece::text("?"),
            Piece::Mask,
            Piece::text(","),
            Piece::text(hypothesis),
        ];
        Self {
            pieces,
            words: Vec::new(),
            max_tokens: 256,
        }
    }

    /// `{mask}: {question}`, in 128 tokens, of which the question is up to 110.
    pub(super) fn kind_of(question: &str) -> Self {
        let pieces = vec![
            Piece::Mask,
            Piece::text(":"),
            Piece::limited(format!(" {}", strip(question)), 110),
        ];
        Self {
            pieces,
            words: Vec::new(),
            max_tokens: 128,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(cloze: &Cloze) -> String {
        let piece = |piece: &Piece| match piece {
            Piece::Text { text, .. } => text.clone(),
            Piece::Mask => "<mask>".to_owned(),
        };
        cloze.pieces.iter().map(piece).collect()
    }

    #[test]
    fn prompts_are_those_of_lm_bff() {
        let sentiment = Cloze::sentiment("a gripping film . ", None);
        assert_eq!(shown(&sentiment), "a gripping film . It was<mask>.");
        let inference = Cloze::inference("A man sleeps.", "Éric is awake.");
        assert_eq!(shown(&inference), "A man sleeps?<mask>, éric is awake.");
        assert_eq!(shown(&Cloze::inference("", "")), "?<mask>, ");
        let kind = Cloze::kind_of("Who was Galileo ?");
        assert_eq!(shown(&kind), "<mask>: Who was Galileo ?");
    }
}
