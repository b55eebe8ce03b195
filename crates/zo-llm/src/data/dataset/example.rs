//! A row as tokens.

use crate::data::task::Answer;

/// A prompt with a continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// Prompt and continuation, tokenised together; no special token ends them.
    pub tokens: Vec<u32>,
    /// How many of the tokens belong to the prompt: at least one, and fewer than all. A token across the boundary belongs to the
    /// continuation. In a masked language model, the index of the gap.
    pub prompt: usize,
}

impl Sequence {
    /// The tokens of the continuation.
    pub fn last(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }
}

/// A tokenised row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedExample {
    /// The prompt with each option; in a masked language model, the text with each word in its gap; for generation, with the text that training teaches.
    pub sequences: Vec<Sequence>,
    /// The prompt tokenised by itself, where the model is to write the answer: the tokens before a given answer differ if one
    /// lies across the boundary. In a masked language model, the text with its gap.
    pub own_prompt: Option<Vec<u32>>,
    /// What is right.
    pub answer: Answer,
}

impl EncodedExample {
    /// The tokens of the prompt: tokenised by itself for generation, else those before the first option.
    pub fn prompt(&self) -> &[u32] {
        let first = &self.sequences[0];
        let own = self.own_prompt.as_deref();
        own.unwrap_or(&first.tokens[..first.prompt])
    }

    /// Index of the right option; 0 for generation.
    pub fn label(&self) -> usize {
        match &self.answer {
            Answer::Choice { label, .. } => *label,
            Answer::Text { .. } => 0,
        }
    }

    /// The sequence that training teaches.
    pub fn target(&self) -> &Sequence {
        &self.sequences[self.label()]
    }

    /// Whether an option counts as right.
    pub fn is_right(&self, option: usize) -> bool {
        match &self.answer {
            Answer::Choice {
                label, also_right, ..
            } => option == *label || also_right.contains(&option),
            Answer::Text { .. } => false,
        }
    }

    /// Number of tokens of the longest sequence.
    pub(super) fn longest(&self) -> usize {
        self.sequences
            .iter()
            .map(|s| s.tokens.len())
            .max()
            .unwrap_or(0)
    }
}
