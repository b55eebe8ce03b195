//! Rows as people read them.

use super::{Answer, Dataset};

impl Dataset {
    /// The prompt of a row, as the model reads it: decoded from its tokens, without special ones. `None` if they cannot be decoded.
    pub fn prompt_text(&self, row: usize) -> Option<String> {
        let prompt = self.examples.get(row)?.prompt();
        self.tokenizer.decode(prompt).ok()
    }

    /// The text of an option of a row; `None` if it has no such option.
    pub fn option_text(&self, row: usize, option: usize) -> Option<&str> {
        match &self.examples.get(row)?.answer {
            Answer::Choice { options, .. } => options.get(option).map(String::as_str),
            Answer::Text { .. } => None,
        }
    }
}
