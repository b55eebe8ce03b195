//! Tasks that need no code: a template for the prompt, and the fields that hold options and answers.

mod text;

use serde_json::Value;
use thiserror::Error;

use super::example::{AnswerFormat, Example, Kind, Task};
use super::fields::{Fields, TaskError};
use crate::data::text::is_space;

use text::{Piece, parse, unescaped};

/// What is wrong with a template, or what goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// A brace has no partner.
    #[error(
        "the template `{template}` has a `{brace}` without its partner: a field is written `{{name}}`, a brace itself `{{{{` or `}}}}`"
    )]
    Brace {
        /// The template.
        template: String,
        /// The brace.
        brace: char,
    },
    /// No field is named.
    #[error(
        "the template `{template}` names no field, so that all prompts would be the same: write one as in `{{sentence}} It was`"
    )]
    NoField {
        /// The template.
        template: String,
    },
    /// There is nothing to choose from.
    #[error("{given} {what}: give at least 2, separated by commas")]
    Few {
        /// What there is too little of.
        what: &'static str,
        /// Their number.
        given: usize,
    },
    /// Two options are the same.
    #[error("{what} `{value}` is given twice: each must be different from the others")]
    Twice {
        /// What it is.
        what: &'static str,
        /// Its text.
        value: String,
    },
    /// Names of labels and words do not go together.
    #[error("{labels} labels for {words} words: give one for each word, in the same order")]
    Labels {
        /// Names of labels.
        labels: usize,
        /// Words.
        words: usize,
    },
}

/// A task described by a template, for classification, multiple choice, or generation.
///
/// ```
/// use serde_json::json;
/// use zo_llm::task::{TemplateError, TemplateTask, read_row};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let task = TemplateTask::classification("{sentence} It was", &["terrible", "great"], "label")?
///     .with_labels(&["neg", "pos"])?;
/// let row = json!({ "sentence": "A gripping film.", "label": "pos" });
/// let examples = read_row(&task, row.as_object().ok_or("no row")?)?;
/// assert_eq!(examples[0].prompt, "A gripping film. It was");
/// assert_eq!(examples[0].label(), Some(1));
/// # Ok(()) }
/// ```
///
/// In a template, `{name}` stands for the field `name` of a row, `{outer.name}` for one of a nested object, `{{` and `}}` for braces; `\n`, `\t`
/// and `\\`, written with a backslash, are a new line, a tab and a backslash, for the sake of shells. Words, options and answers
/// follow after a space, unless the template ends with a new line; spaces at its end are left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateTask {
    name: String,
    pieces: Vec<Piece>,
    /// What stands between the prompt and what follows.
    lead: &'static str,
    answer: TemplateAnswer,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum TemplateAnswer {
    /// The words as they follow a prompt, the field of the label, and the values it may have besides numbers.
    Words {
        words: Vec<String>,
        label: String,
        labels: Vec<String>,
    },
    /// The fields that hold the options, or one that holds a list of them; the field of the label.
    Options { fields: Vec<String>, label: String },
    /// The field of the answer.
    Text { field: String, max_tokens: usize },
}

impl TemplateTask {
    /// Which of `words` follows? The field `label` holds the number of the right one from 0, or the word itself; of two words, false or
    /// true will do as well.
    ///
    /// # Errors
    /// If the template or the words make no sense.
    pub fn classification<S: AsRef<str>>(
        template: &str,
        words: &[S],
        label: &str,
    ) -> Result<Self, TemplateError> {
        let words = words
            .iter()
            .map(|word| unescaped(word.as_ref().trim_matches(' ')));
        let words: Vec<String> = words.collect();
        several("words", "word", &words)?;
        let task = Self::new(
            template,
            TemplateAnswer::Words {
                labels: words.clone(),
                words: Vec::new(),
                label: label.to_owned(),
            },
        )?;
        let led = words
            .iter()
            .map(|word| format!("{}{word}", task.lead))
            .collect();
        Ok(task.with_words(led))
    }

    /// Which of a row's options follows? `options` names their fields, or a single field that holds a list. The field `label` holds the
    /// number of the right one from 0, the name of its field, or its text.
    ///
    /// # Errors
    /// If the template or the names make no sense.
    pub fn choice<S: AsRef<str>>(
        template: &str,
        options: &[S],
        label: &str,
    ) -> Result<Self, TemplateError> {
        let fields = options.iter().map(|name| name.as_ref().trim().to_owned());
        let fields: Vec<String> = fields.collect();
        if fields.len() != 1 {
            several("options", "option", &fields)?;
        }
        let label = label.to_owned();
        Self::new(template, TemplateAnswer::Options { fields, label })
    }

    /// What does the model write? The field `answer` holds what is right: a text, a number, or a list of these, of which training teaches
    /// the first. Rows with an empty one are left out.
    ///
    /// # Errors
    /// If the template makes no sense.
    pub fn generation(template: &str, answer: &str) -> Result<Self, TemplateError> {
        let (field, max_tokens) = (answer.to_owned(), AnswerFormat::default().max_tokens);
        Self::new(template, TemplateAnswer::Text { field, max_tokens })
    }

    /// What rows say in place of the words of a [`classification`](Self::classification), in the same order: `neg` and `pos`, for example.
    ///
    /// # Errors
    /// If there are more or fewer than words.
    pub fn with_labels<S: AsRef<str>>(mut self, names: &[S]) -> Result<Self, TemplateError> {
        let names = names.iter().map(|name| name.as_ref().trim().to_owned());
        let names: Vec<String> = names.collect();
        if let TemplateAnswer::Words { words, labels, .. } = &mut self.answer {
            if names.len() != words.len() {
                return Err(TemplateError::Labels {
                    labels: names.len(),
                    words: words.len(),
                });
            }
            several("labels", "label", &names)?;
            *labels = names;
        }
        Ok(self)
    }

    /// The maximum number of tokens of an answer that is [generated](Self::generation). Default 50.
    #[must_use]
    pub fn with_max_tokens(mut self, tokens: usize) -> Self {
        if let TemplateAnswer::Text { max_tokens, .. } = &mut self.answer {
            *max_tokens = tokens;
        }
        self
    }

    /// What the task is called. Default `template`.
    #[must_use]
    pub fn with_name(self, name: impl Into<String>) -> Self {
        let name = name.into();
        Self { name, ..self }
    }

    fn new(template: &str, answer: TemplateAnswer) -> Result<Self, TemplateError> {
        let mut pieces = parse(template)?;
        if let Some(Piece::Text(text)) = pieces.last_mut() {
            text.truncate(text.trim_end_matches(' ').len());
        }
        let ends_line =
            matches!(pieces.last(), Some(Piece::Text(text)) if text.ends_with(is_space));
        let lead = if ends_line { "" } else { " " };
        Ok(Self {
            name: "template".to_owned(),
            pieces,
            lead,
            answer,
        })
    }

    fn with_words(mut self, led: Vec<String>) -> Self {
        if let TemplateAnswer::Words { words, .. } = &mut self.answer {
            *words = led;
        }
        self
    }

    fn prompt(&self, row: &Fields<'_>) -> Result<String, TaskError> {
        let mut prompt = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => prompt += text,
                Piece::Field(path) => {
                    let (name, outer) = path.split_last().map_or(("", &[][..]), |(n, o)| (n, o));
                    let mut fields = row.clone();
                    for name in outer {
                        fields = fields.object(name)?;
                    }
                    prompt += fields.text_or_number(name)?.trim_matches(is_space);
                }
            }
        }
        Ok(prompt)
    }

    /// Which of the `labels` a row has.
    fn class(row: &Fields<'_>, label: &str, labels: &[String]) -> Result<usize, TaskError> {
        let value = row.get(label);
        if let (2, Some(Value::Bool(yes))) = (labels.len(), value) {
            return Ok(usize::from(*yes));
        }
        // Labels that are numbers are names like any other: 1 of `1,2,3` is the first.
        if let Some(Value::Number(number)) = value
            && let Some(index) = labels.iter().position(|name| *name == number.to_string())
        {
            return Ok(index);
        }
        let names: Vec<&str> = labels.iter().map(String::as_str).collect();
        row.class(label, &names)
    }

    /// Which of the `options`, whose fields are `fields`, is right.
    fn right(
        row: &Fields<'_>,
        label: &str,
        fields: &[String],
        options: &[String],
    ) -> Result<usize, TaskError> {
        let text = row.get(label).and_then(Value::as_str).map(str::trim);
        let of = |names: &[String]| {
            let text = text?;
            names.iter().position(|name| name.trim() == text)
        };
        let named = (fields.len() > 1).then(|| of(fields)).flatten();
        match named.or_else(|| of(options)) {
            Some(index) => Ok(index),
            None => row.index(label, options.len()),
        }
    }
}

impl Task for TemplateTask {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        match self.answer {
            TemplateAnswer::Words { .. } => Kind::Classification,
            TemplateAnswer::Options { .. } => Kind::MultipleChoice,
            TemplateAnswer::Text { .. } => Kind::Generation,
        }
    }

    fn label_words(&self) -> Vec<&str> {
        match &self.answer {
            TemplateAnswer::Words { words, .. } => words.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn answer_fields(&self) -> Vec<&str> {
        match &self.answer {
            TemplateAnswer::Words { label, .. } | TemplateAnswer::Options { label, .. } => {
                vec![label]
            }
            TemplateAnswer::Text { field, .. } => vec![field],
        }
    }

    fn read(&self, row: &Fields<'_>) -> Result<Vec<Example>, TaskError> {
        let prompt = self.prompt(row)?;
        Ok(match &self.answer {
            TemplateAnswer::Words {
                words,
                label,
                labels,
            } => {
                let right = Self::class(row, label, labels)?;
                vec![Example::choice(prompt, words, right)]
            }
            TemplateAnswer::Options { fields, label } => {
                let options = match &fields[..] {
                    [list] => row.texts_or_numbers(list)?,
                    fields => {
                        let options = fields.iter().map(|name| row.text_or_number(name));
                        options.collect::<Result<_, _>>()?
                    }
                };
                if let ([list], 0 | 1) = (&fields[..], options.len()) {
                    return Err(row.wrong(list, "a list of at least two options"));
                }
                let right = Self::right(row, label, fields, &options)?;
                let led = options
                    .iter()
                    .map(|option| format!("{}{}", self.lead, option.trim_matches(is_space)));
                vec![Example::choice(prompt, &led.collect::<Vec<_>>(), right)]
            }
            TemplateAnswer::Text { field, .. } => {
                let references = match row.get(field) {
                    Some(Value::Array(_)) => row.texts_or_numbers(field)?,
                    _ => vec![row.text_or_number(field)?],
                };
                let trimmed = references.iter().map(|text| text.trim_matches(is_space));
                let given = trimmed.filter(|text| !text.is_empty()).map(str::to_owned);
                match given.collect::<Vec<_>>() {
                    none if none.is_empty() => Vec::new(),
                    references => vec![Example::text(prompt, references)],
                }
            }
        })
    }

    fn answer_format(&self) -> AnswerFormat {
        let format = AnswerFormat {
            lead: self.lead,
            ..AnswerFormat::default()
        };
        match self.answer {
            TemplateAnswer::Text { max_tokens, .. } => AnswerFormat {
                max_tokens,
                ..format
            },
            _ => format,
        }
    }
}

/// At least two, all different.
fn several(what: &'static str, one: &'static str, texts: &[String]) -> Result<(), TemplateError> {
    let given = texts.iter().filter(|text| !text.is_empty()).count();
    if given < 2 {
        return Err(TemplateError::Few { what, given });
    }
    let twice = (1..texts.len()).find(|index| texts[..*index].contains(&texts[*index]));
    match twice {
        None => Ok(()),
        Some(index) => Err(TemplateError::Twice {
            what: one,
            value: texts[index].clone(),
        }),
    }
}

#[cfg(test)]
mod tests;
