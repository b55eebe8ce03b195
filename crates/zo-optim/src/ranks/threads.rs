//! Threads of one process as ranks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Communicator, RankError};

/// A rank that is a thread: see [`threads`].
#[derive(Debug, Clone)]
pub struct Threads {
    rank: usize,
    room: Arc<Room>,
}

/// Where the threads meet.
#[derive(Debug)]
struct Room {
    size: usize,
    limit: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Exchanges done.
    done: u64,
    /// What each rank has brought to the next one.
    brought: Vec<Option<Vec<f64>>>,
    /// What all brought to the last one.
    last: Arc<Vec<f64>>,
    failed: Option<RankError>,
}

/// As many ranks, one for each thread of a process. Each waits for the others at most for `limit`.
///
/// # Panics
/// If `size` is 0.
pub fn threads(size: usize, limit: Duration) -> Vec<Threads> {
    assert!(size > 0, "there must be a rank");
    let state = State {
        brought: vec![None; size],
        ..State::default()
    };
    let room = Arc::new(Room {
        size,
        limit,
        state: Mutex::new(state),
        changed: Condvar::new(),
    });
    let rank = |rank| Threads {
        rank,
        room: Arc::clone(&room),
    };
    (0..size).map(rank).collect()
}

impl Room {
    /// A thread that panicked has left a state that others can go on with.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Ends the exchange, if all ranks have brought their numbers.
    fn complete(&mut self, own: usize) {
        if !self.brought.iter().all(Option::is_some) {
            return;
        }
        let brought: Vec<Vec<f64>> = self.brought.iter_mut().filter_map(Option::take).collect();
        let other = brought.iter().position(|numbers| numbers.len() != own);
        match other {
            Some(rank) => {
                self.failed = Some(RankError::Lengths {
                    rank,
                    found: brought[rank].len(),
                    expected: own,
                });
            }
            None => {
                self.last = Arc::new(brought.concat());
                self.done += 1;
            }
        }
    }
}

impl Communicator for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.room.size
    }

    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<f64>, RankError> {
        let begin = Instant::now();
        let mut state = self.room.state();
        let number = state.done;
        if state.failed.is_none() {
            state.brought[self.rank] = Some(numbers.to_vec());
            state.complete(numbers.len());
            self.room.changed.notify_all();
        }
        loop {
            // First: a rank that failed afterwards has taken part.
            if state.done > number {
                return Ok(state.last.to_vec());
            }
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            let left = self.room.limit.saturating_sub(begin.elapsed());
            if left.is_zero() {
                let missing = state.brought.iter().enumerate();
                let missing = missing.filter(|(_, brought)| brought.is_none());
                let missing: Vec<String> = missing.map(|(rank, _)| rank.to_string()).collect();
                state.failed = Some(RankError::Silent {
                    ranks: missing.join(", "),
                    seconds: self.room.limit.as_secs(),
                });
                self.room.changed.notify_all();
                continue;
            }
            let waited = self.room.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn fail(&self, reason: &str) {
        let mut state = self.room.state();
        state.failed.get_or_insert_with(|| RankError::Failed {
            rank: self.rank,
            reason: reason.to_owned(),
        });
        self.room.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What each rank's part comes to.
    fn together<T: Send>(
        size: usize,
        limit: Duration,
        part: impl Fn(Threads) -> T + Sync,
    ) -> Vec<T> {
        std::thread::scope(|scope| {
            let part = &part;
            let ranks = threads(size, limit).into_iter();
            let parts: Vec<_> = ranks.map(|rank| scope.spawn(|| part(rank))).collect();
            parts.into_iter().map(|part| part.join().unwrap()).collect()
        })
    }

    #[test]
    fn numbers_come_in_the_order_of_ranks_bit_for_bit() {
        let numbers = |rank: usize| [f64::from_bits(0x7ff8_0000_0000_0000 + rank as u64), -0.0];
        let gathered = together(4, Duration::from_secs(60), |rank| {
            // Many times: none may run ahead and take another exchange's numbers.
            for round in 0..1000 {
                let own = [rank.rank() as f64, f64::from(round)];
                let all = rank.all_gather(&own).unwrap();
                let expected = (0..4).flat_map(|rank| [f64::from(rank), f64::from(round)]);
                assert_eq!(all, expected.collect::<Vec<_>>());
            }
            rank.all_gather(&numbers(rank.rank())).unwrap()
        });
        let bits = |numbers: &[f64]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        let expected: Vec<f64> = (0..4).flat_map(numbers).collect();
        for all in gathered {
            assert_eq!(bits(&all), bits(&expected));
        }
    }

    #[test]
    fn a_rank_that_fails_ends_the_others_with_its_reason() {
        let begin = Instant::now();
        let errors = together(3, Duration::from_secs(60), |rank| {
            if rank.rank() == 1 {
                rank.fail("the disk is full");
                rank.fail("what comes later");
            }
            rank.all_gather(&[0.0]).unwrap_err()
        });
        let expected = "rank 1 failed: the disk is full";
        assert!(errors.iter().all(|error| error.to_string() == expected));
        assert!(begin.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_rank_that_says_nothing_is_named() {
        let errors = together(3, Duration::from_millis(200), |rank| match rank.rank() {
            2 => None,
            _ => Some(rank.all_gather(&[0.0]).unwrap_err()),
        });
        for error in errors.into_iter().flatten() {
            let error = error.to_string();
            assert!(error.starts_with("rank 2 has said nothing"), "{error}");
        }
    }

    #[test]
    fn ranks_that_send_more_or_less_are_refused() {
        let errors = together(2, Duration::from_secs(60), |rank| {
            rank.all_gather(&vec![0.0; 1 + rank.rank()]).unwrap_err()
        });
        assert!(matches!(errors[0], RankError::Lengths { .. }), "{errors:?}");
    }
}
