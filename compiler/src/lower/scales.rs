//! Scales: which integer stands for which real, for every value of a network.
//!
//! The integer of a value is `real·scale`. Scales of inputs are powers of two, those of activation
//! outputs any real number, chosen from the spread of the values, or such multiples of a known
//! summand's scale. Operators with secret weights may scale their outputs by any real number, so their
//! scale is chosen by what reads them: a phase wants one turn to be `2^k`, a square wants its truncated
//! input to have enough bits. Public linear steps pass scales through, and a sum needs one scale for
//! its operands: each gets a public integer factor.
//!
//! The walk is forward. A value is *settled* when its scale is known; outputs of secret operators, and
//! sums of them, stay open until something reads them.
//!
//! Ring widths follow the rounding of the weights before a phase. It makes an error of `e/√12` units:
//! measured where the weights are rounded with compensation, otherwise `e = √K·rms` with `K` the fan-in
//! and `rms` the root mean square of the integer inputs. A phase has steps of `2^(k−p)` units; `k = p +
//! log2(e) − 1/2` keeps the first within half of the second, about as large as the noise of the phase
//! itself, and what is behind is solved for both.

use super::bits::{Allocation, LEAST_SPARE_BITS, LayerBits, RingOptions, WORD};
use crate::error::CompileError;
use crate::fit::Spread;
use ir::graph::{Graph, NodeId, Op};
use ir::op::Activation;
use std::collections::{HashMap, HashSet};

/// Bits of one deviation of the input; it is sent once.
const INPUT_BITS: f64 = 7.0;
/// Bits of one deviation of a pre-activation of a square or polynomial, before its slope counts.
const LINE_BITS: f64 = 5.0;
/// Bits of one deviation of the output, before the rounding of its weights counts.
const OUTPUT_BITS: f64 = 8.0;
/// Fewer of them than this are not worth a narrow ring.
const LEAST_OUTPUT_BITS: f64 = 4.0;
/// The most bits of a phase that nobody asked for.
const FINEST_PHASE: u32 = 12;
/// The narrowest ring of a phase.
const LEAST_RING: u32 = 12;
/// A phase's ring may be this many bits narrower than its fan-in asks for, to stay within the widest.
const TOLERATED_BITS: f64 = 2.0;
/// By how many bits a ring may be narrower than its fan-in asks for to fit in a word, in which products cost
/// least: the weights' rounding then makes at most twice the noise of a phase.
const WORD_SLACK: f64 = 0.5;
/// A shared value has at least this factor in front of a phase, so that any period is met to an eighth.
const HEADROOM: f64 = 4.0;
/// A period may be this much longer than the least one, so that it is a whole number of units.
const MAX_WASTE: f64 = 1.25;
/// How far a sum's operand may be from its exact scale.
const TOLERANCE: f64 = 1.0 / 128.0;

/// The scale of a value.
#[derive(Clone, Debug, PartialEq)]
pub enum Scale {
    /// One for all elements.
    Uniform(f64),
    /// One per channel: between a secret operator and the one phase that reads it.
    PerChannel(Vec<f64>),
}

/// What the truncation of a square's or polynomial's input needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// Scale of the truncated input `ŷ`.
    pub scale: f64,
    /// Bits dropped.
    pub t: u32,
    /// Bits of `ŷ`, its sign and a spare bit.
    pub p: u32,
}

/// Scales, factors and rings of a network.
#[derive(Clone, Debug, Default)]
pub struct Scales {
    /// The options they are made with.
    pub options: RingOptions,
    /// Activations with bits of their own.
    pub allocation: Allocation,
    /// Scale per settled value.
    pub value: HashMap<NodeId, Scale>,
    /// Public integer factors other than 1, per reader and operand position.
    pub factor: HashMap<(NodeId, usize), i64>,
    /// Ring width of the circle, per phase.
    pub circle: HashMap<NodeId, u32>,
    /// Per phase, and for the output, the error of rounding the weights before it in units of its
    /// circle, times `√12`.
    pub units: HashMap<NodeId, f64>,
    /// Truncation per square and polynomial.
    pub line: HashMap<NodeId, Line>,
    /// Measured error of rounding an operator's weights, in units of its output times `√12`, per unit
    /// of its operand's scale; without an entry, `√K·rms`.
    pub rounding: HashMap<NodeId, f64>,
    /// Bits by which a few inputs make a phase's range wider than the others do.
    pub stretch: HashMap<NodeId, u32>,
}

type Spreads = HashMap<NodeId, Spread>;

impl Scales {
    /// Nothing settled yet.
    pub fn new(options: RingOptions, allocation: Allocation) -> Self {
        Self { options, allocation, ..Self::default() }
    }

    /// Bits of one deviation of the input.
    pub fn input_bits(&self, id: NodeId) -> f64 {
        self.allocation.get(&id).map_or(INPUT_BITS, |bits| bits.value)
    }

    /// Bits of one deviation of the output, before the rounding of its weights counts; `None` where
    /// nothing was allocated.
    fn output_bits(&self, id: NodeId) -> Option<f64> {
        self.allocation.get(&id).map(|bits| bits.value)
    }

    /// The bits of an activation.
    pub fn bits(&self, id: NodeId) -> LayerBits {
        let RingOptions { phase_bits, value_bits, rounding_bits, .. } = self.options;
        let stretch = self.stretch.get(&id).copied().unwrap_or(0);
        let uniform = LayerBits {
            phase: (phase_bits + stretch).min(FINEST_PHASE.max(phase_bits)),
            value: value_bits,
            rounding: rounding_bits,
            harmonics: None,
        };
        self.allocation.get(&id).copied().unwrap_or(uniform)
    }

    /// The scale of a value, if it is settled and uniform.
    pub fn uniform(&self, id: NodeId) -> Option<f64> {
        match self.value.get(&id) {
            Some(Scale::Uniform(scale)) => Some(*scale),
            _ => None,
        }
    }

    /// Settles the operand of an operator with secret weights, before it is evaluated.
    pub fn prepare(&mut self, graph: &Graph, id: NodeId, spreads: &Spreads) {
        if is_secret(graph, id) && !matches!(graph.node(id).op, Op::Constant(_)) {
            self.settle_operands(graph, id, spreads);
        }
    }

    /// Settles what can be settled when a node's values are known; nodes come in topological order.
    ///
    /// # Errors
    /// If a value fits no ring.
    pub fn settle(
        &mut self,
        graph: &Graph,
        id: NodeId,
        spreads: &Spreads,
    ) -> Result<(), CompileError> {
        let node = graph.node(id);
        let spread = &spreads[&id];
        match &node.op {
            Op::Input => self.set(id, power_of_two(self.input_bits(id), spread.width())),
            Op::Constant(_) => {}
            Op::Activation(activation) => {
                if let Activation::Polynomial(polynomial) = activation {
                    let slope = slope(graph, id, polynomial, spreads);
                    self.line(graph, id, slope, spreads)?;
                }
                // Sums over windows average the rounding of their operands.
                let bits = self.bits(id).value - if is_summed(graph, id) { 1.0 } else { 0.0 };
                let scale = match activation {
                    // The truncation behind a square divides by a power of two.
                    Activation::Polynomial(_) => power_of_two(bits + 1.0, spread.width()),
                    Activation::Exact(_) | Activation::Trigonometric(_) => {
                        let wanted = (bits - spread.width().log2()).exp2();
                        // Beside a summand that is known, a power of two times its unit makes the sum
                        // exact.
                        let unit = self.unit_beside(graph, id);
                        unit.map_or(wanted, |u| (wanted / u).log2().round().exp2() * u)
                    }
                };
                self.set(id, scale);
            }
            _ if is_secret(graph, id) => {}
            _ => self.pass_through(graph, id),
        }
        Ok(())
    }

    /// Settles the output.
    ///
    /// # Errors
    /// If it fits no ring.
    pub fn settle_output(&mut self, graph: &Graph, spreads: &Spreads) -> Result<(), CompileError> {
        let output = graph.output();
        if self.value.contains_key(&output) {
            return Ok(());
        }
        let units = self.open_rounding_units(graph, output, spreads).max(1.0);
        self.units.insert(output, units);
        if let Some(bits) = self.output_bits(output) {
            let wanted = power_of_two(bits + units.log2(), spreads[&output].width());
            let scale = self.integer_multiple(graph, output, wanted);
            self.resolve(graph, output, scale);
            return Ok(());
        }
        let wanted = power_of_two(OUTPUT_BITS + units.log2(), spreads[&output].width());
        let largest = spreads[&output].usual.max(1e-9) * self.options.margin;
        // One sign bit, and no wider than a phase's ring: activations before the output send as many. Rare
        // inputs beyond may cost bits, not precision.
        let room = (f64::from(self.options.max_phase_ring) - 1.0).exp2() / largest;
        let pays = graph.order().iter().any(|&id| matches!(graph.node(id).op, Op::Activation(_)));
        let least = wanted / (OUTPUT_BITS - LEAST_OUTPUT_BITS).exp2();
        let scale = if pays { wanted.min(room.max(least)) } else { wanted }.log2().floor().exp2();
        let scale = self.integer_multiple(graph, output, scale);
        self.resolve(graph, output, scale);
        Ok(())
    }

    /// The period per channel (or one for all) and the ring of the circle for a phase whose period must
    /// be at least `minimum` per channel; settles the phase's operand.
    ///
    /// # Errors
    /// If no ring holds the circle.
    pub fn circle(
        &mut self,
        graph: &Graph,
        id: NodeId,
        minimum: &[f64],
        spreads: &Spreads,
    ) -> Result<Vec<f64>, CompileError> {
        let operand = graph.operands(id)[0];
        let LayerBits { phase: p, rounding, .. } = self.bits(id);
        let max_phase_ring = self.options.max_phase_ring;
        let least = match self.allocation.contains_key(&id) {
            true => p + LEAST_SPARE_BITS,
            false => p.max(LEAST_RING),
        };
        let by_fan_in = |units: f64| {
            let bits = f64::from(p) + units.log2() + rounding;
            let word = f64::from(WORD);
            let bits = if bits <= word + WORD_SLACK { bits.min(word) } else { bits };
            let wanted = bits.ceil().max(f64::from(least));
            let widest = f64::from(max_phase_ring).max(wanted - TOLERATED_BITS);
            wanted.min(widest) as u32
        };
        if graph.only_user(operand) == Some(id) && has_channel_scales(graph, operand) {
            let units = self.rounding_units(graph, operand, spreads).max(1.0);
            let k = by_fan_in(units);
            self.units.insert(id, units);
            let scales = minimum.iter().map(|period| f64::from(k).exp2() / period).collect();
            self.value.insert(operand, Scale::PerChannel(scales));
            self.circle.insert(id, k);
            return Ok(minimum.to_vec());
        }
        let period = minimum.iter().copied().fold(0.0, f64::max);
        let units = self.open_rounding_units(graph, operand, spreads).max(1.0);
        self.units.insert(id, units);
        let mut k = by_fan_in(units);
        let unit = self.unit(graph, operand);
        let shared = graph.only_user(operand) != Some(id);
        let unit = match (unit, shared && self.uniform(operand).is_none()) {
            // An open value with other readers is settled here, for all of them.
            (None, true) => Some(f64::from(k).exp2() / period / HEADROOM),
            (Some(unit), true) => {
                let multiples = (f64::from(k).exp2() / period / HEADROOM / unit).floor().max(1.0);
                Some(unit * multiples)
            }
            (unit, false) => unit,
        };
        let scale = match unit {
            None => f64::from(k).exp2() / period,
            Some(unit) => {
                while is_too_coarse(f64::from(k).exp2() / period / unit) {
                    k += 1;
                }
                (f64::from(k).exp2() / period / unit).floor() * unit
            }
        };
        if k > 40 {
            return Err(CompileError::Range(format!(
                "node {}: a shortcut enters with a unit {:.1e} of the period; no ring up to 40 bits holds both",
                graph.node(id).name,
                unit.unwrap_or(0.0) / period
            )));
        }
        if let (Some(unit), true, None) = (unit, shared, self.uniform(operand)) {
            self.resolve(graph, operand, unit);
        }
        self.connect(graph, id, 0, scale);
        self.circle.insert(id, k);
        Ok(vec![f64::from(k).exp2() / scale])
    }

    /// Settles the operand of a square or polynomial whose output changes by `slope` deviations of the
    /// output per unit of the operand.
    fn line(
        &mut self,
        graph: &Graph,
        id: NodeId,
        slope: f64,
        spreads: &Spreads,
    ) -> Result<(), CompileError> {
        let operand = graph.operands(id)[0];
        let spread = &spreads[&operand];
        let least = LINE_BITS.exp2() / spread.width();
        let mut wanted = power_of_two(self.bits(id).value + 1.0, 1.0 / slope.max(1e-12));
        while wanted < least {
            wanted *= 2.0;
        }
        let bound = spread.largest.max(1e-9) * self.options.margin;
        let units = self.open_rounding_units(graph, operand, spreads);
        let mut t = units.max(1.0).log2().ceil() as u32;
        let target = wanted * f64::from(t).exp2();
        let scale = match self.uniform(operand).or(self.unit(graph, operand)) {
            Some(unit) => {
                while unit > wanted * f64::from(t).exp2() {
                    t += 1;
                }
                (target / unit).round().max(1.0) * unit
            }
            None => target,
        };
        self.connect(graph, id, 0, scale);
        let truncated = scale / f64::from(t).exp2();
        let p = (bound * truncated).log2().ceil().max(1.0) as u32 + 2;
        if t + p > 60 {
            return Err(CompileError::Range(format!(
                "node {}: values up to {bound:.3} need a ring of {} bits, more than 60",
                graph.node(id).name,
                t + p
            )));
        }
        self.line.insert(id, Line { scale: truncated, t, p });
        Ok(())
    }

    fn set(&mut self, id: NodeId, scale: f64) {
        self.value.insert(id, Scale::Uniform(scale));
    }

    /// A public linear node is settled when all its operands are.
    fn pass_through(&mut self, graph: &Graph, id: NodeId) {
        let operands = graph.operands(id);
        let scales: Option<Vec<f64>> = operands.iter().map(|&o| self.uniform(o)).collect();
        let Some(scales) = scales else { return };
        let largest = scales.iter().copied().fold(0.0, f64::max);
        let scale = match (&graph.node(id).op, uniform_factor(graph, id)) {
            (_, Some(factor)) => largest / factor,
            (Op::Add | Op::Concat(_), None) => common_scale(&scales),
            _ => largest,
        };
        self.resolve(graph, id, scale);
    }

    /// Before a secret operator: its operand may have any scale, but must have one.
    fn settle_operands(&mut self, graph: &Graph, id: NodeId, spreads: &Spreads) {
        let operand = graph.operands(id)[0];
        if self.uniform(operand).is_none() {
            let wanted = self.precise_scale(graph, operand, spreads);
            let scale = self.integer_multiple(graph, operand, wanted);
            self.resolve(graph, operand, scale);
        }
    }

    /// A scale at which rounding the weights of the open operators behind `id` costs under a hundredth
    /// of its deviation.
    fn precise_scale(&self, graph: &Graph, id: NodeId, spreads: &Spreads) -> f64 {
        let units = self.open_rounding_units(graph, id, spreads);
        power_of_two(LINE_BITS + units.max(1.0).log2(), spreads[&id].width())
    }

    /// The next scale from `wanted` that every settled value behind the open `id` reaches by an
    /// integer.
    fn integer_multiple(&self, graph: &Graph, id: NodeId, wanted: f64) -> f64 {
        match self.unit(graph, id) {
            Some(unit) => (wanted / unit).round().max(1.0) * unit,
            None => wanted,
        }
    }

    /// The coarsest unit that the settled values behind an open value dictate: its scale must be an
    /// integer multiple. `None` if all are open.
    fn unit(&self, graph: &Graph, id: NodeId) -> Option<f64> {
        if let Some(scale) = self.uniform(id) {
            return Some(scale);
        }
        if is_secret(graph, id) {
            return None;
        }
        let factor = uniform_factor(graph, id).unwrap_or(1.0);
        let units: Vec<f64> = graph
            .operands(id)
            .into_iter()
            .filter_map(|o| self.unit(graph, o))
            .map(|u| u / factor)
            .collect();
        if units.is_empty() { None } else { Some(common_scale(&units)) }
    }

    /// The unit of the other operand, where a value only enters a sum and the other operand has one.
    fn unit_beside(&self, graph: &Graph, id: NodeId) -> Option<f64> {
        let user = graph.only_user(id).filter(|&user| matches!(graph.node(user).op, Op::Add))?;
        let other = graph.operands(user).into_iter().find(|&operand| operand != id)?;
        self.unit(graph, other)
    }

    /// Root mean square error, in units of the output times √12, of rounding the weights of a secret
    /// operator: `√K·rms` of its integer input.
    fn rounding_units(&self, graph: &Graph, id: NodeId, spreads: &Spreads) -> f64 {
        let Some(&operand) = graph.operands(id).first() else { return 1.0 };
        if let Some(measured) = self.rounding.get(&id) {
            return measured * self.uniform(operand).unwrap_or(1.0);
        }
        let fan_in = graph.fan_in(id).unwrap_or(1);
        (fan_in as f64).sqrt() * spreads[&operand].rms * self.uniform(operand).unwrap_or(1.0)
    }

    /// The largest [`Self::rounding_units`] of the open secret operators behind a value, in its own units.
    fn open_rounding_units(&self, graph: &Graph, id: NodeId, spreads: &Spreads) -> f64 {
        if self.value.contains_key(&id) {
            return 1.0;
        }
        if is_secret(graph, id) {
            return self.rounding_units(graph, id, spreads);
        }
        let operands = graph.operands(id);
        let largest = operands
            .into_iter()
            .map(|o| self.open_rounding_units(graph, o, spreads))
            .fold(1.0, f64::max);
        largest * summands(graph, id)
    }

    /// Gives an open value its scale, and the values behind it theirs. A value that is read at several
    /// scales gets one of which all are multiples.
    fn resolve(&mut self, graph: &Graph, id: NodeId, scale: f64) {
        let mut wanted: HashMap<NodeId, Vec<(NodeId, usize, f64)>> = HashMap::new();
        for node in self.open_behind(graph, id) {
            let own = match wanted.remove(&node) {
                None => scale,
                Some(uses) => {
                    let scales: Vec<f64> = uses.iter().map(|&(.., scale)| scale).collect();
                    let own = common_part(&scales);
                    for (user, position, scale) in uses {
                        self.multiply(user, position, scale / own);
                    }
                    own
                }
            };
            self.set(node, own);
            if is_secret(graph, node) {
                continue;
            }
            let scale = own * uniform_factor(graph, node).unwrap_or(1.0);
            for (position, operand) in graph.operands(node).into_iter().enumerate() {
                match self.uniform(operand) {
                    Some(settled) => self.multiply(node, position, scale / settled),
                    None => wanted.entry(operand).or_default().push((node, position, scale)),
                }
            }
        }
    }

    /// The open values behind one, itself first, readers before operands.
    fn open_behind(&self, graph: &Graph, id: NodeId) -> Vec<NodeId> {
        let mut seen = HashSet::from([id]);
        let mut order = Vec::new();
        let behind = |node| if is_secret(graph, node) { vec![] } else { graph.operands(node) };
        let mut stack = vec![(id, behind(id))];
        while let Some((node, operands)) = stack.last_mut() {
            match operands.pop() {
                Some(operand) if self.uniform(operand).is_none() => {
                    if seen.insert(operand) {
                        stack.push((operand, behind(operand)));
                    }
                }
                Some(_) => {}
                None => {
                    order.push(*node);
                    stack.pop();
                }
            }
        }
        order.reverse();
        order
    }

    /// Lets operand `position` of `user` arrive at `scale`.
    fn connect(&mut self, graph: &Graph, user: NodeId, position: usize, scale: f64) {
        let operand = graph.operands(user)[position];
        match self.uniform(operand) {
            Some(own) => self.multiply(user, position, scale / own),
            None => self.resolve(graph, operand, scale),
        }
    }

    /// Lets operand `position` of `user` arrive `factor` times finer than it is.
    fn multiply(&mut self, user: NodeId, position: usize, factor: f64) {
        let factor = factor.round().max(1.0) as i64;
        if factor != 1 {
            self.factor.insert((user, position), factor);
        }
    }
}

/// Whether an operator's outputs may have any scale: it multiplies with secret weights, or is a
/// constant of party 0.
pub(crate) fn is_secret(graph: &Graph, id: NodeId) -> bool {
    match &graph.node(id).op {
        Op::Convolution { .. } | Op::MatrixProduct { .. } | Op::Constant(_) => true,
        Op::Affine { .. } => uniform_factor(graph, id).is_none(),
        _ => false,
    }
}

/// The magnitude of the factor of an affine map that is one number for all elements but zero, or of an
/// average: it costs nothing, the integers stay, up to their sign, and their scale changes.
pub(crate) fn uniform_factor(graph: &Graph, id: NodeId) -> Option<f64> {
    match &graph.node(id).op {
        Op::Affine { scale, .. } if scale.data.len() == 1 && scale.data[0] != 0.0 => {
            Some(f64::from(scale.data[0].abs()))
        }
        Op::AverageWindows { kernel, .. } => Some(1.0 / (kernel[0] * kernel[1]) as f64),
        _ => None,
    }
}

/// How many elements of its operand a value is the sum of. One weight's error is in all of them, so their
/// errors add up.
fn summands(graph: &Graph, id: NodeId) -> f64 {
    let window = |kernel: &[usize; 2]| (kernel[0] * kernel[1]) as f64;
    match &graph.node(id).op {
        Op::AverageWindows { kernel, .. } | Op::SumWindows { kernel, .. } => window(kernel),
        Op::SumAxes(axes) => {
            let shape = &graph.node(graph.operands(id)[0]).shape;
            axes.iter().map(|&axis| shape.0[axis] as f64).product()
        }
        _ => 1.0,
    }
}

/// Whether all that is done with a value is summing over windows of it, padded perhaps.
fn is_summed(graph: &Graph, id: NodeId) -> bool {
    let uses = graph.uses(id);
    !uses.is_empty()
        && uses.iter().all(|&(user, _)| match graph.node(user).op {
            Op::AverageWindows { .. }
            | Op::MaxWindows { .. }
            | Op::SumWindows { .. }
            | Op::SumAxes(_) => true,
            Op::Take { .. } => is_summed(graph, user),
            _ => false,
        })
}

/// Whether an operator can scale every channel of its output by itself.
pub(crate) fn has_channel_scales(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match &node.op {
        Op::Convolution { .. } => true,
        Op::MatrixProduct { .. } => node.shape.rank() == 2,
        _ => false,
    }
}

/// Whether `units` of a settled value per turn, rounded down to a whole number, waste too much of it.
fn is_too_coarse(units: f64) -> bool {
    units < 1.0 || units / units.floor() > MAX_WASTE
}

/// The power of two that gives `width` at least `bits` bits.
fn power_of_two(bits: f64, width: f64) -> f64 {
    (bits - width.log2()).round().exp2()
}

/// The smallest scale that all of `scales` reach by integer factors up to 256, within the tolerance;
/// the largest one where there is none.
fn common_scale(scales: &[f64]) -> f64 {
    let largest = scales.iter().copied().fold(0.0, f64::max);
    let misfit = |scale: f64| {
        let off = |s: &f64| ((scale / s).round().max(1.0) * s / scale - 1.0).abs();
        scales.iter().map(off).fold(0.0, f64::max)
    };
    let candidates = (1..=64).map(|n| largest * f64::from(n));
    candidates
        .clone()
        .find(|&s| misfit(s) < 1e-9)
        .or_else(|| candidates.clone().find(|&s| misfit(s) < TOLERANCE))
        .unwrap_or(largest)
}

/// The largest scale of which all of `scales` are integer multiples up to 64 of the smallest's, within the
/// tolerance; the smallest one where there is none.
fn common_part(scales: &[f64]) -> f64 {
    let smallest = scales.iter().copied().fold(f64::INFINITY, f64::min);
    let misfit = |part: f64| {
        let off = |s: &f64| ((s / part).round() * part / s - 1.0).abs();
        scales.iter().map(off).fold(0.0, f64::max)
    };
    let candidates = (1..=64).map(|n| smallest / f64::from(n));
    candidates
        .clone()
        .find(|&s| misfit(s) < 1e-9)
        .or_else(|| candidates.clone().find(|&s| misfit(s) < TOLERANCE))
        .unwrap_or(smallest)
}

/// How many deviations of its output a polynomial moves per unit of its operand, in root mean square.
fn slope(graph: &Graph, id: NodeId, polynomial: &ir::op::Polynomial, spreads: &Spreads) -> f64 {
    let x = &spreads[&graph.operands(id)[0]];
    let points: Vec<f64> = (-8..=8).map(|i| x.mean + x.deviation * f64::from(i) / 4.0).collect();
    let rows = &polynomial.coefficients;
    let squares: f64 = rows
        .iter()
        .map(|row| {
            let derivative = |x: f64| {
                row.iter()
                    .enumerate()
                    .skip(1)
                    .map(|(n, c)| n as f64 * c * x.powi(n as i32 - 1))
                    .sum::<f64>()
            };
            points.iter().map(|&x| derivative(x).powi(2)).sum::<f64>() / points.len() as f64
        })
        .sum::<f64>()
        / rows.len() as f64;
    squares.sqrt() / spreads[&id].width()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn common_scales_are_integer_multiples() {
        assert_eq!(common_scale(&[64.0, 16.0]), 64.0);
        assert_eq!(common_scale(&[64.0, 48.0]), 192.0);
        assert_eq!(common_scale(&[100.0]), 100.0);
    }

    #[test]
    fn common_parts_divide_every_scale() {
        assert_eq!(common_part(&[64.0, 16.0]), 16.0);
        assert_eq!(common_part(&[64.0, 48.0]), 16.0);
        assert_eq!(common_part(&[100.0]), 100.0);
    }

    #[test]
    fn turns_of_whole_units_waste_little() {
        for fine in [1.0, 1.25, 2.4, 3.7, 4.99, 100.5] {
            assert!(!is_too_coarse(fine), "{fine}");
        }
        for coarse in [0.3, 0.99, 1.3, 1.99, 2.6] {
            assert!(is_too_coarse(coarse), "{coarse}");
        }
    }
}
