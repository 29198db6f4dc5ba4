//! Open values: which scale the settled values behind them need, and how it is chosen.

use super::multiples::{common_part, common_scale, power_of_two};
use super::operators::{is_secret, summands, uniform_factor};
use super::{LINE_BITS, Scales, Spreads};
use ir::graph::{Graph, NodeId, Op};
use std::collections::{HashMap, HashSet};

impl Scales {
    /// A scale at which rounding the weights of the open operators behind `id` costs under a hundredth
    /// of its deviation.
    pub(super) fn precise_scale(&self, graph: &Graph, id: NodeId, spreads: &Spreads) -> f64 {
        let units = self.open_rounding_units(graph, id, spreads);
        power_of_two(LINE_BITS + units.max(1.0).log2(), spreads[&id].width())
    }

    /// The next scale from `wanted` that every settled value behind the open `id` reaches by an
    /// integer.
    pub(super) fn integer_multiple(&self, graph: &Graph, id: NodeId, wanted: f64) -> f64 {
        match self.unit(graph, id) {
            Some(unit) => (wanted / unit).round().max(1.0) * unit,
            None => wanted,
        }
    }

    /// The coarsest unit that the settled values behind an open value dictate: its scale must be an
    /// integer multiple. `None` if all are open.
    pub(super) fn unit(&self, graph: &Graph, id: NodeId) -> Option<f64> {
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

    /// The unit of the other operand, where a value only enters a sum, with a sign perhaps, and the other operand
    /// has one.
    pub(super) fn unit_beside(&self, graph: &Graph, id: NodeId) -> Option<f64> {
        let user = graph.only_user(id)?;
        if uniform_factor(graph, user) == Some(1.0) {
            return self.unit_beside(graph, user);
        }
        if graph.node(user).op != Op::Add {
            return None;
        }
        let other = graph.operands(user).into_iter().find(|&operand| operand != id)?;
        self.unit(graph, other)
    }

    /// Root mean square error, in units of the output times √12, of rounding the weights of a secret
    /// operator: `√K·rms` of its integer input.
    pub(super) fn rounding_units(&self, graph: &Graph, id: NodeId, spreads: &Spreads) -> f64 {
        let Some(&operand) = graph.operands(id).first() else { return 1.0 };
        if let Some(measured) = self.rounding.get(&id) {
            return measured * self.uniform(operand).unwrap_or(1.0);
        }
        let fan_in = graph.fan_in(id).unwrap_or(1);
        (fan_in as f64).sqrt() * spreads[&operand].rms * self.uniform(operand).unwrap_or(1.0)
    }

    /// The largest [`Self::rounding_units`] of the open secret operators behind a value, in its own units.
    pub(super) fn open_rounding_units(&self, graph: &Graph, id: NodeId, spreads: &Spreads) -> f64 {
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
    pub(super) fn resolve(&mut self, graph: &Graph, id: NodeId, scale: f64) {
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
    pub(super) fn connect(&mut self, graph: &Graph, user: NodeId, position: usize, scale: f64) {
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
