//! The processes that `mpirun` has started.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mpi::environment::Threading;
use mpi::traits::Communicator as _;
use zo_optim::ranks::{Communicator, RankError};

use crate::thread::{Gathered, MpiThread, Request};

/// The ranks of an MPI program, as one of them sees them.
///
/// MPI is talked to by a thread of its own, and only by that one. When it is [dropped](Drop), all ranks leave MPI together;
/// a rank that has failed must [`abort`](Self::abort) instead.
#[derive(Debug)]
pub struct Mpi {
    rank: usize,
    size: usize,
    requests: Sender<Request>,
    answers: Mutex<Receiver<Gathered>>,
    thread: Option<JoinHandle<()>>,
}

impl Mpi {
    /// Joins the ranks that were started together. Each waits for the others at most for `limit`: longer than a step or an evaluation takes.
    ///
    /// # Errors
    /// If MPI was initialized before, in this process.
    pub fn initialize(limit: Duration) -> Result<Self, RankError> {
        let (requests, received) = channel();
        let (answers, answered) = channel();
        let (begun, begins) = channel();
        let serve = move || {
            // Of all threads, this one is the one that MPI knows.
            let Some((universe, _)) = mpi::initialize_with_threading(Threading::Funneled) else {
                return;
            };
            let world = universe.world();
            let place = (world.rank() as usize, world.size() as usize);
            if begun.send(place).is_ok() {
                let requests = received;
                let thread = MpiThread {
                    world,
                    requests,
                    answers,
                    limit,
                };
                thread.run(universe);
            }
        };
        let thread = std::thread::Builder::new()
            .name("mpi".to_owned())
            .spawn(serve);
        let thread = thread.map_err(|error| RankError::Library(error.to_string()))?;
        let (rank, size) = begins.recv().map_err(|_| {
            RankError::Library("MPI was initialized before, which a process does once".to_owned())
        })?;
        Ok(Self {
            rank,
            size,
            requests,
            answers: Mutex::new(answered),
            thread: Some(thread),
        })
    }

    /// Ends this run on all ranks, with this exit code: for a rank that has [failed](Communicator::fail), or was told that another has. Rank 0 ends at
    /// once, the others within seconds, so that rank 0 has written what it has to write.
    pub fn abort(mut self, code: i32) -> ! {
        drop(self.requests.send(Request::Abort(code)));
        if let Some(thread) = self.thread.take() {
            // It ends the process.
            drop(thread.join());
        }
        std::process::exit(code)
    }

    fn lost() -> RankError {
        RankError::Library("MPI has ended".to_owned())
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn all_gather(&self, numbers: &[f64]) -> Result<Vec<f64>, RankError> {
        let answers = self.answers.lock().map_err(|_| Self::lost())?;
        let request = Request::Gather(numbers.to_vec());
        self.requests.send(request).map_err(|_| Self::lost())?;
        answers.recv().map_err(|_| Self::lost())?
    }

    fn fail(&self, reason: &str) {
        drop(self.requests.send(Request::Fail(reason.to_owned())));
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A process that unwinds must not wait for the others, which wait for it.
            let request = match std::thread::panicking() {
                true => Request::Abort(1),
                false => Request::Finish,
            };
            drop(self.requests.send(request));
            drop(thread.join());
        }
    }
}
