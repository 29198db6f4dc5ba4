//! What the options ask the compiler for. Options that contradict one another, or have nothing to do beside
//! one another, are refused.

use super::arguments::{Activation, Args, MinimiseArg};
use super::first;
use anyhow::{Result, bail};
use ir::graph::{Graph, NodeId, Op};
use polyc::CompileOptions;
use polyc::fit::{Family, Harmonics};
use polyc::report::Network;
use polyc::search::{Fastest, Goal, Minimise};

/// What a search may lose unless the user says it, a share.
const DEFAULT_LOSS: f64 = 0.01;

/// What activations are computed with: harmonics and --minimise are of phases.
fn activation(args: &Args) -> Activation {
    match args.activation {
        Activation::Auto if args.harmonics.is_some() || args.minimise.is_some() => {
            Activation::Phase
        }
        given => given,
    }
}

/// Refuses options of which one has nothing to do beside the other.
///
/// # Errors
/// One line that names both.
pub fn check(args: &Args) -> Result<()> {
    let activation = activation(args);
    let is_auto = activation == Activation::Auto;
    let is_exact = activation == Activation::Exact;
    let is_polynomial = matches!(activation, Activation::Square | Activation::Quartic);
    let is_made_up = args.calibration().is_none();
    let is_limited = args.max_loss.is_some() || args.max_escape.is_some();
    let refused = [
        (
            (is_polynomial || is_exact) && args.harmonics.is_some(),
            "--harmonics are of --activation phase",
        ),
        (
            is_polynomial && args.phase_bits.is_some(),
            "--phase-bits are of phases; --activation square and quartic fit polynomials",
        ),
        (
            (is_polynomial || is_exact) && args.accuracy_loss.is_some(),
            "--accuracy-loss chooses between families or the bits of phases; --max-loss refuses plans that lose too much",
        ),
        ((is_polynomial || is_exact) && args.minimise.is_some(), "--minimise is for phases"),
        (
            !is_auto && args.network.is_some(),
            "--network is what --activation auto chooses for; polyc report shows a plan's time on networks",
        ),
        (
            !is_auto && args.prepared,
            "--prepared is for --activation auto, which chooses families by time",
        ),
        (!is_auto && args.byte_budget.is_some(), "--byte-budget needs --activation auto"),
        (
            args.byte_budget.is_some() && (args.network.is_some() || args.prepared),
            "--byte-budget counts bytes; --network and --prepared count time",
        ),
        (
            is_made_up && args.byte_budget.is_some(),
            "--byte-budget looks for the most accurate plan: it needs --calibrate with real inputs",
        ),
        (
            is_made_up && args.minimise.is_some(),
            "--minimise measures accuracy: it needs --calibrate with real inputs",
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
    match (activation(args), loss, args.byte_budget) {
        (Activation::Auto, loss, bytes @ Some(_)) => Goal::Cheapest { loss, bytes },
        (Activation::Auto, loss, None) => Goal::Fastest(Fastest {
            network: args.network.clone().unwrap_or_else(Network::wan),
            is_prepared: args.prepared,
            loss: loss.unwrap_or(DEFAULT_LOSS),
        }),
        (Activation::Phase, loss, None) if loss.is_some() || args.minimise.is_some() => {
            Goal::Narrowest { loss: loss.unwrap_or(DEFAULT_LOSS), minimise }
        }
        (
            Activation::Exact | Activation::Phase | Activation::Square | Activation::Quartic,
            _,
            _,
        ) => Goal::AsGiven,
    }
}

/// How the model is compiled.
///
/// # Errors
/// If a node that is named is no activation.
pub fn compile_options(args: &Args, graph: &Graph) -> Result<CompileOptions> {
    let family = match activation(args) {
        // For auto it is what functions have that no rectifiers are.
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
        (options.rings.bucket_bits, options.rings.same_buckets) = (bits.into(), true);
    }
    if let Some(bits) = args.phase_bits {
        options.rings.phase_bits = bits.into();
    }
    let phase = Family::Phase { harmonics: Harmonics::default() };
    for (names, option, family) in
        [(&args.exact, "--exact", Family::Select), (&args.fit, "--fit", phase)]
    {
        for name in names {
            for id in named(graph, name, option)? {
                if options.families.own.insert(id, family).is_some_and(|other| other != family) {
                    bail!("node {name} is given to --exact and to --fit");
                }
            }
        }
    }
    Ok(options)
}

/// The activations of a node.
fn named(graph: &Graph, name: &str, option: &str) -> Result<Vec<NodeId>> {
    let is_exact =
        |id: &NodeId| matches!(graph.node(*id).op, Op::Activation(ir::op::Activation::Exact(_)));
    let all: Vec<NodeId> = graph.order().into_iter().filter(is_exact).collect();
    let found: Vec<NodeId> =
        all.iter().copied().filter(|&id| graph.node(id).name == name).collect();
    if found.is_empty() {
        let mut names: Vec<&str> = all.iter().map(|&id| graph.node(id).name.as_str()).collect();
        names.dedup();
        match names.is_empty() {
            true => bail!("{option} {name}: the model has no activations to choose for"),
            false => {
                bail!("{option} {name}: no activation has this name; there are {}", first(names))
            }
        }
    }
    Ok(found)
}
