//! Texts and files between ranks, as numbers.

use super::{Communicator, RankError};

/// Bytes in a number: integers up to 2^48 are exact.
const BYTES: usize = 6;
/// The most numbers that a rank sends at once.
const PIECE: usize = 1 << 16;

/// The bytes that each rank has, in the order of the ranks. All ranks call it.
///
/// # Errors
/// As [`all_gather`](Communicator::all_gather).
pub fn exchange(ranks: &dyn Communicator, own: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
    let lengths = ranks.all_gather(&[own.len() as f64])?;
    let lengths: Vec<usize> = lengths.into_iter().map(|length| length as usize).collect();
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let mut numbers: Vec<f64> = own.chunks(BYTES).map(number).collect();
    numbers.resize(longest.div_ceil(BYTES), 0.0);
    let mut all = vec![Vec::with_capacity(longest); lengths.len()];
    for piece in numbers.chunks(PIECE) {
        let found = ranks.all_gather(piece)?;
        for (bytes, numbers) in all.iter_mut().zip(found.chunks(piece.len())) {
            for number in numbers {
                bytes.extend(&(*number as u64).to_le_bytes()[..BYTES]);
            }
        }
    }
    for (bytes, length) in all.iter_mut().zip(lengths) {
        bytes.truncate(length);
    }
    Ok(all)
}

/// The bytes that rank 0 has; those of the others do not matter. All ranks call it.
///
/// # Errors
/// As [`all_gather`](Communicator::all_gather).
pub fn broadcast(ranks: &dyn Communicator, own: &[u8]) -> Result<Vec<u8>, RankError> {
    let own = if ranks.rank() == 0 { own } else { &[] };
    let all = exchange(ranks, own)?;
    Ok(all.into_iter().next().unwrap_or_default())
}

fn number(bytes: &[u8]) -> f64 {
    let mut whole = [0; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(whole) as f64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;
    use crate::ranks::{Alone, threads};

    #[test]
    fn bytes_of_any_length_arrive() {
        let text = |rank: usize| -> Vec<u8> {
            let bytes = (0..[0, 1, 400_003][rank]).map(|i: usize| (7 * i + rank + 250) as u8);
            bytes.collect()
        };
        let all: Vec<_> = (0..3).map(text).collect();
        std::thread::scope(|scope| {
            for rank in threads(3, Duration::from_secs(60)) {
                let all = &all;
                scope.spawn(move || {
                    assert_eq!(&exchange(&rank, &text(rank.rank())).unwrap(), all);
                    let own = text(2 - rank.rank());
                    assert_eq!(broadcast(&rank, &own).unwrap(), all[2]);
                });
            }
        });
        assert_eq!(exchange(&Alone, b"zo").unwrap(), [b"zo"]);
    }
}
