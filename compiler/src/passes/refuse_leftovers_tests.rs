use super::run as refuse;
use crate::error::CompileError;
use crate::passes::testing::Net;
use crate::passes::{MaxPool, PassOptions};
use ir::graph::{Graph, Op};
use ir::{ElementType, Integers};

/// Names and operators of what is refused.
fn refused(graph: &Graph, max_pool: MaxPool) -> Vec<(String, String)> {
    let mut after = graph.clone();
    let result = refuse(&mut after, &PassOptions { max_pool });
    assert_eq!(after.to_string(), graph.to_string(), "nothing is changed");
    match result {
        Ok(()) => vec![],
        Err(CompileError::Unsupported(nodes)) => {
            assert!(nodes.iter().all(|n| !n.reason.is_empty() && !n.advice.is_empty()));
            nodes.into_iter().map(|n| (n.name, n.operator)).collect()
        }
        Err(error) => panic!("{error}"),
    }
}

fn pool(net: &mut Net, name: &str, dilation: usize) -> ir::graph::NodeId {
    let op =
        Op::MaxWindows { kernel: [2, 2], stride: [1, 1], dilation: [dilation; 2], padding: [0; 4] };
    let side = 6 - dilation;
    net.add(name, op, &[1, 1, side, side], &[net.x()])
}

#[test]
fn every_node_is_named_once() {
    let mut net = Net::new(&[1, 4]);
    let (p, q) = (net.product("p", net.x(), 4), net.product("q", net.x(), 4));
    let gate = net.same("gate", Op::Multiply, &[p, q]);
    let again = net.same("gate", Op::Multiply, &[gate, q]);
    let over = net.same("gate", Op::Divide, &[again, p]);
    let soft = net.same("soft", Op::Softmax(1), &[over]);
    let log = net.same("log", Op::LogSoftmax(1), &[soft]);
    let element = ElementType::Integer { bits: 8, signed: true };
    let integers = Integers { element, truncates: false };
    let rounded = net.same("rounded", Op::Integers(integers), &[log]);
    let cut = net.same("cut", Op::Integers(Integers { truncates: true, ..integers }), &[rounded]);
    let best = net.add("best", Op::ArgMax(1), &[1, 1], &[cut]);
    let graph = net.finish(best);
    let want = [
        ("gate", "Mul"),
        ("gate", "Div"),
        ("soft", "Softmax"),
        ("log", "LogSoftmax"),
        ("rounded", "QuantizeLinear"),
        ("cut", "Cast"),
        ("best", "ArgMax"),
    ];
    let want = want.map(|(name, operator)| (name.to_owned(), operator.to_owned()));
    assert_eq!(refused(&graph, MaxPool::Exact), want);
}

/// An average takes the place of a maximum; of one over dilated windows, none does.
#[test]
fn maxima_are_refused_unless_something_takes_their_place() {
    let is_refused = |dilation: usize| {
        let mut net = Net::new(&[1, 1, 6, 6]);
        let output = pool(&mut net, "pool", dilation);
        !refused(&net.finish(output), MaxPool::Average).is_empty()
    };
    assert_eq!([1, 2].map(is_refused), [false, true]);
}

#[test]
fn what_two_parties_compute_is_let_through() {
    let mut net = Net::new(&[1, 2, 4, 4]);
    let x = net.convolution("conv", net.x(), 2);
    let x = net.relu(x);
    let x = net.polynomial("p", x, &[&[0.5, -1.0, 2.0]]);
    let x = net.same("twice", Op::Add, &[x, x]);
    let x = net.add("flat", Op::Reshape, &[1, 32], &[x]);
    let x = net.product("fc", x, 2);
    assert_eq!(refused(&net.finish(x), MaxPool::Exact), []);
}
