//! Which family computes which activation.

use crate::fit::{Families, Family, Harmonics};
use crate::passes::split_rectifiers;
use crate::scales::is_public;
use ir::graph::{Graph, NodeId, Op};
use ir::op::{Activation, Function};

/// Whether a rectifier only decides which of two values is larger: `b + relu(a − b)`. No fit of a period that covers
/// both serves it well.
pub fn is_maximum(graph: &Graph, id: NodeId) -> bool {
    let relu = Op::Activation(Activation::function(Function::Relu));
    if graph.node(id).op != relu {
        return false;
    }
    let difference = graph.operands(id)[0];
    let Some(sum) = graph.only_user(id) else { return false };
    if graph.node(difference).op != Op::Add || graph.node(sum).op != Op::Add {
        return false;
    }
    let other = graph.operands(sum).into_iter().find(|&operand| operand != id);
    let negated = |value: NodeId| match &graph.node(value).op {
        Op::Affine { scale, shift } => {
            let is_negation = scale.data.as_slice() == [-1.0] && shift.data.as_slice() == [0.0];
            is_negation.then(|| graph.operands(value)[0])
        }
        _ => None,
    };
    let operands = graph.operands(difference);
    operands.iter().any(|&operand| negated(operand).is_some_and(|value| other == Some(value)))
}

/// Splits what is to be computed exactly into rectifiers, and says what every activation is computed with: where there
/// are no straight pieces, tables of public functions and phases of others; rectifiers where two values are compared.
pub fn settle(graph: &mut Graph, families: &Families) -> Families {
    let mut settled = families.clone();
    let fitted = match families.usual {
        Family::Select | Family::Table => Family::Phase { harmonics: Harmonics::default() },
        usual @ (Family::Phase { .. } | Family::Polynomial { .. }) => usual,
    };
    for id in graph.order() {
        let Op::Activation(Activation::Exact(function)) = &graph.node(id).op else { continue };
        let is_public = is_public(function);
        let is_chosen = families.own.contains_key(&id);
        let family = match families.of(id) {
            Family::Phase { .. } if !is_chosen && is_maximum(graph, id) => Family::Select,
            family => family,
        };
        let rectifiers = match family {
            Family::Select => split_rectifiers(graph, id),
            Family::Phase { .. } | Family::Polynomial { .. } | Family::Table => None,
        };
        match (family, rectifiers) {
            (Family::Select, Some(all)) => {
                settled.own.extend(all.into_iter().map(|rectifier| (rectifier, Family::Select)));
            }
            (Family::Select | Family::Table, None) if is_public => {
                settled.own.insert(id, Family::Table);
            }
            (Family::Select | Family::Table, None) => drop(settled.own.insert(id, fitted)),
            (family, _) => drop(settled.own.insert(id, family)),
        }
    }
    graph.remove_dead();
    settled
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;
