//! Exact quantiles of magnitudes, without sorting and without a copy of the weights.

use burn::tensor::TensorData;

/// What is done with a tensor's number and a part of its values.
pub(crate) type Visit<'a> = dyn FnMut(usize, &TensorData) + 'a;

/// Hands over the weights, tensor by tensor and part by part, as often as it is called.
type Weights<'a> = dyn FnMut(&mut Visit<'_>) + 'a;

/// Counts of the magnitudes by the upper, then by the lower 16 bits of their f32 representation, whose order as integers is that of the
/// numbers.
struct Histogram {
    counts: Vec<u64>,
    /// Elements looked at.
    elements: u64,
    /// The smallest and the largest magnitude, by their bits.
    least: u32,
    largest: u32,
}

impl Histogram {
    fn new() -> Self {
        Self {
            counts: vec![0; 1 << 16],
            elements: 0,
            least: u32::MAX,
            largest: 0,
        }
    }

    /// The bin of the element of rank `rank`, and its rank within the bin.
    fn find(&self, mut rank: u64) -> (u32, u64) {
        for (bin, count) in (0..).zip(&self.counts) {
            if rank < *count {
                return (bin, rank);
            }
            rank -= count;
        }
        unreachable!("the rank is below the number of elements")
    }
}

/// Counts magnitudes: by their upper halves, or by the lower halves of those whose upper half is `high`.
fn count(part: &TensorData, high: Option<u32>, histogram: &mut Histogram) {
    histogram.elements += part.num_elements() as u64;
    for bits in part.iter::<f32>().map(|value| value.abs().to_bits()) {
        match high {
            None => {
                histogram.counts[(bits >> 16) as usize] += 1;
                histogram.least = histogram.least.min(bits);
                histogram.largest = histogram.largest.max(bits);
            }
            Some(high) if high == bits >> 16 => histogram.counts[(bits & 0xFFFF) as usize] += 1,
            Some(_) => {}
        }
    }
}

/// Calls `done` with the histogram of each tensor for which `high` gives what to count, one at a time.
fn each(
    weights: &mut Weights<'_>,
    high: impl Fn(usize) -> Option<Option<u32>>,
    mut done: impl FnMut(usize, Histogram),
) {
    let mut current: Option<(usize, Histogram)> = None;
    weights(&mut |number, part| {
        let Some(high) = high(number) else { return };
        if let Some((last, histogram)) = current.take_if(|(last, _)| *last != number) {
            done(last, histogram);
        }
        let (_, histogram) = current.get_or_insert_with(|| (number, Histogram::new()));
        count(part, high, histogram);
    });
    if let Some((last, histogram)) = current {
        done(last, histogram);
    }
}

/// The rank of the largest of the `share` smallest of `count` elements; `None` if there is no element in the share.
fn rank(share: f64, count: u64) -> Option<u64> {
    ((share * count as f64).round() as u64)
        .min(count)
        .checked_sub(1)
}

/// A quantile of magnitudes, and what is around it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quantile {
    /// The magnitude up to which the share lies; `None` if the share rounds to no element.
    pub(crate) value: Option<f64>,
    /// The tensor's smallest magnitude.
    pub(crate) least: f64,
    /// The tensor's largest magnitude.
    pub(crate) largest: f64,
}

impl Quantile {
    /// For tensors that do not train.
    const NONE: Self = Self {
        value: None,
        least: 0.0,
        largest: 0.0,
    };

    fn new(value: Option<f64>, upper: &Histogram) -> Self {
        let [least, largest] =
            [upper.least, upper.largest].map(|bits| f64::from(f32::from_bits(bits)));
        Self {
            value,
            least,
            largest,
        }
    }
}

/// For each tensor that trains, the magnitude up to which `share` of its elements lie.
pub(crate) fn quantiles(weights: &mut Weights<'_>, trains: &[bool], share: f64) -> Vec<Quantile> {
    let mut found = vec![Quantile::NONE; trains.len()];
    // The bin of each quantile among the upper halves, and its rank there.
    let mut bins = vec![None; trains.len()];
    let all = |number: usize| trains[number].then_some(None);
    each(weights, all, |number, upper| {
        bins[number] = rank(share, upper.elements).map(|rank| upper.find(rank));
        found[number] = Quantile::new(None, &upper);
    });
    let binned = |number: usize| bins[number].map(|(high, _)| Some(high));
    each(weights, binned, |number, lower| {
        let value = bins[number].map(|(high, rank)| magnitude(high, lower.find(rank).0));
        found[number].value = value;
    });
    found
}

/// For each tensor that trains, the magnitude up to which `share` of the elements of all of them lie.
pub(crate) fn global_quantiles(
    weights: &mut Weights<'_>,
    trains: &[bool],
    share: f64,
) -> Vec<Quantile> {
    let mut found = vec![Quantile::NONE; trains.len()];
    let mut upper = Histogram::new();
    let all = |number: usize| trains[number].then_some(None);
    each(weights, all, |number, own| {
        found[number] = Quantile::new(None, &own);
        upper.elements += own.elements;
        for (sum, count) in upper.counts.iter_mut().zip(own.counts) {
            *sum += count;
        }
    });
    if let Some(rank) = rank(share, upper.elements) {
        let (high, rank) = upper.find(rank);
        let mut lower = Histogram::new();
        weights(&mut |number, part| {
            if trains[number] {
                count(part, Some(high), &mut lower);
            }
        });
        let value = magnitude(high, lower.find(rank).0);
        for quantile in &mut found {
            quantile.value = Some(value);
        }
    }
    found
}

fn magnitude(high: u32, low: u32) -> f64 {
    f64::from(f32::from_bits(high << 16 | low))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn given(tensors: &[Vec<f32>]) -> impl FnMut(&mut Visit<'_>) {
        move |visit| {
            for (number, values) in tensors.iter().enumerate() {
                for part in values.chunks(300) {
                    visit(number, &TensorData::from(part));
                }
            }
        }
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_magnitudes() {
        let value = |i: usize| {
            let sign = if i.is_multiple_of(2) { 1.0 } else { -1.0 };
            sign * ((i * 7919 % 1009) as f32 / 1009.0).powi(3)
        };
        let tensors: Vec<Vec<f32>> = [1000, 37, 1].map(|n| (0..n).map(value).collect()).to_vec();
        let sorted = |values: &[f32]| {
            let mut sorted: Vec<f32> = values.iter().map(|v| v.abs()).collect();
            sorted.sort_by(f32::total_cmp);
            sorted
        };
        for share in [0.001, 0.2, 0.5, 0.8, 1.0] {
            let found = quantiles(&mut given(&tensors), &[true, true, true], share);
            for (values, found) in tensors.iter().zip(found) {
                let sorted = sorted(values);
                let expected = Quantile {
                    value: rank(share, values.len() as u64)
                        .map(|rank| f64::from(sorted[rank as usize])),
                    least: f64::from(sorted[0]),
                    largest: f64::from(sorted[sorted.len() - 1]),
                };
                assert_eq!(found, expected);
            }
            let together = sorted(&[&tensors[0][..], &tensors[2][..]].concat());
            let found = global_quantiles(&mut given(&tensors), &[true, false, true], share);
            let rank = rank(share, 1001).unwrap() as usize;
            assert!(
                found
                    .iter()
                    .all(|q| q.value == Some(f64::from(together[rank])))
            );
            let largest = |i: usize| f64::from(sorted(&tensors[i]).last().copied().unwrap());
            assert_eq!(found[2].largest, largest(2));
            assert_eq!(found[1].largest, 0.0, "it does not train");
        }
    }
}
