use super::complete_square;
use crate::passes::testing::{Net, changed, named, names};
use ir::graph::{Graph, Op, Statistics};
use ir::op::{Activation, Polynomial};

fn completed(graph: &Graph) -> Graph {
    changed(graph, |graph| {
        complete_square(graph, |_| 1.0);
    })
}

fn coefficients<'a>(graph: &'a Graph, name: &str) -> &'a [Vec<f64>] {
    match named(graph, name) {
        Op::Activation(Activation::Polynomial(Polynomial { coefficients })) => coefficients,
        _ => panic!("{name} is no polynomial:\n{graph}"),
    }
}

/// Whether every row is `x² + c`.
fn is_square(graph: &Graph, name: &str) -> bool {
    coefficients(graph, name).iter().all(|row| row[1..] == [0.0, 1.0])
}

#[test]
fn quadratics_behind_products_and_convolutions_become_squares() {
    let mut net = Net::new(&[1, 4]);
    let x = net.product("fc", net.x(), 3);
    let y = net.polynomial("one", x, &[&[0.5, -1.0, 2.0]]);
    let x = net.product("fc2", y, 3);
    let y = net.polynomial("each", x, &[&[0.1, 0.2, 0.3], &[0.0, -1.0, 1.0], &[3.0, 0.0, 0.5]]);
    let graph = net.finish(y);
    let square = completed(&graph);
    assert!(is_square(&square, "one") && is_square(&square, "each"));
    // The constant stays with the square: c − b²/4a.
    assert_eq!(coefficients(&square, "one")[0][0], 0.5 - 1.0 / 8.0);
    assert_eq!(names(&square), names(&graph));
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.convolution("conv", net.x(), 2);
    let y = net.polynomial("each", x, &[&[0.5, -1.0, 2.0], &[0.0, 1.0, 0.25]]);
    assert!(is_square(&completed(&net.finish(y)), "each"));
}

/// Sign and constant go to the readers, whose borders of zeros must not see them.
#[test]
fn signs_are_folded_into_what_reads_them() {
    let rows: &[&[f64]] = &[&[0.5, -1.0, -2.0], &[1.0, 1.0, 0.25]];
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.convolution("conv", net.x(), 2);
    let y = net.polynomial("mixed", x, rows);
    let pooled =
        net.add("pool", Op::SumWindows { kernel: [2, 2], stride: [2, 2] }, &[1, 2, 2, 2], &[y]);
    let z = net.convolution("padded", pooled, 3);
    let graph = net.finish(z);
    let square = completed(&graph);
    assert!(is_square(&square, "mixed"));
    assert_eq!(coefficients(&square, "mixed").iter().map(|r| r[0]).sum::<f64>(), 0.0);
    assert_eq!(names(&square).len(), names(&graph).len(), "no affine map is left:\n{square}");
}

/// Several readers each take the sign.
#[test]
fn every_reader_takes_the_sign() {
    let mut net = Net::new(&[1, 4]);
    let x = net.product("fc", net.x(), 4);
    let y = net.polynomial("down", x, &[&[0.5, -1.0, -2.0]]);
    let (a, b) = (net.product("a", y, 3), net.product("b", y, 3));
    let sum = net.same("sum", Op::Add, &[a, b]);
    let graph = net.finish(sum);
    let square = completed(&graph);
    assert!(is_square(&square, "down"));
    assert_eq!(names(&square).len(), 5);
}

#[test]
fn quadratics_that_cannot_be_squares_stay() {
    let build = |rows: &[&[f64]],
                 output: &dyn Fn(
        &mut Net,
        ir::graph::NodeId,
        ir::graph::NodeId,
    ) -> ir::graph::NodeId| {
        let mut net = Net::new(&[1, 3]);
        let x = net.product("fc", net.x(), 3);
        let y = net.polynomial("p", x, rows);
        let end = output(&mut net, x, y);
        net.finish(end)
    };
    let down: &[&[f64]] = &[&[0.5, -1.0, -2.0]];
    let up: &[&[f64]] = &[&[0.5, -1.0, 2.0]];
    let cases = [
        ("a sign at the output", build(down, &|_, _, y| y)),
        ("a sign in front of a function", build(down, &|net, _, y| net.relu(y))),
        (
            "a sign in front of a sum",
            build(down, &|net, _, y| {
                let z = net.product("fc2", y, 3);
                net.same("sum", Op::Add, &[y, z])
            }),
        ),
        (
            "another reader of the operand",
            build(up, &|net, x, y| net.same("sum", Op::Add, &[x, y])),
        ),
        ("nearly a line", build(&[&[0.5, 1.0, 1e-6]], &|_, _, y| y)),
        (
            "a line among quadratics",
            build(&[&[0.5, 1.0, 1.0], &[0.5, 1.0, 0.0], &[0.5, 1.0, 1.0]], &|_, _, y| y),
        ),
        ("a cubic", build(&[&[0.5, 1.0, 1.0, 1.0]], &|_, _, y| y)),
    ];
    for (why, graph) in cases {
        let after = completed(&graph);
        assert_eq!(coefficients(&after, "p"), coefficients(&graph, "p"), "{why}");
        assert_eq!(after.to_string(), graph.to_string(), "{why}");
    }
}

#[test]
fn an_operand_without_weights_stays() {
    let mut net = Net::new(&[1, 3]);
    let y = net.polynomial("of the input", net.x(), &[&[0.5, -1.0, 2.0]]);
    let z = net.product("fc", y, 3);
    let graph = net.finish(z);
    assert_eq!(completed(&graph).to_string(), graph.to_string());
}

/// A square of values `g` times larger takes `log₂ g` bits more.
#[test]
fn squares_that_would_be_much_larger_than_the_value_stay() {
    let mut net = Net::new(&[1, 3]);
    let x = net.product("fc", net.x(), 3);
    let y = net.polynomial("p", x, &[&[0.0, 1.0, 0.01]]);
    let graph = net.finish(y);
    // The vertex lies at b²/4a = 25 beside values of 1: within 64 times. Of 0.1 they are not.
    let of = |spread: f64| {
        changed(&graph, |g| {
            complete_square(g, |id| if g_is(&graph, id, "p") { spread } else { 1.0 });
        })
    };
    assert!(is_square(&of(1.0), "p"));
    assert!(!is_square(&of(0.1), "p"));
}

fn g_is(graph: &Graph, id: ir::graph::NodeId, name: &str) -> bool {
    graph.node(id).name == name
}

#[test]
fn statistics_of_what_was_scaled_are_forgotten() {
    let mut net = Net::new(&[1, 3]);
    let x = net.product("fc", net.x(), 3);
    let statistics = Statistics { mean: vec![0.0; 3], deviation: vec![1.0; 3] };
    net.graph.node_mut(x).statistics = Some(statistics);
    let y = net.polynomial("p", x, &[&[0.5, -1.0, 2.0]]);
    let square = completed(&net.finish(y));
    assert!(square.order().iter().all(|&id| square.node(id).statistics.is_none()));
}
