//! What ranks tell each other besides numbers.

use mpi::topology::SimpleCommunicator;
use mpi::traits::MatchedReceiveVec;
use mpi::traits::{Communicator as _, Destination, Source};
use zo_optim::ranks::RankError;

/// A rank has failed: the reason.
const FAILED: i32 = 1;
/// Ranks have said nothing for too long: the seconds, and their numbers.
const SILENT: i32 = 2;
/// A rank still waits, and lives: nothing.
const HERE: i32 = 3;

/// The longest reason, in bytes: MPI sends so little at once, whether or not the other rank listens.
const LONGEST: usize = 1000;

/// Tells all other ranks why this run ends.
pub(crate) fn tell(world: &SimpleCommunicator, error: &RankError) {
    let (tag, text) = match error {
        RankError::Failed { reason, .. } => (FAILED, reason.clone()),
        RankError::Silent { ranks, seconds } => (SILENT, format!("{seconds} {ranks}")),
        other => (FAILED, other.to_string()),
    };
    let mut end = text.len().min(LONGEST);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    for rank in (0..world.size()).filter(|rank| *rank != world.rank()) {
        world
            .process_at_rank(rank)
            .send_with_tag(&text.as_bytes()[..end], tag);
    }
}

/// What another rank has said of why this run ends.
pub(crate) fn told(world: &SimpleCommunicator) -> Option<RankError> {
    if let Some(message) = world.any_process().immediate_matched_probe_with_tag(FAILED) {
        let (reason, status) = message.matched_receive_vec::<u8>();
        return Some(RankError::Failed {
            rank: status.source_rank() as usize,
            reason: String::from_utf8_lossy(&reason).into_owned(),
        });
    }
    let message = world
        .any_process()
        .immediate_matched_probe_with_tag(SILENT)?;
    let (text, _) = message.matched_receive_vec::<u8>();
    let text = String::from_utf8_lossy(&text);
    let (seconds, ranks) = text.split_once(' ')?;
    Some(RankError::Silent {
        ranks: ranks.to_owned(),
        seconds: seconds.parse().unwrap_or(0),
    })
}

/// Tells a rank that this one still waits.
pub(crate) fn say_here(world: &SimpleCommunicator, rank: i32) {
    world
        .process_at_rank(rank)
        .send_with_tag(&[0_u8; 0][..], HERE);
}

/// Notes the ranks that have said so.
pub(crate) fn note_here(world: &SimpleCommunicator, here: &mut [bool]) {
    while let Some(message) = world.any_process().immediate_matched_probe_with_tag(HERE) {
        let (_, status) = message.matched_receive_vec::<u8>();
        here[status.source_rank() as usize] = true;
    }
}
