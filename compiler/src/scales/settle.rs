//! Settling values in the order in which they are visited.

use super::bits::{LEAST_SPARE_BITS, WORD};
use super::multiples::{common_scale, is_too_coarse, power_of_two};
use super::operators::{has_channel_scales, is_secret, is_summed, uniform_factor};
use super::{LINE_BITS, Line, Scale, Scales, Spreads};
use crate::error::CompileError;
use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Polynomial};

/// Bits of one deviation of the output, before the rounding of its weights counts.
const OUTPUT_BITS: f64 = 8.0;
/// Fewer of them than this are not worth a narrow ring.
const LEAST_OUTPUT_BITS: f64 = 4.0;
/// The narrowest ring of a phase.
const LEAST_RING: u32 = 12;
/// A phase's ring may be this many bits narrower than its fan-in asks for, to stay within the widest.
const TOLERATED_BITS: f64 = 2.0;
/// By how many bits a ring may be narrower than its fan-in asks for to fit in a word, in which products cost
/// least: the weights' rounding then makes at most twice the noise of a phase.
pub(super) const WORD_SLACK: f64 = 0.5;
/// A shared value has at least this factor in front of a phase, so that any period is met to an eighth.
const HEADROOM: f64 = 4.0;

impl Scales {
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
                    Activation::Exact(_) if self.select.contains_key(&id) => {
                        let operand = graph.operands(id)[0];
                        let (scale, factor) = (self.uniform(operand), self.factor.get(&(id, 0)));
                        let scale = scale.unwrap_or(1.0) * factor.map_or(1.0, |&f| f as f64);
                        scale / f64::from(self.select[&id].t).exp2()
                    }
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
        let p = self.bits(id).phase;
        if graph.only_user(operand) == Some(id) && has_channel_scales(graph, operand) {
            let units = self.rounding_units(graph, operand, spreads).max(1.0);
            let k = self.turn_bits(id, p, units);
            self.units.insert(id, units);
            let scales = minimum.iter().map(|period| f64::from(k).exp2() / period).collect();
            self.value.insert(operand, Scale::PerChannel(scales));
            self.circle.insert(id, k);
            return Ok(minimum.to_vec());
        }
        let period = minimum.iter().copied().fold(0.0, f64::max);
        let units = self.open_rounding_units(graph, operand, spreads).max(1.0);
        self.units.insert(id, units);
        let k = self.turn_bits(id, p, units);
        let (k, scale) = self.meet(graph, id, (period, None), k)?;
        self.circle.insert(id, k);
        Ok(vec![f64::from(k).exp2() / scale])
    }

    /// Bits of a turn of which an opening has `p`, behind weights whose rounding makes an error of `units/√12`.
    pub(super) fn turn_bits(&self, id: NodeId, p: u32, units: f64) -> u32 {
        let least = match self.allocation.contains_key(&id) {
            true => p + LEAST_SPARE_BITS,
            false => p.max(LEAST_RING),
        };
        let bits = f64::from(p) + units.log2() + self.bits(id).rounding;
        let word = f64::from(WORD);
        let bits = if bits <= word + WORD_SLACK { bits.min(word) } else { bits };
        let wanted = bits.ceil().max(f64::from(least));
        let widest = f64::from(self.options.max_phase_ring).max(wanted - TOLERATED_BITS);
        wanted.min(widest) as u32
    }

    /// Lets the operand of a phase, rectifier or table arrive at one scale for all channels, of which `period` takes at
    /// most `2^k` units: the ring, wider where a settled summand asks for it, and the scale. Where nothing behind it
    /// says otherwise, it is a power of two times `beside`.
    ///
    /// # Errors
    /// If no ring holds both.
    pub(super) fn meet(
        &mut self,
        graph: &Graph,
        id: NodeId,
        (period, beside): (f64, Option<f64>),
        mut k: u32,
    ) -> Result<(u32, f64), CompileError> {
        let operand = graph.operands(id)[0];
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
            None => {
                let widest = f64::from(k).exp2() / period;
                beside.map_or(widest, |unit| (widest / unit).log2().floor().exp2() * unit)
            }
            Some(unit) => {
                while is_too_coarse(f64::from(k).exp2() / period / unit) {
                    k += 1;
                }
                (f64::from(k).exp2() / period / unit).floor() * unit
            }
        };
        if k > 40 {
            let name = &graph.node(id).name;
            return Err(CompileError::Range(match unit {
                Some(unit) => format!(
                    "node {name}: a shortcut enters with a unit {:.1e} of the period; no ring up to 40 bits holds both",
                    unit / period
                ),
                None => format!("node {name}: its operand needs a ring of {k} bits, more than 40"),
            }));
        }
        if let (Some(unit), true, None) = (unit, shared, self.uniform(operand)) {
            self.resolve(graph, operand, unit);
        }
        self.connect(graph, id, 0, scale);
        Ok((k, scale))
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

    pub(super) fn set(&mut self, id: NodeId, scale: f64) {
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
}

/// How many deviations of its output a polynomial moves per unit of its operand, in root mean square.
fn slope(graph: &Graph, id: NodeId, polynomial: &Polynomial, spreads: &Spreads) -> f64 {
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
