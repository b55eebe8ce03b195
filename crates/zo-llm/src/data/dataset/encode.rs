//! Prompts and continuations as tokens.

use super::error::DatasetError;
use super::example::{EncodedExample, Sequence};
use crate::data::task::rows::Place;
use crate::data::task::{Answer, Example, Piece, Task};
use crate::tokenizer::{LmTokenizer, TokenizerError};

/// Separates demonstrations.
const SEPARATOR: &str = "\n\n";

/// How rows are tokenised.
#[derive(Debug, Clone, Copy, Default)]
pub struct Encoding<'a> {
    /// Solved examples before each prompt, for in-context learning. None by default.
    pub demonstrations: &'a [Demonstration],
    /// Cut prompts that do not fit into the context at the front, except for the tokens every text begins with, as MeZO does.
    /// By default such a row is an error.
    pub cut: bool,
}

/// A solved example: prompt and right continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Demonstration(pub String);

impl Demonstration {
    /// Of an example of `task`.
    pub fn new(task: &dyn Task, example: &Example) -> Self {
        let answer = example.target(&task.answer_format()).unwrap_or_default();
        Self(format!("{}{}", example.prompt, answer.trim_end()))
    }
}

/// Tokenises examples with the settings of an [`Encoding`].
pub(super) struct Encoder<'a> {
    pub(super) tokenizer: &'a LmTokenizer,
    pub(super) context: usize,
    pub(super) encoding: &'a Encoding<'a>,
}

impl Encoder<'_> {
    /// A prompt with a continuation, leaving room for `room` tokens after the prompt.
    pub(super) fn sequence(
        &self,
        prompt: &str,
        continuation: &str,
        room: usize,
        place: &Place,
    ) -> Result<Sequence, DatasetError> {
        let text = self.shown(prompt);
        let encoded = self.tokenizer.encode_continued(&text, continuation);
        let (mut tokens, before) = encoded.map_err(|source| tokenizer(place, source))?;
        if before >= tokens.len() || before == 0 {
            return Err(DatasetError::Continuation {
                place: place.clone(),
                text: continuation.to_owned(),
            });
        }
        let over = self.cut(&mut tokens, before, before + room, place)?;
        Ok(Sequence {
            tokens,
            prompt: before - over,
        })
    }

    /// A prompt by itself, leaving room for `room` tokens.
    pub(super) fn prompt(
        &self,
        prompt: &str,
        room: usize,
        place: &Place,
    ) -> Result<Vec<u32>, DatasetError> {
        let encoded = self.tokenizer.encode_prompt(&self.shown(prompt));
        let mut tokens = encoded.map_err(|source| tokenizer(place, source))?;
        let before = tokens.len();
        self.cut(&mut tokens, before, before + room, place)?;
        Ok(tokens)
    }

    /// A text with a gap, and the words that may fill it.
    pub(super) fn cloze(
        &self,
        task: &dyn Task,
        example: &Example,
        mask: u32,
        place: &Place,
    ) -> Result<EncodedExample, DatasetError> {
        if !self.encoding.demonstrations.is_empty() {
            return Err(DatasetError::Demonstrations);
        }
        let (Some(cloze), Answer::Choice { options, .. }) = (&example.cloze, &example.answer)
        else {
            let task = task.name().to_owned();
            return Err(DatasetError::NoCloze { task });
        };
        let word = |text: &str| {
            self.tokenizer
                .encode_word(text)
                .map_err(|s| tokenizer(place, s))
        };
        let mut tokens = self.tokenizer.begin().to_vec();
        for piece in &cloze.pieces {
            match piece {
                Piece::Mask => tokens.push(mask),
                Piece::Text { text, max_tokens } => {
                    let piece = word(text)?.into_iter();
                    tokens.extend(piece.take(max_tokens.unwrap_or(usize::MAX)));
                }
            }
        }
        tokens.extend(self.tokenizer.end());
        tokens.truncate(cloze.max_tokens.min(self.context));
        let gaps = tokens.iter().filter(|token| **token == mask).count();
        let gap = tokens.iter().position(|token| *token == mask);
        let Some(gap) = gap.filter(|_| gaps == 1) else {
            let (place, tokens) = (place.clone(), tokens.len());
            return Err(DatasetError::Gap {
                place,
                gaps,
                tokens,
            });
        };
        let words = match cloze.words.is_empty() {
            true => options,
            false => &cloze.words,
        };
        let fill = |text: &String| {
            let word = match word(&format!(" {}", text.trim()))?[..] {
                [word] => word,
                ref tokens => {
                    return Err(DatasetError::Word {
                        place: place.clone(),
                        word: text.trim().to_owned(),
                        tokens: tokens.len(),
                    });
                }
            };
            let mut tokens = tokens.clone();
            tokens[gap] = word;
            Ok(Sequence {
                tokens,
                prompt: gap,
            })
        };
        let sequences = words.iter().map(fill).collect::<Result<_, _>>()?;
        Ok(EncodedExample {
            sequences,
            own_prompt: Some(tokens),
            answer: example.answer.clone(),
        })
    }

    /// The prompt after the demonstrations.
    fn shown(&self, prompt: &str) -> String {
        let shown = self.encoding.demonstrations.iter();
        let shown = shown.flat_map(|Demonstration(text)| [text.as_str(), SEPARATOR]);
        shown.chain([prompt]).collect()
    }

    /// Cuts tokens off the front, except for those every text begins with, until the tokens and room for at least `least` fit into the
    /// context. Returns how many; some of the first `before` must remain.
    fn cut(
        &self,
        tokens: &mut Vec<u32>,
        before: usize,
        least: usize,
        place: &Place,
    ) -> Result<usize, DatasetError> {
        let needed = tokens.len().max(least);
        let over = needed.saturating_sub(self.context);
        let begin = self.tokenizer.begin().len();
        if over > 0 && (!self.encoding.cut || over + begin >= before) {
            return Err(DatasetError::TooLong {
                place: place.clone(),
                tokens: needed,
                context: self.context,
            });
        }
        tokens.drain(begin..begin + over);
        Ok(over)
    }
}

fn tokenizer(place: &Place, source: TokenizerError) -> DatasetError {
    DatasetError::Tokenizer {
        place: place.clone(),
        source,
    }
}
