//! Exact quantiles of magnitudes, without sorting and without a copy of the weights.

use burn::tensor::TensorData;
use zo_core::Weights;

/// Counts of the magnitudes by the upper, then by the lower 16 bits of their f32 representation, whose order as integers is theirs as
/// numbers.
struct Histogram {
    counts: Vec<u64>,
}

impl Histogram {
    fn new() -> Self {
        let counts = vec![0; 1 << 16];
        Self { counts }
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

fn magnitudes(data: &TensorData) -> impl Iterator<Item = u32> {
    data.iter::<f32>().map(|value| value.abs().to_bits())
}

/// The rank of the largest of the `share` smallest of `count` elements; `None` if there is no element in the share.
fn rank(share: f64, count: u64) -> Option<u64> {
    ((share * count as f64).round() as u64)
        .min(count)
        .checked_sub(1)
}

/// The magnitude up to which `share` of each tensor's elements lie. Below all of them, -1, if the share rounds to none.
pub(crate) fn quantiles(weights: &mut dyn Weights, trains: &[bool], share: f64) -> Vec<f64> {
    let mut found = vec![-1.0; trains.len()];
    weights.for_each(&mut |number, data| {
        if !trains[number] {
            return;
        }
        let count = data.num_elements() as u64;
        let Some(rank) = rank(share, count) else {
            return;
        };
        let mut upper = Histogram::new();
        magnitudes(&data).for_each(|bits| upper.counts[(bits >> 16) as usize] += 1);
        let (high, rank) = upper.find(rank);
        let mut lower = Histogram::new();
        magnitudes(&data)
            .filter(|bits| bits >> 16 == high)
            .for_each(|bits| lower.counts[(bits & 0xFFFF) as usize] += 1);
        let (low, _) = lower.find(rank);
        found[number] = f64::from(f32::from_bits(high << 16 | low));
    });
    found
}

/// The magnitude up to which `share` of all elements lie.
pub(crate) fn global_quantile(weights: &mut dyn Weights, trains: &[bool], share: f64) -> f64 {
    let (mut upper, mut count) = (Histogram::new(), 0);
    weights.for_each(&mut |number, data| {
        if trains[number] {
            count += data.num_elements() as u64;
            magnitudes(&data).for_each(|bits| upper.counts[(bits >> 16) as usize] += 1);
        }
    });
    let Some(rank) = rank(share, count) else {
        return -1.0;
    };
    let (high, rank) = upper.find(rank);
    let mut lower = Histogram::new();
    weights.for_each(&mut |number, data| {
        if trains[number] {
            magnitudes(&data)
                .filter(|bits| bits >> 16 == high)
                .for_each(|bits| lower.counts[(bits & 0xFFFF) as usize] += 1);
        }
    });
    let (low, _) = lower.find(rank);
    f64::from(f32::from_bits(high << 16 | low))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(Vec<Vec<f32>>);

    impl Weights for Given {
        fn for_each(&mut self, visit: &mut dyn FnMut(usize, TensorData)) {
            for (number, values) in self.0.iter().enumerate() {
                visit(number, TensorData::from(values.as_slice()));
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
            let found = quantiles(&mut Given(tensors.clone()), &[true, true, true], share);
            for (values, found) in tensors.iter().zip(found) {
                let expected = match rank(share, values.len() as u64) {
                    Some(rank) => f64::from(sorted(values)[rank as usize]),
                    None => -1.0,
                };
                assert_eq!(found, expected);
            }
            let together = sorted(&[&tensors[0][..], &tensors[2][..]].concat());
            let found = global_quantile(&mut Given(tensors.clone()), &[true, false, true], share);
            let rank = rank(share, 1001).unwrap() as usize;
            assert_eq!(found, f64::from(together[rank]));
        }
    }
}
