//! Golden trajectories: 30 steps of every method are those computed by a program that shares no code with the library, from the
//! documents alone. `tools/reference/trajectories.py` writes the files; `docs/src/testing.md` says more.

#![allow(clippy::unwrap_used, reason = "tests")]
#![cfg_attr(
    feature = "ndarray",
    allow(
        deprecated,
        reason = "burn deprecates its ndarray backend; it is supported here as long as burn has it"
    )
)]

#[path = "golden/model.rs"]
mod model;

use std::collections::BTreeSet;
use std::path::PathBuf;

use burn::module::{Module, ModuleMapper, Param, ParamGroup};
use burn::tensor::{DType, Device, Tensor};
use serde_json::Value;
use zo_optim::low_rank::{Lozo, SubspaceAdam, SubspaceMomentum, Subzero};
use zo_optim::variants::*;
use zo_optim::*;

use model::{Model, loss, numbers};

const STEPS: usize = 30;

/// A golden file.
struct Golden {
    name: &'static str,
    lr: f64,
    /// The factor on the loss.
    scale: f64,
    bf16: bool,
    /// MeZO with the settings of the file.
    method: Method,
    projected_gradients: Vec<f64>,
    weights: Vec<f64>,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

impl Golden {
    fn read(name: &'static str) -> Self {
        let text = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
        let mut file: Value = serde_json::from_str(&text).unwrap();
        let mut list = |key: &str| -> Vec<f64> { from(file[key].take()) };
        let (projected_gradients, weights) = (list("projected_gradients"), list("weights"));
        let mut settings = file["settings"].take();
        let mut given = |key: &str| settings.get_mut(key).map(Value::take);
        let mut number = |key: &str| given(key).map_or(0.0, from::<f64>);
        let (lr, scale, epsilon) = (number("lr"), number("scale"), number("epsilon"));
        let weight_decay = number("weight_decay");
        let (rank, interval) = (given("rank"), given("interval"));
        let (rank, interval) = (
            rank.map_or(1, from::<usize>),
            interval.map_or(7, from::<u64>),
        );
        let low_rank = given("sampler").map(from::<String>);
        let groups = given("weight_decay_groups").map_or(Vec::new(), from::<Vec<(String, f64)>>);
        let groups = groups
            .into_iter()
            .map(|(text, decay)| (ParamGroup::from_predicate(text), decay));
        let bf16 = given("dtype").is_some_and(|dtype| dtype == "bf16");
        let method = Method::new()
            .with_epsilon(epsilon)
            .with_queries(from(given("queries").unwrap()))
            .with_difference(given("difference").map_or(Difference::Central, from))
            .with_seed(from(given("seed").unwrap()))
            .with_trainable(given("trainable").map_or(ParamGroup::all(), |texts| {
                ParamGroup::from_any_predicates(from::<Vec<String>>(texts))
            }))
            .with_weight_decay(weight_decay)
            .with_weight_decay_groups(groups.collect())
            .with_rounding(given("rounding").map_or(Rounding::Nearest, from))
            .with_noise(given("distribution").map_or(Noise::Gaussian, from::<Noise>));
        let method = match low_rank.as_deref() {
            Some("lozo") => method.with_noise(Lozo::new().with_rank(rank).with_interval(interval)),
            Some("subzero") => {
                method.with_noise(Subzero::new().with_rank(rank).with_interval(interval))
            }
            _ => method,
        };
        Self {
            name,
            lr,
            scale,
            bf16,
            method,
            projected_gradients,
            weights,
        }
    }

    /// The model where the run begins.
    fn model(&self, device: &Device) -> Model {
        let model = Model::new(device);
        if self.bf16 {
            model.map(&mut ToBf16)
        } else {
            model
        }
    }

    fn objective(&self) -> impl Fn(&Model) -> f64 {
        let scale = self.scale;
        move |model| scale * loss(&model.weights()).0
    }

    /// Within 1e-5 of the largest.
    fn check(&self, way: &str, projected_gradients: &[f64], model: &Model) {
        close(
            &format!("{}, {way}: projected gradient", self.name),
            projected_gradients,
            &self.projected_gradients,
        );
        close(
            &format!("{}, {way}: weight", self.name),
            &model.weights(),
            &self.weights,
        );
    }
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn close(what: &str, ours: &[f64], golden: &[f64]) {
    assert_eq!(ours.len(), golden.len(), "{what}");
    let scale = golden.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    let apart = |i: usize| (ours[i] - golden[i]).abs() / scale;
    if let Some(i) = (0..ours.len()).find(|i| apart(*i).is_nan() || apart(*i) > 1e-5) {
        panic!("{what} {i}: {} instead of {}", ours[i], golden[i]);
    }
}

struct ToBf16;

impl ModuleMapper for ToBf16 {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(DType::BF16))
    }
}

fn devices(golden: &Golden) -> Vec<(&'static str, Device)> {
    let mut devices = vec![
        #[cfg(feature = "flex")]
        ("flex", Device::flex()),
        #[cfg(feature = "ndarray")]
        ("ndarray", Device::ndarray()),
    ];
    if golden.bf16 {
        devices.retain(|(name, _)| *name == "flex"); // ndarray has no bf16
    }
    devices
}

/// Makes the run in place, on the fly and in a session, on each device.
fn compare(name: &'static str, method: &Method) {
    let golden = Golden::read(name);
    let make = |golden: &Golden, perturbation| {
        let method = golden.method.clone().with_parts_of(method);
        method.with_perturbation(perturbation).init()
    };
    for (device_name, device) in devices(&golden) {
        for perturbation in [Perturbation::InPlace, Perturbation::OnTheFly] {
            let mut optim = make(&golden, perturbation).unwrap();
            let (mut model, mut found) = (golden.model(&device), Vec::new());
            for _ in 0..STEPS {
                let (next, report) = optim.step(golden.lr, model, golden.objective()).unwrap();
                found.extend(report.queries.iter().map(|query| query.projected_gradient));
                model = next;
            }
            golden.check(&format!("{device_name}, {perturbation:?}"), &found, &model);
            if golden.bf16 {
                // The other ways round low-precision weights at other times.
                return;
            }
        }
        let optim = make(&golden, Perturbation::InPlace).unwrap();
        let mut session = optim.session(golden.model(&device)).unwrap();
        let mut found = Vec::new();
        for _ in 0..STEPS {
            let report = session.step(golden.lr, golden.objective()).unwrap();
            found.extend(report.queries.iter().map(|query| query.projected_gradient));
        }
        golden.check(&format!("{device_name}, session"), &found, session.model());
    }
}

/// A row: the golden file and test of this name, and the method. The settings that all methods share are those of the file.
macro_rules! methods {
    ($($name:ident: $method:expr;)*) => {
        const METHODS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                compare(stringify!($name), &$method);
            }
        )*
    };
}

methods! {
    mezo: zo_optim::mezo();
    mezo_large: zo_optim::mezo();
    mezo_radius: zo_optim::mezo();
    mezo_rademacher: zo_optim::mezo();
    mezo_one_sided: zo_optim::mezo();
    mezo_some_tensors: zo_optim::mezo();
    mezo_bf16: zo_optim::mezo();
    gv: mezo_gv();
    gv_of_four: mezo_gv().with_sampler(GuidingVector::new().with_candidates(4));
    gv_of_five: mezo_gv().with_sampler(GuidingVector::new().with_candidates(5).with_normalize(true));
    gv_history: mezo_gv().with_sampler(GuidingVector::new().with_history(true));
    greedy: mezo_greedy().with_sampler(Greedy::new().with_candidates(4));
    greedy_large: mezo_greedy();
    lezo: zo_optim::lezo();
    lezo_large: zo_optim::lezo().with_mask(RandomLayers::new().with_drop(0.5));
    adalezo: ada_lezo();
    adalezo_large: ada_lezo().with_mask(AdaptiveLayers::new().with_share(0.4).with_clip(Some(16.0)));
    adalezo_greedily: ada_lezo().with_mask(AdaptiveLayers::new().with_share(0.3).with_exploration(0.0));
    curvzo: zo_optim::curvzo();
    curvzo_clipped: zo_optim::curvzo().with_mask(CurvatureSampling::new().with_clip(Some(3.0)).with_budget(0.2).with_adapt_every(7));
    curvzo_large: zo_optim::curvzo().with_mask(CurvatureSampling::new().with_rate(0.3));
    momentum: variants::momentum();
    momentum_bf16: variants::momentum();
    momentum_window: variants::momentum_window().with_update(MomentumWindow::new().with_window(8).with_dampening(0.2));
    adam: variants::adam();
    adam_large: variants::adam();
    adam_window: variants::adam_window().with_update(AdamWindow::new().with_window(8));
    sign: variants::sign();
    sign_elementwise: variants::sign_elementwise();
    conservative: variants::conservative();
    conservative_one_sided: variants::conservative();
    block_wise: variants::block_wise();
    block_wise_all_at_once: variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAtOnce));
    block_wise_all_after: variants::block_wise().with_mask(Blocks::new().with_order(BlockOrder::AllAfter));
    sparse_random: variants::sparse_random();
    sparse_magnitude: variants::sparse_magnitude().with_mask(Sparse::new().with_kind(SparseKind::Magnitude).with_refresh(7));
    sparse_global: variants::sparse_random().with_mask(Sparse::new().with_kind(SparseKind::GlobalMagnitude).with_sparsity(0.3).with_refresh(10));
    sparse_mezo: variants::sparse_mezo();
    sparse_mezo_refreshed: variants::sparse_mezo().with_mask(Sparse::new().with_kind(SparseKind::SmallWeights).with_sparsity(0.5).with_refresh(7));
    momentum_lezo: variants::momentum().with_mask(RandomLayers::new().with_drop(0.5));
    momentum_window_lezo: variants::momentum_window().with_mask(RandomLayers::new().with_drop(0.5));
    momentum_sparse: variants::momentum().with_mask(Sparse::new());
    adam_lezo: variants::adam().with_mask(RandomLayers::new());
    adam_window_lezo: variants::adam_window().with_mask(RandomLayers::new().with_drop(0.5)).with_update(AdamWindow::new().with_beta_2(0.95));
    lozo: low_rank::lozo();
    lozo_of_rank_one: low_rank::lozo();
    lozo_m: low_rank::lozo_m();
    lozo_adam: low_rank::lozo().with_update(SubspaceAdam::new());
    subzero: low_rank::subzero();
    subzero_of_rank_one: low_rank::subzero();
    subzero_momentum: low_rank::subzero().with_update(SubspaceMomentum::new());
    subzero_plus: low_rank::subzero_plus();
    everything: mezo_gv().with_mask(RandomLayers::new().with_drop(0.5)).with_update(AdamWindow::new());
}

/// The derivative comes from the gradient of the loss, by hand.
#[test]
fn forward_gradient() {
    let golden = Golden::read("forward_gradient");
    for (device_name, device) in devices(&golden) {
        let method = golden.method.clone().with_difference(Difference::Exact);
        let mut optim = method.init().unwrap();
        let (mut model, mut found) = (golden.model(&device), Vec::new());
        let jvp = |model: &Model, tangent: &Tangent<'_>| -> Result<(f64, f64), ObjectiveError> {
            let along = model.collect(|p| numbers(tangent.of(p)), |p| numbers(tangent.of(p)));
            let (loss, gradient) = loss(&model.weights());
            let derivative: f64 = gradient
                .iter()
                .zip(along.concat())
                .map(|(a, b)| a * b)
                .sum();
            Ok((golden.scale * loss, golden.scale * derivative))
        };
        for _ in 0..STEPS {
            let (next, report) = optim.step_jvp(golden.lr, model, jvp).unwrap();
            found.extend(report.queries.iter().map(|query| query.projected_gradient));
            model = next;
        }
        golden.check(device_name, &found, &model);
    }
}

/// The top's gradient comes from burn, of the loss as a tensor in f64.
#[cfg(feature = "autodiff")]
#[test]
fn hybrid() {
    let golden = Golden::read("hybrid");
    for (device_name, device) in devices(&golden) {
        let top = ParamGroup::from_any_predicates(vec!["layers.9", "head"]);
        let below = golden.method.clone();
        let config = HybridConfig::new(top).with_top_rate(2.0);
        let sgd = burn::optim::SgdConfig::new().init();
        let mut optim = config.init(&below, sgd).unwrap();
        let (mut model, mut found) = (golden.model(&device), Vec::new());
        let objective = |model: &Model| model::loss_tensor(model) * golden.scale;
        for _ in 0..STEPS {
            let (next, report) = optim.step(golden.lr, model, objective).unwrap();
            found.extend(report.queries.iter().map(|query| query.projected_gradient));
            model = next;
        }
        golden.check(device_name, &found, &model);
    }
}

/// Every file has its test, and every test its file.
#[test]
fn files_and_rows_agree() {
    let files = std::fs::read_dir(folder()).unwrap();
    let files = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<String> = files.filter(|name| name.ends_with(".json")).collect();
    let rows = [METHODS, &["forward_gradient", "hybrid"]].concat();
    let rows: BTreeSet<String> = rows.iter().map(|name| format!("{name}.json")).collect();
    assert_eq!(files, rows);
}
