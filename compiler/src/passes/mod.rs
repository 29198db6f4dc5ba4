//! The passes over graphs, in the one order in which they run. Each is verified by its result: the
//! graph's rules are checked after every pass.
//!
//! An activation keeps the id of the node that has its values in the network as imported, up to rounding and the
//! scales and shifts that a pass returns: so whoever compares both networks need not look for it. Nodes that a pass
//! adds have new ids.

mod balance_channels;
mod complete_square;
mod elementwise_values;
mod equalise_channels;
mod expand_max_pool;
mod fold_constants;
mod fold_normalization;
mod merge_linear;
mod open_clips;
mod recognise_activations;
mod refuse_leftovers;
mod split_client;
mod split_rectifiers;
#[cfg(test)]
mod testing;

pub use balance_channels::balance_channels;
pub use complete_square::complete_square;
pub use equalise_channels::equalise_channels;
pub use open_clips::open_clips;
pub use split_client::{Scores, split_client};
pub use split_rectifiers::{rectifiers, split_rectifiers};

use crate::error::CompileError;
use ir::graph::Graph;

/// What to do with maximum pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MaxPool {
    /// Compute it exactly, as a tree of comparisons.
    #[default]
    Exact,
    /// Average over the window instead.
    Average,
    /// Compute it as a tree of fitted absolute values.
    Fit,
}

/// Options of the passes.
#[derive(Clone, Copy, Debug, Default)]
pub struct PassOptions {
    /// What to do with maximum pooling.
    pub max_pool: MaxPool,
}

type Pass = fn(&mut Graph, &PassOptions) -> Result<(), CompileError>;

/// The passes before the fit, and why each stands where it stands.
const PASSES: &[(&str, Pass)] = &[
    // First, so that nobody after it meets a value that the input does not change.
    ("fold constants", fold_constants::run),
    // Before activations are recognised: a normalisation behind a convolution is the convolution's,
    // and its statistics with it.
    ("fold normalisation into producers", fold_normalization::into_producers),
    // Everything elementwise that is left and depends on one value is one activation.
    ("recognise activations", recognise_activations::run),
    // Affine maps that no activation took.
    ("fold normalisation into consumers", fold_normalization::into_consumers),
    // After folding: only now are neighbours neighbours.
    ("merge linear neighbours", merge_linear::run),
    // After activations are recognised, which it moves; after folding, which would pull its halves and
    // differences apart.
    ("expand max pool", expand_max_pool::run),
    // Last: what no pass took cannot be computed.
    ("refuse leftovers", refuse_leftovers::run),
];

/// Is told the name of every pass and the graph after it.
pub type Observer<'a> = &'a mut dyn FnMut(&str, &Graph);

/// Runs all passes before the fit.
///
/// # Errors
/// If a node cannot be computed (every such node is named), or if a pass broke a rule of graphs.
pub fn run_all(graph: &mut Graph, options: &PassOptions) -> Result<(), CompileError> {
    run_observed(graph, options, &mut |_, _| ())
}

/// As [`run_all`]; `observer` sees the graph after every pass.
///
/// # Errors
/// As [`run_all`].
pub fn run_observed(
    graph: &mut Graph,
    options: &PassOptions,
    observer: Observer<'_>,
) -> Result<(), CompileError> {
    for (name, pass) in PASSES {
        pass(graph, options)?;
        graph.remove_dead();
        graph
            .verify()
            .map_err(|error| CompileError::Internal { stage: name, reason: error.to_string() })?;
        observer(name, graph);
    }
    Ok(())
}
