//! MPI's ranks, for [`zo_optim::trainer::fit_on`](https://docs.rs/zo-optim/latest/zo_optim/trainer/fn.fit_on.html).
//!
//! `Mpi` is a [`Communicator`](https://docs.rs/zo-optim/latest/zo_optim/ranks/trait.Communicator.html): the processes that `mpirun` has started.
//! It needs the feature `mpi`, and an MPI and libclang to build; without that feature the crate is empty.

#[cfg(feature = "mpi")]
mod messages;
#[cfg(feature = "mpi")]
mod thread;
#[cfg(feature = "mpi")]
mod world;

#[cfg(feature = "mpi")]
pub use world::Mpi;

/// The README's example, as a doctest.
#[cfg(all(doctest, feature = "mpi"))]
#[doc = include_str!("../README.md")]
pub struct Readme;
