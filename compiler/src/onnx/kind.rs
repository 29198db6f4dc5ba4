//! What the numbers of every value of a file are: floats, integers of a type, or the parts of a dynamic
//! quantisation. The graph computes over the reals; here stands which operators mean the same on integers.

use super::builder::Builder;
use super::dynamic;
use super::node::{Call, Refusal, Typed, Value, invalid, refuse};
use ir::ElementType;
use ir::graph::{NodeId, Op};
use std::collections::HashMap;
use std::fmt;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};

/// What the numbers of a value are. A dynamic quantisation is named by the value that it is of: its scale
/// follows from that value and is never computed. The integers stand for that value itself, the scale is
/// the constant 1 and the zero point the constant 0, which is right wherever all three meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// Elements of a type.
    Of(ElementType),
    /// The integers of a dynamic quantisation.
    Quantized(NodeId),
    /// Its zero point.
    ZeroPoint(NodeId),
    /// A constant times its scale.
    Scale(NodeId),
    /// Multiples of its scale.
    Steps(NodeId),
}

pub(super) const REAL: Kind = Kind::Of(ElementType::Real);
pub(super) const INT32: Kind = Kind::Of(ElementType::Integer { bits: 32, signed: true });
pub(super) const INT64: Kind = Kind::Of(ElementType::Integer { bits: 64, signed: true });
pub(super) const UINT8: Kind = Kind::Of(ElementType::Integer { bits: 8, signed: false });

impl Kind {
    /// The element type; `None` for parts of a dynamic quantisation.
    pub(super) fn element(self) -> Option<ElementType> {
        if let Self::Of(element) = self { Some(element) } else { None }
    }

    fn is_whole(self) -> bool {
        self.element().is_some_and(ElementType::is_whole)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Of(element) => write!(f, "{element}"),
            _ => write!(f, "a part of a DynamicQuantizeLinear"),
        }
    }
}

/// The element type of an ONNX type; as an error, the name of one that holds no numbers of ours.
pub(super) fn element_of(data_type: i32) -> Result<ElementType, String> {
    let integer = |bits, signed| Ok(ElementType::Integer { bits, signed });
    match DataType::try_from(data_type) {
        Ok(DataType::Float | DataType::Double | DataType::Float16 | DataType::Bfloat16) => {
            Ok(ElementType::Real)
        }
        Ok(DataType::Bool) => Ok(ElementType::Bool),
        Ok(DataType::Uint4) => integer(4, false),
        Ok(DataType::Uint8) => integer(8, false),
        Ok(DataType::Uint16) => integer(16, false),
        Ok(DataType::Uint32) => integer(32, false),
        Ok(DataType::Uint64) => integer(64, false),
        Ok(DataType::Int4) => integer(4, true),
        Ok(DataType::Int8) => integer(8, true),
        Ok(DataType::Int16) => integer(16, true),
        Ok(DataType::Int32) => integer(32, true),
        Ok(DataType::Int64) => integer(64, true),
        Ok(other) => Err(other.as_str_name().to_lowercase()),
        Err(_) => Err(format!("type {data_type}")),
    }
}

/// The kinds of values by name.
pub(super) struct Kinds(HashMap<String, Kind>);

impl Kinds {
    /// Those of the initializers.
    pub(super) fn new(graph: &GraphProto) -> Self {
        let of = |t: &TensorProto| Some((t.name.clone(), Kind::Of(element_of(t.data_type).ok()?)));
        Self(graph.initializer.iter().filter_map(of).collect())
    }

    pub(super) fn set(&mut self, name: &str, kind: Kind) {
        self.0.insert(name.to_owned(), kind);
    }

    /// The kinds of a node's operands.
    pub(super) fn of_operands(&self, node: &NodeProto, values: &[Option<Value>]) -> Vec<Kind> {
        let of = |(name, value): (&String, &Option<Value>)| match (self.0.get(name), value) {
            (Some(&kind), _) => kind,
            (None, Some(Value::Constant(constant))) => Kind::Of(constant.element()),
            _ => REAL,
        };
        node.input.iter().zip(values).map(of).collect()
    }

    /// Notes the kinds of a node's results: the last one is that of the rest too, and constants have their
    /// own.
    pub(super) fn note(&mut self, node: &NodeProto, results: &[Value], kinds: &[Kind]) {
        let named = node.output.iter().zip(results).enumerate();
        for (position, (name, result)) in named.filter(|(_, (name, _))| !name.is_empty()) {
            let kind = match (kinds.get(position).or(kinds.last()), result) {
                (Some(Kind::Of(_)) | None, Value::Constant(constant)) => {
                    Kind::Of(constant.element())
                }
                (Some(&kind), _) => kind,
                (None, _) => REAL,
            };
            self.set(name, kind);
        }
    }

    /// The kind of a value.
    pub(super) fn get(&self, name: &str) -> Kind {
        self.0.get(name).copied().unwrap_or(REAL)
    }
}

/// How an operator treats integers.
enum Rule {
    /// Moves elements of any type; its data are the operands at these positions.
    Moves(&'static [usize]),
    /// As `Moves`, all operands.
    MovesAll,
    /// Computes the same over integers as over reals, as long as nothing wraps around.
    Exact(&'static [usize]),
    /// As `Exact`, all operands.
    ExactAll,
    /// Knows the kinds of its operands itself.
    Own,
    /// Positions among numbers of any type.
    Index,
    /// Divides, and cuts fractions off.
    Divides,
    /// Floats only.
    Real,
}

fn rule(call: &Call) -> Rule {
    match call.proto.op_type.as_str() {
        "CenterCropPad" | "Compress" | "DepthToSpace" | "Dropout" | "Expand" | "Flatten"
        | "Gather" | "GatherElements" | "GatherND" | "Identity" | "Reshape" | "ReverseSequence"
        | "Slice" | "SpaceToDepth" | "Split" | "Squeeze" | "Tile" | "Transpose" | "Trilu"
        | "Unsqueeze" => Rule::Moves(&[0]),
        "Resize" | "Upsample" if call.string("mode", "nearest") == "nearest" => Rule::Moves(&[0]),
        "Where" => Rule::Moves(&[1, 2]),
        "Pad" | "ScatterND" | "ScatterElements" | "Scatter"
            if call.string("reduction", "none") == "none" =>
        {
            Rule::Moves(&[0, 2])
        }
        "ScatterND" | "ScatterElements" => Rule::Exact(&[0, 2]),
        "Concat" => Rule::MovesAll,
        // What they give is one of their operands' elements, a bound, or a sign.
        "MaxPool" | "ReduceMax" | "ReduceMin" | "Relu" | "Sign" => Rule::Moves(&[0]),
        "Clip" | "Max" | "Min" => Rule::MovesAll,
        "Abs" | "Col2Im" | "CumSum" | "Neg" | "ReduceL1" | "ReduceProd" | "ReduceSum"
        | "ReduceSumSquare" => Rule::Exact(&[0]),
        "Add" | "Einsum" | "MatMul" | "Mul" | "PRelu" | "Sub" | "Sum" => Rule::ExactAll,
        "Gemm" if call.float("alpha", 1.0) == 1.0 && call.float("beta", 1.0) == 1.0 => {
            Rule::ExactAll
        }
        "Pow" => match call.reals(1) {
            Ok(c) if c.data.iter().all(|v| v.fract() == 0.0 && *v >= 0.0) => Rule::Exact(&[0]),
            _ => Rule::Divides,
        },
        "Div" | "ReduceMean" => Rule::Divides,
        "ArgMax" | "ArgMin" => Rule::Index,
        "Cast"
        | "CastLike"
        | "ConvInteger"
        | "DequantizeLinear"
        | "DynamicQuantizeLinear"
        | "MatMulInteger"
        | "QLinearConv"
        | "QLinearMatMul"
        | "QuantizeLinear"
        | "Shape"
        | "Size" => Rule::Own,
        _ if call.proto.domain == super::operators::MICROSOFT => Rule::Own,
        name if super::sequence::OPERATORS.contains(&name) => Rule::Own,
        _ => Rule::Real,
    }
}

/// The kinds of a node's results, the last one that of the rest too; an empty list where its translation
/// says them.
///
/// # Errors
/// If the operator means something else on operands of these kinds than on reals.
pub(super) fn of_results(call: &Call) -> Result<Vec<Kind>, Refusal> {
    if call.kinds.iter().any(|k| k.element().is_none()) {
        return dynamic::kind_of_result(call).map(|kind| vec![kind]);
    }
    let all: Vec<usize> = (0..call.kinds.len()).collect();
    let kind = match rule(call) {
        Rule::Moves(positions) | Rule::Exact(positions) => common(call, positions)?,
        Rule::MovesAll | Rule::ExactAll => common(call, &all)?,
        Rule::Own => return Ok(vec![]),
        Rule::Index => INT64,
        Rule::Divides => match common(call, &[0])? {
            kind if kind.is_whole() => {
                return Err(refuse(
                    format!("it divides numbers of type {kind}, and ONNX cuts fractions off"),
                    "a truncation has jumps: cast to float in front of it",
                ));
            }
            kind => kind,
        },
        Rule::Real => {
            let values = call.operands.iter().zip(&call.kinds);
            let whole = values.filter(|(o, k)| matches!(o, Some(Value::Node(_))) && k.is_whole());
            if let Some((_, kind)) = whole.into_iter().next() {
                return Err(refuse(
                    format!("of numbers of type {kind} it is not supported"),
                    "cast to float in front of it",
                ));
            }
            REAL
        }
    };
    Ok(match call.proto.op_type.as_str() {
        "MaxPool" => vec![kind, INT64],
        "Dropout" => vec![kind, Kind::Of(ElementType::Bool)],
        _ => vec![kind],
    })
}

/// The one kind of the operands at these positions.
fn common(call: &Call, positions: &[usize]) -> Result<Kind, Refusal> {
    let there = positions.iter().filter(|&&p| call.optional(p).is_some());
    let mut kinds = there.filter_map(|&p| call.kinds.get(p).copied());
    let Some(first) = kinds.next() else { return Ok(REAL) };
    match kinds.find(|&other| other != first) {
        Some(other) => Err(invalid(format!("its operands are of types {first} and {other}"))),
        None => Ok(first),
    }
}

/// Refuses results that may leave the range of their type, where ONNX wraps around.
pub(super) fn check_results(
    b: &Builder,
    call: &Call,
    results: &[Value],
    kinds: &[Kind],
) -> Result<(), Refusal> {
    let is_product = ["ConvInteger", "MatMulInteger"].contains(&call.proto.op_type.as_str());
    let is_exact = is_product || matches!(rule(call), Rule::Exact(_) | Rule::ExactAll);
    let (Some(Value::Node(id)), Some(Kind::Of(element)), true) =
        (results.first(), kinds.first(), is_exact)
    else {
        return Ok(());
    };
    match element.range() {
        Some(range) if !holds(range, b.range(*id)) => Err(wraps(*element)),
        _ => Ok(()),
    }
}

/// Whether a range lies in another.
pub(super) fn holds(outer: (f64, f64), inner: (f64, f64)) -> bool {
    outer.0 <= inner.0 && inner.1 <= outer.1
}

/// The refusal of results outside their type.
pub(super) fn wraps(element: ElementType) -> Refusal {
    refuse(
        format!("its result can leave the range of {element}, where ONNX wraps around"),
        "cast to a wider type, or to float, in front of it",
    )
}

/// The output as its users get it: whole numbers are made so by the client.
///
/// # Errors
/// For parts of a dynamic quantisation.
pub(super) fn output(b: &mut Builder, value: &Value, kind: Kind) -> Result<Value, Refusal> {
    let Some(element) = kind.element() else {
        return Err(dynamic::alone());
    };
    match value {
        Value::Node(id) if element.is_whole() && !is_whole(b, *id) => {
            let integers = ir::Integers { element, truncates: false };
            b.add(Op::Integers(integers), b.shape(*id), &[*id]).map(Value::Node)
        }
        _ => Ok(value.clone()),
    }
}

/// Whether the client makes whole numbers of a value anyway.
fn is_whole(b: &Builder, mut id: NodeId) -> bool {
    while matches!(b.graph.node(id).op, Op::Reshape) {
        id = b.graph.operands(id)[0];
    }
    matches!(b.graph.node(id).op, Op::ArgMax(_) | Op::Integers(_))
}

/// `Cast`: reals to integers by the client at the end; between other types where no number changes.
pub(super) fn cast(b: &mut Builder, call: &Call) -> Typed {
    let target = i32::try_from(call.int("to", 0)).map_err(|_| invalid("its type is unknown"))?;
    let target = element_of(target).map_err(|name| {
        refuse(format!("a cast to {name} is not supported"), "expected numbers of a plain type")
    })?;
    converted(b, call, Kind::Of(target))
}

/// `CastLike`: `Cast` to the type of the second operand.
pub(super) fn cast_like(b: &mut Builder, call: &Call) -> Typed {
    call.operand(1)?;
    converted(b, call, call.kind(1))
}

fn converted(b: &mut Builder, call: &Call, to: Kind) -> Typed {
    let Some(target) = to.element() else { return Err(dynamic::alone()) };
    let Some(source) = call.kind(0).element() else {
        // Allowed by `dynamic`: a change of type alone.
        return Ok(vec![(call.operand(0)?.clone(), call.kind(0))]);
    };
    let is_small = matches!(target, ElementType::Integer { bits: ..8, .. });
    let x = match call.operand(0)? {
        _ if is_small && source != target => {
            return Err(refuse(
                format!("a cast to {target} is not supported"),
                "quantise to it by QuantizeLinear, which says what saturates",
            ));
        }
        Value::Constant(constant) => {
            let cast =
                constant.cast(target).ok_or_else(|| invalid("its operand is not numeric"))?;
            return Ok(vec![(Value::Constant(cast), to)]);
        }
        _ => call.value(0)?,
    };
    let y = match (source, target.range()) {
        (_, None) => x,
        _ if source == target => x,
        (_, _) if target == ElementType::Bool => {
            return Err(refuse(
                "a cast to bool compares with zero",
                "comparisons of values computed from the input are not supported; remove it",
            ));
        }
        (ElementType::Real, _) => {
            let integers = ir::Integers { element: target, truncates: true };
            b.add(Op::Integers(integers), b.shape(x), &[x])?
        }
        (_, Some(range)) if holds(range, b.range(x)) => x,
        _ => return Err(wraps(target)),
    };
    Ok(vec![(Value::Node(y), to)])
}
