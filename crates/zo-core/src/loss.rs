//! What an objective may return.

use burn::tensor::Tensor;

use crate::error::ObjectiveError;

/// A value to minimise. Gradients are never asked for, so `-accuracy` is as good an objective as a cross-entropy.
///
/// Implemented for `f32`, `f64`, a [`Tensor`] of rank 1 with one element, and a `Result` of any of these.
pub trait Loss {
    /// The number itself.
    ///
    /// # Errors
    /// If a tensor is not a scalar or cannot be read, or if the user's own computation failed.
    fn value(self) -> Result<f64, ObjectiveError>;

    /// The tensor that holds the number, if there is one: what methods that differentiate need.
    ///
    /// # Errors
    /// If the user's own computation failed.
    #[doc(hidden)]
    fn into_tensor(self) -> Result<Option<Tensor<1>>, ObjectiveError>
    where
        Self: Sized,
    {
        self.value().map(|_| None)
    }
}

impl Loss for f32 {
    fn value(self) -> Result<f64, ObjectiveError> {
        Ok(f64::from(self))
    }
}

impl Loss for f64 {
    fn value(self) -> Result<f64, ObjectiveError> {
        Ok(self)
    }
}

impl Loss for Tensor<1> {
    fn value(self) -> Result<f64, ObjectiveError> {
        let elements = self.dims()[0];
        if elements != 1 {
            return Err(ObjectiveError::NotScalar(elements));
        }
        let data = self
            .try_into_data()
            .map_err(|error| ObjectiveError::Read(error.to_string()))?;
        data.iter::<f64>()
            .next()
            .ok_or(ObjectiveError::NotScalar(0))
    }

    fn into_tensor(self) -> Result<Option<Tensor<1>>, ObjectiveError> {
        Ok(Some(self))
    }
}

impl<L: Loss, E: Into<Box<dyn std::error::Error + Send + Sync>>> Loss for Result<L, E> {
    fn value(self) -> Result<f64, ObjectiveError> {
        self.map_err(|error| ObjectiveError::User(error.into()))?
            .value()
    }

    fn into_tensor(self) -> Result<Option<Tensor<1>>, ObjectiveError> {
        self.map_err(|error| ObjectiveError::User(error.into()))?
            .into_tensor()
    }
}
