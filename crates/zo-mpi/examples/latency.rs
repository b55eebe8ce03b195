//! How long an exchange of losses takes: `mpirun -n 4 latency`, and on two hosts what docs/src/many-machines.md says.

use std::time::{Duration, Instant};

use zo_mpi::Mpi;
use zo_optim::ranks::Communicator;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ranks = Mpi::initialize(Duration::from_secs(60))?;
    let rounds = std::env::args()
        .nth(1)
        .map_or(Ok(1000), |text| text.parse())?;
    for numbers in [2, 16, 128, 1024] {
        let own = vec![1.0; numbers];
        ranks.all_gather(&own)?;
        let mut times = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let begin = Instant::now();
            ranks.all_gather(&own)?;
            times.push(begin.elapsed());
        }
        times.sort();
        if ranks.rank() == 0 {
            let [median, most] = [times[rounds / 2], times[rounds * 99 / 100]];
            println!(
                "{} ranks, {} bytes each: median {:.1} us, 99% within {:.1} us",
                ranks.size(),
                8 * numbers,
                1e6 * median.as_secs_f64(),
                1e6 * most.as_secs_f64()
            );
        }
    }
    Ok(())
}
