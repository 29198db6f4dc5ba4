//! One small graph per pass: before and after.

use ir::graph::{Graph, NodeId, Op, Statistics};
use ir::op::{Activation, Convolution, Function, Polynomial};
use ir::{Shape, Tensor};
use polyc::passes::{
    MaxPool, PassOptions, balance_channels, complete_square, equalise_channels, open_clips,
    run_observed, split_client, split_rectifiers,
};
use support::Numbers;
use support::golden::{Sections, all_equal, compare, unused};

/// A graph under construction.
struct Builder {
    graph: Graph,
    numbers: Numbers,
}

impl Builder {
    fn new(input: &[usize]) -> Self {
        Self { graph: Graph::new("x", Shape::new(input)), numbers: Numbers(7) }
    }

    fn input(&self) -> NodeId {
        self.graph.input()
    }

    fn tensor(&mut self, dims: &[usize]) -> Tensor<f32> {
        let shape = Shape::new(dims);
        let data = self.numbers.reals(shape.elements(), 0.5);
        Tensor::new(shape, data)
    }

    fn node(&mut self, name: &str, op: Op, shape: &[usize], operands: &[NodeId]) -> NodeId {
        self.graph.add(name, op, Shape::new(shape), operands)
    }

    fn same(&mut self, name: &str, op: Op, operands: &[NodeId]) -> NodeId {
        let shape = self.graph.node(operands[0]).shape.clone();
        self.graph.add(name, op, shape, operands)
    }

    fn function(&mut self, name: &str, function: Function, x: NodeId) -> NodeId {
        self.same(name, Op::Activation(Activation::function(function)), &[x])
    }

    fn convolution(&mut self, name: &str, x: NodeId, outputs: usize, padding: usize) -> NodeId {
        let input = self.graph.node(x).shape.clone();
        let geometry = Convolution {
            groups: 1,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [padding; 4],
        };
        let shape = geometry.output_shape(&input, outputs).unwrap();
        let weights = self.tensor(&[outputs, input.0[1], 3, 3]);
        let bias = self.tensor(&[outputs, 1, 1]);
        self.graph.add(name, Op::Convolution { geometry, weights, bias }, shape, &[x])
    }

    fn product(&mut self, name: &str, x: NodeId, outputs: usize) -> NodeId {
        let mut shape = self.graph.node(x).shape.clone();
        let inputs = shape.0.pop().unwrap();
        shape.0.push(outputs);
        let op = Op::MatrixProduct {
            weights: self.tensor(&[outputs, inputs]),
            bias: self.tensor(&[outputs]),
        };
        self.graph.add(name, op, shape, &[x])
    }

    /// One factor and one offset per channel.
    fn affine(&mut self, name: &str, x: NodeId) -> NodeId {
        let channels = self.graph.node(x).shape.channels();
        let dims: &[usize] =
            if self.graph.node(x).shape.rank() == 4 { &[channels, 1, 1] } else { &[channels] };
        let op = Op::Affine { scale: self.tensor(dims), shift: self.tensor(dims) };
        self.same(name, op, &[x])
    }

    fn finish(mut self, output: NodeId) -> Graph {
        self.graph.set_output(output);
        self.graph.verify().unwrap();
        self.graph
    }

    /// Inputs of growing size, the same in every run.
    fn inputs(graph: &Graph) -> Vec<Tensor<f32>> {
        let shape = graph.node(graph.input()).shape.clone();
        let mut numbers = Numbers(11);
        let reals = |i: usize| numbers.reals(shape.elements(), i as f32 / 8.0);
        (1..=8).map(reals).map(|data| Tensor::new(shape.clone(), data)).collect()
    }
}

/// A pass of the list, on a graph that the passes before it leave alone.
fn listed(pass: &str, graph: Graph, options: PassOptions) -> Result<(), String> {
    let mut sections = Sections::default();
    sections.graph("before", &graph);
    let (mut after, mut before) = (graph.clone(), graph.to_string());
    let mut seen = false;
    let mut observe = |name: &str, graph: &Graph| {
        let text = graph.to_string();
        if name == pass {
            seen = true;
            sections.graph("after", graph);
        }
        if !seen {
            assert_eq!(before, text, "{name} changes the graph of {pass}");
        }
        before = text;
    };
    if let Err(error) = run_observed(&mut after, &options, &mut observe) {
        assert!(!seen, "{pass}: {error}");
        sections.section("refused", &error.to_string());
    }
    file(pass, sections)
}

/// A pass of its own.
fn alone(
    pass: &str,
    mut graph: Graph,
    run: impl FnOnce(&mut Graph) -> String,
) -> Result<(), String> {
    let mut sections = Sections::default();
    sections.graph("before", &graph);
    let note = run(&mut graph);
    graph.verify().unwrap();
    sections.graph("after", &graph);
    if !note.is_empty() {
        sections.section("says", &note);
    }
    file(pass, sections)
}

fn file_name(pass: &str) -> String {
    format!("{}.txt", pass.replace(' ', "_"))
}

fn file(pass: &str, sections: Sections) -> Result<(), String> {
    compare(&format!("tests/golden/passes/{}", file_name(pass)), &sections.finish())
}

fn fold_constants() -> Graph {
    let mut b = Builder::new(&[1, 3]);
    let constant = |b: &mut Builder, name: &str| {
        let value = b.tensor(&[1, 3]);
        b.node(name, Op::Constant(value), &[1, 3], &[])
    };
    let (first, second) = (constant(&mut b, "first"), constant(&mut b, "second"));
    let sum = b.same("sum of constants", Op::Add, &[first, second]);
    let squashed = b.function("tanh of it", Function::Tanh, sum);
    let product = b.product("fc", b.input(), 3);
    let shifted = b.same("shifted", Op::Add, &[product, squashed]);
    b.finish(shifted)
}

fn into_producers() -> Graph {
    let mut b = Builder::new(&[1, 2, 5, 5]);
    let made = b.convolution("conv", b.input(), 3, 1);
    let normal = b.affine("bn", made);
    let statistics = Statistics { mean: vec![0.0; 3], deviation: vec![1.0; 3] };
    b.graph.node_mut(normal).statistics = Some(statistics);
    let shared = b.convolution("conv, read twice", normal, 3, 1);
    let scaled = b.affine("bn of a value with other readers", shared);
    let sum = b.same("sum", Op::Add, &[scaled, shared]);
    b.finish(sum)
}

fn recognise_activations() -> Graph {
    let mut b = Builder::new(&[1, 4]);
    let x = b.product("fc", b.input(), 4);
    let gate = b.function("sigmoid", Function::Sigmoid, x);
    let swish = b.same("x·sigmoid(x)", Op::Multiply, &[x, gate]);
    let y = b.product("fc2", swish, 4);
    let square = b.same("square", Op::Multiply, &[y, y]);
    let scaled = b.affine("factors", y);
    let sum = b.same("square + affine", Op::Add, &[square, scaled]);
    let end = b.product("fc3", sum, 2);
    b.finish(end)
}

fn into_consumers() -> Graph {
    let mut b = Builder::new(&[1, 2, 4, 4]);
    let scaled = b.affine("bn", b.input());
    let pooled =
        b.node("pool", Op::SumWindows { kernel: [2, 2], stride: [2, 2] }, &[1, 2, 2, 2], &[scaled]);
    let flat = b.node("flat", Op::Reshape, &[1, 8], &[pooled]);
    let product = b.product("fc", flat, 3);
    b.finish(product)
}

fn merge_linear() -> Graph {
    let mut b = Builder::new(&[1, 6]);
    let first = b.product("first", b.input(), 6);
    let second = b.product("second", first, 4);
    let relu = b.function("relu", Function::Relu, second);
    let shared = b.product("read twice", relu, 4);
    let third = b.product("third", shared, 4);
    let sum = b.same("sum", Op::Add, &[shared, third]);
    b.finish(sum)
}

fn expand_max_pool() -> Graph {
    let mut b = Builder::new(&[1, 2, 5, 5]);
    let x = b.convolution("conv", b.input(), 2, 1);
    let relu = b.function("relu", Function::Relu, x);
    let op =
        Op::MaxWindows { kernel: [3, 2], stride: [2, 2], dilation: [1, 1], padding: [1, 0, 1, 1] };
    let pooled = b.node("pool", op, &[1, 2, 3, 3], &[relu]);
    b.finish(pooled)
}

fn refuse_leftovers() -> Graph {
    let mut b = Builder::new(&[1, 2, 4, 4]);
    let (p, q) = (b.convolution("p", b.input(), 2, 1), b.convolution("q", b.input(), 2, 1));
    let gated = b.same("gate", Op::Multiply, &[p, q]);
    let over = b.same("over", Op::Divide, &[gated, q]);
    let op = Op::MaxWindows { kernel: [2, 2], stride: [1, 1], dilation: [2, 2], padding: [0; 4] };
    let pooled = b.node("pool", op, &[1, 2, 2, 2], &[over]);
    let softmax = b.same("softmax", Op::Softmax(1), &[pooled]);
    let last = b.convolution("conv", softmax, 1, 1);
    b.finish(last)
}

fn straight_pieces() -> Graph {
    let mut b = Builder::new(&[1, 2, 2, 2]);
    let made = b.convolution("conv", b.input(), 2, 1);
    let leaky = b.function("leaky", Function::LeakyRelu { alpha: 0.1 }, made);
    let sum = b.same("sum", Op::Add, &[leaky, b.input()]);
    let clip = b.function("clip", Function::Clip { low: -1.0, high: 2.0 }, sum);
    let last = b.convolution("last", clip, 1, 1);
    b.finish(last)
}

fn client_steps() -> Graph {
    let mut b = Builder::new(&[1, 4]);
    let scores = b.product("fc", b.input(), 6);
    let rows = b.node("rows", Op::Reshape, &[1, 2, 3], &[scores]);
    let softmax = b.same("softmax", Op::Softmax(2), &[rows]);
    let best = b.node("best", Op::ArgMax(2), &[1, 2, 1], &[softmax]);
    b.finish(best)
}

fn clips() -> Graph {
    let mut b = Builder::new(&[1, 4]);
    let clip = |low, high| Function::Clip { low, high };
    let open = b.function("never reached", clip(-9.0, 9.0), b.input());
    let half = b.function("reached below", clip(0.0, 9.0), open);
    let shut = b.function("reached on both sides", clip(0.1, 0.3), half);
    let end = b.product("fc", shut, 2);
    b.finish(end)
}

fn equalised() -> Graph {
    let mut b = Builder::new(&[1, 2, 4, 4]);
    let x = b.convolution("conv", b.input(), 2, 1);
    let take =
        |indices: &[u32]| Op::Take { axis: 3, indices: indices.iter().map(|&i| Some(i)).collect() };
    let (even, odd) = (
        b.node("even", take(&[0, 2]), &[1, 2, 4, 2], &[x]),
        b.node("odd", take(&[1, 3]), &[1, 2, 4, 2], &[x]),
    );
    let minus = Op::Affine { scale: Tensor::scalar(-1.0), shift: Tensor::scalar(0.0) };
    let minus = b.same("minus", minus, &[odd]);
    let difference = b.same("difference", Op::Add, &[even, minus]);
    let distance = b.function("distance", Function::Abs, difference);
    let relu = b.function("relu", Function::Relu, distance);
    let end = b.convolution("conv2", relu, 1, 1);
    b.finish(end)
}

fn balanced() -> Graph {
    let mut b = Builder::new(&[1, 3]);
    let x = b.product("made", b.input(), 2);
    if let Op::MatrixProduct { weights, bias } = &mut b.graph.node_mut(x).op {
        weights.data[..3].iter_mut().for_each(|w| *w *= 256.0);
        bias.data[0] *= 256.0;
    }
    let relu = b.function("relu", Function::Relu, x);
    let read = b.product("read", relu, 2);
    if let Op::MatrixProduct { weights, .. } = &mut b.graph.node_mut(read).op {
        weights.data.iter_mut().step_by(2).for_each(|w| *w /= 256.0);
    }
    b.finish(read)
}

fn quadratics() -> Graph {
    let mut b = Builder::new(&[1, 3]);
    let quadratic = |coefficients: [f64; 3]| {
        Op::Activation(Activation::Polynomial(Polynomial {
            coefficients: vec![coefficients.to_vec()],
        }))
    };
    let x = b.product("fc", b.input(), 3);
    let up = b.same("opens upwards", quadratic([0.5, 1.0, 2.0]), &[x]);
    let y = b.product("fc2", up, 3);
    let down = b.same("opens downwards", quadratic([0.5, 1.0, -2.0]), &[y]);
    let z = b.product("fc3", down, 3);
    let flat = b.same("nearly flat", quadratic([0.5, 1.0, 1e-9]), &[z]);
    let end = b.product("fc4", flat, 2);
    b.finish(end)
}

const LISTED: [&str; 7] = [
    "fold constants",
    "fold normalisation into producers",
    "recognise activations",
    "fold normalisation into consumers",
    "merge linear neighbours",
    "expand max pool",
    "refuse leftovers",
];
const ALONE: [&str; 6] = [
    "split client",
    "open clips",
    "split rectifiers",
    "equalise channels",
    "balance channels",
    "complete squares",
];

#[test]
fn every_pass_does_this_to_a_small_graph() {
    let plain = PassOptions::default();
    let fit = PassOptions { max_pool: MaxPool::Fit };
    let [constants, producers, activations, consumers, linear, pool, leftovers] = LISTED;
    let average = PassOptions { max_pool: MaxPool::Average };
    let [client, clip, rectifiers, equalise, balance, squares] = ALONE;
    all_equal([
        listed(constants, fold_constants(), plain),
        listed(producers, into_producers(), plain),
        listed(activations, recognise_activations(), plain),
        listed(consumers, into_consumers(), plain),
        listed(linear, merge_linear(), plain),
        listed(pool, expand_max_pool(), fit),
        listed(leftovers, refuse_leftovers(), average),
        alone(client, client_steps(), |graph| {
            let shape = graph.node(graph.output()).shape.clone();
            format!("{:?}", split_client(graph, &[shape])[0].client)
        }),
        alone(clip, clips(), |graph| {
            let inputs = Builder::inputs(graph);
            open_clips(graph, &inputs).join(", ")
        }),
        alone(rectifiers, straight_pieces(), |graph| {
            let is_activation = |id: &NodeId| matches!(graph.node(*id).op, Op::Activation(_));
            let found: Vec<NodeId> = graph.order().into_iter().filter(is_activation).collect();
            found.into_iter().for_each(|id| drop(split_rectifiers(graph, id)));
            graph.remove_dead();
            String::new()
        }),
        alone(equalise, equalised(), |graph| {
            let inputs = Builder::inputs(graph);
            equalise_channels(graph, &inputs, |_| false);
            String::new()
        }),
        alone(balance, balanced(), |graph| {
            let inputs = Builder::inputs(graph);
            let scales = balance_channels(graph, &inputs);
            let mut scales: Vec<_> =
                scales.iter().map(|(id, s)| format!("{id}: {:?}", s.data)).collect();
            scales.sort();
            scales.join("\n")
        }),
        alone(squares, quadratics(), |graph| {
            complete_square(graph, |_| 1.0);
            String::new()
        }),
    ]);
}

#[test]
fn every_pass_has_its_file() {
    let mut seen = Vec::new();
    let mut graph = merge_linear();
    run_observed(&mut graph, &PassOptions::default(), &mut |pass, _| seen.push(pass.to_owned()))
        .unwrap();
    assert_eq!(seen, LISTED, "a pass without a small graph, or out of order");
    let files: Vec<String> = LISTED.iter().chain(&ALONE).map(|pass| file_name(pass)).collect();
    assert_eq!(unused("tests/golden/passes", &files), [""; 0]);
}
