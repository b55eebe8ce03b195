//! Training in a subspace that was never left, as LoRA adapters.

use std::collections::BTreeMap;

use burn::module::ParamGroup;
use zo_core::Banked;

use super::factors::{LoraConfig, LoraError, attach, layer_name};
use crate::files::slots::slots;
use crate::model::CausalLm;

/// The weights of linear layers that noise of rank `rank` moves along thin factors: what to train if the run is to leave
/// [adapters](from_bank) behind.
pub fn linear_weights(model: &CausalLm, rank: usize) -> ParamGroup {
    // Slots lack the first part of a module path.
    let architecture = match model {
        CausalLm::Opt(_) => "Opt",
        CausalLm::Llama(_) => "Llama",
        CausalLm::Roberta(_) => "Roberta",
    };
    let slots = slots(model).into_iter();
    let linear = slots.filter(|slot| slot.transposed && slot.shape.iter().all(|side| *side > rank));
    let paths = linear.map(|slot| format!("{architecture}.{}", slot.path));
    ParamGroup::from_paths(paths.collect::<Vec<String>>())
}

/// The adapters that a run along low-rank noise leaves behind whose subspace was never refreshed (`interval never`): `model`, the base with
/// its weights as they are stored, with what the bank of the session adds to it as LoRA, and the configuration to save it with.
///
/// With LOZO's noise A is the sum of the updates, `[d_in, rank]`, and B the factor that was held, `[rank, d_out]`; the scale is 1.
///
/// ```no_run
/// use zo_core::{Perturbation, ZerothOrderOptimizer};
/// use zo_llm::tuning::lora;
/// use zo_optim::low_rank::{Interval, Lozo, lozo};
/// # fn run(model: zo_llm::CausalLm, loss: impl Fn(&zo_llm::CausalLm) -> f64) -> Result<(), Box<dyn std::error::Error>> {
/// let method = lozo()
///     .with_noise(Lozo::new().with_rank(8).with_interval(Interval::Never))
///     .with_perturbation(Perturbation::OnTheFly)
///     .with_trainable(lora::linear_weights(&model, 8));
/// let mut session = method.init()?.session(model)?;
/// for _ in 0..1000 {
///     session.step(1e-4, &loss)?;
/// }
/// let bank = session.bank();
/// let (adapted, config) = lora::from_bank(session.stored().0.clone(), &bank)?;
/// lora::save_adapter("runs/adapter".as_ref(), &adapted, &config, "facebook/opt-125m")?;
/// # Ok(()) }
/// ```
///
/// # Errors
/// [`LoraError::Bank`] if the bank is empty, or holds something that no adapter of a linear layer can: train weights of linear layers alone.
pub fn from_bank(model: CausalLm, bank: &[Banked]) -> Result<(CausalLm, LoraConfig), LoraError> {
    let refuse = |path: &str, reason: &str| {
        let (path, reason) = (path.to_owned(), reason.to_owned());
        Err(LoraError::Bank { path, reason })
    };
    let Some(rank) = bank.iter().map(|banked| banked.rank).max() else {
        return refuse(
            "the bank",
            "is empty: take steps on the fly, in a session, along noise of low rank",
        );
    };
    let mut factors = BTreeMap::new();
    for banked in bank {
        // Slots lack the first part of a module path, the architecture.
        let inner = banked.path.split_once('.').map(|(_, inner)| inner);
        let name = inner.and_then(layer_name);
        let (Some(name), Some(pair)) = (name, &banked.factors) else {
            return refuse(
                &banked.path,
                "moves as a whole, which an adapter cannot hold: leave it out with a parameter group",
            );
        };
        let wide = |values: &Vec<f32>| values.iter().map(|value| f64::from(*value)).collect();
        factors.insert(name, pair.each_ref().map(wide));
    }
    let targets = factors.keys().cloned().collect();
    let config = LoraConfig::new().with_rank(rank).with_alpha(rank as f64);
    let config = config.with_targets(targets);
    let layers = config.select(&model)?;
    let adapted = attach(model, &config, &layers, |layer, _| {
        factors.remove(layer).unwrap_or_default()
    })?;
    Ok((adapted, config))
}
