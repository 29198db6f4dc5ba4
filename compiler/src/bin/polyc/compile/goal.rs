//! What the options ask the compiler for. Options that contradict one another, or have nothing to do beside
//! one another, are refused.

use super::arguments::{Activation, Args, MinimiseArg};
use anyhow::{Result, bail};
use polyc::CompileOptions;
use polyc::fit::{Family, Harmonics};
use polyc::search::{Goal, Minimise};

/// Refuses options of which one has nothing to do beside the other.
///
/// # Errors
/// One line that names both.
pub fn check(args: &Args) -> Result<()> {
    let is_auto = matches!(args.activation, Activation::Auto);
    let is_polynomial = matches!(args.activation, Activation::Square | Activation::Quartic);
    let is_made_up = args.calibration().is_none();
    let is_limited = args.max_loss.is_some() || args.max_escape.is_some();
    let refused = [
        (
            is_polynomial && args.harmonics.is_some(),
            "--harmonics are of phases; --activation square and quartic fit polynomials",
        ),
        (
            is_auto && args.harmonics.is_some(),
            "--harmonics fixes what --activation auto searches for",
        ),
        (
            is_polynomial && args.phase_bits.is_some(),
            "--phase-bits are of phases; --activation square and quartic fit polynomials",
        ),
        (
            is_polynomial && args.accuracy_loss.is_some(),
            "--accuracy-loss searches the bits of phases; --max-loss refuses plans that lose too much",
        ),
        (
            is_auto && args.minimise.is_some(),
            "--minimise is for phases; auto looks for the fewest harmonics",
        ),
        (!is_auto && args.byte_budget.is_some(), "--byte-budget needs --activation auto"),
        (
            is_made_up && is_auto,
            "--activation auto measures accuracy: it needs --calibrate with real inputs",
        ),
        (
            is_made_up && args.accuracy_loss.is_some(),
            "--accuracy-loss measures accuracy: it needs --calibrate with real inputs",
        ),
        (
            is_made_up && is_limited,
            "--max-loss and --max-escape measure a plan: they need --calibrate with real inputs",
        ),
        (
            is_made_up && !args.task.labels.is_empty(),
            "--labels are of real inputs: they need --calibrate",
        ),
        (
            !is_made_up && args.input_range.is_some(),
            "--input-range is of made-up inputs; --calibrate has real ones",
        ),
        (
            args.force && is_limited,
            "--force writes what --max-loss and --max-escape refuse: give one of them",
        ),
        (args.json && args.print_plan, "--print-plan prints text; --json has the steps"),
    ];
    match refused.iter().find(|(is_refused, _)| *is_refused) {
        Some((_, why)) => bail!("{why}"),
        None => Ok(()),
    }
}

/// What is searched for.
pub fn goal(args: &Args) -> Goal {
    let loss = args.accuracy_loss.map(|points| points / 100.0);
    let minimise = match args.minimise {
        None | Some(MinimiseArg::Online) => Minimise::Online,
        Some(MinimiseArg::Offline) => Minimise::Offline,
        Some(MinimiseArg::Latency) => Minimise::Latency,
    };
    match (args.activation, loss, args.byte_budget) {
        (Activation::Auto, None, bytes @ Some(_)) => Goal::Cheapest { loss: None, bytes },
        (Activation::Auto, loss, bytes) => {
            Goal::Cheapest { loss: Some(loss.unwrap_or(0.01)), bytes }
        }
        (_, Some(loss), _) => Goal::Narrowest { loss, minimise },
        (_, None, _) => Goal::AsGiven,
    }
}

/// How the model is compiled.
pub fn compile_options(args: &Args) -> CompileOptions {
    let family = match args.activation {
        Activation::Phase | Activation::Auto => {
            let harmonics =
                args.harmonics.map_or(Harmonics::default(), |n| Harmonics::Fixed(n.into()));
            Family::Phase { harmonics }
        }
        Activation::Exact => Family::Select,
        Activation::Square => Family::Polynomial { degree: 2 },
        Activation::Quartic => Family::Polynomial { degree: 4 },
    };
    let mut options = CompileOptions { families: family.into(), ..CompileOptions::default() };
    if let Some(bits) = args.bucket_bits {
        options.rings.bucket_bits = bits.into();
    }
    if let Some(bits) = args.phase_bits {
        options.rings.phase_bits = bits.into();
    }
    options
}
