//! Every method over MPI: `mpirun -n 4 ranks`, the test as it was built, on any number of ranks. `.ci/mpi` runs it.
//!
//! Weights are compared on all ranks after each step; at the end with one process that does the same by itself.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::convert::Infallible;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use serde_json::{Value, json};
use zo_mpi::Mpi;
use zo_optim::ranks::{Alone, Communicator};
use zo_optim::testing::{Target, Toy, flat, toy};
use zo_optim::trainer::{Evaluation, Split, Task, TrainerConfig, fit_on};
use zo_optim::{
    Greedy, GuidingVector, Method, Perturbation, ZerothOrderOptimizer, mezo_greedy, mezo_gv,
    registry,
};

/// A batch is four numbers, each a row; its loss is that of the toy, bent by them.
struct Rows;

impl Task<Toy> for Rows {
    type Batch = Vec<usize>;
    type Loss = f64;
    type Details = ();
    type Error = Infallible;

    fn fingerprint(&self) -> Value {
        json!({ "rows": 4 })
    }

    fn batch(&mut self, step: usize) -> Result<Vec<usize>, Infallible> {
        Ok((0..4).map(|row| 1 + (3 * step + row) % 7).collect())
    }

    fn shard(
        &mut self,
        step: usize,
        shard: usize,
        shards: usize,
    ) -> Result<Option<(Vec<usize>, f64)>, Infallible> {
        let rows = self.batch(step)?;
        let rows = rows[shard * 4 / shards..(shard + 1) * 4 / shards].to_vec();
        let share = rows.len() as f64 / 4.0;
        Ok((!rows.is_empty()).then_some((rows, share)))
    }

    fn objective(&self, toy: &Toy, rows: &Vec<usize>) -> f64 {
        let loss = f64::from(Target::Ellipsoid.loss(toy).into_scalar::<f32>());
        let of = |row: &usize| loss.powf(1.0 / *row as f64);
        rows.iter().map(of).sum::<f64>() / rows.len() as f64
    }

    fn evaluate(&mut self, toy: &Toy) -> Result<Evaluation, Infallible> {
        let loss = self.objective(toy, &vec![1]);
        Ok(Evaluation {
            score: -loss,
            loss,
            details: (),
        })
    }
}

fn base(dtype: DType) -> Toy {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    toy(&Device::flex()).map(&mut Cast(dtype))
}

fn weights(ranks: &dyn Communicator, method: &Method, dtype: DType, split: Split) -> Vec<u64> {
    let config = TrainerConfig {
        steps: 4,
        lr: 2e-3,
        eval_every: 2,
        split,
        ..TrainerConfig::default()
    };
    let (never, mut optim) = (AtomicBool::new(false), method.init().unwrap());
    let done = fit_on(
        ranks,
        base(dtype),
        &mut optim,
        &mut Rows,
        &config,
        &never,
        |_| Ok(()),
    );
    assert_eq!(optim.steps(), 4);
    flat(&done.unwrap().model)
        .into_iter()
        .map(f64::to_bits)
        .collect()
}

fn methods() -> Vec<(String, Method)> {
    let presets = registry().presets().to_vec();
    let presets = presets.iter().map(|preset| {
        let method = (preset.method)();
        let queries = method.config()["queries"].as_u64().unwrap() as usize;
        (
            preset.name.to_owned(),
            method.with_queries(queries.clamp(3, 9)),
        )
    });
    let gv = mezo_gv().with_sampler(GuidingVector::new().with_candidates(4));
    let greedy = mezo_greedy().with_sampler(Greedy::new().with_candidates(5));
    let more = [
        ("gv of four".to_owned(), gv),
        ("greedy of five".to_owned(), greedy),
    ];
    let all = presets
        .chain(more)
        .map(|(name, method)| (name, method.with_epsilon(1e-2)));
    // A derivative takes autodiff.
    all.filter(|(_, method)| method.config()["difference"] != "exact")
        .collect()
}

fn main() {
    let ranks = Mpi::initialize(Duration::from_secs(60)).unwrap();
    let size = ranks.size();
    let split = |shards, queries| Split {
        shards,
        queries,
        candidates: queries,
        compare_every: 1,
    };
    // Rows, displacements, both.
    let mut splits = vec![split(4, false), split(1, true)];
    if size == 4 {
        splits.push(split(2, true));
    }
    let mut runs = 0;
    for (name, method) in methods() {
        for perturbation in [Perturbation::InPlace, Perturbation::OnTheFly] {
            let method = method.clone().with_perturbation(perturbation);
            for dtype in [DType::F32, DType::BF16] {
                for split in &splits {
                    let one = weights(&Alone, &method, dtype, *split);
                    let here = weights(&ranks, &method, dtype, *split);
                    assert!(
                        here == one,
                        "{name}, {perturbation:?}, {dtype:?}, {split:?}"
                    );
                    runs += 1;
                }
            }
        }
    }
    // Bit for bit, however odd.
    let odd = [
        f64::from_bits(0x7ff8_0000_0000_0123 + ranks.rank() as u64),
        -0.0,
    ];
    let all = ranks.all_gather(&odd).unwrap();
    for (rank, numbers) in all.chunks(2).enumerate() {
        assert_eq!(numbers[0].to_bits(), 0x7ff8_0000_0000_0123 + rank as u64);
        assert_eq!(numbers[1].to_bits(), (-0.0_f64).to_bits());
    }
    if ranks.rank() == 0 {
        println!("{runs} runs on {size} ranks end with the bits of one process");
    }
}
