//! `--lr auto`, `--epsilon auto`, and `zo lr-find`, which draws what the search has seen.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use zo_llm::finetune::{FoundEpsilon, FoundRate, RateSearch, find_epsilon, find_rate};
use zo_llm::{CausalLm, Checkpoint};

use super::args::TrainArgs;
use super::setup::Setup;
use crate::exit::text;
use crate::methods::AnyOptimizer;
use crate::output::write;

/// What `--lr` or `--epsilon` says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Searched {
    /// This number.
    Given(f64),
    /// The one that a search finds.
    #[serde(serialize_with = "auto")]
    Auto,
}

fn auto<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("auto")
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given(lr) => lr.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// Neither a number nor `auto`.
#[derive(Debug, thiserror::Error)]
#[error("not a number, nor `auto`")]
pub struct NotANumber;

impl FromStr for Searched {
    type Err = NotANumber;

    fn from_str(text: &str) -> Result<Self, NotANumber> {
        match text {
            "auto" => Ok(Self::Auto),
            number => number.parse().map(Self::Given).map_err(|_| NotANumber),
        }
    }
}

/// Searches a radius for the run that `setup` describes.
pub(super) fn search_epsilon(
    args: &TrainArgs,
    setup: &Setup,
) -> Result<FoundEpsilon, Box<dyn Error>> {
    let plan = &setup.plan;
    let begin = || model(args, setup).map_err(|error| text(error.as_ref()).into());
    let rows = [&setup.rows.train, &setup.rows.dev];
    Ok(find_epsilon(begin, rows, &plan.config, &plan.device)?)
}

/// Searches a rate for the run that `setup` describes.
pub(super) fn search(args: &TrainArgs, setup: &Setup) -> Result<FoundRate, Box<dyn Error>> {
    let plan = &setup.plan;
    let begin = || {
        // The errors of loading need not be those of a thread.
        let began = begin(args, setup);
        began.map_err(|error| text(error.as_ref()).into())
    };
    let config = &plan.config;
    let factors =
        (0..config.steps).map(|step| config.schedule.factor(step, config.warmup, config.steps));
    let search = RateSearch {
        steps: factors.map(|factor| factor * factor).sum(),
        epsilon: config.method["epsilon"].as_f64().unwrap_or(1e-3),
        trained: config.trained.clone(),
        seed: config.seed,
    };
    let rows = [&setup.rows.train, &setup.rows.dev];
    let mut found = find_rate(begin, rows, &plan.config, &plan.device, search)?;
    found.lr = readable(found.lr);
    Ok(found)
}

/// What a run starts with.
fn begin(args: &TrainArgs, setup: &Setup) -> Result<(CausalLm, AnyOptimizer), Box<dyn Error>> {
    Ok((model(args, setup)?, setup.plan.optimizer(args)?))
}

/// The model that a run starts with.
pub(super) fn model(args: &TrainArgs, setup: &Setup) -> Result<CausalLm, Box<dyn Error>> {
    let plan = &setup.plan;
    let Checkpoint { model, .. } = args.model.load(setup.model_dir.as_deref(), &plan.device)?;
    Ok(args.tune.apply(model, plan.tuning.clone(), args.seed)?.0)
}

/// Two digits: no search knows more.
pub(super) fn readable(lr: f64) -> f64 {
    format!("{lr:.1e}").parse().unwrap_or(lr)
}

/// `zo lr-find`: the search alone.
///
/// # Errors
/// What is wrong with the flags, or why no rate was found.
pub fn find(args: &TrainArgs) -> Result<(), Box<dyn Error>> {
    let (setup, model) = super::setup::at_radius(args)?;
    drop(model);
    let found = search(args, &setup)?;
    print!("{}", told(&found));
    if let Some(out) = &args.out {
        let out = crate::run::new_folder(Some(out))?;
        let json = serde_json::to_string_pretty(&found)?;
        write(&out.join("rates.json"), &json)?;
        let title = format!("{}: loss while the learning rate rises", args.method);
        crate::plot::rates(&out.join("rates.svg"), &title, &found)?;
        println!("written: {}", out.join("rates.svg").display());
    }
    Ok(())
}

/// A search in words and numbers.
fn told(found: &FoundRate) -> String {
    let mut told = "      lr      loss\n".to_owned();
    for point in &found.climb {
        told += &format!("{:8.1e}  {:8.4}\n", point.lr, point.loss);
    }
    let [bend, error] = found.curvature;
    told += &format!(
        "loss {:.4}, derivative along a direction {:.3}, weights {:.3} (root mean squares), curvature {bend:.3} (standard error {error:.2})\n",
        found.loss, found.gradient_rms, found.weight_rms
    );
    for place in &found.drift {
        told += &format!(
            "after noise of {:.1e}: loss {:.4}, derivative {:.3}\n",
            place.distance, place.loss, place.gradient_rms
        );
    }
    told + &format!("{}\n", summary(found))
}

/// A search for a radius in a line.
pub(super) fn radius(found: &FoundEpsilon) -> String {
    format!(
        "epsilon {:e}, found by {} forwards: where derivatives agree best with those at neighbouring radii",
        found.epsilon, found.forwards
    )
}

/// A search in a line.
pub(super) fn summary(found: &FoundRate) -> String {
    format!(
        "learning rate {:e}, found by {} forwards (limits: {:.1e} for noise that heats, {:.1e} for gradients that grow, {:.1e} for the size of the \
         weights; {:.1e} is safe for so few; {:.1e} for a loss that rises at once)",
        found.lr,
        found.forwards,
        found.limit_heat,
        found.limit_drift,
        found.limit_size,
        found.saturated,
        found.limit_climb
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_or_auto() {
        assert_eq!("auto".parse::<Searched>().unwrap(), Searched::Auto);
        let given: Searched = "5e-5".parse().unwrap();
        assert_eq!(
            (given, given.to_string()),
            (Searched::Given(5e-5), "0.00005".to_owned())
        );
        let error = "fast".parse::<Searched>().unwrap_err().to_string();
        assert_eq!(error, "not a number, nor `auto`");
        let json = serde_json::to_string(&[Searched::Auto, Searched::Given(0.5)]).unwrap();
        assert_eq!(json, r#"["auto",0.5]"#);
    }
}
