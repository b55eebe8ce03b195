//! Nonlinearities, by their names in a configuration.

use super::error::ConfigError;

/// The nonlinearity of the feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `max(x, 0)`: OPT's.
    Relu,
    /// `x Phi(x)` with the error function.
    Gelu,
    /// The approximation of `Gelu` with a hyperbolic tangent.
    GeluTanh,
    /// `x sigmoid(x)`: Llama's.
    Silu,
}

impl Activation {
    const NAMES: [(&'static str, Self); 6] = [
        ("relu", Self::Relu),
        ("gelu", Self::Gelu),
        ("gelu_pytorch_tanh", Self::GeluTanh),
        ("gelu_new", Self::GeluTanh),
        ("silu", Self::Silu),
        ("swish", Self::Silu),
    ];

    pub(super) fn parse(place: &str, field: &str, name: &str) -> Result<Self, ConfigError> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, activation)| *activation).ok_or_else(|| {
            let known: Vec<_> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            ConfigError::unsupported(place, field, format!("\"{name}\""), &known.join(", "))
        })
    }

    pub(super) fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, activation)| *activation == self)
            .map_or("relu", |(name, _)| name)
    }
}
