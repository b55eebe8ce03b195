//! The texts of a part as runs of tokens; what several texts begin with can be a run that they share.

use std::ops::Range;

/// Beginnings with fewer tokens in common are not worth a run.
const MIN_SHARED: usize = 8;

/// Runs of tokens, each of which goes on where another ends, or begins texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    /// In the order of the rows; each after the one it goes on from.
    runs: Vec<Run>,
    /// The run that each text ends with, alone.
    last: Vec<usize>,
}

#[derive(Debug, Clone)]
struct Run {
    /// The run before.
    before: Option<usize>,
    rows: Range<usize>,
}

impl Runs {
    /// Texts of `lengths` tokens with nothing in common.
    pub(crate) fn each(lengths: &[usize]) -> Self {
        let mut runs = Self::default();
        for length in lengths {
            runs.last.push(runs.runs.len());
            runs.push(None, *length);
        }
        runs
    }

    /// Texts whose beginnings are shared, and the tokens of all runs.
    pub(crate) fn shared(texts: &[&[u32]]) -> (Self, Vec<u32>) {
        // Sorted, texts that begin alike are neighbours.
        let mut sorted: Vec<(usize, &[u32])> = texts.iter().copied().enumerate().collect();
        sorted.sort_by_key(|(_, text)| *text);
        let mut runs = Self::default();
        runs.last.resize(texts.len(), 0);
        let mut tokens = Vec::new();
        runs.grow(&sorted, 0, None, &mut tokens);
        (runs, tokens)
    }

    /// `texts` share their first `depth` tokens, which the run `before` ends with.
    fn grow(
        &mut self,
        texts: &[(usize, &[u32])],
        depth: usize,
        before: Option<usize>,
        tokens: &mut Vec<u32>,
    ) {
        let [(_, first), .., (_, last)] = texts else {
            if let [(index, text)] = texts {
                self.last[*index] = self.push(before, text.len() - depth);
                tokens.extend(&text[depth..]);
            }
            return;
        };
        let shortest = texts.iter().map(|(_, text)| text.len()).min().unwrap_or(0);
        // Each text keeps a token of its own.
        let common = in_common(first, last).min(shortest.saturating_sub(1));
        let (mut depth, mut before) = (depth, before);
        if common >= depth + MIN_SHARED {
            tokens.extend(&first[depth..common]);
            before = Some(self.push(before, common - depth));
            depth = common;
        }
        let mut start = 0;
        for end in 1..=texts.len() {
            let goes_on = texts
                .get(end)
                .is_some_and(|(_, next)| shared(texts[end - 1].1, next) >= depth + MIN_SHARED);
            if !goes_on {
                self.grow(&texts[start..end], depth, before, tokens);
                start = end;
            }
        }
    }

    fn push(&mut self, before: Option<usize>, length: usize) -> usize {
        let start = self.tokens();
        self.runs.push(Run {
            before,
            rows: start..start + length,
        });
        self.runs.len() - 1
    }

    /// The same texts behind a soft prompt of `prompt` rows, and for each row its row in `[soft prompt; tokens]`.
    pub(crate) fn behind_prompt(&self, prompt: usize) -> (Self, Vec<i32>) {
        let (mut runs, mut rows) = (Self::default(), Vec::new());
        for run in &self.runs {
            let extra = if run.before.is_none() { prompt } else { 0 };
            runs.push(run.before, extra + run.rows.len());
            rows.extend((0..extra).chain(run.rows.clone().map(|row| prompt + row)));
        }
        runs.last.clone_from(&self.last);
        (runs, rows.into_iter().map(|row| row as i32).collect())
    }

    /// The same texts `times` times, all of them before any comes again.
    pub(crate) fn repeated(&self, times: usize) -> Self {
        let (count, tokens) = (self.runs.len(), self.tokens());
        let again = |group| {
            let runs = self.runs.iter();
            runs.map(move |run| Run {
                before: run.before.map(|before| group * count + before),
                rows: group * tokens + run.rows.start..group * tokens + run.rows.end,
            })
        };
        let last = |group| self.last.iter().map(move |run| group * count + run);
        Self {
            runs: (0..times).flat_map(again).collect(),
            last: (0..times).flat_map(last).collect(),
        }
    }

    /// Rows of all runs.
    pub(crate) fn tokens(&self) -> usize {
        self.runs.last().map_or(0, |run| run.rows.end)
    }

    /// Position of each row in its texts.
    pub(crate) fn positions(&self) -> Vec<i32> {
        let first = |run: &Run| {
            run.before
                .map_or(0, |before| self.keys(before).iter().map(Range::len).sum())
        };
        let positions = self.runs.iter().flat_map(|run| {
            let first: usize = first(run);
            (first..first + run.rows.len()).map(|position| position as i32)
        });
        positions.collect()
    }

    /// Rows of each run, and the rows of the texts up to its end.
    #[cfg(feature = "flex")]
    pub(crate) fn each_run(&self) -> impl Iterator<Item = (usize, Vec<Range<usize>>)> + '_ {
        let runs = self.runs.iter().enumerate();
        runs.map(|(index, run)| (run.rows.len(), self.keys(index)))
    }

    /// The rows of each text.
    pub(crate) fn texts(&self) -> impl Iterator<Item = Vec<Range<usize>>> + '_ {
        self.last.iter().map(|run| self.keys(*run))
    }

    fn keys(&self, run: usize) -> Vec<Range<usize>> {
        let mut keys = Vec::new();
        let mut next = Some(run);
        while let Some(run) = next {
            keys.push(self.runs[run].rows.clone());
            next = self.runs[run].before;
        }
        keys.reverse();
        keys
    }
}

/// Number of tokens that both texts can share: each keeps its last. 0 if they are not worth it.
pub(crate) fn shared(a: &[u32], b: &[u32]) -> usize {
    let own = a.len().min(b.len()).saturating_sub(1);
    let common = in_common(a, b).min(own);
    if common < MIN_SHARED { 0 } else { common }
}

/// Number of tokens that both texts begin with.
fn in_common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every text can be read from its rows, and no token of a text is where its positions do not say.
    fn check(texts: &[Vec<u32>], expected: usize) {
        let texts: Vec<&[u32]> = texts.iter().map(|text| &text[..]).collect();
        let (runs, tokens) = Runs::shared(&texts);
        assert_eq!((runs.tokens(), tokens.len()), (expected, expected));
        let positions = runs.positions();
        for (text, rows) in texts.iter().zip(runs.texts()) {
            let rows: Vec<usize> = rows.into_iter().flatten().collect();
            let read: Vec<u32> = rows.iter().map(|row| tokens[*row]).collect();
            assert_eq!(read, *text);
            assert!(
                rows.iter()
                    .enumerate()
                    .all(|(at, row)| positions[*row] == at as i32)
            );
        }
        let (prompted, rows) = runs.behind_prompt(3);
        let positions = prompted.positions();
        for (text, all) in texts.iter().zip(prompted.texts()) {
            let all: Vec<usize> = all.into_iter().flatten().collect();
            let read = |row: &usize| match rows[*row] {
                row @ 0..3 => row as u32,
                row => tokens[row as usize - 3],
            };
            let read: Vec<u32> = all.iter().map(read).collect();
            assert_eq!(read, [&[0, 1, 2], *text].concat());
            assert!(
                all.iter()
                    .enumerate()
                    .all(|(at, row)| positions[*row] == at as i32)
            );
        }
    }

    #[test]
    fn what_texts_begin_with_is_kept_once() {
        let text = |prompt: std::ops::Range<u32>, rest: &[u32]| -> Vec<u32> {
            prompt.chain(rest.iter().copied()).collect()
        };
        // Nothing worth sharing.
        check(&[vec![1, 2, 3], vec![1, 2, 4]], 6);
        check(&[vec![5]], 1);
        // Demonstrations, then prompts, then options: 100 + (20 + 3) + (30 + 1 + 2).
        let all = [
            text(0..120, &[7]),
            text(0..100, &[[1; 30].as_slice(), &[7, 8]].concat()),
            text(0..120, &[8, 9]),
            text(0..100, &[[1; 30].as_slice(), &[9]].concat()),
        ];
        check(&all, 100 + 23 + 33);
        // The same text twice, and one that another begins with: each keeps its last token.
        check(&[text(0..20, &[]), text(0..20, &[])], 19 + 2);
        check(
            &[text(0..20, &[]), text(0..30, &[]), text(0..30, &[9])],
            19 + 1 + 10 + 1 + 2,
        );
    }

    #[test]
    fn texts_without_anything_in_common_are_runs_of_their_own() {
        let runs = Runs::each(&[2, 3]);
        assert_eq!(runs.positions(), [0, 1, 0, 1, 2]);
        let texts: Vec<_> = runs.texts().flatten().collect();
        assert_eq!(texts, [0..2, 2..5]);
    }
}
