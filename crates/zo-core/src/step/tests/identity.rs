//! Which parameters train, and that each keeps to its own noise and state.

use burn::module::{ModuleMapper, ModuleVisitor, RunningState};

use super::*;
use crate::on_the_fly::Perturbation;
use crate::tensors::check_ids;

const BOTH: [Perturbation; 2] = [Perturbation::InPlace, Perturbation::OnTheFly];

fn perturbing(perturbation: Perturbation) -> ZeroOrder {
    let method = Method::new().with_perturbation(perturbation);
    method.init().unwrap()
}

/// Weights under any names, in any order, with visitors and mappers of their own.
#[derive(Debug, Clone)]
struct Named {
    params: Vec<(&'static str, Param<Tensor<1>>)>,
    /// Where mappers find them.
    mapped: Vec<(&'static str, usize)>,
}

impl Named {
    fn new(visited: &[&'static str], mapped: &[(&'static str, usize)]) -> Self {
        let device = &devices()[0];
        let param = || Param::from_tensor(Tensor::ones([5], device));
        Self {
            params: visited.iter().map(|name| (*name, param())).collect(),
            mapped: mapped.to_vec(),
        }
    }

    fn values(&self) -> Vec<Vec<f32>> {
        let values = |(_, param): &(_, Param<Tensor<1>>)| param.val().to_data().iter().collect();
        self.params.iter().map(values).collect()
    }

    fn loss(&self) -> Tensor<1> {
        let weighted = |(i, (_, param)): (usize, &(&str, Param<Tensor<1>>))| {
            param.val().square().sum() * (i as f32 + 1.0)
        };
        let parts = self.params.iter().enumerate().map(weighted).collect();
        Tensor::cat(parts, 0).sum()
    }
}

impl Module for Named {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, param) in &self.params {
            visitor.enter_module(name, "Struct:Named");
            param.visit(visitor);
            visitor.exit_module(name, "Struct:Named");
        }
    }

    fn map<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        for (name, place) in &self.mapped {
            mapper.enter_module(name, "Struct:Named");
            let (_, param) = &mut self.params[*place];
            *param = Module::map(param.clone(), mapper);
            mapper.exit_module(name, "Struct:Named");
        }
        self
    }

    fn collect_devices(&self, devices: Vec<Device>) -> Vec<Device> {
        devices
    }

    fn to_device(self, _: &Device) -> Self {
        self
    }

    fn fork(self, _: &Device) -> Self {
        self
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone()
    }

    fn train(self) -> Self {
        self
    }
}

/// A module that maps in a different order than it visits takes the same steps as one that does not.
#[test]
fn crossed_orders_of_visits_and_maps_do_not_matter() {
    for perturbation in BOTH {
        let settings = Settings {
            trainable: ParamGroup::from_path("a"),
            perturbation,
            ..Settings::default()
        };
        let run = |module: Named| {
            let mut optim = Method::of(settings.clone()).init().unwrap();
            let mut module = module;
            for _ in 0..3 {
                module = optim.step(1e-2, module, Named::loss).unwrap().0;
            }
            module.values()
        };
        let straight = run(Named::new(&["a", "b"], &[("a", 0), ("b", 1)]));
        let crossed = run(Named::new(&["a", "b"], &[("b", 1), ("a", 0)]));
        assert_eq!(straight, crossed);
        assert!(straight[0].iter().all(|w| *w != 1.0));
        assert_eq!(straight[1], [1.0; 5], "`b` does not train");
    }
}

#[test]
fn parameters_that_cannot_be_told_apart_are_refused_by_name() {
    for perturbation in BOTH {
        let twice = Named::new(&["a", "a"], &[("a", 0), ("a", 1)]);
        let failed = perturbing(perturbation).step(1e-2, twice, Named::loss);
        let failed = failed.unwrap_err();
        assert!(
            matches!(&failed.error, ZoError::Parameter { path, reason } if path == "a" && reason.contains("module path")),
            "{failed}"
        );
        assert_eq!(failed.module.values(), [[1.0; 5]; 2]);

        let elsewhere = Named::new(&["a", "b"], &[("a", 0), ("c", 1)]);
        let failed = perturbing(perturbation).step(1e-2, elsewhere, Named::loss);
        let failed = failed.unwrap_err();
        assert!(
            matches!(&failed.error, ZoError::Parameter { path, reason } if path == "b" && reason.contains("`map`")),
            "{failed}"
        );
        let swapped = Named::new(&["a", "b"], &[("a", 1), ("b", 0)]);
        let failed = perturbing(perturbation).step(1e-2, swapped, Named::loss);
        assert!(failed.unwrap_err().to_string().contains("`map`"));
    }
}

/// Clones of a layer share their ids, not their noise.
#[test]
fn cloned_layers_train_apart() {
    for perturbation in BOTH {
        let one = Named::new(&["a"], &[]).params.remove(0).1;
        let mut module = Named::new(&["a", "b"], &[("a", 0), ("b", 1)]);
        module.params[0].1 = one.clone();
        module.params[1].1 = one;
        let tensors = tensors::tensors(&module, &ParamGroup::all()).unwrap();
        let error = check_ids(&tensors).unwrap_err();
        assert!(
            matches!(&error, ZoError::Parameter { path, reason } if path == "b" && reason.contains("id as `a`"))
        );
        let trained = perturbing(perturbation).step(1e-2, module, Named::loss);
        let values = trained.unwrap().0.values();
        assert_ne!(values[0], values[1]);
        assert!(values.concat().iter().all(|w| *w != 1.0));
    }
}

#[derive(Module, Debug)]
struct Norm {
    scale: Param<Tensor<1>>,
    variance: RunningState<Tensor<1>>,
    shift: Param<Tensor<1>>,
}

/// Running statistics are not parameters: they do not train, and a clone of the module, which shares them, keeps its values.
#[test]
fn running_statistics_do_not_train() {
    let device = &devices()[0];
    let ones = || Tensor::<1>::ones([4], device);
    for perturbation in BOTH {
        let norm = Norm {
            scale: Param::from_tensor(ones()),
            variance: RunningState::new(ones() * 1e-4),
            shift: Param::from_tensor(ones()),
        };
        let copy = norm.clone();
        let loss = |norm: &Norm| {
            let scaled = norm.scale.val() * norm.variance.value().sqrt() + norm.shift.val();
            scaled.square().sum()
        };
        let (mut norm, mut optim) = (norm, perturbing(perturbation));
        for _ in 0..50 {
            norm = optim.step(1e-3, norm, loss).unwrap().0;
        }
        for module in [&norm, &copy] {
            let variance = module.variance.value().to_data();
            assert!(variance.iter::<f32>().all(|v| v == 1e-4));
        }
        let trained = |param: &Param<Tensor<1>>| {
            let data = param.val().to_data();
            data.iter::<f32>().all(|w| w != 1.0)
        };
        assert!(trained(&norm.scale) && trained(&norm.shift));
        let only = Settings {
            trainable: ParamGroup::from_path("variance"),
            perturbation,
            ..Settings::default()
        };
        let mut optim = Method::of(only).init().unwrap();
        let failed = optim.step(1e-3, norm, loss).unwrap_err();
        assert!(matches!(failed.error, ZoError::NothingToTrain { .. }));
    }
}

/// Masks and quantiles see every value of a tensor of more than a million.
#[test]
fn large_tensors_are_read_whole() {
    let n = (1 << 20) + 7;
    let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let device = &devices()[0];
    let large = Tensor::<1>::from_floats(values.as_slice(), device);
    let module = Named {
        params: vec![("a", Param::from_tensor(large))],
        mapped: vec![("a", 0)],
    };
    let mut read: Vec<f32> = Vec::with_capacity(n);
    tensors::visit_values(&module, &mut |_, values| {
        read.extend(values.iter::<f32>());
    });
    assert!(read == values);
}
