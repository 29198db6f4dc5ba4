//! Proves that the first axis of a model's inputs is a batch: that nothing mixes, moves or counts along it.
//! The proof follows the axis through the imported graph of a batch of several items; what passes it is cut
//! down to the graph of one item, constants and all.

use ir::graph::{Graph, NodeId, Op, evaluate_node};
use ir::op::{Activation, Elementary};
use ir::tensor::{Shape, Tensor};
use std::collections::HashMap;
use std::fmt;

/// The node at which the proof fails, and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoBatch {
    pub node: String,
    pub reason: &'static str,
}

impl fmt::Display for NoBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} {}", self.node, self.reason)
    }
}

/// Where the items lie in a value: in row-major order its elements are `outer × items × inner`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Items {
    outer: usize,
    inner: usize,
}

/// The axis of a shape in which the items lie: its length is `before × items × after`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    axis: usize,
    before: usize,
    after: usize,
}

impl Items {
    /// The one axis that holds the items; `None` where they are spread over several.
    fn place(self, shape: &Shape, items: usize) -> Option<Place> {
        let mut lead = 1;
        for (axis, &length) in shape.0.iter().enumerate() {
            let tail: usize = shape.0[axis + 1..].iter().product();
            if self.outer.is_multiple_of(lead) && self.inner.is_multiple_of(tail) {
                let (before, after) = (self.outer / lead, self.inner / tail);
                if before * items * after == length {
                    return Some(Place { axis, before, after });
                }
            }
            lead *= length;
        }
        None
    }
}

impl Place {
    /// The items of a value of another shape whose axis `axis` holds them in the same way.
    fn items(self, axis: usize, shape: &Shape) -> Items {
        let product = |dims: &[usize]| dims.iter().product::<usize>();
        Items {
            outer: product(&shape.0[..axis]) * self.before,
            inner: product(&shape.0[axis + 1..]) * self.after,
        }
    }

    /// The positions along the axis that belong to the first item.
    fn first(self, items: usize) -> Vec<Option<u32>> {
        let (before, after) = (self.before, self.after);
        (0..before * after).map(|i| Some((i / after * items * after + i % after) as u32)).collect()
    }
}

/// What the proof knows of a value.
enum Known {
    /// It does not depend on the inputs.
    Constant(Tensor<f32>),
    /// One part per item, each made of its own item alone and in the same way.
    PerItem(Items),
}

/// A graph of `items` items along the first axis of its input, at least 2, becomes the graph of one.
///
/// # Errors
/// The first node for which nothing proves that the items stay apart; the graph is as it was.
pub(super) fn single(graph: &mut Graph, items: usize) -> Result<(), NoBatch> {
    let proof = Proof::new(graph, items)?;
    let known = proof.known;
    for id in graph.order() {
        let Known::PerItem(of_node) = &known[&id] else { continue };
        let shape = graph.node(id).shape.clone();
        let Some(place) = of_node.place(&shape, items) else { continue };
        cut_constants(graph, id, place, items);
        let operands = graph.operands(id);
        let cut: Vec<NodeId> = operands
            .iter()
            .map(|operand| match &known[operand] {
                Known::Constant(value) => {
                    let part = first_item(value, &shape, place, items);
                    let name = graph.node(*operand).name.clone();
                    let shape = part.shape.clone();
                    graph.add(name, Op::Constant(part), shape, &[])
                }
                Known::PerItem(_) => *operand,
            })
            .collect();
        if cut != operands {
            graph.set_operands(id, &cut);
        }
        let node = graph.node_mut(id);
        node.shape.0[place.axis] /= items;
        if node.statistics.as_ref().is_some_and(|s| s.mean.len() != node.shape.channels()) {
            node.statistics = None;
        }
    }
    graph.remove_dead();
    Ok(())
}

/// The first node in which two graphs of one item differ that were made from batches of two sizes.
pub(super) fn difference(a: &Graph, b: &Graph) -> Option<NoBatch> {
    let (nodes, others) = (a.order(), b.order());
    let places = |order: &[NodeId]| -> HashMap<NodeId, usize> {
        order.iter().enumerate().map(|(place, &id)| (id, place)).collect()
    };
    let (of_a, of_b) = (places(&nodes), places(&others));
    let is_same = |(&x, &y): (&NodeId, &NodeId)| {
        let (operands, others) = (a.operands(x), b.operands(y));
        a.node(x) == b.node(y)
            && operands.iter().map(|o| of_a[o]).eq(others.iter().map(|o| of_b[o]))
    };
    let found = nodes.iter().zip(&others).find(|&pair| !is_same(pair)).map(|(&x, _)| x);
    let is_longer = nodes.len() != others.len() || of_a[&a.output()] != of_b[&b.output()];
    let longer = || is_longer.then(|| a.output());
    found
        .or_else(longer)
        .map(|id| NoBatch { node: a.node(id).name.clone(), reason: "depends on its length" })
}

struct Proof<'a> {
    graph: &'a Graph,
    items: usize,
    known: HashMap<NodeId, Known>,
}

const MIXES: &str = "mixes or moves entries along it";
const COUNTS: &str = "differs from one entry of it to the next";

impl<'a> Proof<'a> {
    fn new(graph: &'a Graph, items: usize) -> Result<Self, NoBatch> {
        let mut proof = Self { graph, items, known: HashMap::new() };
        for id in graph.order() {
            let node = graph.node(id);
            let fail = |reason| NoBatch { node: node.name.clone(), reason };
            let known = proof.node(id).map_err(fail)?;
            proof.known.insert(id, known);
        }
        match &proof.known[&graph.output()] {
            Known::PerItem(items) if items.outer == 1 => Ok(proof),
            _ => Err(NoBatch {
                node: graph.node(graph.output()).name.clone(),
                reason: "does not keep it as the first axis of the output",
            }),
        }
    }

    fn node(&self, id: NodeId) -> Result<Known, &'static str> {
        let node = self.graph.node(id);
        let operands = self.graph.operands(id);
        if id == self.graph.input() {
            return self
                .keep(Items { outer: 1, inner: node.shape.elements() / self.items }, &node.shape);
        }
        let constants: Option<Vec<&Tensor<f32>>> = operands
            .iter()
            .map(|o| match &self.known[o] {
                Known::Constant(value) => Some(value),
                Known::PerItem(_) => None,
            })
            .collect();
        if let Some(constants) = constants {
            return Ok(Known::Constant(evaluate_node(&node.op, &node.shape, &constants)));
        }
        // Operands that depend on the inputs, with the places of their items.
        let mut places = Vec::new();
        for operand in &operands {
            if let Known::PerItem(items) = &self.known[operand] {
                let shape = &self.graph.node(*operand).shape;
                let place = items.place(shape, self.items).ok_or(MIXES)?;
                places.push((*items, place, shape));
            }
        }
        let (items, place, shape) = places[0];
        let rank = shape.rank();
        let same_axis = |is_kept: bool| {
            if is_kept {
                self.keep(place.items(place.axis, &node.shape), &node.shape)
            } else {
                Err(MIXES)
            }
        };
        match &node.op {
            Op::Input | Op::Constant(_) => Err(MIXES),
            Op::Convolution { bias, .. } => {
                let known = same_axis(place.axis == 0)?;
                self.same_for_all(bias, &node.shape, place).map(|()| known)
            }
            Op::MatrixProduct { bias, .. } => {
                let known = same_axis(place.axis + 1 < rank)?;
                self.same_for_all(bias, &node.shape, place).map(|()| known)
            }
            Op::Affine { scale, shift } => {
                self.same_for_all(scale, &node.shape, place)?;
                self.same_for_all(shift, &node.shape, place)?;
                same_axis(true)
            }
            Op::Add | Op::Multiply | Op::Divide => {
                if places.iter().any(|(other, ..)| *other != items) {
                    return Err(MIXES);
                }
                self.constants_are_the_same(&operands, place, &node.shape)?;
                same_axis(true)
            }
            Op::Activation(activation) => {
                if place.axis == shape.channel_axis() && !is_uniform(activation) {
                    return Err(COUNTS);
                }
                same_axis(true)
            }
            Op::SumWindows { .. } => same_axis(place.axis + 2 < rank),
            Op::MaxWindows { .. } | Op::AverageWindows { .. } => same_axis(place.axis < 2),
            Op::SumAxes(axes) => same_axis(!axes.contains(&place.axis)),
            Op::Integers(_) => same_axis(true),
            Op::Reshape => self.keep(items, &node.shape),
            Op::Transpose(permutation) => {
                let axis = permutation.iter().position(|&from| from == place.axis).ok_or(MIXES)?;
                self.keep(place.items(axis, &node.shape), &node.shape)
            }
            Op::Take { axis, .. } | Op::Softmax(axis) | Op::LogSoftmax(axis) | Op::ArgMax(axis) => {
                same_axis(*axis != place.axis)
            }
            Op::Concat(axis) => {
                if *axis == place.axis || places.iter().any(|(_, other, _)| *other != place) {
                    return Err(MIXES);
                }
                self.constants_are_the_same(&operands, place, &node.shape)?;
                same_axis(true)
            }
        }
    }

    fn keep(&self, items: Items, shape: &Shape) -> Result<Known, &'static str> {
        items.place(shape, self.items).map(|_| Known::PerItem(items)).ok_or(MIXES)
    }

    /// Whether a constant that broadcasts to `shape` has the same entries for every item.
    fn same_for_all(
        &self,
        constant: &Tensor<f32>,
        shape: &Shape,
        place: Place,
    ) -> Result<(), &'static str> {
        let Some(axis) = own_axis(constant, shape, place) else { return Ok(()) };
        let inner: usize = constant.shape.0[axis + 1..].iter().product::<usize>() * place.after;
        let is_same = constant
            .data
            .chunks_exact(self.items * inner)
            .all(|block| block.chunks_exact(inner).all(|item| item == &block[..inner]));
        if is_same { Ok(()) } else { Err(COUNTS) }
    }

    fn constants_are_the_same(
        &self,
        operands: &[NodeId],
        place: Place,
        shape: &Shape,
    ) -> Result<(), &'static str> {
        operands.iter().try_for_each(|operand| match &self.known[operand] {
            Known::Constant(value) => self.same_for_all(value, shape, place),
            Known::PerItem(_) => Ok(()),
        })
    }
}

/// The axis of a constant along which it differs from item to item when it is broadcast to `shape`; `None`
/// where it has length 1 there.
fn own_axis(constant: &Tensor<f32>, shape: &Shape, place: Place) -> Option<usize> {
    let axis = place.axis.checked_sub(shape.rank() - constant.shape.rank())?;
    (constant.shape.0[axis] != 1).then_some(axis)
}

fn first_item(constant: &Tensor<f32>, shape: &Shape, place: Place, items: usize) -> Tensor<f32> {
    match own_axis(constant, shape, place) {
        Some(axis) => constant.take(axis, &place.first(items)),
        None => constant.clone(),
    }
}

fn cut_constants(graph: &mut Graph, id: NodeId, place: Place, items: usize) {
    let shape = graph.node(id).shape.clone();
    match &mut graph.node_mut(id).op {
        Op::Convolution { bias, .. } | Op::MatrixProduct { bias, .. } => {
            *bias = first_item(bias, &shape, place, items);
        }
        Op::Affine { scale, shift } => {
            *scale = first_item(scale, &shape, place, items);
            *shift = first_item(shift, &shape, place, items);
        }
        _ => {}
    }
}

/// Whether an activation is the same function for all channels.
fn is_uniform(activation: &Activation) -> bool {
    match activation {
        Activation::Exact(expression) => {
            expression.operations.iter().all(|operation| match operation {
                Elementary::Affine { scale, shift, .. } => scale.len() == 1 && shift.len() == 1,
                _ => true,
            })
        }
        Activation::Polynomial(polynomial) => polynomial.coefficients.len() == 1,
        Activation::Trigonometric(fit) => fit.period.len() == 1,
    }
}

/// Several images of one convolution become channels of one image, in as many groups: what a convolution
/// is whose first axis is no batch. Which nodes took the place of which.
///
/// # Errors
/// A node whose weights, repeated for every image, have more than `most` elements.
pub(super) fn join_images(
    graph: &mut Graph,
    most: usize,
) -> Result<HashMap<NodeId, NodeId>, NoBatch> {
    let mut replaced = HashMap::new();
    for id in graph.order() {
        let operands = graph.operands(id);
        let node = graph.node(id).clone();
        let Op::Convolution { mut geometry, weights, bias } = node.op else { continue };
        let [images, channels, rows, columns] = graph.node(operands[0]).shape.0[..] else {
            continue;
        };
        if images == 1 {
            continue;
        }
        if weights.data.len().saturating_mul(images) > most {
            let reason =
                "is a convolution of many images at once, whose weights would be repeated for each";
            return Err(NoBatch { node: node.name, reason });
        }
        let joined = |shape: &Shape| Shape::new([1, images * shape.0[1], shape.0[2], shape.0[3]]);
        geometry.groups *= images;
        let mut dims = weights.shape.0.clone();
        dims[0] *= images;
        let weights = Tensor::new(Shape(dims), weights.data.repeat(images));
        // One per channel stays so.
        let one = |dims: &[usize]| Shape::new([images, node.shape.0[1], dims[0], dims[1]]);
        let bias = match bias.shape.0[..] {
            [_, 1, 1] | [1, _, 1, 1] | [] => bias.broadcast(&one(&[1, 1])),
            _ => bias.broadcast(&node.shape),
        };
        let bias = Tensor { shape: joined(&bias.shape), data: bias.data };
        let from = Shape::new([1, images * channels, rows, columns]);
        let x = graph.add(node.name.clone(), Op::Reshape, from, &operands);
        let op = Op::Convolution { geometry, weights, bias };
        let y = graph.add(node.name.clone(), op, joined(&node.shape), &[x]);
        let back = graph.add(node.name, Op::Reshape, node.shape, &[y]);
        graph.replace_uses(id, back);
        replaced.insert(id, back);
    }
    graph.remove_dead();
    Ok(replaced)
}

#[cfg(test)]
mod tests;
