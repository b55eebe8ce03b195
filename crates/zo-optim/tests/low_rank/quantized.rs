//! Quantized weights: never written, trained beside.

use burn::module::{Module, ModuleMapper, Param, ParamGroup, Quantizer};
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{DType, Device, Tensor, TensorData};
use zo_optim::low_rank::*;
use zo_optim::variants::*;
use zo_optim::*;

use crate::{begin, curved};

/// A quantized matrix, and a vector that is not.
#[derive(Module, Debug)]
struct Layer {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
}

const SHAPE: [usize; 2] = [8, 12];

fn layer() -> Layer {
    let layer = Layer {
        weight: Param::from_tensor(begin(SHAPE, 1.0)),
        bias: Param::from_tensor(Tensor::zeros([SHAPE[1]], &Device::default())),
    };
    let scheme = Device::default().settings().quantization.scheme;
    let mut quantizer = Quantizer::new(Calibration::MinMax, scheme.with_value(QuantValue::Q8S));
    layer.quantize_weights_group(&mut quantizer, ParamGroup::from_path("weight"))
}

fn stored(layer: &Layer) -> TensorData {
    assert!(matches!(layer.weight.dtype(), DType::QFloat(_)));
    layer.weight.base().into_data()
}

fn loss(layer: &Layer) -> f64 {
    let x = begin([5, SHAPE[0]], 0.7);
    let product = match SidePath::of(&layer.weight) {
        Some(side) => x.clone().matmul(layer.weight.base()) + side.forward(x),
        None => x.matmul(layer.weight.val()),
    };
    f64::from(curved(product + layer.bias.val().unsqueeze::<2>()).into_scalar::<f32>())
}

/// Methods whose noise holds one subspace, and learning rates.
fn held() -> [(Method, f64); 4] {
    let never = Interval::Never;
    let plus = Subzero::new().with_rank(2).with_interval(never);
    [
        (lozo().with_noise(Lozo::new().with_interval(never)), 2e-3),
        (subzero().with_noise(plus.clone()), 2e-3),
        (lozo_m().with_noise(Lozo::new().with_interval(never)), 2e-3),
        (subzero_plus().with_noise(plus).with_queries(3), 1e-2),
    ]
    .map(|(method, lr)| (method.with_perturbation(Perturbation::OnTheFly), lr))
}

struct Dequantize;

impl ModuleMapper for Dequantize {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(Tensor::dequantize)
    }
}

/// Steps beside a quantized weight are those beside the numbers it stands for; its bits stay, in the session and after it, and the module that
/// leaves the session gives the losses that the session's gave.
#[test]
fn a_quantized_weight_keeps_its_bits_and_learns() {
    for (method, lr) in held() {
        let start = layer();
        let (bits, before) = (stored(&start), loss(&start));
        let dense = start.clone().map(&mut Dequantize);
        let mut session = method.init().unwrap().session(start).unwrap();
        let mut other = method.init().unwrap().session(dense).unwrap();
        for _ in 0..40 {
            let [here, there] = [
                session.step(lr, loss).unwrap(),
                other.step(lr, loss).unwrap(),
            ];
            assert_eq!((here.passes, here.copied), (0, 0));
            for (a, b) in here.queries.iter().zip(&there.queries) {
                assert!(
                    (a.loss_plus - b.loss_plus).abs() < 1e-4 * b.loss_plus.abs(),
                    "{method:?}"
                );
            }
        }
        assert_eq!(stored(session.stored().0), bits);
        let shown = loss(session.model());
        assert!((shown - loss(other.model())).abs() < 1e-4 * shown.abs());
        assert!(
            shown < before - 0.01 * before.abs(),
            "{method:?}: {before} {shown}"
        );
        let (_, module) = session.into_parts();
        assert_eq!(stored(&module), bits);
        assert!(module.weight.adapter().is_some());
        assert!((loss(&module) - shown).abs() < 1e-5 * shown.abs());
    }
}

/// Stored with what was learnt in the bank, and taken up again from what would be on disk.
#[test]
fn a_run_goes_on_beside_a_quantized_weight_with_the_same_bits() {
    for (method, lr) in held() {
        let steps = |session: &mut Session<Layer, ZeroOrder>| {
            for _ in 0..5 {
                session.step(lr, loss).unwrap();
            }
        };
        let mut session = method.init().unwrap().session(layer()).unwrap();
        steps(&mut session);
        let record = session.optimizer().record();
        let (stored, position) = session.stored();
        let (stored, position) = (stored.clone(), serde_json::to_string(&position).unwrap());
        let mut optim = method.init().unwrap();
        optim.load_record(record).unwrap();
        let mut again = optim.session(stored).unwrap();
        again
            .resume_at(serde_json::from_str(&position).unwrap())
            .unwrap();
        steps(&mut session);
        steps(&mut again);
        assert_eq!(session.bank(), again.bank(), "{method:?}");
    }
}

#[test]
fn what_quantized_weights_cannot_keep_is_refused_by_name() {
    let never = || Lozo::new().with_interval(Interval::Never);
    let flying = |method: Method| method.with_perturbation(Perturbation::OnTheFly);
    let begun = |method: Method, expected: &str| {
        let start = layer();
        let bits = stored(&start);
        let error = method.init().unwrap().session(start).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("`weight` is quantized") && text.contains(expected),
            "{text}"
        );
        assert_eq!(stored(&error.module), bits);
    };
    begun(lozo().with_noise(never()), "Perturbation::OnTheFly");
    begun(flying(mezo()), "Interval::Never");
    begun(flying(lozo()), "Interval::Never");
    let stepped = |method: Method, expected: &str| {
        let mut session = method.init().unwrap().session(layer()).unwrap();
        let bits = stored(session.stored().0);
        let text = session.step(1e-3, loss).unwrap_err().to_string();
        assert!(
            text.contains("`weight` is quantized") && text.contains(expected),
            "{text}"
        );
        assert_eq!(
            (stored(session.stored().0), session.bank()),
            (bits, Vec::new())
        );
    };
    let sign = Sign::new().with_kind(SignKind::Elementwise);
    let along = || flying(lozo().with_noise(never()));
    stepped(along().with_weight_decay(0.1), "weight decay");
    stepped(along().with_update(sign), "linear");
    let wide = never().with_rank(SHAPE[0]);
    stepped(flying(lozo().with_noise(wide)), "too small");
    let text = along()
        .init()
        .unwrap()
        .step(1e-3, layer(), loss)
        .unwrap_err()
        .to_string();
    assert!(text.contains("in a session"), "{text}");
    // Left out of the group it is as it always was.
    let method = mezo().with_trainable(ParamGroup::from_path("bias"));
    let mut session = method.init().unwrap().session(layer()).unwrap();
    session.step(1e-3, loss).unwrap();
}
