use super::run as merge;
use crate::passes::testing::{Net, named, names, run};
use ir::Tensor;
use ir::graph::{Graph, Op};

/// Products in a row over `widths`.
fn chain(input: &[usize], widths: &[usize]) -> Graph {
    let mut net = Net::new(input);
    let mut value = net.x();
    for (i, &width) in widths.iter().enumerate() {
        value = net.product(&format!("fc{i}"), value, width);
    }
    net.finish(value)
}

#[test]
fn products_in_a_row_are_one() {
    for input in [&[1, 5][..], &[4, 5], &[1, 3, 5], &[1, 2, 3, 5]] {
        let merged = run(merge, &chain(input, &[6, 7, 4]));
        assert_eq!(names(&merged), ["fc2"], "{input:?}");
        let Op::MatrixProduct { weights, .. } = named(&merged, "fc2") else { unreachable!() };
        assert_eq!(weights.shape.0, [4, 5]);
    }
}

/// Biases of one number, one per row, and one per element of the value.
#[test]
fn biases_of_any_shape_are_moved() {
    for dims in [&[][..], &[1], &[3, 1], &[3, 6], &[1, 3, 6]] {
        let mut graph = chain(&[1, 3, 5], &[6, 6]);
        for id in graph.order() {
            let bias = Net::new(&[1]).tensor(dims);
            if let Op::MatrixProduct { bias: old, .. } = &mut graph.node_mut(id).op {
                *old = bias;
            }
        }
        assert_eq!(names(&run(merge, &graph)), ["fc1"], "{dims:?}");
    }
}

/// `5 → 1 → 5` is cheaper than `5 → 5`, but not by enough.
#[test]
fn narrow_middles_stay_where_they_save_a_lot() {
    // One product has outputs·inputs multiplications, two have (outputs + inputs)·middle.
    for (wide, middle, is_merged) in
        [(5, 1, true), (8, 1, true), (9, 1, false), (16, 2, true), (17, 2, false)]
    {
        let merged = run(merge, &chain(&[1, wide], &[middle, wide]));
        assert_eq!(names(&merged).len() == 1, is_merged, "{wide} → {middle} → {wide}");
    }
}

#[test]
fn a_value_that_something_else_reads_stays() {
    let mut net = Net::new(&[1, 4]);
    let first = net.product("first", net.x(), 4);
    let second = net.product("second", first, 4);
    let sum = net.same("sum", Op::Add, &[first, second]);
    let graph = net.finish(sum);
    assert_eq!(run(merge, &graph).to_string(), graph.to_string());
}

#[test]
fn the_output_stays() {
    let mut net = Net::new(&[1, 4]);
    let first = net.product("first", net.x(), 4);
    net.product("nobody reads it", first, 4);
    let graph = net.finish(first);
    let merged = run(merge, &graph);
    assert_eq!(names(&merged), ["first"]);
}

#[test]
fn what_is_no_product_stays_between_them() {
    let mut net = Net::new(&[1, 1, 4, 4]);
    let made = net.convolution("conv", net.x(), 2);
    let first = net.product("first", made, 4);
    let bent = net.relu(first);
    let last = net.product("last", bent, 4);
    let graph = net.finish(last);
    assert_eq!(run(merge, &graph).to_string(), graph.to_string());
}

/// One that reads its operand twice has it as its only reader, but two uses.
#[test]
fn a_value_that_is_read_twice_stays() {
    let mut net = Net::new(&[1, 4]);
    let first = net.product("first", net.x(), 2);
    let twice = net.add("twice", Op::Concat(1), &[1, 4], &[first, first]);
    let last = net.product("last", twice, 4);
    let graph = net.finish(last);
    assert_eq!(run(merge, &graph).to_string(), graph.to_string());
}

#[test]
fn scalars_are_broadcast() {
    let mut graph = chain(&[1, 3], &[3, 3]);
    for id in graph.order() {
        if let Op::MatrixProduct { bias, .. } = &mut graph.node_mut(id).op {
            *bias = Tensor::scalar(0.5);
        }
    }
    assert_eq!(names(&run(merge, &graph)), ["fc1"]);
}
