//! Objectives of one's own: anything that can score answers.

use std::fmt::Debug;

use crate::data::task::Answer;
use crate::dataset::{Dataset, Evaluation, Split};

/// An error from the user's own reward.
pub type RewardError = Box<dyn std::error::Error + Send + Sync>;

/// Scores a model's answers. The objective is to make them score higher: see [`Objective::Reward`](super::Objective::Reward).
///
/// The reward is asked about the batch of a step, each time with other weights and so with other answers, and about all held-out rows.
/// It must say the same about the same answers.
pub trait Reward: Debug + Send + Sync {
    /// The mean reward of these answers: a finite number, larger for better ones.
    ///
    /// # Errors
    /// If there is none.
    fn reward(&self, split: Split, answers: &[RowAnswer]) -> Result<f64, RewardError>;
}

/// The answer to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowAnswer {
    /// The number of the row in its data set, from 0.
    pub row: usize,
    /// The chosen option or the generated text, without white space around it.
    pub answer: String,
}

/// What `evaluation` found for the rows `rows` of `dataset`, if the model has an answer to all of them.
pub(super) fn answers(
    dataset: &Dataset,
    rows: &[usize],
    evaluation: &Evaluation,
) -> Option<Vec<RowAnswer>> {
    let answer = |(place, row): (usize, &usize)| {
        let answer = match &dataset.examples.get(*row)?.answer {
            Answer::Choice { options, .. } => {
                let chosen = (*evaluation.predictions.get(place)?)?;
                options.get(chosen)?.trim().to_owned()
            }
            Answer::Text { .. } => evaluation.answers.get(place)?.clone()?,
        };
        Some(RowAnswer { row: *row, answer })
    };
    rows.iter().enumerate().map(answer).collect()
}
