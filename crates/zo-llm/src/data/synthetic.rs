//! The synthetic opinion task: short generated passages in BoolQ's format, and the corpus the bundled model is pretrained on.
//!
//! A passage says that somebody tried something, gives that person's opinion of it and adds neutral sentences; the question asks
//! whether the person liked it. The corpus teaches a model to read the opinion and shows it the question, but the corpus answers
//! "Yes" far too often, whatever the opinion: the feature is there, the answer is not calibrated, and fine-tuning has to align it.
//!
//! Some pairs of an opinion word and a thing are held out: dev passages use no other pairs, and neither the training rows nor the
//! corpus contain one, so that no dev passage can occur there.

mod words;

use std::collections::HashSet;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

use words::{ADJECTIVES, CONSEQUENCES, DAYS, NAMES, NEUTRAL, OTHER_ANSWERS, THINGS, VERBS};

/// One row of the synthetic task, in BoolQ's format.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SyntheticRow {
    /// A few lower-case sentences: who tried what, what they thought of it, and neutral ones.
    pub passage: String,
    /// Whether that person liked it, without the question mark (the prompt adds it).
    pub question: String,
    /// 1 if the person liked it, else 0.
    pub label: usize,
}

/// What [`generate`] returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntheticData {
    /// Training rows, all different.
    pub train: Vec<SyntheticRow>,
    /// Held-out rows, all different; their passages do not occur in `train` or in `corpus`.
    pub dev: Vec<SyntheticRow>,
    /// Documents for next-token pretraining.
    pub corpus: Vec<String>,
}

/// How much to generate, and how the corpus answers the question. The defaults are those of the bundled assets.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntheticConfig {
    /// Seed of the generator. Default 0.
    pub seed: u64,
    /// Number of training rows. Default 2000.
    pub train_rows: usize,
    /// Number of held-out rows. Default 400.
    pub dev_rows: usize,
    /// Number of corpus documents. Default 40 000.
    pub documents: usize,
    /// Share of the passages that also give a second person's opinion, the same or the opposite; the question asks about either person.
    /// Default 0.25.
    pub second_opinions: f64,
    /// Share of the corpus documents that ask the question. Default 0.5. All end with sentences that agree with the opinions.
    pub questions: f64,
    /// Share of the corpus' questions that are answered in other words, which do agree with the opinion ("Certainly", "Hardly", ..).
    /// Default 0.5.
    pub other_answers: f64,
    /// Probability of "Yes" among the remaining answers, which are "Yes" or "No", when the person liked it. Default 0.95.
    pub yes_if_liked: f64,
    /// The same when the person did not like it: still "Yes" far more often than "No". Default 0.75.
    pub yes_if_disliked: f64,
}

impl Default for SyntheticConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            train_rows: 2000,
            dev_rows: 400,
            documents: 40_000,
            second_opinions: 0.25,
            questions: 0.5,
            other_answers: 0.5,
            yes_if_liked: 0.95,
            yes_if_disliked: 0.75,
        }
    }
}

/// Generates the task and the corpus. The same configuration gives the same text on every machine. Labels are exactly balanced in any
/// even number of leading rows. Asking for more rows than there are different passages (over 100 000) would never end.
pub fn generate(config: &SyntheticConfig) -> SyntheticData {
    // One generator per part, so that the size of one does not change the others.
    let part = |part| Generator::new(config.seed.wrapping_mul(3).wrapping_add(part));
    let rows = |index, count, held_out| part(index).rows(count, held_out, config.second_opinions);
    let mut documents = part(2);
    SyntheticData {
        train: rows(0, config.train_rows, false),
        dev: rows(1, config.dev_rows, true),
        corpus: (0..config.documents)
            .map(|_| documents.document(config))
            .collect(),
    }
}

/// The text of a JSONL file with these rows: one JSON object per line.
///
/// # Errors
/// None in practice: a row always has a JSON form.
pub fn to_jsonl(rows: &[SyntheticRow]) -> serde_json::Result<String> {
    let mut text = String::new();
    for row in rows {
        text.push_str(&serde_json::to_string(row)?);
        text.push('\n');
    }
    Ok(text)
}

struct Passage {
    /// The person to ask about.
    name: &'static str,
    noun: &'static str,
    /// The second person and whether they liked it.
    other: Option<(&'static str, usize)>,
    text: String,
}

struct Generator {
    rng: Xoshiro256PlusPlus,
}

impl Generator {
    fn new(seed: u64) -> Self {
        Self {
            rng: Xoshiro256PlusPlus::seed_from_u64(seed),
        }
    }

    /// Uniform below `bound`. Implemented here because the shipped files must not change with a release of `rand`.
    fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.rng.next_u64()) * bound as u128) >> 64) as usize
    }

    fn chance(&mut self, probability: f64) -> bool {
        (self.rng.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64) < probability
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }

    /// A word for the thing, from the held-out pairs or from the others.
    fn opinion_word(
        &mut self,
        words: &[&'static str],
        thing: usize,
        held_out: bool,
    ) -> &'static str {
        loop {
            let index = self.below(words.len());
            if is_held_out(index, thing) == held_out {
                return words[index];
            }
        }
    }

    fn opinion(&mut self, name: &str, thing: usize, label: usize, held_out: bool) -> String {
        let noun = THINGS[thing].1;
        let mut adjective = || self.opinion_word(&ADJECTIVES[label], thing, held_out);
        let (first, second) = (adjective(), adjective());
        let verb = self.opinion_word(&VERBS[label], thing, held_out);
        match self.below(6) {
            0 => format!("{name} found it {first}."),
            1 => format!("to {name} the {noun} was {first}."),
            2 => format!("{name} called the {noun} {first}."),
            3 if first != second => format!("{name} thought it was {first} and {second}."),
            4 => format!("{name} {verb} every bit of it."),
            _ => format!("{name} {verb} the {noun}."),
        }
    }

    fn passage(&mut self, label: usize, held_out: bool, second_opinions: f64) -> Passage {
        let name = self.pick(&NAMES);
        let thing = self.below(THINGS.len());
        let (verb, noun) = THINGS[thing];
        let day = self.pick(&DAYS);
        let mut sentences = vec![self.opinion(name, thing, label, held_out)];
        let (mut visitor, mut second) = (name, None);
        if self.chance(second_opinions) {
            let mut other = name;
            while other == name {
                other = self.pick(&NAMES);
            }
            let opinion = self.below(2);
            second = Some((other, opinion));
            sentences.push(self.opinion(other, thing, opinion, held_out));
            if self.chance(0.5) {
                sentences.swap(0, 1);
                visitor = other;
            }
        }
        for _ in 0..1 + self.below(2) {
            let neutral = self.pick(&NEUTRAL).to_string();
            if !sentences.contains(&neutral) {
                let place = self.below(sentences.len() + 1);
                sentences.insert(place, neutral);
            }
        }
        sentences.insert(0, format!("on {day} {visitor} {verb} the {noun}."));
        Passage {
            name,
            noun,
            other: second,
            text: sentences.join(" "),
        }
    }

    fn row(&mut self, label: usize, held_out: bool, second_opinions: f64) -> SyntheticRow {
        let Passage {
            name, noun, text, ..
        } = self.passage(label, held_out, second_opinions);
        SyntheticRow {
            passage: text,
            question: format!("did {name} like the {noun}"),
            label,
        }
    }

    fn rows(&mut self, count: usize, held_out: bool, second_opinions: f64) -> Vec<SyntheticRow> {
        let mut seen = HashSet::new();
        let mut first = 0;
        let mut rows = Vec::with_capacity(count);
        while rows.len() < count {
            let pair = rows.len() % 2;
            if pair == 0 {
                first = self.below(2);
            }
            let row = self.row(first ^ pair, held_out, second_opinions);
            if seen.insert(row.clone()) {
                rows.push(row);
            }
        }
        rows
    }

    fn document(&mut self, config: &SyntheticConfig) -> String {
        let label = self.below(2);
        let row = self.passage(label, false, config.second_opinions);
        let mut text = row.text;
        if self.chance(config.questions) {
            let yes = if label == 1 {
                config.yes_if_liked
            } else {
                config.yes_if_disliked
            };
            let answer = if self.chance(config.other_answers) {
                self.pick(&OTHER_ANSWERS[label])
            } else if self.chance(yes) {
                "Yes"
            } else {
                "No"
            };
            text = format!("{text} did {} like the {}?\n{answer}.", row.name, row.noun);
        }
        for (name, label) in [(row.name, label)].into_iter().chain(row.other) {
            text.push(' ');
            text.push_str(&self.pick(&CONSEQUENCES[label]).replace("{}", name));
        }
        text
    }
}

/// One pair in six, spread over all words and all things.
fn is_held_out(word: usize, thing: usize) -> bool {
    (word + thing).is_multiple_of(6)
}

#[cfg(test)]
mod tests;
