//! What `polyc compile` writes and prints.

use super::arguments::Args;
use super::data::Inputs;
use crate::files;
use anyhow::{Result, bail};
use polyc::Compiled;
use polyc::evaluate::Evaluation;
use polyc::oracle::Agreement;
use polyc::report::{round_trips, steps};
use polyc::text::thousands;
use std::path::{Path, PathBuf};

/// Checks that the files can be written, before hours of work go into them; where the weights go.
pub fn check(args: &Args) -> Result<PathBuf> {
    let is_input = |file: &Path| {
        file.canonicalize().is_ok_and(|f| args.output.canonicalize().is_ok_and(|o| o == f))
    };
    let of_calibration = |argument: &String| {
        is_input(Path::new(argument))
            || argument.split_once('=').is_some_and(|(_, path)| is_input(Path::new(path)))
    };
    if is_input(&args.model) || args.calibrate.iter().any(of_calibration) {
        bail!("{} is an input; give the plan another name", args.output.display());
    }
    let weights = files::weights_path(&args.output);
    if weights == args.output {
        bail!("the plan cannot have the extension .weights");
    }
    if let Some(folder) = [&args.output, &weights].into_iter().find(|f| f.is_dir()) {
        bail!("cannot write {}: is a directory", folder.display());
    }
    files::check_output(&args.output)?;
    Ok(weights)
}

/// Writes the plan and the weights, both or none.
pub fn write(args: &Args, weights: &Path, compiled: &Compiled) -> Result<()> {
    let secret = compiled.weights.to_bytes(Some(&compiled.reference));
    let plan = compiled.plan.to_bytes().0;
    files::write(&[
        files::Output { path: weights, bytes: &secret, is_secret: true },
        files::Output { path: &args.output, bytes: &plan, is_secret: false },
    ])
}

/// Says what was compiled, and what it is worth.
pub fn print(
    args: &Args,
    weights: &Path,
    compiled: &Compiled,
    evaluation: Evaluation,
    inputs: &Inputs,
) -> Result<()> {
    let (to0, to1, messages) = compiled.plan.traffic(1);
    let calibration = &compiled.reference.calibration;
    let is_made_up = inputs.calibration.is_synthetic;
    let evaluation = if is_made_up { evaluation.without_promises() } else { evaluation };
    if args.json {
        let summary = serde_json::json!({
            "plan": args.output, "weights": weights, "digest": compiled.digest.to_string(),
            "calibration": calibration, "held_out": inputs.are_held_out, "messages": messages,
            "bytes_to_party0": to0, "bytes_to_party1": to1,
            "round_trips": round_trips(&compiled.plan), "activations": compiled.plan.interactive_elements(),
            "steps": steps(&compiled.plan, 1), "evaluation": evaluation.to_json()?,
            "import": oracle(&inputs.agreement),
        });
        say!("{}", serde_json::to_string_pretty(&summary)?);
        return Ok(());
    }
    if args.print_plan {
        say!("{}", compiled.plan);
    }
    let of_whom = if inputs.float.is_some() { "tract's" } else { "the import's" };
    say!("{}", inputs.agreement);
    if is_made_up {
        say!("fitted on {calibration}");
        say!("{}", evaluation.to_text_without_promises());
    } else {
        let on = if inputs.are_held_out { "held out" } else { "nothing held out: the same inputs" };
        say!("fitted on {calibration}; {on}; float is {of_whom}:");
        say!("{}", evaluation.to_text());
    }
    say!(
        "{} (public) and {} (secret, stays home): {} steps, {messages} messages, {} bytes online",
        args.output.display(),
        weights.display(),
        compiled.plan.steps.len(),
        thousands(to0 + to1)
    );
    Ok(())
}

/// What an oracle says of the import.
fn oracle(agreement: &Agreement) -> serde_json::Value {
    match agreement {
        Agreement::Checked { by, inputs, difference } => {
            serde_json::json!({"checked_by": by, "inputs": inputs, "difference": difference})
        }
        Agreement::Unchecked { why } => serde_json::json!({"checked_by": null, "why": why}),
    }
}
