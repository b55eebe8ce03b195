//! Converts the numbers of a file to the type they are held in, transposed on the way where the model needs it.

use std::io::Read;

use half::{bf16, f16};

/// Bytes read at once.
const CHUNK: usize = 1 << 20;

/// Reads `count` values of `N` bytes; `shape` is `(rows, columns)` of a matrix to transpose.
pub(super) fn convert<const N: usize, T: Element>(
    mut source: impl Read,
    count: usize,
    shape: Option<(usize, usize)>,
    decode: impl Fn([u8; N]) -> T,
) -> std::io::Result<Vec<T>> {
    let decode = |bytes: &[u8]| {
        let mut value = [0; N];
        value.copy_from_slice(bytes);
        decode(value)
    };
    let Some((rows, columns)) = shape else {
        let mut values = Vec::with_capacity(count);
        let mut buffer = vec![0; CHUNK.min(count * N)];
        while values.len() < count {
            let length = buffer.len().min((count - values.len()) * N);
            source.read_exact(&mut buffer[..length])?;
            values.extend(buffer[..length].chunks_exact(N).map(decode));
        }
        return Ok(values);
    };
    let mut values = vec![T::default(); count];
    let step = (CHUNK / (columns * N).max(1))
        .clamp(16, 256)
        .min(rows.max(1));
    let mut buffer = vec![0; step * columns * N];
    for row in (0..rows).step_by(step) {
        let height = step.min(rows - row);
        source.read_exact(&mut buffer[..height * columns * N])?;
        // Runs of `height` values are written together; the rows read stay in the cache.
        for column in 0..columns {
            let run = &mut values[column * rows + row..][..height];
            for (line, value) in run.iter_mut().enumerate() {
                let at = (line * columns + column) * N;
                *value = decode(&buffer[at..at + N]);
            }
        }
    }
    Ok(values)
}

/// The types weights are held in.
pub(crate) trait Element: burn::tensor::Element + Copy + Default {
    /// Its usual name.
    const NAME: &'static str;
    fn from_f32(value: f32) -> Self;
    fn from_f64(value: f64) -> Self;
    fn is_finite(self) -> bool;
}

impl Element for f64 {
    const NAME: &'static str = "f64";
    fn from_f32(value: f32) -> Self {
        f64::from(value)
    }
    fn from_f64(value: f64) -> Self {
        value
    }
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
}

impl Element for f32 {
    const NAME: &'static str = "f32";
    fn from_f32(value: f32) -> Self {
        value
    }
    fn from_f64(value: f64) -> Self {
        value as f32
    }
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

impl Element for bf16 {
    const NAME: &'static str = "bf16";
    fn from_f32(value: f32) -> Self {
        bf16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        bf16::from_f64(value)
    }
    fn is_finite(self) -> bool {
        bf16::is_finite(self)
    }
}

impl Element for f16 {
    const NAME: &'static str = "f16";
    fn from_f32(value: f32) -> Self {
        f16::from_f32(value)
    }
    fn from_f64(value: f64) -> Self {
        f16::from_f64(value)
    }
    fn is_finite(self) -> bool {
        f16::is_finite(self)
    }
}
