//! Which sequences are computed together.

use burn::tensor::Device;

use crate::model::precision::is_flex;
use crate::model::runs::shared;

/// Fewer tokens are not worth a separate part.
const MIN_PART_TOKENS: usize = 128;

/// How many parts to split a batch into. Most operations of a CPU backend run on one thread, while a GPU wants everything
/// in one piece.
pub(crate) fn part_count(tokens: usize, sequences: usize, device: &Device) -> usize {
    if !by_rows(device) {
        return 1;
    }
    (tokens / MIN_PART_TOKENS).clamp(1, rayon::current_num_threads().min(sequences))
}

/// Whether attention takes rows as they are, in any number of runs.
pub(crate) fn by_rows(device: &Device) -> bool {
    is_flex(device) && !device.is_autodiff()
}

/// Splits `order` into `count` runs of about equally many tokens; the sequences have `lengths`.
pub(crate) fn deal<'a>(order: &'a [usize], lengths: &[usize], count: usize) -> Vec<&'a [usize]> {
    let mut left: usize = lengths.iter().sum();
    let (mut rest, mut parts) = (order, Vec::with_capacity(count));
    for remaining in (1..=count).rev() {
        let target = left / remaining;
        let (mut tokens, mut end) = (0, 0);
        // At least one sequence for this part and for each of those to come.
        while end < rest.len() + 1 - remaining && (end == 0 || remaining == 1 || tokens < target) {
            tokens += lengths[rest[end]];
            end += 1;
        }
        let (part, others) = rest.split_at(end);
        parts.push(part);
        (rest, left) = (others, left - tokens);
    }
    parts
}

/// How sequences are split into parts, and in what order. With `shares` those that begin alike stay together, and no more parts are made than pay: what
/// they begin with is computed in each. `more` tokens follow each sequence.
pub(crate) fn arrange(
    sequences: &[Vec<u32>],
    more: usize,
    shares: bool,
    device: &Device,
) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    let lengths: Vec<usize> = sequences.iter().map(|text| text.len() + more).collect();
    let total: usize = lengths.iter().sum();
    let owned = |parts: Vec<&[usize]>| parts.into_iter().map(<[usize]>::to_vec).collect();
    if shares && by_rows(device) {
        let mut sorted = order.clone();
        sorted.sort_by_key(|row| &sequences[*row]);
        let mut own = lengths.clone();
        for pair in sorted.windows(2) {
            own[pair[1]] -= shared(&sequences[pair[0]], &sequences[pair[1]]);
        }
        if own.iter().sum::<usize>() < total {
            // Products and attention use all threads in any case, which is most of the work; the rest of a part is done by one.
            let threads = rayon::current_num_threads() as f64;
            let cost = |parts: &[&[usize]]| {
                let tokens = parts.iter().map(|part| {
                    let whole = lengths[part[0]] - own[part[0]];
                    whole + part.iter().map(|row| own[*row]).sum::<usize>()
                });
                let share = 0.3 + 0.7 * parts.len() as f64 / threads;
                tokens.max().unwrap_or(0) as f64 * share
            };
            let most = part_count(own.iter().sum(), sequences.len(), device);
            let parts = (1..=most).map(|count| deal(&sorted, &own, count));
            let best = parts.min_by(|a, b| cost(a).total_cmp(&cost(b)));
            return best.map(owned).unwrap_or_default();
        }
    }
    // Sequences of similar length go together, so that padding is little where there is any, and parts take equally long.
    let count = part_count(total, sequences.len(), device);
    if count > 1 {
        order.sort_by_key(|row| std::cmp::Reverse(lengths[*row]));
    }
    owned(deal(&order, &lengths, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Options of a row stay together; a beginning that all share is not computed in two parts.
    #[test]
    fn sequences_that_begin_alike_are_in_one_part() {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(2)
            .build()
            .unwrap();
        let text = |prompt: u32, length: usize, end: u32| {
            let mut text = vec![prompt; length];
            text.push(end);
            text
        };
        let device = Device::flex();
        let rows = [(1, 0), (2, 0), (1, 1), (2, 1)].map(|(prompt, end)| text(prompt, 300, end));
        let arranged = || arrange(&rows, 0, true, &device);
        assert_eq!(pool.install(arranged), [[0, 2], [1, 3]]);
        let rows = [0, 1, 2, 3].map(|end| text(1, 300, end));
        assert_eq!(
            pool.install(|| arrange(&rows, 0, true, &device)),
            [[0, 1, 2, 3]]
        );
    }

    #[test]
    fn parts_are_balanced_and_keep_every_sequence() {
        let lengths = [49, 47, 9, 27, 22, 17, 1, 1];
        let order: Vec<usize> = (0..lengths.len()).collect();
        for count in 1..=lengths.len() {
            let parts = deal(&order, &lengths, count);
            assert_eq!(parts.len(), count);
            assert!(parts.iter().all(|part| !part.is_empty()));
            assert_eq!(parts.concat(), order);
        }
        let tokens = |part: &[usize]| part.iter().map(|row| lengths[*row]).sum::<usize>();
        let parts = deal(&order, &lengths, 2);
        assert!(
            tokens(parts[0]).abs_diff(tokens(parts[1])) <= 49,
            "{parts:?}"
        );
    }
}
