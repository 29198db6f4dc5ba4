//! The graph under construction. Every method adds a node whose shape follows from its operands, and
//! refuses what the graph's rules or the limits on sizes exclude.

use super::MAX_VALUE;
use super::file::ModelInput;
use super::node::{Refusal, Value, invalid, refuse};
use super::quantize::Steps;
use super::range::{Range, Ranges};
use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Convolution, Elementary, Expression, Function};
use ir::tensor::{Shape, Tensor, broadcasts_to};

pub(super) struct Builder {
    pub graph: Graph,
    /// The name that new nodes get.
    pub name: String,
    pub warnings: Vec<String>,
    pub ranges: Ranges,
    /// The steps of quantised values.
    pub steps: Steps,
    /// Whether quantised values are rounded.
    pub keeps_rounding: bool,
}

impl Builder {
    /// A graph that is only its inputs, and the node of each. Several inputs are parts of one, whose rows are
    /// `items` items.
    pub(super) fn new(inputs: &[ModelInput], items: usize) -> Result<(Self, Vec<NodeId>), Refusal> {
        if let [only] = inputs {
            let builder = Self::of(&only.name, only.shape.clone());
            let input = builder.graph.input();
            return Ok((builder, vec![input]));
        }
        let lengths: Vec<usize> = inputs.iter().map(|i| i.shape.elements() / items).collect();
        let names: Vec<&str> = inputs.iter().map(|i| i.name.as_str()).collect();
        let total = Shape::new([items, lengths.iter().sum()]);
        check_size(&total)?;
        let mut builder = Self::of(&names.join(", "), total);
        let (all, mut from) = (builder.graph.input(), 0);
        let mut nodes = Vec::new();
        for (input, length) in inputs.iter().zip(lengths) {
            builder.name = input.name.clone();
            let part = builder.window(all, 1, from as i64, (from + length) as i64)?;
            nodes.push(builder.reshape(part, &input.shape.0)?);
            from += length;
        }
        Ok((builder, nodes))
    }

    fn of(name: &str, shape: Shape) -> Self {
        Self {
            graph: Graph::new(name, shape),
            name: name.to_owned(),
            warnings: Vec::new(),
            ranges: Ranges::default(),
            steps: Steps::default(),
            keeps_rounding: false,
        }
    }

    /// A graph whose input nothing reads.
    pub(super) fn without_input() -> Self {
        Self::of("", Shape::new([]))
    }

    /// Adds a warning unless it is there already.
    pub(super) fn warn(&mut self, warning: impl Into<String>) {
        let warning = warning.into();
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    pub(super) fn shape(&self, id: NodeId) -> Shape {
        self.graph.node(id).shape.clone()
    }

    /// Bounds that every element keeps.
    pub(super) fn range(&self, id: NodeId) -> Range {
        self.ranges.get(id)
    }

    pub(super) fn dims(&self, id: NodeId) -> Vec<usize> {
        self.shape(id).0
    }

    pub(super) fn rank(&self, id: NodeId) -> usize {
        self.graph.node(id).shape.rank()
    }

    pub(super) fn add(
        &mut self,
        op: Op,
        shape: Shape,
        operands: &[NodeId],
    ) -> Result<NodeId, Refusal> {
        check_size(&shape)?;
        let constants: &[&Tensor<f32>] = match &op {
            Op::Constant(value) => &[value],
            Op::Convolution { weights, bias, .. } | Op::MatrixProduct { weights, bias } => {
                &[weights, bias]
            }
            Op::Affine { scale, shift } => &[scale, shift],
            _ => &[],
        };
        if constants.iter().any(|c| c.data.iter().any(|v| !v.is_finite())) {
            return Err(refuse(
                "a constant is infinite or not a number",
                "check the model's weights, and divisions by zero among its constants",
            ));
        }
        let id = self.graph.add(self.name.clone(), op, shape, operands);
        self.ranges.follow(&self.graph, id);
        Ok(id)
    }

    /// A value as a node of the graph.
    pub(super) fn node(&mut self, value: &Value) -> Result<NodeId, Refusal> {
        match value {
            Value::Node(id) => Ok(*id),
            Value::Constant(constant) => {
                let reals =
                    constant.to_reals().ok_or_else(|| invalid("a constant is not numeric"))?;
                check_size(&reals.shape)?;
                self.add(Op::Constant(reals.clone()), reals.shape, &[])
            }
            Value::Sequence(_) => Err(invalid("an operand is a sequence")),
            Value::Unknown => Err(invalid("an operand is not known")),
        }
    }

    pub(super) fn reshape(&mut self, x: NodeId, dims: &[usize]) -> Result<NodeId, Refusal> {
        let (from, to) = (self.shape(x), Shape::new(dims));
        if from == to {
            return Ok(x);
        }
        check_size(&to)?;
        if from.elements() != to.elements() {
            return Err(refuse(
                format!("cannot reshape {from} to {to}"),
                "expected as many elements; where the file fixes a size that its input leaves open, set it by --dim",
            ));
        }
        self.add(Op::Reshape, to, &[x])
    }

    pub(super) fn transpose(
        &mut self,
        x: NodeId,
        permutation: &[usize],
    ) -> Result<NodeId, Refusal> {
        let from = self.dims(x);
        let mut sorted = permutation.to_vec();
        sorted.sort_unstable();
        if !sorted.iter().copied().eq(0..from.len()) {
            return Err(invalid(format!("{permutation:?} is no permutation of the axes")));
        }
        if permutation.is_sorted() {
            return Ok(x);
        }
        let shape = Shape(permutation.iter().map(|&axis| from[axis]).collect());
        self.add(Op::Transpose(permutation.to_vec()), shape, &[x])
    }

    /// Exchanges the last two axes.
    pub(super) fn swap_last(&mut self, x: NodeId) -> Result<NodeId, Refusal> {
        let rank = self.rank(x);
        if rank < 2 {
            return Err(invalid("its operand is no matrix"));
        }
        let mut permutation: Vec<usize> = (0..rank).collect();
        permutation.swap(rank - 2, rank - 1);
        self.transpose(x, &permutation)
    }

    pub(super) fn take(
        &mut self,
        x: NodeId,
        axis: usize,
        indices: Vec<Option<u32>>,
    ) -> Result<NodeId, Refusal> {
        let mut dims = self.dims(x);
        if indices.len() == dims[axis]
            && indices.iter().enumerate().all(|(i, index)| *index == Some(i as u32))
        {
            return Ok(x);
        }
        dims[axis] = indices.len();
        self.add(Op::Take { axis, indices }, Shape(dims), &[x])
    }

    /// Takes the entries `from..to` along an axis; negative and high positions are zeros.
    pub(super) fn window(
        &mut self,
        x: NodeId,
        axis: usize,
        from: i64,
        to: i64,
    ) -> Result<NodeId, Refusal> {
        let dims = self.dims(x);
        let length = dims[axis] as i64;
        let count = to.checked_sub(from).and_then(|n| usize::try_from(n).ok());
        let others: usize =
            dims.iter().enumerate().map(|(i, &d)| if i == axis { 1 } else { d }).product();
        match count.and_then(|n| n.checked_mul(others)) {
            Some(1..=MAX_VALUE) => {}
            _ => return Err(too_large("its padded operand")),
        }
        let inside = |i: i64| (0..length).contains(&i).then_some(i as u32);
        self.take(x, axis, (from..to).map(inside).collect())
    }

    /// Repeats along axes of length 1 and new leading axes.
    pub(super) fn broadcast(&mut self, x: NodeId, target: &Shape) -> Result<NodeId, Refusal> {
        let from = self.shape(x);
        if from == *target {
            return Ok(x);
        }
        check_size(target)?;
        if !broadcasts_to(&from, target) {
            return Err(invalid(format!("{from} does not broadcast to {target}")));
        }
        let lead = target.rank() - from.rank();
        let mut dims = vec![1; lead];
        dims.extend(&from.0);
        let mut x = self.reshape(x, &dims)?;
        for axis in (0..target.rank()).rev() {
            if dims[axis] != target.0[axis] {
                x = self.take(x, axis, vec![Some(0); target.0[axis]])?;
            }
        }
        Ok(x)
    }

    pub(super) fn affine(
        &mut self,
        x: NodeId,
        scale: Tensor<f32>,
        shift: Tensor<f32>,
    ) -> Result<NodeId, Refusal> {
        let shape = self.shape(x);
        self.add(Op::Affine { scale, shift }, shape, &[x])
    }

    /// `scale·x + shift` with numbers.
    pub(super) fn scaled(&mut self, x: NodeId, scale: f32, shift: f32) -> Result<NodeId, Refusal> {
        self.affine(x, Tensor::scalar(scale), Tensor::scalar(shift))
    }

    pub(super) fn sum(&mut self, a: NodeId, b: NodeId) -> Result<NodeId, Refusal> {
        let shape = self.shape(a);
        self.add(Op::Add, shape, &[a, b])
    }

    pub(super) fn function(&mut self, x: NodeId, function: Function) -> Result<NodeId, Refusal> {
        let shape = self.shape(x);
        self.add(Op::Activation(Activation::function(function)), shape, &[x])
    }

    pub(super) fn expression(
        &mut self,
        x: NodeId,
        operations: Vec<Elementary>,
    ) -> Result<NodeId, Refusal> {
        let shape = self.shape(x);
        let activation = Activation::Exact(Expression::new(operations));
        self.add(Op::Activation(activation), shape, &[x])
    }

    pub(super) fn sum_axes(&mut self, x: NodeId, axes: &[usize]) -> Result<NodeId, Refusal> {
        let mut dims = self.dims(x);
        if axes.iter().all(|&axis| dims[axis] == 1) {
            return Ok(x);
        }
        axes.iter().for_each(|&axis| dims[axis] = 1);
        self.add(Op::SumAxes(axes.to_vec()), Shape(dims), &[x])
    }

    /// `x·weightsᵀ + bias` along the last axis; `weights` are `[outputs, inputs]`.
    pub(super) fn matrix(
        &mut self,
        x: NodeId,
        weights: Tensor<f32>,
        bias: Tensor<f32>,
    ) -> Result<NodeId, Refusal> {
        let mut shape = self.shape(x);
        match (weights.shape.0.as_slice(), shape.0.last_mut()) {
            (&[outputs, inputs], Some(last)) if *last == inputs => *last = outputs,
            _ => {
                return Err(invalid(format!(
                    "a matrix of shape {} does not fit the operand of shape {}",
                    weights.shape,
                    self.shape(x)
                )));
            }
        }
        if !broadcasts_to(&bias.shape, &shape) {
            return Err(invalid(format!("a bias of shape {} does not fit {shape}", bias.shape)));
        }
        self.add(Op::MatrixProduct { weights, bias }, shape, &[x])
    }

    /// A convolution of `[N, C, H, W]`; `bias` is empty or one entry per output channel.
    pub(super) fn convolution(
        &mut self,
        x: NodeId,
        geometry: Convolution,
        weights: Tensor<f32>,
        bias: Option<Tensor<f32>>,
    ) -> Result<NodeId, Refusal> {
        let input = self.shape(x);
        let outputs = weights.shape.0[0];
        let shape = geometry
            .output_shape(&input, outputs)
            .filter(|_| weights.shape.0[1] * geometry.groups == input.0[1])
            .ok_or_else(|| {
                invalid(format!("weights of shape {} do not fit {input}", weights.shape))
            })?;
        let bias = match bias {
            Some(bias) if bias.shape.0 == [outputs] => bias.reshape(Shape::new([outputs, 1, 1])),
            None => Tensor::scalar(0.0),
            Some(bias) => {
                return Err(invalid(format!("a bias of shape {} does not fit", bias.shape)));
            }
        };
        self.add(Op::Convolution { geometry, weights, bias }, shape, &[x])
    }
}

fn check_size(shape: &Shape) -> Result<(), Refusal> {
    if shape.is_bounded() && shape.elements() <= MAX_VALUE {
        return Ok(());
    }
    if shape.0.contains(&0) {
        return Err(refuse("its result is empty", "expected at least one element"));
    }
    Err(too_large(&format!("its result of shape {shape}")))
}

/// The refusal of a value above the limits.
pub(super) fn too_large(what: &str) -> Refusal {
    refuse(
        format!("{what} is empty or too large"),
        format!("expected at most {MAX_VALUE} elements on at most 8 axes"),
    )
}
