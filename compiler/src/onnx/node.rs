//! One ONNX node with its operands resolved, and why it may be refused.

use super::constant::Constant;
use super::kind::{Kind, REAL};
use ir::graph::NodeId;
use ir::tensor::Tensor;
use tract_onnx::pb::{AttributeProto, NodeProto};

/// What an ONNX value is to the import.
#[derive(Clone)]
pub(super) enum Value {
    /// Known at import.
    Constant(Constant),
    /// Computed from the input.
    Node(NodeId),
    /// A sequence of known length.
    Sequence(Vec<(Value, Kind)>),
    /// The result of a node that was refused.
    Unknown,
}

/// The results of a node, and what the numbers of each are.
pub(super) type Typed = Result<Vec<(Value, Kind)>, Refusal>;

/// Why a node is refused, and what its owner can do.
#[derive(Debug)]
pub(super) struct Refusal {
    pub reason: String,
    pub advice: String,
}

/// A refusal.
pub(super) fn refuse(reason: impl Into<String>, advice: impl Into<String>) -> Refusal {
    Refusal { reason: reason.into(), advice: advice.into() }
}

/// A refusal of a node that contradicts ONNX.
pub(super) fn invalid(reason: impl Into<String>) -> Refusal {
    refuse(reason, "the node breaks the rules of its operator: export the model again")
}

/// A node to translate.
pub(super) struct Call<'a> {
    pub proto: &'a NodeProto,
    pub opset: i64,
    /// Operands by position; `None` where left out.
    pub operands: Vec<Option<Value>>,
    /// What the operands' numbers are, by position.
    pub kinds: Vec<Kind>,
}

impl Call<'_> {
    /// The node's attributes with other operands, all of them reals.
    pub(super) fn with(&self, operands: Vec<Option<Value>>) -> Self {
        let kinds = vec![REAL; operands.len()];
        Self { proto: self.proto, opset: self.opset, operands, kinds }
    }

    /// What the numbers of the operand at a position are.
    pub(super) fn kind(&self, position: usize) -> Kind {
        self.kinds.get(position).copied().unwrap_or(REAL)
    }

    fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.proto.attribute.iter().find(|a| a.name == name)
    }

    /// Whether the attribute is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.attribute(name).is_some()
    }

    pub(super) fn int(&self, name: &str, default: i64) -> i64 {
        self.attribute(name).map_or(default, |a| a.i)
    }

    pub(super) fn float(&self, name: &str, default: f32) -> f32 {
        self.attribute(name).map_or(default, |a| a.f)
    }

    pub(super) fn ints(&self, name: &str) -> Option<Vec<i64>> {
        self.attribute(name).map(|a| a.ints.clone())
    }

    pub(super) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        self.attribute(name).map(|a| a.floats.clone())
    }

    pub(super) fn string(&self, name: &str, default: &str) -> String {
        self.attribute(name)
            .map_or(default.to_owned(), |a| String::from_utf8_lossy(&a.s).into_owned())
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&tract_onnx::pb::TensorProto> {
        self.attribute(name).and_then(|a| a.t.as_ref())
    }

    /// The operand at a position, if it is there.
    pub(super) fn optional(&self, position: usize) -> Option<&Value> {
        self.operands.get(position).and_then(Option::as_ref)
    }

    /// The operand at a position.
    pub(super) fn operand(&self, position: usize) -> Result<&Value, Refusal> {
        self.optional(position).ok_or_else(|| invalid(format!("operand {position} is missing")))
    }

    /// The operand at a position, which must be computed from the input.
    pub(super) fn value(&self, position: usize) -> Result<NodeId, Refusal> {
        match self.operand(position)? {
            Value::Node(id) => Ok(*id),
            _ => Err(refuse(
                format!("operand {} is a constant", self.operand_name(position)),
                "expected a value computed from the input",
            )),
        }
    }

    /// The operand at a position, which must be a constant.
    pub(super) fn constant(&self, position: usize) -> Result<&Constant, Refusal> {
        match self.operand(position)? {
            Value::Constant(constant) => Ok(constant),
            _ => Err(refuse(
                format!("operand {} is computed from the input", self.operand_name(position)),
                "expected a constant: make it an initializer before export",
            )),
        }
    }

    /// A constant operand of whole numbers, if it is there.
    pub(super) fn optional_integers(&self, position: usize) -> Result<Option<Vec<i64>>, Refusal> {
        if self.optional(position).is_none() {
            return Ok(None);
        }
        let integers = self.constant(position)?.to_integers();
        integers.map(Some).ok_or_else(|| self.not_numeric(position))
    }

    /// A constant operand of whole numbers.
    pub(super) fn integers(&self, position: usize) -> Result<Vec<i64>, Refusal> {
        self.operand(position)?;
        Ok(self.optional_integers(position)?.unwrap_or_default())
    }

    /// A constant operand of reals.
    pub(super) fn reals(&self, position: usize) -> Result<Tensor<f32>, Refusal> {
        self.constant(position)?.to_reals().ok_or_else(|| self.not_numeric(position))
    }

    /// A constant operand that is one real number, if it is there.
    pub(super) fn optional_scalar(&self, position: usize) -> Result<Option<f32>, Refusal> {
        if self.optional(position).is_none() {
            return Ok(None);
        }
        match self.reals(position)?.data.as_slice() {
            [value] => Ok(Some(*value)),
            _ => Err(invalid(format!("operand {} is not one number", self.operand_name(position)))),
        }
    }

    /// Axes from the attribute of this name, or from the operand at this position in newer files.
    pub(super) fn axes(
        &self,
        attribute: &str,
        position: usize,
    ) -> Result<Option<Vec<i64>>, Refusal> {
        match self.ints(attribute) {
            Some(axes) => Ok(Some(axes)),
            None => self.optional_integers(position),
        }
    }

    fn not_numeric(&self, position: usize) -> Refusal {
        invalid(format!("operand {} is not numeric", self.operand_name(position)))
    }

    fn operand_name(&self, position: usize) -> &str {
        self.proto.input.get(position).map_or("", String::as_str)
    }
}

/// An axis counted from the front.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, Refusal> {
    let counted = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
    counted
        .and_then(|a| usize::try_from(a).ok())
        .filter(|&a| a < rank)
        .ok_or_else(|| invalid(format!("axis {axis} does not exist in a value of {rank} axes")))
}

/// Distinct axes counted from the front, in ascending order.
pub(super) fn axes_of(axes: &[i64], rank: usize) -> Result<Vec<usize>, Refusal> {
    let mut found = axes.iter().map(|&a| axis_of(a, rank)).collect::<Result<Vec<_>, _>>()?;
    found.sort_unstable();
    found.dedup();
    if found.len() != axes.len() {
        return Err(invalid(format!("axes {axes:?} name one axis twice")));
    }
    Ok(found)
}
