use super::run as fold;
use crate::passes::testing::{Net, named, names, run};
use ir::graph::{Op, evaluate_node};

#[test]
fn chains_of_constants_become_one() {
    let mut net = Net::new(&[1, 6]);
    let (a, b) = (net.constant("a", &[2, 3]), net.constant("b", &[2, 3]));
    let sum = net.same("sum", Op::Add, &[a, b]);
    let turned = net.add("turned", Op::Transpose(vec![1, 0]), &[3, 2], &[sum]);
    let flat = net.add("flat", Op::Reshape, &[1, 6], &[turned]);
    let end = net.same("end", Op::Add, &[net.x(), flat]);
    let graph = net.finish(end);
    let folded = run(fold, &graph);
    assert_eq!(names(&folded), ["flat", "end"]);
    assert!(matches!(named(&folded, "flat"), Op::Constant(value) if value.shape.0 == [1, 6]));
}

/// Not only what is elementwise.
#[test]
fn layers_of_constants_are_constants() {
    let mut net = Net::new(&[1, 3, 2, 2]);
    let image = net.constant("image", &[1, 2, 2, 2]);
    let made = net.convolution("conv", image, 3);
    let bent = net.relu(made);
    let end = net.same("end", Op::Multiply, &[net.x(), bent]);
    let graph = net.finish(end);
    let folded = run(fold, &graph);
    assert_eq!(names(&folded), ["relu", "end"]);
}

#[test]
fn a_value_with_several_readers_is_folded_for_all_of_them() {
    let mut net = Net::new(&[1, 4]);
    let shared = net.constant("shared", &[1, 4]);
    let bent = net.relu(shared);
    let first = net.same("first", Op::Add, &[net.x(), bent]);
    let second = net.same("second", Op::Multiply, &[first, shared]);
    let third = net.same("third", Op::Add, &[second, bent]);
    let graph = net.finish(third);
    let folded = run(fold, &graph);
    assert_eq!(names(&folded).len(), 5);
    assert!(matches!(named(&folded, "relu"), Op::Constant(_)));
    assert!(matches!(named(&folded, "shared"), Op::Constant(_)));
}

#[test]
fn what_reads_the_input_stays() {
    let mut net = Net::new(&[1, 4]);
    let constant = net.constant("constant", &[1, 4]);
    let first = net.product("first", net.x(), 4);
    let joined = net.add("joined", Op::Concat(1), &[1, 8], &[first, constant]);
    let end = net.product("end", joined, 2);
    let graph = net.finish(end);
    assert_eq!(run(fold, &graph).to_string(), graph.to_string());
}

#[test]
fn an_output_that_no_input_changes_is_a_constant() {
    let mut net = Net::new(&[1, 4]);
    let constant = net.constant("constant", &[1, 4]);
    let end = net.product("end", constant, 2);
    let graph = net.finish(end);
    let Op::Constant(input) = named(&graph, "constant").clone() else { unreachable!() };
    let want = evaluate_node(named(&graph, "end"), &graph.node(graph.output()).shape, &[&input]);
    let folded = run(fold, &graph);
    assert!(matches!(named(&folded, "end"), Op::Constant(value) if *value == want));
    assert_eq!(names(&folded), ["end"]);
}
