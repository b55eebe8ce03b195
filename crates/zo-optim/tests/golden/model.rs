//! The model of the golden trajectories, and its loss.

use burn::module::{Module, Param};
#[cfg(feature = "autodiff")]
use burn::tensor::DType;
use burn::tensor::{Device, Tensor, TensorData};

const LAYERS: usize = 10;

/// The model: 440 weights in 42 tensors.
#[derive(Module, Debug)]
pub(super) struct Model {
    /// `[6, 45]`: more weights than one tile of noise.
    embed: Param<Tensor<2>>,
    layers: Vec<Layer>,
    /// `[10]`
    head: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
pub(super) struct Layer {
    /// `[2, 3]`
    attention: Param<Tensor<2>>,
    /// `[4]`
    mlp: Param<Tensor<1>>,
    /// `[2]`, all 1
    norm: Param<Tensor<1>>,
    /// `[2, 2]`, all 0, as a LoRA factor begins
    zero: Param<Tensor<2>>,
}

impl Model {
    pub(super) fn new(device: &Device) -> Self {
        let mut next = 0;
        let mut matrix = |rows: usize, columns: usize, constant: Option<f32>| {
            let value = |i: usize| ((((37 * i + 37) % 449) as f64 - 223.3) / 227.0) as f32;
            let values = (next..next + rows * columns).map(|i| constant.unwrap_or(value(i)));
            let data = TensorData::new(values.collect(), [rows, columns]);
            next += rows * columns;
            Param::from_tensor(Tensor::<2>::from_data(data, device))
        };
        let vector = |matrix: Param<Tensor<2>>| Param::from_tensor(matrix.val().reshape([-1]));
        let embed = matrix(6, 45, None);
        let layers = (0..LAYERS).map(|_| Layer {
            attention: matrix(2, 3, None),
            mlp: vector(matrix(1, 4, None)),
            norm: vector(matrix(1, 2, Some(1.0))),
            zero: matrix(2, 2, Some(0.0)),
        });
        Self {
            embed,
            layers: layers.collect(),
            head: vector(matrix(1, 10, None)),
        }
    }

    /// What `of` gives for each tensor, one after the other in the order of traversal.
    pub(super) fn collect<T>(
        &self,
        matrix: impl Fn(&Param<Tensor<2>>) -> T,
        vector: impl Fn(&Param<Tensor<1>>) -> T,
    ) -> Vec<T> {
        let mut all = vec![matrix(&self.embed)];
        for layer in &self.layers {
            all.extend([matrix(&layer.attention), vector(&layer.mlp)]);
            all.extend([vector(&layer.norm), matrix(&layer.zero)]);
        }
        all.push(vector(&self.head));
        all
    }

    pub(super) fn weights(&self) -> Vec<f64> {
        self.collect(|p| numbers(p.val()), |p| numbers(p.val()))
            .concat()
    }
}

pub(super) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// Centre, curvature and coupling of weight `i` in the loss.
fn shape_of_loss(i: usize) -> [f64; 3] {
    [
        ((53 * i % 97) as f64 - 48.0) / 97.0,
        0.2 + 1.8 * (29 * i % 17) as f64 / 16.0,
        ((31 * i % 89) as f64 - 44.0) / 440.0,
    ]
}

/// The loss, in f64, and its gradient: not a quadratic, and with coupled weights.
pub(super) fn loss(weights: &[f64]) -> (f64, Vec<f64>) {
    let (mut sum, mut inner) = (0.0, 0.0);
    for (i, weight) in weights.iter().enumerate() {
        let [centre, curvature, coupling] = shape_of_loss(i);
        let x = weight - centre;
        sum += curvature * (x.mul_add(x, 1.0).sqrt() - 1.0);
        inner += coupling * x;
    }
    let partial = |(i, weight): (usize, &f64)| {
        let [centre, curvature, coupling] = shape_of_loss(i);
        let x = weight - centre;
        curvature * x / x.mul_add(x, 1.0).sqrt() + coupling * inner.cos()
    };
    let gradient = weights.iter().enumerate().map(partial).collect();
    (sum + inner.sin(), gradient)
}

/// The same in tensors of f64, for burn to differentiate.
#[cfg(feature = "autodiff")]
pub(super) fn loss_tensor(model: &Model) -> Tensor<1> {
    let flat = |tensor: Tensor<1>| tensor.cast(DType::F64);
    let all = model.collect(|p| flat(p.val().reshape([-1])), |p| flat(p.val()));
    let theta = Tensor::cat(all, 0);
    let constant = |which: usize| {
        let values = (0..theta.dims()[0]).map(|i| shape_of_loss(i)[which]);
        let data = TensorData::from(values.collect::<Vec<f64>>().as_slice());
        Tensor::<1>::from_data(data, (&theta.device(), DType::F64))
    };
    let x = theta.clone() - constant(0);
    let bowls = constant(1) * ((x.clone() * x.clone() + 1.0).sqrt() - 1.0);
    bowls.sum() + (constant(2) * x).sum().sin()
}
