//! The pipeline: an imported model prepared, fitted, given scales and lowered.

use crate::constants::combine;
use crate::error::CompileError;
use crate::fit::{Calibration, Families, Family, Fitted, FittedLayer, Harmonics, Stretched};
use crate::lower::phases::PhaseLayer;
use crate::onnx::Imported;
use crate::passes::{Observer, PassOptions};
use crate::scales::Scales;
use crate::scales::bits::{Allocation, RingOptions};
use crate::{choice, fit, lower, passes, ports};
use ir::graph::{Graph, NodeId, Op};
use ir::input::Preprocessing;
use ir::op::Activation;
use ir::plan::{
    Digest, InputPort, LayerFit, OutputPort, Plan, Reference, ReferenceLayer, ValueId, Weights,
};
use ir::{Shape, Tensor};
use std::collections::HashMap;

/// How a model is compiled.
#[derive(Clone, Debug)]
pub struct CompileOptions {
    /// Options of the passes.
    pub passes: PassOptions,
    /// What activations are computed with.
    pub families: Families,
    /// Bits and margins.
    pub rings: RingOptions,
    /// Activations with bits of their own.
    pub allocation: Allocation,
}

impl Default for CompileOptions {
    fn default() -> Self {
        let family = Family::Phase { harmonics: Harmonics::default() };
        Self {
            passes: PassOptions::default(),
            families: family.into(),
            rings: RingOptions::default(),
            allocation: Allocation::new(),
        }
    }
}

/// A compiled model: what is public and what stays home.
pub struct Compiled {
    /// The public plan.
    pub plan: Plan,
    /// Its identity.
    pub digest: Digest,
    /// Party 0's secrets.
    pub weights: Weights,
    /// The graphs behind them.
    pub reference: Reference,
    /// Per fitted layer: its node's name and the relative error of its values.
    pub fits: Vec<(String, f64)>,
    /// Rows of the calibration inputs whose values explode and leave the planned bounds.
    pub outliers: Vec<usize>,
    /// Layers whose range a few inputs make many times wider.
    pub stretched: Vec<Stretched>,
    /// Its phases, as the search sees them.
    pub phases: Vec<PhaseLayer>,
}

/// A graph ready to be fitted, and what its input and output consist of.
#[derive(Clone)]
pub struct Prepared {
    /// The network as imported, without the client's steps.
    pub original: Graph,
    /// The network after the passes.
    pub graph: Graph,
    /// Its inputs.
    pub inputs: Vec<InputPort>,
    /// Its outputs.
    pub outputs: Vec<OutputPort>,
}

/// Takes the client's steps off and runs the passes. `sample` are inputs of the graph; where it has several
/// outputs, their sizes are measured on some of them.
///
/// # Errors
/// If nodes cannot be computed: all of them, by name.
pub fn prepare(
    imported: Imported,
    inputs: Vec<InputPort>,
    sample: &[Tensor<f32>],
    options: &PassOptions,
) -> Result<Prepared, CompileError> {
    prepare_observed(imported, inputs, sample, options, &mut |_, _| ())
}

/// As [`prepare`]; `observer` sees the graph after every pass.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_observed(
    imported: Imported,
    inputs: Vec<InputPort>,
    sample: &[Tensor<f32>],
    options: &PassOptions,
    observer: Observer<'_>,
) -> Result<Prepared, CompileError> {
    let Imported { mut graph, outputs: declared, .. } = imported;
    let shapes: Vec<Shape> = declared.iter().map(|output| output.shape.clone()).collect();
    let scores = passes::split_client(&mut graph, &shapes);
    let outputs = ports::outputs(&mut graph, &declared, scores, (&inputs, sample));
    observer("split client", &graph);
    let original = graph.clone();
    passes::run_observed(&mut graph, options, observer)?;
    Ok(Prepared { original, graph, inputs, outputs })
}

/// As [`prepare`], where inputs are what files hold and nothing is known of their values.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_plain(imported: Imported, options: &PassOptions) -> Result<Prepared, CompileError> {
    let preprocessing = vec![Preprocessing::default(); imported.inputs.len()];
    let inputs = ports::inputs(&imported.inputs, &preprocessing);
    prepare(imported, inputs, &[], options)
}

impl Prepared {
    /// Leaves out the bounds of clips that no calibration input reaches; the names of these clips. Made-up
    /// inputs reach nothing that means something, so they leave all as it is.
    ///
    /// # Errors
    /// Those of the passes, which run again.
    pub fn open_clips(
        &mut self,
        calibration: &Calibration,
        options: &PassOptions,
    ) -> Result<Vec<String>, CompileError> {
        if calibration.is_synthetic {
            return Ok(Vec::new());
        }
        let mut graph = self.original.clone();
        let names = passes::open_clips(&mut graph, &calibration.inputs);
        if !names.is_empty() {
            passes::run_all(&mut graph, options)?;
            self.graph = graph;
        }
        Ok(names)
    }
}

/// Fits, scales and lowers a prepared network. `progress` is told the share of the work that is done.
///
/// # Errors
/// If calibration inputs do not fit the model, or a value fits no ring.
pub fn compile(
    name: &str,
    prepared: &Prepared,
    calibration: &Calibration,
    options: &CompileOptions,
    progress: &mut dyn FnMut(f64),
) -> Result<Compiled, CompileError> {
    let Prepared { original, mut graph, inputs, outputs } = prepared.clone();
    let families = &choice::settle(&mut graph, &options.families);
    let scales_of = adapt(&mut graph, calibration, families, &mut |_, _| ());
    let mut layers = Vec::new();
    let has_polynomials = families.has_polynomials();
    if has_polynomials {
        let first = fit::fit(&graph, calibration, families, None, &mut |p| progress(p / 2.0))?;
        layers = first.layers;
        graph = first.graph;
    }
    let fitted_graph = graph.clone();
    let moved = complete_squares(&mut graph, calibration)?;
    let scales = Some(Scales::new(options.rings, options.allocation.clone()));
    let fitted: Fitted = fit::fit(&graph, calibration, families, scales, progress)?;
    let lowered = lower::lower(name, &fitted, inputs, outputs)?;
    let phases = PhaseLayer::of(&fitted, &lowered);
    let (_, digest) = lowered.plan.to_bytes();
    let mut salt = [0; 32];
    getrandom::fill(&mut salt).map_err(CompileError::Randomness)?;
    let weights = Weights { plan: digest, salt, steps: lowered.secrets };
    // Fitted polynomials are shown as they were fitted, not as the squares that they became.
    let (reference_graph, moved) =
        if has_polynomials { (fitted_graph, HashMap::new()) } else { (fitted.graph, moved) };
    let outliers = fitted.outliers;
    let stretched = fitted.stretched;
    layers.extend(fitted.layers);
    let fits = layers
        .iter()
        .map(|l| (reference_graph.node(l.node).name.clone(), l.relative_error))
        .collect();
    let layers = reference_layers(&original, &reference_graph, &layers, &scales_of, &moved);
    let in_reference = |(node, _): &(NodeId, ValueId)| reference_graph.contains(*node);
    let reference = Reference {
        values: lowered.values.into_iter().filter(in_reference).collect(),
        original,
        fitted: reference_graph,
        layers,
        calibration: calibration.description.clone(),
        source: None,
    };
    Ok(Compiled {
        plan: lowered.plan,
        digest,
        weights,
        reference,
        fits,
        outliers,
        stretched,
        phases,
    })
}

/// The activations of the fitted network, and which nodes of the network as imported they are.
fn reference_layers(
    original: &Graph,
    fitted: &Graph,
    layers: &[FittedLayer],
    scales: &HashMap<NodeId, Tensor<f32>>,
    moved: &HashMap<NodeId, Moved>,
) -> Vec<ReferenceLayer> {
    let fit = |id: NodeId| {
        let layer = layers.iter().find(|layer| layer.node == id)?;
        let (interval, middle, exact) = (layer.interval, &layer.middle, &layer.exact);
        Some(LayerFit { interval, middle: middle.clone(), exact: exact.clone() })
    };
    let layer = |node: NodeId| {
        let (mut scale, mut shift) = (Tensor::scalar(1.0), Tensor::scalar(0.0));
        if let Some(factors) = scales.get(&node) {
            scale = factors.clone();
        }
        if let Some((factors, summands)) = moved.get(&node) {
            scale = combine(&scale, factors, |a, b| a * b);
            shift = summands.clone();
        }
        let original = original.contains(node).then_some(node);
        ReferenceLayer { node, original, scale, shift, fit: fit(node) }
    };
    let is_activation = |id: &NodeId| matches!(fitted.node(*id).op, Op::Activation(_));
    fitted.order().into_iter().filter(is_activation).map(layer).collect()
}

/// The passes between [`prepare`] and the fit, which look at calibration inputs. Returns what they
/// multiplied the values of activations by.
pub fn adapt(
    graph: &mut Graph,
    calibration: &Calibration,
    families: &Families,
    observer: Observer<'_>,
) -> HashMap<NodeId, Tensor<f32>> {
    // Made-up inputs say nothing about the channels' ranges.
    if calibration.is_synthetic {
        return HashMap::new();
    }
    // Polynomials are fitted per channel anyway.
    let mut scales = HashMap::new();
    if !families.has_polynomials() {
        let is_public = |id| families.of(id) == Family::Table;
        scales = passes::equalise_channels(graph, &calibration.inputs, is_public);
        observer("equalise channels", graph);
    }
    for (id, balanced) in passes::balance_channels(graph, &calibration.inputs) {
        let scale = scales.entry(id).or_insert_with(|| Tensor::scalar(1.0));
        *scale = combine(scale, &balanced, |a, b| a * b);
    }
    observer("balance channels", graph);
    scales
}

/// Factors of an activation's values, and what is added then.
type Moved = (Tensor<f32>, Tensor<f32>);

/// Brings quadratics to the form of one square, by the sizes of values on calibration inputs. Returns what
/// became of the values of activations, where sign and constant went to the operators behind.
///
/// # Errors
/// If a value is not finite on the calibration inputs.
pub fn complete_squares(
    graph: &mut Graph,
    calibration: &Calibration,
) -> Result<HashMap<NodeId, Moved>, CompileError> {
    if !has_quadratics(graph) {
        return Ok(HashMap::new());
    }
    let spreads = fit::measure(graph, calibration)?;
    Ok(passes::complete_square(graph, |id| spreads[&id].rms))
}

fn has_quadratics(graph: &Graph) -> bool {
    graph.order().iter().any(|&id| {
        matches!(&graph.node(id).op, Op::Activation(Activation::Polynomial(p)) if p.degree() == 2)
    })
}
