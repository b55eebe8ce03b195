//! Writing a file of weights.

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::Tensor;
use half::{bf16, f16};
use safetensors::tensor::{Dtype as FileDtype, Metadata, TensorInfo};

use super::SaveError;
use crate::files::dtype::Dtype;
use crate::files::slots::{Slot, file_name};
use crate::model::CausalLm;

/// Writes the parameters `range` of the model, whose parameters are `slots`, to a file.
pub(super) fn write_weights(
    file: &mut impl Write,
    slots: &[Slot],
    range: Range<usize>,
    model: &CausalLm,
    dtype: Dtype,
    failed: &impl Fn(std::io::Error) -> SaveError,
) -> Result<(), SaveError> {
    let file_dtype = match dtype {
        Dtype::F32 => FileDtype::F32,
        Dtype::Bf16 => FileDtype::BF16,
        Dtype::F16 => FileDtype::F16,
    };
    let mut offset = 0;
    let infos = slots[range.clone()].iter().map(|slot| {
        let start = offset;
        offset += bytes(slot, dtype);
        let info = TensorInfo {
            dtype: file_dtype,
            shape: slot.shape.clone(),
            data_offsets: (start, offset),
        };
        (file_name(&slot.path), info)
    });
    // transformers asks for this entry.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = |message: String| SaveError::Tensor {
        name: "the header".to_owned(),
        message,
    };
    let metadata =
        Metadata::new(Some(format), infos.collect()).map_err(|error| header(error.to_string()))?;
    let mut text = serde_json::to_vec(&metadata).map_err(|error| header(error.to_string()))?;
    text.resize(text.len().next_multiple_of(8), b' ');

    file.write_all(&(text.len() as u64).to_le_bytes())
        .map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    let mut writer = Writer {
        file,
        slots: slots.iter().enumerate(),
        range,
        dtype,
        failed,
        error: None,
    };
    model.visit(&mut writer);
    writer.error.map_or(Ok(()), Err)
}

/// The bytes a parameter takes in a file.
pub(super) fn bytes(slot: &Slot, dtype: Dtype) -> usize {
    let size = match dtype {
        Dtype::F32 => 4,
        Dtype::Bf16 | Dtype::F16 => 2,
    };
    slot.shape.iter().product::<usize>() * size
}

/// Writes each parameter as it is visited, in the order of the header.
struct Writer<'a, W, I, F> {
    file: &'a mut W,
    slots: I,
    /// Those that are written.
    range: Range<usize>,
    dtype: Dtype,
    failed: &'a F,
    error: Option<SaveError>,
}

impl<W: Write, I, F> Writer<'_, W, I, F> {
    /// Writes the values of a parameter, all of them finite.
    fn write(&mut self, slot: &Slot, values: &[f32]) -> std::io::Result<()> {
        let (rows, columns) = match slot.shape[..] {
            [rows, columns] if slot.transposed => (rows, columns),
            _ => (1, values.len()),
        };
        // The model holds the transpose of the file's `[rows, columns]`.
        for row in 0..rows {
            for column in 0..columns {
                let value = values[column * rows + row];
                match self.dtype {
                    Dtype::F32 => self.file.write_all(&value.to_le_bytes())?,
                    Dtype::Bf16 => self.file.write_all(&bf16::from_f32(value).to_le_bytes())?,
                    Dtype::F16 => self.file.write_all(&f16::from_f32(value).to_le_bytes())?,
                }
            }
        }
        Ok(())
    }
}

impl<'a, W, I, F> ModuleVisitor for Writer<'a, W, I, F>
where
    W: Write,
    I: Iterator<Item = (usize, &'a Slot)>,
    F: Fn(std::io::Error) -> SaveError,
{
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((index, slot)) = self.slots.next() else {
            return;
        };
        if self.error.is_some() || !self.range.contains(&index) {
            return;
        }
        self.error = match param.val().try_into_data() {
            Ok(data) => {
                let values: Vec<f32> = data.iter::<f32>().collect();
                drop(data);
                let checked = check(slot, &values, self.dtype);
                checked
                    .and_then(|()| self.write(slot, &values).map_err(self.failed))
                    .err()
            }
            Err(error) => Some(SaveError::Tensor {
                name: file_name(&slot.path),
                message: error.to_string(),
            }),
        };
    }
}

/// An error unless all values are finite as `dtype`.
fn check(slot: &Slot, values: &[f32], dtype: Dtype) -> Result<(), SaveError> {
    let kept = |value: &f32| match dtype {
        Dtype::F32 => value.is_finite(),
        Dtype::Bf16 => bf16::from_f32(*value).is_finite(),
        Dtype::F16 => f16::from_f32(*value).is_finite(),
    };
    let bad = values.iter().filter(|value| !kept(value)).count();
    if bad == 0 {
        return Ok(());
    }
    let nan = values.iter().filter(|value| value.is_nan()).count();
    let infinite = values.iter().filter(|value| value.is_infinite()).count();
    Err(SaveError::NotFinite {
        tensor: file_name(&slot.path),
        values: values.len(),
        nan,
        infinite,
        too_large: bad - nan - infinite,
        dtype,
    })
}
