//! The thread that talks to MPI.
//!
//! A collective operation that was begun cannot be given up, and its buffers must stay. So it has a thread of its own, which stays inside of one
//! that will never end, while the rest of the process ends in good order.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread::sleep;
use std::time::{Duration, Instant};

use mpi::environment::Universe;
use mpi::request::scope;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator as _, CommunicatorCollectives};
use zo_optim::ranks::RankError;

use crate::messages::{note_here, say_here, tell, told};

/// How long a process that computes is given to come to an end by itself, once another rank has failed, and how often it looks.
const GRACE: Duration = Duration::from_secs(5);
/// How long the others let rank 0 write its report, before they end the run.
const REPORTS: Duration = Duration::from_secs(8);
const LOOKS: Duration = Duration::from_millis(500);
/// An operation may still complete after the message that a rank has failed: that rank took part.
const SETTLES: Duration = Duration::from_millis(300);
/// How long a roll call takes.
const ROLL_CALL: Duration = Duration::from_secs(2);

/// What the process asks of the thread.
pub(crate) enum Request {
    Gather(Vec<f64>),
    Fail(String),
    /// To end the run on all ranks with this exit code.
    Abort(i32),
    /// To leave MPI: all ranks do.
    Finish,
}

/// What it answers to [`Request::Gather`].
pub(crate) type Gathered = Result<Vec<f64>, RankError>;

pub(crate) struct MpiThread {
    pub(crate) world: SimpleCommunicator,
    pub(crate) requests: Receiver<Request>,
    pub(crate) answers: Sender<Gathered>,
    pub(crate) limit: Duration,
}

impl MpiThread {
    /// Serves the process until it ends. `universe` is MPI as long as it lives.
    pub(crate) fn run(self, universe: Universe) {
        let mut failed = None;
        loop {
            match self.requests.recv_timeout(LOOKS) {
                Ok(Request::Gather(numbers)) => match failed.clone() {
                    Some(error) => drop(self.answers.send(Err(error))),
                    None => self.gather(&numbers),
                },
                Ok(Request::Fail(reason)) => {
                    let rank = self.world.rank() as usize;
                    let error = RankError::Failed { rank, reason };
                    tell(&self.world, &error);
                    failed.get_or_insert(error);
                }
                Ok(Request::Abort(code)) => self.abort(code),
                Ok(Request::Finish) => break,
                Err(RecvTimeoutError::Timeout) => {
                    if failed.is_none()
                        && let Some(error) = told(&self.world)
                    {
                        self.expect(&error);
                        failed = Some(error);
                    }
                }
                // Without a word: the process panicked, or dropped the ranks.
                Err(RecvTimeoutError::Disconnected) => self.abort(1),
            }
        }
        drop(universe);
    }

    /// The process computes while another rank has failed: it is given a little time to come to an end by itself.
    fn expect(&self, error: &RankError) {
        match self.requests.recv_timeout(GRACE) {
            Ok(Request::Gather(_)) => drop(self.answers.send(Err(error.clone()))),
            Ok(Request::Abort(code)) => self.abort(code),
            _ => {
                if self.world.rank() == 0 {
                    eprintln!("error: {error}");
                }
                self.abort(1)
            }
        }
    }

    /// Gives the process the numbers of all ranks, or the reason why there are none. In that case it never comes back.
    fn gather(&self, numbers: &[f64]) {
        let mut all = vec![0.0; numbers.len() * self.world.size() as usize];
        scope(|scope| {
            let world = &self.world;
            let mut request = world.immediate_all_gather_into(scope, numbers, &mut all[..]);
            let mut waiting = Waiting::new(self);
            loop {
                request = match request.test() {
                    Ok(_) => return,
                    Err(request) => request,
                };
                if let Some(error) = waiting.ends() {
                    // The answer first; what follows may take a moment.
                    drop(self.answers.send(Err(error)));
                    self.remain();
                }
            }
        });
        drop(self.answers.send(Ok(all)));
    }

    /// Waits for the process to end.
    fn remain(&self) -> ! {
        loop {
            match self.requests.recv() {
                Ok(Request::Gather(_)) => {
                    let reason = "the ranks have parted".to_owned();
                    drop(self.answers.send(Err(RankError::Library(reason))));
                }
                Ok(Request::Fail(_)) => {}
                Ok(Request::Abort(code)) => self.abort(code),
                Ok(Request::Finish) | Err(_) => self.abort(1),
            }
        }
    }

    /// Ends the run. The others first give rank 0 time to write its report: it ends them.
    fn abort(&self, code: i32) -> ! {
        if self.world.rank() != 0 {
            sleep(REPORTS);
        }
        self.world.abort(code)
    }
}

/// A rank that waits for the others.
struct Waiting<'a> {
    thread: &'a MpiThread,
    begin: Instant,
    looks: u32,
    /// Why the run ends, and when that was learned.
    told: Option<(Instant, RankError)>,
    /// Since when there is a roll call, and who is here.
    roll_call: Option<(Instant, Vec<bool>)>,
}

impl<'a> Waiting<'a> {
    fn new(thread: &'a MpiThread) -> Self {
        Self {
            thread,
            begin: Instant::now(),
            looks: 0,
            told: None,
            roll_call: None,
        }
    }

    /// Checks now and then whether another rank has failed or fallen silent; if so, why to stop waiting.
    fn ends(&mut self) -> Option<RankError> {
        self.looks += 1;
        // Most waits are short. Later, others may need the processor.
        match self.looks {
            0..200 => std::thread::yield_now(),
            200..1000 => sleep(Duration::from_micros(50)),
            _ => sleep(Duration::from_millis(1)),
        }
        if !self.looks.is_multiple_of(100) {
            return None;
        }
        let world = &self.thread.world;
        if self.told.is_none()
            && let Some(error) = told(world)
        {
            self.told = Some((Instant::now(), error));
        }
        if let Some((when, error)) = &self.told {
            return (when.elapsed() > SETTLES).then(|| error.clone());
        }
        (self.begin.elapsed() > self.thread.limit)
            .then(|| self.call_roll())
            .flatten()
    }

    /// Ranks 0 and 1 find out who is missing: rank 1 in case it is rank 0.
    fn call_roll(&mut self) -> Option<RankError> {
        let world = &self.thread.world;
        let (rank, size) = (world.rank(), world.size());
        let (since, here) = self.roll_call.get_or_insert_with(|| {
            for other in (0..size.min(2)).filter(|other| *other != rank) {
                say_here(world, other);
            }
            let mut here = vec![false; size as usize];
            here[rank as usize] = true;
            (Instant::now(), here)
        });
        note_here(world, here);
        let patience = match rank {
            0 => ROLL_CALL,
            1 => 2 * ROLL_CALL,
            _ => 3 * ROLL_CALL,
        };
        if since.elapsed() < patience {
            return None;
        }
        let missing = here.iter().enumerate().filter(|(_, here)| !**here);
        let ranks = match rank {
            0 | 1 => missing
                .map(|(rank, _)| rank.to_string())
                .collect::<Vec<_>>()
                .join(", "),
            _ => "0, 1".to_owned(),
        };
        let seconds = self.thread.limit.as_secs();
        let error = RankError::Silent { ranks, seconds };
        if rank < 2 {
            tell(world, &error);
        }
        Some(error)
    }
}
