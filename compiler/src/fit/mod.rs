//! Fitting activations: teacher and student run in lock step over the calibration inputs, node by node
//! in topological order, and every activation of the student is fitted when its operand is known.
//!
//! The teacher is the network as imported, the student the one whose activations are replaced. A fit
//! maps the student's pre-activation to the *teacher's* activation, so that later layers repair what
//! earlier ones got wrong. Scales and ring widths are settled on the way, since the period of a
//! fit that a shortcut enters must be an integer multiple of the shortcut's unit
//! ([`crate::scales`]). Linear operators behind a fit are re-solved for the operands that they
//! really have (`resolve.rs`), and their weights are rounded to integers as soon as their scales are
//! settled (`rounding.rs`). The student computes what the plan will compute, carries included
//! (`simulate.rs`), so that everything downstream is solved for the errors of rounding too.

mod bounds;
pub mod calibration;
mod least_squares;
mod lock_step;
mod memory;
mod regression;
mod resolve;
mod rounding;
mod samples;
pub(crate) mod simulate;

pub use calibration::{Calibration, evenly, name_rows};
pub use least_squares::Harmonics;
pub use memory::Needs;

use crate::error::CompileError;
use crate::scales::{Scales, Spread};
use ir::Tensor;
use ir::graph::{Graph, NodeId};
use ir::op::Activation;
use lock_step::LockStep;
use std::collections::HashMap;
use std::sync::Arc;

/// What activations are fitted with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Family {
    /// Trigonometric polynomials with this many harmonics.
    Phase {
        /// Number of harmonics.
        harmonics: Harmonics,
    },
    /// Polynomials of this degree.
    Polynomial {
        /// Degree.
        degree: usize,
    },
    /// Rectifiers as they are; what has no straight pieces by a public table, if its function is public.
    Select,
    /// A public table of the function.
    Table,
}

/// What every activation is computed with.
#[derive(Clone, Debug)]
pub struct Families {
    /// Those that have no choice of their own.
    pub usual: Family,
    /// Choices for some.
    pub own: HashMap<NodeId, Family>,
}

impl From<Family> for Families {
    fn from(usual: Family) -> Self {
        Self { usual, own: HashMap::new() }
    }
}

impl Families {
    /// What an activation is computed with.
    pub fn of(&self, id: NodeId) -> Family {
        self.own.get(&id).copied().unwrap_or(self.usual)
    }

    /// Whether some are fitted with polynomials.
    pub fn has_polynomials(&self) -> bool {
        let all = self.own.values().chain([&self.usual]);
        all.into_iter().any(|family| matches!(family, Family::Polynomial { .. }))
    }
}

/// A fitted network with everything that the lowering needs to know about it.
pub struct Fitted {
    /// The network with fitted activations.
    pub graph: Graph,
    /// The same with rounded weights: integers in the units of the scales.
    pub rounded: Graph,
    /// Scales, factors and rings of its values.
    pub scales: Scales,
    /// What the values of every node look like on the calibration inputs.
    pub spreads: HashMap<NodeId, Spread>,
    /// Fitted layers in order.
    pub layers: Vec<FittedLayer>,
    /// Rows of the calibration inputs whose values explode at some node and leave the planned bounds.
    pub outliers: Vec<usize>,
    /// Layers whose range a few inputs make many times wider.
    pub stretched: Vec<Stretched>,
}

/// A fitted layer whose range a few calibration inputs make many times wider than the others do: a fit
/// that covers them is coarse for the others.
pub struct Stretched {
    /// Its node's name.
    pub name: String,
    /// How many times wider.
    pub factor: f64,
    /// Rows of these inputs.
    pub rows: Vec<usize>,
}

/// An activation that a fit replaced.
pub struct FittedLayer {
    /// The activation.
    pub node: NodeId,
    /// The function in the model.
    pub exact: Activation,
    /// Smallest and largest pre-activation on the calibration inputs.
    pub interval: (f64, f64),
    /// Per channel, the middle of its pre-activations.
    pub middle: Vec<f64>,
    /// Root mean square of (fit − teacher) over that of the teacher's deviations from its mean.
    pub relative_error: f64,
    /// Of a phase whose harmonics were chosen: the squared held-out error of 1, 2, … of them over the
    /// variance of the function's values. Empty otherwise.
    pub errors: Vec<f64>,
}

/// Runs the network over the calibration inputs and returns what every node's values look like.
pub fn measure(
    graph: &Graph,
    calibration: &Calibration,
) -> Result<HashMap<NodeId, Spread>, CompileError> {
    let run = LockStep::run(graph, calibration, None, None, &mut |_| ())?;
    Ok(run.spreads)
}

/// Fits every activation that is not a polynomial already. With `scales`, settles scales and rings too.
///
/// # Errors
/// If a value is not finite on the calibration inputs, or fits no ring.
pub fn fit(
    graph: &Graph,
    calibration: &Calibration,
    families: &Families,
    scales: Option<Scales>,
    progress: &mut dyn FnMut(f64),
) -> Result<Fitted, CompileError> {
    let run = LockStep::run(graph, calibration, Some(families), scales, progress)?;
    let stretched = run.stretched();
    Ok(Fitted {
        graph: run.student,
        rounded: run.rounded,
        scales: run.scales.unwrap_or_default(),
        spreads: run.spreads,
        layers: run.layers,
        outliers: run.outliers.iter().map(|&i| calibration.rows[i]).collect(),
        stretched,
    })
}

/// One value per calibration input.
type Values = Arc<Vec<Tensor<f32>>>;
