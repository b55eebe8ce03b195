use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Tensor, TensorData};
use zo_core::Noise;
use zo_core::noise::{TensorKey, value};

use super::*;
use crate::dataset::{Encoding, evaluate};
use crate::model::config::{LlamaConfig, ModelConfig, OptConfig};
use crate::task::rows::{At, Place};
use crate::task::{Example, task};
use crate::tokenizer::LmTokenizer;

/// Rows around a point of each class, and a label for each.
fn points(classes: usize, rows: usize, width: usize) -> (Array2<f64>, Vec<usize>) {
    let labels: Vec<usize> = (0..rows).map(|row| (row * 7 / 3) % classes).collect();
    let value = |(row, column): (usize, usize)| {
        let noise = ((row * 31 + column * 17) as f64 * 0.37).sin();
        noise
            + if column % classes == labels[row] {
                0.8
            } else {
                0.0
            }
    };
    (Array2::from_shape_fn((rows, width), value), labels)
}

/// The gradient of `strength * loss + |weights|^2 / 2` is zero at the solution, by classes and for the biases.
#[test]
fn solutions_are_where_the_gradient_vanishes() {
    for (classes, intercept) in [(2, false), (2, true), (3, false), (4, true)] {
        let (features, labels) = points(classes, 40, 6);
        let fit = Regression {
            features,
            labels,
            classes,
            intercept,
        };
        let every: Vec<usize> = (0..40).collect();
        for strength in [0.01, 1.0, 100.0] {
            let Linear { weights, bias } = fit.on(&every, strength).unwrap();
            let mut gradient = Array2::<f64>::zeros(weights.dim());
            let mut slope = Array1::<f64>::zeros(classes);
            for row in every.iter().copied() {
                let features = fit.features.row(row);
                let scores = (weights.dot(&features) + &bias).mapv(f64::exp);
                let sum = scores.sum();
                for class in 0..classes {
                    let error = scores[class] / sum - f64::from(u8::from(fit.labels[row] == class));
                    slope[class] += strength * error;
                    gradient
                        .row_mut(class)
                        .scaled_add(strength * error, &features);
                }
            }
            // With two classes one vector w is penalised, the difference of the rows w / 2 and -w / 2.
            let penalty = if classes == 2 { 2.0 } else { 1.0 };
            gradient += &(weights * penalty);
            let largest = gradient
                .iter()
                .fold(0.0, |most: f64, value| most.max(value.abs()));
            let limit = 2e-3 * strength.max(1.0);
            assert!(largest < limit, "{classes} classes, {strength}: {largest}");
            let slopes = slope.iter().all(|slope| slope.abs() < limit);
            assert!(
                slopes && intercept || bias.iter().all(|bias| *bias == 0.0),
                "{slope}"
            );
        }
    }
}

/// Of scikit-learn's `LogisticRegressionCV(Cs=10, cv=5, max_iter=5000, tol=1e-6)` on the same points.
#[test]
fn strengths_and_coefficients_are_those_of_scikit_learn() {
    type Expected = (usize, bool, f64, &'static [f64], f64);
    // The last row, and its bias.
    let expected: [Expected; 4] = [
        (
            2,
            false,
            2.7825594,
            &[-1.1735, 1.4825, -1.1587, 1.4973, -1.144, 1.5119],
            0.0,
        ),
        (
            2,
            true,
            2.7825594,
            &[-1.0269, 1.5037, -1.0089, 1.5217, -0.9909, 1.5396],
            -0.724,
        ),
        (
            3,
            false,
            0.04641589,
            &[-0.1139, -0.1216, 0.2629, -0.1136, -0.1213, 0.2631],
            0.0,
        ),
        (
            4,
            true,
            21.5443469,
            &[-0.5732, -0.7223, -0.9201, 4.2684, -0.4987, -0.648],
            -0.0765,
        ),
    ];
    for (classes, intercept, strength, row, bias) in expected {
        let (features, labels) = points(classes, 40, 6);
        let fit = Regression {
            features,
            labels,
            classes,
            intercept,
        };
        let (found, accuracy) = fit.strength().unwrap();
        assert!((found / strength - 1.0).abs() < 1e-6, "{found} {strength}");
        assert_eq!(accuracy, Some(1.0));
        let every: Vec<usize> = (0..40).collect();
        let fitted = fit.on(&every, found).unwrap();
        // Of two classes, scikit-learn has the difference of the rows.
        let factor = if classes == 2 { 2.0 } else { 1.0 };
        let last = fitted.weights.row(classes - 1).mapv(|value| factor * value);
        let near = last.iter().zip(row).all(|(a, b)| (a - b).abs() < 2e-3);
        assert!(near, "{last} {row:?}");
        assert!(
            (factor * fitted.bias[classes - 1] - bias).abs() < 2e-3,
            "{}",
            fitted.bias
        );
    }
}

#[test]
fn folds_are_those_of_scikit_learn() {
    // StratifiedKFold(3).split(..) of these labels holds out rows 0, 1, 2, 6; then 3, 5, 7; then 4, 8, 9.
    let labels = [1, 0, 0, 0, 0, 1, 2, 2, 2, 1];
    assert_eq!(folds_of(&labels, 3, 3), [0, 0, 0, 1, 2, 1, 0, 1, 2, 2]);
}

fn tokenizer(config: &ModelConfig) -> LmTokenizer {
    let vocab: serde_json::Map<_, _> = [
        "?", "It", "was", "terrible", "great", "a", "b", "c", "d", ".",
    ]
    .iter()
    .enumerate()
    .map(|(id, word)| ((*word).to_owned(), id.into()))
    .collect();
    let file = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "?"},
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    LmTokenizer::from_dir(dir.path(), config).unwrap()
}

/// The same matrices in every process.
struct Drawn(u64);

impl ModuleMapper for Drawn {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D < 2 {
            return param;
        }
        self.0 += 1;
        let key = TensorKey(self.0);
        param.map(|tensor| {
            let shape = tensor.dims();
            let values = (0..shape.iter().product::<usize>() as u64)
                .map(|i| 0.5 * value(Noise::Gaussian, 1, key, i));
            let data = TensorData::new(values.collect::<Vec<f32>>(), shape);
            Tensor::from_data(data, &tensor.device())
        })
    }
}

#[test]
fn a_probed_model_answers_as_the_regression_does() {
    let device = Device::default();
    let opt = OptConfig::new(10, 16, 2, 2, 32);
    let mut llama = LlamaConfig::new(10, 16, 24, 2, 2, 32);
    llama.tie_word_embeddings = true;
    for config in [ModelConfig::Opt(opt), ModelConfig::Llama(llama)] {
        let tokenizer = tokenizer(&config);
        let words = ["a", "b", "c", "d"];
        let rows = (0..24usize).map(|row| {
            let (first, second) = (words[row % 4], words[row / 4 % 4]);
            let prompt = format!("{first} {second} . It was");
            let example =
                Example::choice(prompt, &[" terrible", " great"], usize::from(row % 4 > 1));
            let place = Place {
                path: "rows".into(),
                at: At::Line(row as u64),
            };
            (example, place)
        });
        let rows: Vec<_> = rows.collect();
        let sst2 = task("sst2").unwrap();
        let data =
            Dataset::encode(sst2.as_ref(), &rows, &tokenizer, 32, &Encoding::default()).unwrap();
        let model = CausalLm::new(&config, &device).unwrap();
        let model = model.map(&mut Drawn(0));
        let probe = linear_probe(&model, &data, 5, 1, &device).unwrap();
        assert_eq!(probe.words, [3, 4]);
        assert!(
            probe.bias.is_none() && probe.held_out_accuracy.unwrap() > 0.9,
            "{probe:?}"
        );
        assert!(
            probe.weights[0]
                .iter()
                .zip(&probe.weights[1])
                .all(|(a, b)| *a == -b)
        );
        let before = evaluate(&model, &data, 4, 1, &device).unwrap();
        let probed = probe.apply(model.clone());
        let after = evaluate(&probed, &data, 4, 1, &device).unwrap();
        assert_eq!(after.accuracy, 1.0, "{before:?} {after:?}");
        assert!(after.loss < before.loss);
        // Only those two rows of the head have changed.
        let rows = |model: &CausalLm| model.head().into_data().iter::<f32>().collect::<Vec<_>>();
        let pairs = rows(&model).into_iter().zip(rows(&probed)).enumerate();
        let changed: Vec<usize> = pairs
            .filter(|(_, (a, b))| a != b)
            .map(|(at, _)| at / 16)
            .collect();
        assert!(
            changed.iter().all(|row| [3, 4].contains(row)) && changed.len() == 32,
            "{changed:?}"
        );
        let one = data.subset(&[2, 6]);
        assert!(matches!(
            linear_probe(&model, &one, 5, 1, &device),
            Err(ProbeError::OneClass)
        ));
    }
}
