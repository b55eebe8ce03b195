//! Moments in the coordinates of a basis: what update rules in a subspace keep, `m r` or `r r` numbers a matrix, in host memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::tensor::{DType, TensorData};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zo_core::{
    Basis, Buffers, Change, Choice, Direction, Held, MaskedDirection, RecordError, Selection,
    TensorInfo, UpdateContext, ZoError, from_record, no_buffers,
};

/// The moments of one tensor, `N` of them.
#[derive(Debug, Clone)]
pub(crate) struct Moments<const N: usize> {
    /// What they are coordinates in.
    pub(crate) basis: Basis,
    /// The steps they have seen since they were 0.
    pub(crate) steps: u64,
    pub(crate) values: [Arc<[f32]>; N],
}

/// The moments of all tensors, by module path. Cheap to clone: a step that fails goes back to a clone.
#[derive(Debug, Clone)]
pub(crate) struct State<const N: usize>(BTreeMap<String, Moments<N>>);

impl<const N: usize> Default for State<N> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

/// What is saved beside the values.
#[derive(Serialize, Deserialize)]
struct Saved {
    basis: Basis,
    steps: u64,
}

impl<const N: usize> State<N> {
    /// Goes along what `update` makes of a tensor's moments so far and of the estimate's coordinates: the new moments, and the coordinates of the
    /// step. Tensors that the estimate leaves out keep their moments and stay.
    pub(crate) fn step(
        &mut self,
        context: &UpdateContext<'_>,
        update: impl Fn(&TensorInfo, Option<&Moments<N>>, &Basis, Vec<f32>) -> (Moments<N>, Vec<f32>),
    ) -> Result<Change<'static>, ZoError> {
        let gradient = context.estimate().gradient();
        let mut bases: Vec<(Basis, Vec<_>)> = Vec::new();
        let mut moves = vec![None; context.tensors().len()];
        for (number, tensor) in context.tensors().iter().enumerate() {
            let found = match tensor.trainable {
                true => gradient.coordinates(number, tensor)?,
                false => None,
            };
            let Some((basis, coordinates)) = found else {
                continue;
            };
            let old = self.0.get(&tensor.path);
            let (moments, step) = update(tensor, old, &basis, coordinates);
            self.0.insert(tensor.path.clone(), moments);
            moves[number] = Some(Choice::WHOLE);
            match bases.iter_mut().find(|(known, _)| *known == basis) {
                Some((_, steps)) => steps.push((tensor.key, step)),
                None => bases.push((basis, vec![(tensor.key, step)])),
            }
        }
        let mut step = Direction::zero();
        for (basis, coordinates) in bases {
            let along = Direction::held(&basis, Held::new(coordinates));
            step = step.plus(-context.lr(), &along);
        }
        let moves = Arc::new(Selection(moves));
        Ok(Change::Linear(MaskedDirection::new(&moves, step)))
    }

    /// Whether the moments are those of these tensors.
    pub(crate) fn check(&self, tensors: &[TensorInfo]) -> Result<(), ZoError> {
        for tensor in tensors {
            let Some(moments) = self.0.get(&tensor.path) else {
                continue;
            };
            let [rows, columns] = moments.basis.coordinates(&tensor.shape);
            let sizes = moments.values.iter().map(|values| values.len());
            if let Some(found) = sizes.into_iter().find(|size| *size != rows * columns) {
                let reason = format!(
                    "has {rows} x {columns} coordinates in its subspace, and the update rule's state {found}: the record belongs to another \
                     model. Load the record of this model's run, or build a new optimizer"
                );
                return Err(ZoError::parameter(&tensor.path, reason));
            }
        }
        Ok(())
    }

    pub(crate) fn record(&self) -> Value {
        let saved = |(path, moments): (&String, &Moments<N>)| {
            let (basis, steps) = (moments.basis.clone(), moments.steps);
            (path.clone(), Saved { basis, steps })
        };
        let saved: BTreeMap<_, _> = self.0.iter().map(saved).collect();
        serde_json::to_value(saved).unwrap_or_default()
    }

    /// The values by the names of the moments and the module path.
    pub(crate) fn buffers(&self, names: [&str; N]) -> Buffers {
        let mut buffers = Buffers::new();
        for (path, moments) in &self.0 {
            for (name, values) in names.iter().zip(&moments.values) {
                let data = TensorData::new(values.to_vec(), [values.len()]);
                buffers.insert(format!("{name}{path}"), data);
            }
        }
        buffers
    }

    pub(crate) fn load(
        record: Value,
        mut buffers: Buffers,
        names: [&str; N],
    ) -> Result<Self, RecordError> {
        let saved: BTreeMap<String, Saved> = from_record("update rule", record)?;
        let mut state = Self::default();
        for (path, Saved { basis, steps }) in saved {
            let mut take = |name: &str| -> Result<Arc<[f32]>, RecordError> {
                let name = format!("{name}{path}");
                let expected = format!("`{name}`, a list of f32");
                let mismatch = |found: &str| RecordError::mismatch("buffer", found, &expected);
                let data = buffers.remove(&name).ok_or_else(|| mismatch("missing"))?;
                if data.dtype() != DType::F32 {
                    return Err(mismatch("of another form"));
                }
                Ok(data.iter::<f32>().collect())
            };
            let mut values = Vec::with_capacity(N);
            for name in names {
                values.push(take(name)?);
            }
            if let Ok(values) = values.try_into() {
                let moments = Moments {
                    basis,
                    steps,
                    values,
                };
                state.0.insert(path, moments);
            }
        }
        no_buffers(&buffers)?;
        Ok(state)
    }
}
