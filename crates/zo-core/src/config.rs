//! The settings every method's configuration repeats.

/// Defines the configuration of a method: its own fields, then the settings every method shares, as burn `Config`.
///
/// The struct gets `new`, a `with_*` for each field, and `settings()`.
#[doc(hidden)]
#[macro_export]
macro_rules! method_config {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident {
            $($(#[$field_attribute:meta])* pub $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(::burn::config::Config, Debug)]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
            /// The perturbation radius, in units of weights. Default 1e-3.
            #[config(default = 1e-3)]
            pub epsilon: f64,
            /// Random directions per step; the estimate is their mean. Default 1.
            #[config(default = 1)]
            pub queries: usize,
            /// How losses become a derivative. Default central.
            #[config(default = "::zo_core::Difference::Central")]
            pub difference: ::zo_core::Difference,
            /// The noise. Default Gaussian.
            #[config(default = "::zo_core::Distribution::Gaussian")]
            pub distribution: ::zo_core::Distribution,
            /// The seed of the run. Default 0.
            #[config(default = 0)]
            pub seed: u64,
            /// Which parameters train. Default all.
            #[config(default = "::burn::module::ParamGroup::all()")]
            pub trainable: ::burn::module::ParamGroup,
            /// Weight decay, applied as `lr * weight_decay * theta`. Default 0.
            #[config(default = 0.0)]
            pub weight_decay: f64,
            /// Weight decay of parameter groups, in place of `weight_decay`; the first match counts. Default none.
            #[config(default = "Vec::new()")]
            pub weight_decay_groups: Vec<(::burn::module::ParamGroup, f64)>,
            /// What to do about a loss that is not finite. Default an error.
            #[config(default = "::zo_core::NonFinite::Error")]
            pub non_finite: ::zo_core::NonFinite,
            /// How updated weights are rounded to their dtype: it matters for bf16 and f16. Default to nearest.
            #[config(default = "::zo_core::Rounding::Nearest")]
            pub rounding: ::zo_core::Rounding,
            /// How weights are displaced for an evaluation. Default in place.
            #[config(default = "::zo_core::Perturbation::InPlace")]
            pub perturbation: ::zo_core::Perturbation,
        }

        impl $name {
            /// The settings that every method shares.
            pub fn settings(&self) -> ::zo_core::Settings {
                ::zo_core::Settings {
                    epsilon: self.epsilon,
                    queries: self.queries,
                    difference: self.difference,
                    seed: self.seed,
                    trainable: self.trainable.clone(),
                    weight_decay: self.weight_decay,
                    weight_decay_groups: self.weight_decay_groups.clone(),
                    non_finite: self.non_finite,
                    rounding: self.rounding,
                    perturbation: self.perturbation,
                }
            }
        }
    };
}
