//! Nodes whose operands are all constant, evaluated at import: by tract, one node at a time, or, where it has not the
//! operator, by the import's own translation.
//!
//! A small file may ask for a large result: the size of a result is known before anything is allocated. tract trusts
//! indices and types of its operands, which [`super::fold_check`] checks first.

use super::builder::Builder;
use super::constant::Constant;
use super::fold_check;
use super::kind::{Kind, REAL};
use super::node::{Call, Refusal, Value, invalid, refuse};
use super::operators;
use super::quiet::{one_line, quietly};
use super::walk::translated;
use ir::graph::{Graph, Op, evaluate};
use ir::tensor::{Shape, Tensor};
use tract_onnx::pb::{GraphProto, ModelProto, NodeProto, OperatorSetIdProto, ValueInfoProto};
use tract_onnx::prelude::{DatumType, IntoTensor, TVec, TractResult};
use tract_onnx::tract_hir::infer::{InferenceFact, InferenceOp};

/// The most elements of all results of a model together.
const MAX_FOLDED: usize = 1 << 28;
/// The most multiplications of one node.
const MAX_WORK: u64 = 1 << 36;

/// Operators whose results differ from run to run.
const RANDOM: &[&str] = &[
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
];

/// The results of a node. `folded` counts the elements of all results of a model.
///
/// # Errors
/// If nothing evaluates the operator, if an operand is not what the operator allows, or if a result is too large.
pub(super) fn fold(
    node: &NodeProto,
    opset: i64,
    operands: &[Option<Constant>],
    folded: &mut usize,
) -> Result<Vec<Constant>, Refusal> {
    if RANDOM.contains(&node.op_type.as_str()) {
        return Err(refuse("its result is random", "put a constant in its place before export"));
    }
    fold_check::check(node, opset, operands)?;
    let results = match by_tract(node, opset, operands, MAX_FOLDED.saturating_sub(*folded)) {
        Ok(results) => results,
        Err(Unable::TooLarge) => {
            return Err(refuse(
                format!("its result has more than {MAX_FOLDED} elements, or takes too long"),
                "compute it before export",
            ));
        }
        Err(Unable::Other(reason)) => by_import(node, opset, operands)?.ok_or_else(|| {
            refuse(
                format!("its operands are constants, but nothing evaluates it at import: {reason}"),
                "fold the model's constants before export",
            )
        })?,
    };
    *folded += results.iter().map(Constant::elements).sum::<usize>();
    Ok(results)
}

enum Unable {
    TooLarge,
    Other(String),
}

/// What tract makes of a node, results that are left out included.
fn by_tract(
    node: &NodeProto,
    opset: i64,
    operands: &[Option<Constant>],
    room: usize,
) -> Result<Vec<Constant>, Unable> {
    let tract = tract_onnx::onnx();
    if fold_check::NOT_BY_TRACT.contains(&node.op_type.as_str())
        || !tract.op_register.0.contains_key(&node.op_type)
    {
        return Err(Unable::Other(format!("no evaluation of {} is known", node.op_type)));
    }
    let mut node = node.clone();
    for (i, name) in node.output.iter_mut().enumerate().filter(|(_, n)| n.is_empty()) {
        *name = format!("left out {i}");
    }
    let named = |name: &String| ValueInfoProto { name: name.clone(), ..Default::default() };
    let graph = GraphProto {
        output: node.output.iter().map(named).collect(),
        node: vec![node.clone()],
        ..GraphProto::default()
    };
    let model = ModelProto {
        opset_import: vec![OperatorSetIdProto { domain: String::new(), version: opset }],
        graph: Some(graph),
        ..ModelProto::default()
    };
    let failed = Unable::Other;
    let op = attempt(|| Ok(tract.parse(&model, None)?.model.node(0).op.clone())).map_err(failed)?;
    let bound = match fold_check::result_bound(&node, operands) {
        Some(bound) => bound,
        None => inferred_bound(op.clone(), &node, operands).map_err(failed)?,
    };
    if bound > room || fold_check::work(&node, operands, bound) > MAX_WORK {
        return Err(Unable::TooLarge);
    }
    let inputs = operands.iter().flatten().map(Constant::operand).collect();
    let results = attempt(|| op.eval_out_of_plan(inputs)).map_err(failed)?;
    let results = results.ok_or_else(|| Unable::Other("it has no value at import".into()))?;
    results.into_iter().map(|r| Constant::evaluated(r).map_err(Unable::Other)).collect()
}

fn attempt<T>(f: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    quietly(f).and_then(|r| r.map_err(|e| one_line(&format!("{e:#}"))))
}

/// The elements of the results by the shapes that tract infers for them.
fn inferred_bound(
    mut op: Box<dyn InferenceOp>,
    node: &NodeProto,
    operands: &[Option<Constant>],
) -> Result<usize, String> {
    let inputs: Vec<InferenceFact> =
        operands.iter().flatten().map(|c| InferenceFact::from(c.operand().into_tensor())).collect();
    let outputs = vec![InferenceFact::default(); node.output.len()];
    let refs = |facts: &[InferenceFact]| facts.iter().cloned().collect::<TVec<_>>();
    let (inputs, outputs) = (refs(&inputs), refs(&outputs));
    let (_, outputs, _) =
        attempt(|| op.infer_facts(inputs.iter().collect(), outputs.iter().collect(), TVec::new()))?;
    let elements = |fact: &InferenceFact| -> Option<usize> {
        let dims = fact.shape.as_concrete_finite().ok()??;
        dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
    };
    let total = outputs.iter().map(elements).try_fold(0usize, |n, e| n.checked_add(e?));
    total.ok_or_else(|| "the size of its result is not known before".into())
}

/// What the import's translation makes of a node of reals, as if its first real operand came from the input; `None`
/// where it has none for this operator or these types.
fn by_import(
    node: &NodeProto,
    opset: i64,
    operands: &[Option<Constant>],
) -> Result<Option<Vec<Constant>>, Refusal> {
    let Ok(translation) = operators::find(&node.domain, &node.op_type) else { return Ok(None) };
    let is_real = |c: &Constant| c.kind().is_float();
    let Some(first) = operands.iter().position(|o| o.as_ref().is_some_and(is_real)) else {
        return Ok(None);
    };
    let kind = operands[first].as_ref().map_or(DatumType::F32, Constant::kind);
    let mut builder = Builder::without_input();
    let mut values = Vec::with_capacity(operands.len());
    for (i, operand) in operands.iter().enumerate() {
        values.push(match operand {
            Some(constant) if i == first => {
                Some(Value::Node(builder.node(&Value::Constant(constant.clone()))?))
            }
            Some(constant) => Some(Value::Constant(constant.clone())),
            None => None,
        });
    }
    let of = |o: &Option<Constant>| o.as_ref().map_or(REAL, |c| Kind::Of(c.element()));
    let kinds = operands.iter().map(of).collect();
    let call = Call { proto: node, opset, operands: values, kinds };
    let (results, kinds) = translated(&mut builder, &call, translation)?;
    if kinds.iter().any(|&k| k != REAL) {
        return Ok(None);
    }
    if work(&builder.graph) > MAX_WORK {
        return Err(refuse("it takes too long to evaluate", "compute it before export"));
    }
    let mut constants = Vec::with_capacity(results.len());
    for result in results {
        constants.push(match result {
            Value::Constant(constant) => constant,
            Value::Node(id) => {
                builder.graph.set_output(id);
                let value = evaluate(&builder.graph, &Tensor::scalar(0.0), |_, _| ());
                Constant::of_kind(&value, kind).map_err(invalid)?
            }
            _ => return Ok(None),
        });
    }
    Ok(Some(constants))
}

/// The multiplications of a graph, about.
fn work(graph: &Graph) -> u64 {
    let of = |op: &Op, shape: &Shape| {
        let each = match op {
            Op::MatrixProduct { weights, .. } => weights.shape.0[1],
            Op::Convolution { weights, .. } => weights.shape.0[1..].iter().product(),
            Op::SumWindows { kernel, .. }
            | Op::AverageWindows { kernel, .. }
            | Op::MaxWindows { kernel, .. } => kernel[0].saturating_mul(kernel[1]),
            _ => 1,
        };
        (shape.elements() as u64).saturating_mul(each as u64)
    };
    let nodes = graph.order();
    nodes
        .iter()
        .map(|&id| of(&graph.node(id).op, &graph.node(id).shape))
        .fold(0, u64::saturating_add)
}
