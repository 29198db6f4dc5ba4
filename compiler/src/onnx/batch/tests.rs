use super::*;
use ir::graph::evaluate;
use ir::op::{Convolution, Function};

const ITEMS: usize = 3;

fn numbers(count: usize, seed: u32) -> Vec<f32> {
    (0..count as u32).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
}

fn tensor(dims: &[usize], seed: u32) -> Tensor<f32> {
    let shape = Shape::new(dims);
    let data = numbers(shape.elements(), seed);
    Tensor::new(shape, data)
}

fn add(graph: &mut Graph, op: Op, dims: &[usize], operands: &[NodeId]) -> NodeId {
    let name = op.name();
    let id = graph.add(name, op, Shape::new(dims), operands);
    graph.set_output(id);
    id
}

/// The graph of one item gives what the graph of several gives for each.
fn check(graph: &Graph) {
    graph.verify().unwrap();
    let mut one = graph.clone();
    single(&mut one, ITEMS).unwrap();
    one.verify().unwrap();
    let input = graph.node(graph.input()).shape.0.clone();
    let items = tensor(&input, 1);
    let all = evaluate(graph, &items, |_, _| ());
    let shape = one.node(one.input()).shape.clone();
    assert_eq!(shape.elements() * ITEMS, items.data.len());
    let each = items.data.chunks_exact(shape.elements()).flat_map(|item| {
        evaluate(&one, &Tensor::new(shape.clone(), item.to_vec()), |_, _| ()).data
    });
    assert_eq!(each.collect::<Vec<_>>(), all.data);
}

fn fails(graph: &Graph, node: &str) {
    graph.verify().unwrap();
    let mut one = graph.clone();
    let failed = single(&mut one, ITEMS).unwrap_err();
    assert_eq!(failed.node, node);
    assert_eq!(one.to_string(), graph.to_string(), "the graph is as it was");
}

fn relu() -> Op {
    Op::Activation(Activation::function(Function::Relu))
}

fn convolution(outputs: usize, inputs: usize) -> Op {
    let geometry = Convolution {
        groups: 1,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1; 4],
    };
    let weights = tensor(&[outputs, inputs, 3, 3], 2);
    Op::Convolution { geometry, weights, bias: tensor(&[outputs, 1, 1], 3) }
}

#[test]
fn items_are_followed_through_convolutions_transpositions_and_joins() {
    let mut g = Graph::new("x", Shape::new([ITEMS, 2, 4, 4]));
    let x = g.input();
    let y = add(&mut g, convolution(4, 2), &[ITEMS, 4, 4, 4], &[x]);
    let y = add(&mut g, relu(), &[ITEMS, 4, 4, 4], &[y]);
    // Maxima over windows as the import writes them: images as channels.
    let flat = add(&mut g, Op::Reshape, &[1, ITEMS * 4, 4, 4], &[y]);
    let pool = Op::MaxWindows { kernel: [2, 2], stride: [2, 2], dilation: [1, 1], padding: [0; 4] };
    let y = add(&mut g, pool, &[1, ITEMS * 4, 2, 2], &[flat]);
    let y = add(&mut g, Op::Reshape, &[ITEMS, 4, 2, 2], &[y]);
    let y = add(&mut g, Op::Transpose(vec![2, 0, 3, 1]), &[2, ITEMS, 2, 4], &[y]);
    let scale = Op::Affine { scale: tensor(&[2, 1, 2, 4], 5), shift: tensor(&[4], 6) };
    let y = add(&mut g, scale, &[2, ITEMS, 2, 4], &[y]);
    let same = Tensor::new(Shape::new([2, ITEMS, 1, 4]), vec![0.5; 2 * ITEMS * 4]);
    let constant = add(&mut g, Op::Constant(same), &[2, ITEMS, 1, 4], &[]);
    let y = add(&mut g, Op::Concat(2), &[2, ITEMS, 3, 4], &[y, constant]);
    let y = add(&mut g, Op::Transpose(vec![1, 2, 0, 3]), &[ITEMS, 3, 2, 4], &[y]);
    let y = add(&mut g, Op::Reshape, &[ITEMS, 24], &[y]);
    let product = Op::MatrixProduct { weights: tensor(&[5, 24], 7), bias: tensor(&[5], 8) };
    let y = add(&mut g, product, &[ITEMS, 5], &[y]);
    add(&mut g, Op::Softmax(1), &[ITEMS, 5], &[y]);
    check(&g);
}

#[test]
fn items_stay_apart_where_their_axis_is_merged_with_others() {
    let mut g = Graph::new("x", Shape::new([ITEMS, 4, 5]));
    let x = g.input();
    let rows = add(&mut g, Op::Reshape, &[ITEMS * 4, 5], &[x]);
    let product = Op::MatrixProduct { weights: tensor(&[6, 5], 7), bias: tensor(&[6], 8) };
    let y = add(&mut g, product, &[ITEMS * 4, 6], &[rows]);
    let y = add(&mut g, relu(), &[ITEMS * 4, 6], &[y]);
    let y = add(&mut g, Op::Reshape, &[ITEMS, 4, 6], &[y]);
    add(&mut g, Op::SumAxes(vec![1]), &[ITEMS, 1, 6], &[y]);
    check(&g);
}

#[test]
fn what_mixes_moves_or_counts_is_named() {
    let graph = |op: Op, dims: &[usize]| {
        let mut g = Graph::new("x", Shape::new([ITEMS, 4]));
        let x = g.input();
        add(&mut g, op, dims, &[x]);
        g
    };
    fails(&graph(Op::SumAxes(vec![0]), &[1, 4]), "SumAxes");
    fails(&graph(Op::Softmax(0), &[ITEMS, 4]), "Softmax");
    let reverse = (0..ITEMS as u32).rev().map(Some).collect();
    fails(&graph(Op::Take { axis: 0, indices: reverse }, &[ITEMS, 4]), "Take");
    fails(&graph(Op::Transpose(vec![1, 0]), &[4, ITEMS]), "Transpose");
    let per_row = Op::Affine { scale: tensor(&[ITEMS, 1], 4), shift: Tensor::scalar(0.0) };
    fails(&graph(per_row, &[ITEMS, 4]), "Affine");
    fails(&graph(Op::Reshape, &[4, ITEMS]), "Reshape");
    let same = Op::Affine {
        scale: Tensor::new(Shape::new([ITEMS, 1]), vec![2.0; ITEMS]),
        shift: tensor(&[4], 5),
    };
    check(&graph(same, &[ITEMS, 4]));
}

#[test]
fn a_convolution_of_several_images_equals_that_of_one_with_groups() {
    let mut g = Graph::new("x", Shape::new([ITEMS, 2, 4, 4]));
    let x = g.input();
    let y = add(&mut g, convolution(4, 2), &[ITEMS, 4, 4, 4], &[x]);
    add(&mut g, Op::SumAxes(vec![0]), &[1, 4, 4, 4], &[y]);
    let mut joined = g.clone();
    join_images(&mut joined, 1000).unwrap();
    joined.verify().unwrap();
    let input = tensor(&[ITEMS, 2, 4, 4], 9);
    let [a, b] = [&g, &joined].map(|g| evaluate(g, &input, |_, _| ()));
    assert!(a.data.iter().zip(&b.data).all(|(a, b)| (a - b).abs() < 1e-4));
    assert!(join_images(&mut g, 100).is_err(), "216 weights are too many");
}
