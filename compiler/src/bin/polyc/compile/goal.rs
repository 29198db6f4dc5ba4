//! What the options ask the compiler for.

use super::arguments::{Activation, Args, MinimiseArg};
use anyhow::{Result, bail};
use polyc::CompileOptions;
use polyc::fit::{Family, Harmonics};
use polyc::search::{Goal, Minimise};

/// What is searched for; refuses options that contradict one another.
pub fn goal(args: &Args) -> Result<Goal> {
    let is_synthetic = args.calibration().is_none();
    let is_auto = matches!(args.activation, Activation::Auto);
    if args.byte_budget.is_some() && !is_auto {
        bail!("--byte-budget needs --activation auto");
    }
    if matches!(args.activation, Activation::Square | Activation::Quartic) {
        if args.accuracy_loss.is_some() {
            bail!(
                "--accuracy-loss searches the bits of phases; --max-loss refuses plans that lose too much"
            );
        }
        return Ok(Goal::AsGiven);
    }
    if is_auto && !matches!(args.minimise, MinimiseArg::Online) {
        bail!("--minimise is for phases; auto looks for the fewest harmonics");
    }
    if is_synthetic && is_auto {
        bail!("--activation auto measures accuracy: it needs --calibrate with real inputs");
    }
    if is_synthetic && args.accuracy_loss.is_some() {
        bail!("--accuracy-loss measures accuracy: it needs --calibrate with real inputs");
    }
    let loss = args.accuracy_loss.map(|points| points / 100.0);
    let minimise = match args.minimise {
        MinimiseArg::Online => Minimise::Online,
        MinimiseArg::Offline => Minimise::Offline,
        MinimiseArg::Latency => Minimise::Latency,
    };
    Ok(match (is_auto, loss, args.byte_budget) {
        (true, None, bytes @ Some(_)) => Goal::Cheapest { loss: None, bytes },
        (true, loss, bytes) => Goal::Cheapest { loss: Some(loss.unwrap_or(0.01)), bytes },
        (false, Some(loss), _) => Goal::Narrowest { loss, minimise },
        (false, None, _) => Goal::AsGiven,
    })
}

/// How the model is compiled.
pub fn compile_options(args: &Args) -> CompileOptions {
    let family = match args.activation {
        Activation::Phase | Activation::Auto => {
            let harmonics =
                args.harmonics.map_or(Harmonics::default(), |n| Harmonics::Fixed(n.into()));
            Family::Phase { harmonics }
        }
        Activation::Square => Family::Polynomial { degree: 2 },
        Activation::Quartic => Family::Polynomial { degree: 4 },
    };
    let mut options = CompileOptions { family, ..CompileOptions::default() };
    options.rings.phase_bits = args.phase_bits.into();
    options
}
