//! The shape rules of graphs and plans against their evaluators: what a verifier takes can be computed and has
//! the shape that it says, and for a shape that is off by one it is taken no more.

use crate::config;
use ir::graph::{Graph, Op, evaluate_node};
use ir::op::{Activation, Convolution, Function};
use ir::plan::{
    Evaluator, Linear, Local, Plan, Rounding, Step, StepOp, StepWeights, ValueId, Weights,
};
use ir::{Shape, Tensor};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fmt;

fn shape(rank: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Shape> {
    vec(1..=5usize, rank).prop_map(Shape)
}

fn tensor(shape: Shape) -> Tensor<f32> {
    let count = shape.elements();
    Tensor::new(shape, (0..count).map(|i| (i * 37 % 17) as f32 / 8.0 - 1.0).collect())
}

/// A window that fits most images.
fn window() -> impl Strategy<Value = [usize; 2]> {
    [0..=4usize, 1..=3]
}

fn padding() -> impl Strategy<Value = [usize; 4]> {
    [0..=2usize, 0..=2, 0..=2, 0..=2]
}

/// Any axis, or one too far.
fn axis(input: &Shape) -> impl Strategy<Value = usize> + use<> {
    0..=input.rank()
}

/// Mostly a permutation of the axes.
fn permutation(input: &Shape) -> impl Strategy<Value = Vec<usize>> + use<> {
    let axes: Vec<usize> = (0..input.rank()).collect();
    (Just(axes).prop_shuffle(), 0..8usize).prop_map(|(mut axes, fault)| {
        match (fault, axes.first_mut()) {
            (0, Some(axis)) => *axis += 1,
            (1, _) => axes.push(0),
            _ => {}
        }
        axes
    })
}

/// Indices of which few are out of range.
fn indices(length: usize) -> impl Strategy<Value = Vec<Option<u32>>> {
    let index = (0..10 * length as u32)
        .prop_map(move |i| if i == 0 { length as u32 } else { i % length as u32 });
    vec(proptest::option::of(index), 1..6)
}

fn selection(input: &Shape) -> impl Strategy<Value = (usize, Vec<Option<u32>>)> + use<> {
    let input = input.clone();
    axis(&input).prop_flat_map(move |axis| {
        let length = input.0.get(axis).copied().unwrap_or(1);
        (Just(axis), indices(length))
    })
}

/// A shape that broadcasts to another, or nearly does.
fn broadcast(shape: &Shape) -> impl Strategy<Value = Shape> + use<> {
    let dims = shape.0.clone();
    (vec(0..8usize, dims.len()), 0..=dims.len()).prop_map(move |(kinds, skipped)| {
        let dim = |(&dim, kind): (&usize, &usize)| match kind {
            0..=2 => 1,
            3 => dim + 1,
            _ => dim,
        };
        Shape(dims.iter().zip(&kinds).map(dim).skip(skipped).collect())
    })
}

/// A number, or now and then the next one.
fn nearly(number: usize) -> impl Strategy<Value = usize> {
    (0..10usize).prop_map(move |fault| number + usize::from(fault == 0))
}

/// An operator that a failing case can show, without its weights.
#[derive(Clone)]
struct Shown(Op);

impl fmt::Debug for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut graph = Graph::new("x", Shape::new([1]));
        let id = graph.add("node", self.0.clone(), Shape::new([1]), &[]);
        graph.set_output(id);
        write!(f, "{graph}")
    }
}

/// Operators with attributes that fit the input, or nearly do.
fn op(input: &Shape) -> BoxedStrategy<Shown> {
    let at = |axis: usize| input.0.get(axis).copied().unwrap_or(1);
    let geometry = (1..=2usize, window(), window(), [1..=2usize, 1..=2], padding());
    let convolution = (geometry, nearly(at(1)), 1..=3usize).prop_map(
        |((groups, kernel, stride, dilation, padding), inputs, outputs)| {
            let (inputs, outputs) = (inputs.div_ceil(groups), groups * outputs);
            Shown(Op::Convolution {
                geometry: Convolution { groups, kernel, stride, dilation, padding },
                weights: tensor(Shape::new([outputs, inputs, kernel[0], kernel[1]])),
                bias: tensor(Shape::new([outputs, 1, 1])),
            })
        },
    );
    let product =
        (nearly(at(input.rank().max(1) - 1)), 1..=3usize).prop_map(|(inputs, outputs)| {
            let bias = tensor(Shape::new([outputs]));
            Shown(Op::MatrixProduct { bias, weights: tensor(Shape::new([outputs, inputs])) })
        });
    let affine = (broadcast(input), broadcast(input)).prop_map(|(scale, shift)| {
        Shown(Op::Affine { scale: tensor(scale), shift: tensor(shift) })
    });
    let max = (window(), window(), window(), padding()).prop_map(
        |(kernel, stride, dilation, padding)| {
            Shown(Op::MaxWindows { kernel, stride, dilation, padding })
        },
    );
    let average = (window(), window(), padding()).prop_map(|(kernel, stride, padding)| {
        Shown(Op::AverageWindows { kernel, stride, padding })
    });
    let windowed = prop_oneof![
        4 => convolution,
        1 => max,
        1 => average,
        1 => (window(), window()).prop_map(|(kernel, stride)| Shown(Op::SumWindows { kernel, stride })),
    ];
    let others = prop_oneof![
        3 => product,
        3 => affine,
        1 => vec(axis(input), 0..4).prop_map(|v| Shown(Op::SumAxes(v))),
        1 => permutation(input).prop_map(|v| Shown(Op::Transpose(v))),
        1 => selection(input).prop_map(|(axis, indices)| Shown(Op::Take { axis, indices })),
        1 => axis(input).prop_map(|v| Shown(Op::Concat(v))),
        1 => axis(input).prop_map(|v| Shown(Op::Softmax(v))),
        1 => axis(input).prop_map(|v| Shown(Op::LogSoftmax(v))),
        1 => axis(input).prop_map(|v| Shown(Op::ArgMax(v))),
        1 => prop::sample::select(vec![
            Shown(Op::Add),
            Shown(Op::Multiply),
            Shown(Op::Reshape),
            Shown(Op::Activation(Activation::function(Function::Relu))),
        ]),
    ];
    if input.rank() == 4 { prop_oneof![windowed, others].boxed() } else { others.boxed() }
}

fn operands(op: &Op) -> usize {
    match op {
        Op::Add | Op::Multiply => 2,
        Op::Concat(_) => 3,
        _ => 1,
    }
}

/// A graph of one node that reads its input, some ways of which are cut along the first axis.
fn graph(op: &Op, input: &Shape, output: &Shape) -> Graph {
    let mut graph = Graph::new("x", input.clone());
    let operands = vec![graph.input(); operands(op)];
    let id = graph.add("node", op.clone(), output.clone(), &operands);
    graph.set_output(id);
    graph
}

/// The only shape that the verifier takes for a node, by what it says of a wrong one.
fn wanted(op: &Op, input: &Shape) -> Option<Shape> {
    let error = graph(op, input, &Shape::new([99, 98, 97])).verify().err()?.reason;
    let dims = error.split_once("expected [")?.1.trim_end_matches(']');
    let dims: Option<Vec<usize>> = match dims {
        "" => Some(vec![]),
        dims => dims.split(", ").map(|d| d.parse().ok()).collect(),
    };
    dims.map(Shape)
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn what_a_graph_verifies_is_what_is_evaluated(
        (input, op) in shape(0..=4).prop_flat_map(|input| (Just(input.clone()), op(&input)))
    ) {
        let op = op.0;
        let output = match op {
            Op::Reshape => Shape::new([input.elements(), 1]),
            _ => match wanted(&op, &input) {
                Some(output) => output,
                // Refused whatever the shape is: the reason has none.
                None => return Ok(()),
            },
        };
        if graph(&op, &input, &output).verify().is_err() {
            // Such a shape is out of bounds.
            prop_assert!(!output.is_bounded(), "{output}");
            return Ok(());
        }
        let x = tensor(input.clone());
        let operands = vec![&x; operands(&op)];
        let value = evaluate_node(&op, &output, &operands);
        prop_assert_eq!(&value.shape, &output);
        prop_assert_eq!(value.data.len(), output.elements());
        for axis in 0..output.rank() {
            let mut other = output.clone();
            other.0[axis] += 1;
            prop_assert!(graph(&op, &input, &other).verify().is_err(), "{other} is taken as well");
        }
    }
}

/// Steps with attributes that fit the operand, or nearly do.
fn step_op(input: &Shape) -> BoxedStrategy<StepOp> {
    let geometry = (1..=2usize, window(), window(), [1..=2usize, 1..=2], padding());
    let convolution = geometry.prop_map(|(groups, kernel, stride, dilation, padding)| {
        let geometry = Convolution { groups, kernel, stride, dilation, padding };
        StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 })
    });
    let windowed = prop_oneof![
        3 => convolution,
        1 => (window(), window()).prop_map(|(kernel, stride)| StepOp::Local(Local::SumPool { kernel, stride })),
    ];
    let others = prop_oneof![
        1 => vec(axis(input), 0..4).prop_map(|axes| StepOp::Local(Local::ReduceSum { axes })),
        1 => permutation(input).prop_map(|permutation| StepOp::Local(Local::Transpose { permutation })),
        1 => selection(input).prop_map(|(axis, indices)| StepOp::Local(Local::Gather { axis, indices })),
        1 => axis(input).prop_map(|axis| StepOp::Local(Local::Concat { axis })),
        3 => prop::sample::select(vec![
            StepOp::Linear(Linear::MatrixProduct { weight_bits: 16 }),
            StepOp::Linear(Linear::Hadamard { weight_bits: 8 }),
            StepOp::Local(Local::Add),
            StepOp::Local(Local::Scale { factor: 3 }),
            StepOp::Local(Local::Truncate { shift: 2 }),
            StepOp::Local(Local::Reshape),
        ]),
    ];
    if input.rank() == 4 { prop_oneof![windowed, others].boxed() } else { others.boxed() }
}

/// Shapes of which those that could be images are.
fn operand() -> impl Strategy<Value = Shape> {
    shape(1..=4).prop_map(|mut shape| {
        if shape.rank() == 4 {
            shape.0[0] = 1;
        }
        shape
    })
}

/// A plan of one step behind the input; its shape is one that the verifier takes, if there is one.
fn plan(op: &StepOp, input: &Shape, outputs: usize) -> Option<Plan> {
    let ring = if let StepOp::Local(Local::Truncate { shift }) = op { 20 - shift } else { 20 };
    let operands = match op {
        StepOp::Local(Local::Add) => 2,
        StepOp::Local(Local::Concat { .. }) => 3,
        _ => 1,
    };
    let of = |shape: Shape| {
        let step = |op, operands, shape, ring| Step {
            name: "n".into(),
            op,
            operands,
            shape,
            ring,
            fraction_bits: 0,
        };
        let steps = vec![
            step(StepOp::Input, vec![], input.clone(), 20),
            step(op.clone(), vec![ValueId(0); operands], shape, ring),
        ];
        Plan::of_steps("n", steps, ValueId(1), (1.0, 1.0), 1.0)
    };
    // The numbers of outputs are the step's own.
    let mut wrong = vec![outputs; input.rank().max(2)];
    wrong[0] = 77;
    if let StepOp::Local(Local::Reshape) = op {
        return Some(of(Shape::new([1, input.elements()])));
    }
    let error = of(Shape(wrong)).verify().err()?.to_string();
    let dims = error.split_once("expected [")?.1.split_once(']')?.0;
    let dims: Option<Vec<usize>> = match dims {
        "" => Some(vec![]),
        dims => dims.split(", ").map(|d| d.parse().ok()).collect(),
    };
    let mut plan = of(Shape(dims?));
    plan.choose_encryption();
    Some(plan)
}

fn secrets(plan: &Plan) -> Option<StepWeights> {
    let (input, step) = (&plan.steps[0].shape, &plan.steps[1]);
    let count = match &step.op {
        StepOp::Linear(Linear::Convolution { geometry, .. }) => {
            step.shape.0[1] * geometry.fan_in(input)
        }
        StepOp::Linear(Linear::MatrixProduct { .. }) => step.shape.0.last()? * input.0.last()?,
        StepOp::Linear(Linear::Hadamard { .. }) => step.shape.elements(),
        _ => return Some(StepWeights::None),
    };
    let weights = (0..count).map(|i| (i * 29 % 31) as i32 - 15).collect();
    Some(StepWeights::Linear { weights, bias: vec![0; step.shape.elements()] })
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn what_a_plan_verifies_is_what_is_evaluated(
        (input, op) in operand().prop_flat_map(|input| (Just(input.clone()), step_op(&input))),
        outputs in 1..=4usize,
    ) {
        let Some(plan) = plan(&op, &input, outputs) else { return Ok(()) };
        if plan.verify().is_err() {
            return Ok(());
        }
        let (output, secrets) = (plan.steps[1].shape.clone(), secrets(&plan).unwrap());
        let (_, digest) = plan.to_bytes();
        let weights =
            Weights { plan: digest, salt: [0; 32], steps: vec![StepWeights::None, secrets] };
        let count = input.elements();
        let x = Tensor::new(input.clone(), (0..count as u64).map(|i| i * 12345 % (1 << 20)).collect());
        let mut shapes = vec![];
        Evaluator::new(&plan, &weights).run(&x, Rounding::Nearest, |_, value| {
            shapes.push((value.shape.clone(), value.data.len()));
        });
        let of = |shape: &Shape| (shape.clone(), shape.elements());
        prop_assert_eq!(shapes, vec![of(&input), of(&output)]);
        let is_free = |axis: usize| match op {
            StepOp::Linear(Linear::Convolution { .. }) => axis == 1,
            StepOp::Linear(Linear::MatrixProduct { .. }) => axis + 1 == output.rank(),
            _ => false,
        };
        for axis in (0..output.rank()).filter(|&axis| !is_free(axis)) {
            let mut other = plan.clone();
            other.steps[1].shape.0[axis] += 1;
            prop_assert!(other.verify().is_err(), "{} is taken as well", other.steps[1].shape);
        }
    }
}
