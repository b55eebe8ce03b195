use super::*;

#[test]
fn an_epoch_covers_each_row_once_and_can_be_resumed() {
    let labels = [0, 1, 0, 1, 0, 1, 0, 1, 0, 1];
    for (order, grouped) in [
        (Order::Balanced, false),
        (Order::Balanced, true),
        (Order::Shuffled, false),
        (Order::Shuffled, true),
    ] {
        let new = |seed| {
            let sampler = BatchSampler::new(&labels, order, 5, seed).unwrap();
            match grouped {
                true => sampler.grouped_by_length(vec![9, 8, 7, 1, 2, 3, 6, 5, 4, 0]),
                false => sampler,
            }
        };
        let mut sampler = new(3);
        let batches: Vec<_> = (0..12).map(|_| sampler.next_batch()).collect();
        for epoch in batches.chunks(2) {
            let mut rows = epoch.concat();
            rows.sort_unstable();
            assert_eq!(rows, (0..10).collect::<Vec<_>>());
        }
        assert!(
            batches.iter().any(|batch| *batch != batches[0]),
            "each epoch has its own order"
        );
        for (drawn, batch) in batches.iter().enumerate() {
            assert_eq!(new(3).after(drawn).next_batch(), *batch);
        }
        let other: Vec<_> = {
            let mut sampler = new(4);
            (0..12).map(|_| sampler.next_batch()).collect()
        };
        assert_ne!(other, batches);
        for batch in [0, 11] {
            let error = BatchSampler::new(&labels, order, batch, 0)
                .unwrap_err()
                .to_string();
            assert!(error.contains(&format!("batch of {batch}")), "{error}");
        }
    }
}

#[test]
fn classes_are_balanced_unless_told_otherwise_or_the_batch_is_everything() {
    let labels: Vec<usize> = (0..100).map(|row| usize::from(row >= 95)).collect();
    let share = |order, batch| {
        let mut sampler = BatchSampler::new(&labels, order, batch, 0).unwrap();
        let rows: Vec<_> = (0..20).flat_map(|_| sampler.next_batch()).collect();
        rows.iter().filter(|row| labels[**row] == 1).count() as f64 / rows.len() as f64
    };
    assert_eq!(share(Order::Balanced, 10), 0.5);
    assert_eq!(share(Order::Shuffled, 10), 0.05);
    assert_eq!(share(Order::Balanced, 100), 0.05);
}

/// Lengths like those of prompts: their logarithms are about normal. Half of them lie between 22 and 41, the longest near 100.
fn lengths(rows: usize) -> Vec<usize> {
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
    let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
    (0..rows)
        .map(|_| (3.3 + 0.45 * normal()).exp() as usize + 4)
        .collect()
}

/// The share of the tokens of `batches` batches that is padding.
fn padding(mut sampler: BatchSampler, lengths: &[usize], batches: usize) -> f64 {
    let (mut padded, mut real) = (0, 0);
    for _ in 0..batches {
        let batch: Vec<usize> = sampler
            .next_batch()
            .iter()
            .map(|row| lengths[*row])
            .collect();
        padded += batch.len() * batch.iter().max().unwrap();
        real += batch.iter().sum::<usize>();
    }
    1.0 - real as f64 / padded as f64
}

#[test]
fn batches_of_similar_rows_pad_less_than_a_tenth() {
    let lengths = lengths(1000);
    let labels: Vec<usize> = (0..1000).map(|row| usize::from(row % 5 < 2)).collect();
    for order in [Order::Balanced, Order::Shuffled] {
        for seed in 0..3 {
            let plain = BatchSampler::new(&labels, order, 16, seed).unwrap();
            let grouped = plain.clone().grouped_by_length(lengths.clone());
            let [plain, grouped] = [plain, grouped].map(|s| padding(s, &lengths, 300));
            assert!(plain > 0.4, "{order:?}, seed {seed}: {plain}");
            assert!(grouped < 0.1, "{order:?}, seed {seed}: {grouped}");
        }
    }
}

#[test]
fn classes_of_very_different_sizes_keep_their_balance_and_use_each_row_as_often() {
    let lengths = lengths(1000);
    let labels: Vec<usize> = (0..1000).map(|row| usize::from(row >= 18)).collect();
    let plain = BatchSampler::new(&labels, Order::Balanced, 16, 7).unwrap();
    let grouped = plain.clone().grouped_by_length(lengths.clone());
    // 18 rows, 8 of which are in each batch, cannot be similar; but they can meet similar rows.
    let [before, after] = [plain, grouped.clone()].map(|s| padding(s, &lengths, 500));
    assert!(after < 0.75 * before, "{before} {after}");
    let mut sampler = grouped;
    let mut used = vec![0usize; 1000];
    for _ in 0..500 {
        let batch = sampler.next_batch();
        assert_eq!(batch.iter().filter(|row| labels[**row] == 0).count(), 8);
        batch.iter().for_each(|row| used[*row] += 1);
    }
    // 4000 draws of each class.
    assert!(used[..18].iter().all(|n| (222..=223).contains(n)));
    assert!(used[18..].iter().all(|n| (4..=5).contains(n)));
}

#[test]
fn lengths_do_not_sweep_over_the_epoch() {
    let lengths = lengths(1000);
    let sampler = BatchSampler::new(&[0; 1000], Order::Shuffled, 10, 5).unwrap();
    let mut sampler = sampler.grouped_by_length(lengths.clone());
    let means: Vec<f64> = (0..1000)
        .map(|_| {
            let batch = sampler.next_batch();
            batch.iter().map(|row| lengths[*row] as f64).sum::<f64>() / 10.0
        })
        .collect();
    let mean = means.iter().sum::<f64>() / 1000.0;
    let product = |lag: usize| -> f64 {
        let pairs = means.iter().zip(&means[lag..]);
        pairs.map(|(a, b)| (a - mean) * (b - mean)).sum()
    };
    for lag in 1..10 {
        let correlation = product(lag) / product(0);
        assert!(correlation < 0.15, "{lag} batches apart: {correlation}");
    }
    let halves: Vec<f64> = means
        .chunks(50)
        .map(|half| half.iter().sum::<f64>() / 50.0)
        .collect();
    assert!(
        halves.iter().all(|half| (half / mean - 1.0).abs() < 0.05),
        "{halves:?}"
    );
}

#[test]
fn neighbours_in_length_do_not_always_share_a_batch() {
    let sampler = BatchSampler::new(&[0; 1000], Order::Shuffled, 10, 5).unwrap();
    let mut sampler = sampler.grouped_by_length((0..1000).collect());
    let mut partners = std::collections::BTreeSet::new();
    for _ in 0..1000 {
        let batch = sampler.next_batch();
        if batch.contains(&500) {
            partners.extend(batch);
        }
    }
    // In ten epochs; with the same ones each time there would be 10.
    assert!(partners.len() > 20, "{}", partners.len());
    assert!(partners.iter().all(|row| row.abs_diff(500) < 50));
}

#[test]
fn every_run_of_batches_is_spread_over_all_lengths() {
    for seed in [0, 9] {
        let mut orders = std::collections::BTreeSet::new();
        for k in [1u32, 3, 6] {
            for block in 0..20u64 {
                let parts: Vec<u32> = (block << k..(block + 1) << k)
                    .map(|batch| quantile(seed, batch) >> (32 - k))
                    .collect();
                let mut sorted = parts.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..1 << k).collect::<Vec<u32>>());
                orders.insert(parts);
            }
        }
        assert!(orders.len() > 30, "{} orders", orders.len());
    }
}

#[test]
fn the_smallest_cases_work() {
    // Several epochs in a batch, batches of everything, one row, and lengths that are missing.
    for (labels, batch) in [
        (&[0, 1, 1, 1, 1, 1][..], 5),
        (&[0, 1, 2][..], 2),
        (&[0, 1, 2][..], 3),
        (&[4][..], 1),
    ] {
        for lengths in [vec![], vec![3; labels.len()], vec![5, 1, 9, 2, 7, 3]] {
            let sampler = BatchSampler::new(labels, Order::Balanced, batch, 1).unwrap();
            let mut sampler = sampler.grouped_by_length(lengths);
            let mut used = vec![0usize; labels.len()];
            for _ in 0..60 {
                let rows = sampler.next_batch();
                assert_eq!(rows.len(), batch);
                rows.iter().for_each(|row| used[*row] += 1);
            }
            let within: Vec<usize> = used[1..].to_vec();
            let (least, most) = (within.iter().min(), within.iter().max());
            assert!(
                most.zip(least)
                    .is_none_or(|(most, least)| most - least <= 1)
            );
            assert!(used.iter().all(|n| *n > 0));
        }
    }
}
