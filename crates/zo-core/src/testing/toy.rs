//! A small model, and functions of its weights whose gradients are known.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};

/// A module shaped like a language model: an embedding, numbered layers, a head; 98 weights in 14 tensors.
#[derive(Module, Debug)]
pub struct Toy {
    /// `[3, 4]`
    pub embed: Param<Tensor<2>>,
    /// Four of them.
    pub layers: Vec<ToyLayer>,
    /// `[6]`
    pub head: Param<Tensor<1>>,
}

/// A layer of a [`Toy`].
#[derive(Module, Debug)]
pub struct ToyLayer {
    /// `[3, 4]`
    pub attention: Param<Tensor<2>>,
    /// `[6]`
    pub mlp: Param<Tensor<1>>,
    /// `[2]`
    pub norm: Param<Tensor<1>>,
}

impl Toy {
    /// All weights in the order of traversal, in f32.
    fn weights(&self) -> Tensor<1> {
        let flat = |weight: Tensor<1>| weight.cast(DType::F32);
        let rows = |weight: Tensor<2>| flat(weight.reshape([-1]));
        let mut all = vec![rows(self.embed.val())];
        for layer in &self.layers {
            all.push(rows(layer.attention.val()));
            all.extend([flat(layer.mlp.val()), flat(layer.norm.val())]);
        }
        all.push(flat(self.head.val()));
        Tensor::cat(all, 0)
    }
}

/// The weights every check begins with: between -1 and 1, none of them 0.
pub fn toy(device: &Device) -> Toy {
    let mut next = 0;
    let mut fill = |n: usize| -> Vec<f32> {
        (0..n)
            .map(|_| {
                next += 1;
                ((next * 37 % 101) as f32 - 50.3) / 51.0
            })
            .collect()
    };
    let mut matrix = |rows: usize, columns: usize| {
        let data = TensorData::new(fill(rows * columns), [rows, columns]);
        Param::from_tensor(Tensor::<2>::from_data(data, device))
    };
    let embed = matrix(3, 4);
    let vector = |matrix: Param<Tensor<2>>| Param::from_tensor(matrix.val().reshape([-1]));
    let layers = (0..4)
        .map(|_| ToyLayer {
            attention: matrix(3, 4),
            mlp: vector(matrix(1, 6)),
            norm: vector(matrix(1, 2)),
        })
        .collect();
    let head = vector(matrix(1, 6));
    Toy {
        embed,
        layers,
        head,
    }
}

/// A function of all weights, with its minimum, 0, at known weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// `1/2 sum (theta_i - c_i)^2`
    Sphere,
    /// `1/2 sum a_i (theta_i - c_i)^2` with a between 0.2 and 2.
    Ellipsoid,
    /// `sum sqrt(1 + (theta_i - c_i)^2) - 1`: not a quadratic, but convex.
    Hyperboloid,
}

impl Target {
    /// Every target.
    pub const ALL: [Self; 3] = [Self::Sphere, Self::Ellipsoid, Self::Hyperboloid];

    fn curvature(self, i: usize) -> f64 {
        match self {
            Self::Ellipsoid => 0.2 + 1.8 * ((i * 29 % 17) as f64 / 16.0),
            Self::Sphere | Self::Hyperboloid => 1.0,
        }
    }

    fn centre(i: usize) -> f64 {
        ((i * 53 % 97) as f64 - 48.0) / 97.0
    }

    /// The value at the weights of `toy` as [`Param::val`] shows them, on their device, in f32.
    pub fn loss(self, toy: &Toy) -> Tensor<1> {
        let theta = toy.weights();
        let constant = |f: &dyn Fn(usize) -> f64| {
            let values: Vec<f32> = (0..theta.dims()[0]).map(|i| f(i) as f32).collect();
            let size = [values.len()];
            Tensor::<1>::from_data(TensorData::new(values, size), &theta.device())
        };
        let x = theta.clone() - constant(&Self::centre);
        match self {
            Self::Sphere | Self::Ellipsoid => {
                (constant(&|i| 0.5 * self.curvature(i)) * x.clone() * x).sum()
            }
            Self::Hyperboloid => ((x.clone() * x + 1.0).sqrt() - 1.0).sum(),
        }
    }

    /// The gradient at weights `theta`.
    pub fn gradient(self, theta: &[f64]) -> Vec<f64> {
        let partial = |(i, theta): (usize, &f64)| {
            let x = theta - Self::centre(i);
            match self {
                Self::Sphere | Self::Ellipsoid => self.curvature(i) * x,
                Self::Hyperboloid => x / (1.0 + x * x).sqrt(),
            }
        };
        theta.iter().enumerate().map(partial).collect()
    }
}

/// The module with zeros for its matrices.
pub(super) fn zeroed(mut module: Toy) -> Toy {
    for layer in &mut module.layers {
        layer.attention = layer.attention.clone().map(|weights| weights.zeros_like());
    }
    module
}

/// The module in another dtype.
pub(super) fn cast(module: Toy, dtype: DType) -> Toy {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    module.map(&mut Cast(dtype))
}
