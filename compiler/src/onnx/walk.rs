//! The walk over the nodes of a file: constants are folded, control flow is unrolled (`control`), the rest goes to
//! the table of operators, and what is refused is collected.

use super::builder::Builder;
use super::constant::Constant;
use super::control::{Iteration, Unrolled};
use super::file::Model;
use super::fold;
use super::kind::{self, Kind, Kinds};
use super::node::{Call, Refusal, Value, invalid, refuse};
use super::operators::{self, Translation};
use super::scope::FreshNames;
use super::versions::{self, Alignment};
use super::{ImportError, UnsupportedNode};
use ir::graph::Op;
use ir::tensor::{Shape, Tensor};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use tract_onnx::pb::NodeProto;

/// What is to be done next.
pub(super) enum Item<'a> {
    /// Translate a node.
    Node(Cow<'a, NodeProto>),
    /// Give a value a second name.
    Copy { from: String, to: String },
    /// The next iteration of a loop, or its end.
    Iterate(Box<Iteration>),
}

/// A model being translated.
pub(super) struct Walk<'a> {
    pub builder: Builder,
    pub values: HashMap<String, Value>,
    pub kinds: Kinds,
    pub model: &'a Model,
    /// What is to be done, the next item last.
    pub agenda: Vec<Item<'a>>,
    pub names: FreshNames,
    pub unrolled: Unrolled,
    /// Elements of constants computed so far.
    folded: usize,
    /// The shapes of values that the file states.
    stated: HashMap<String, Shape>,
    /// Results that their nodes do not give, with the refusal for the first reader.
    missing: HashMap<String, UnsupportedNode>,
    refused: Vec<UnsupportedNode>,
}

/// What a node gives, and what the numbers of each result are; `None` where its results come with later items.
type Results = Option<(Vec<Value>, Vec<Kind>)>;

/// Why a node gives nothing; `None` where nothing can be said because an operand is unknown.
pub(super) type Failure = Option<Refusal>;

impl<'a> Walk<'a> {
    pub(super) fn new(
        model: &'a Model,
        builder: Builder,
        values: HashMap<String, Value>,
        kinds: Kinds,
        stated: HashMap<String, Shape>,
    ) -> Self {
        let nodes = model.order.iter().rev().map(|&i| &model.graph().node[i]);
        Self {
            agenda: nodes.map(|n| Item::Node(Cow::Borrowed(n))).collect(),
            names: FreshNames::new(model.graph()),
            unrolled: Unrolled::default(),
            folded: 0,
            missing: HashMap::new(),
            refused: Vec::new(),
            builder,
            values,
            kinds,
            model,
            stated,
        }
    }

    /// Translates every node.
    ///
    /// # Errors
    /// All nodes that stand in the way.
    pub(super) fn run(&mut self) -> Result<(), ImportError> {
        while let Some(item) = self.agenda.pop() {
            match item {
                Item::Node(node) => self.node(node),
                Item::Copy { from, to } => self.copy(&from, &to),
                Item::Iterate(iteration) => {
                    let node = iteration.node.clone();
                    self.builder.name = node_name(&node).to_owned();
                    if let Err(failure) = self.iterate(*iteration) {
                        self.fail(&node, failure);
                    }
                }
            }
        }
        for name in &self.model.outputs {
            self.refuse_missing(name);
        }
        if self.refused.is_empty() {
            return Ok(());
        }
        // A body that is unrolled names its nodes once.
        let mut seen = HashSet::new();
        self.refused.retain(|n| seen.insert(n.to_string()));
        Err(ImportError::Unsupported(std::mem::take(&mut self.refused)))
    }

    fn node(&mut self, node: Cow<'a, NodeProto>) {
        self.builder.name = node_name(&node).to_owned();
        match self.results(&node) {
            Ok(Some((results, kinds))) => {
                self.kinds.note(&node, &results, &kinds);
                let given = results.len();
                for (name, value) in node.output.iter().zip(results) {
                    self.insert(name, value);
                }
                for name in node.output.iter().skip(given) {
                    let refusal = refuse(
                        format!("its result {name:?} is not supported"),
                        "change the model so that only the first result is used",
                    );
                    self.missing.insert(name.clone(), unsupported(&node, refusal));
                    self.insert(name, Value::Unknown);
                }
            }
            Ok(None) => {}
            Err(failure) => self.fail(&node, failure),
        }
    }

    /// Gives a value its name; a left-out result has none.
    pub(super) fn insert(&mut self, name: &str, value: Value) {
        if !name.is_empty() {
            self.values.insert(name.to_owned(), value);
        }
    }

    /// Gives a value a second name.
    pub(super) fn copy(&mut self, from: &str, to: &str) {
        let value = self.values.get(from).cloned().unwrap_or(Value::Unknown);
        self.kinds.set(to, self.kinds.get(from));
        self.insert(to, value);
    }

    /// Notes a refusal, and lets the nodes behind it be checked as well.
    fn fail(&mut self, node: &NodeProto, failure: Failure) {
        self.refused.extend(failure.map(|r| unsupported(node, r)));
        for name in node.output.iter().filter(|n| !n.is_empty()) {
            let shape = self.stated.get(name).cloned().or_else(|| self.kept_shape(node));
            let value = shape.map_or(Value::Unknown, |shape| self.placeholder(shape));
            self.values.insert(name.clone(), value);
        }
    }

    fn refuse_missing(&mut self, name: &str) {
        self.refused.extend(self.missing.remove(name));
    }

    /// The value of an operand; `None` where it is left out.
    fn operand(&mut self, name: &str) -> Result<Option<Value>, Failure> {
        if name.is_empty() {
            return Ok(None);
        }
        self.refuse_missing(name);
        match self.values.get(name) {
            Some(value) => Ok(Some(value.clone())),
            None => Err(Some(invalid(format!(
                "it reads the value {name:?}, which nothing before it produces"
            )))),
        }
    }

    fn results(&mut self, node: &NodeProto) -> Result<Results, Failure> {
        let mut operands = Vec::with_capacity(node.input.len());
        for name in &node.input {
            operands.push(self.operand(name)?);
        }
        let of_operands = self.kinds.of_operands(node, &operands);
        if operators::is_onnx(&node.domain) {
            match (node.op_type.as_str(), operands.first()) {
                ("If", _) => return self.branch(node, operands).map(|()| None),
                ("Loop" | "Scan", _) => return self.begin(node, operands).map(|()| None),
                ("Identity", Some(Some(value))) if !matches!(value, Value::Unknown) => {
                    return Ok(Some((vec![value.clone()], vec![of_operands[0]])));
                }
                _ => {}
            }
            self.align(node, &mut operands).map_err(Some)?;
        }
        let opset = self.model.opset;
        let call = Call { proto: node, opset, operands, kinds: of_operands };
        if operators::is_foldable(&node.domain, &node.op_type)
            && let Some(constants) = all_constants(&call.operands)
        {
            let results = fold::fold(node, opset, &constants, &mut self.folded).map_err(Some)?;
            let kinds = if call.kinds.iter().all(|k| k.element().is_some()) {
                Vec::new()
            } else {
                kind::of_results(&call).map_err(Some)?
            };
            return Ok(Some((results.into_iter().map(Value::Constant).collect(), kinds)));
        }
        let translation = operators::find(&node.domain, &node.op_type).map_err(Some)?;
        if call.operands.iter().flatten().any(|o| matches!(o, Value::Unknown)) {
            return Err(None);
        }
        translated(&mut self.builder, &call, translation).map(Some).map_err(Some)
    }

    /// The second operand of a node of an old operator set as set 7 wants it.
    fn align(&mut self, node: &NodeProto, operands: &mut [Option<Value>]) -> Result<(), Refusal> {
        let Alignment::At(axis) = versions::alignment(node, self.model.opset)? else {
            return Ok(());
        };
        let [Some(first), Some(second), ..] = operands else { return Ok(()) };
        let dims = |value: &Value| match value {
            Value::Node(id) => Some(self.builder.dims(*id)),
            Value::Constant(constant) => Some(constant.dims().to_vec()),
            _ => None,
        };
        let (Some(target), Some(mut dims)) = (dims(first), dims(second)) else { return Ok(()) };
        if dims.iter().product::<usize>() == 1 {
            return Ok(());
        }
        let behind =
            usize::try_from(axis).ok().and_then(|a| target.len().checked_sub(a + dims.len()));
        let behind =
            behind.ok_or_else(|| invalid(format!("its operands do not align at axis {axis}")))?;
        dims.extend(std::iter::repeat_n(1, behind));
        *second = match &*second {
            Value::Node(id) => Value::Node(self.builder.reshape(*id, &dims)?),
            Value::Constant(constant) => {
                Value::Constant(constant.reshaped(&dims).map_err(invalid)?)
            }
            other => other.clone(),
        };
        Ok(())
    }

    /// The shape of the result of a refused operator that is known not to change shapes.
    fn kept_shape(&self, node: &NodeProto) -> Option<Shape> {
        match self.values.get(node.input.first()?)? {
            Value::Node(id) if operators::keeps_shape(&node.op_type) => {
                Some(self.builder.shape(*id))
            }
            _ => None,
        }
    }

    /// Stands for the result of a refused node.
    fn placeholder(&mut self, shape: Shape) -> Value {
        let zeros = Op::Constant(Tensor::zeros(shape.clone()));
        self.builder.add(zeros, shape, &[]).map_or(Value::Unknown, Value::Node)
    }
}

/// The results of a node by its translation, and what their numbers are.
pub(super) fn translated(
    builder: &mut Builder,
    call: &Call,
    translation: Translation,
) -> Result<(Vec<Value>, Vec<Kind>), Refusal> {
    let mut kinds = kind::of_results(call)?;
    let results = match translation {
        Translation::One(translate) => vec![Value::Node(translate(builder, call)?)],
        Translation::Many(translate) => translate(builder, call)?,
        Translation::Typed(translate) => {
            let (results, own): (Vec<_>, Vec<_>) = translate(builder, call)?.into_iter().unzip();
            if kinds.is_empty() {
                kinds = own;
            }
            results
        }
    };
    kind::check_results(builder, call, &results, &kinds)?;
    Ok((results, kinds))
}

/// All operands as constants, if they are, and at least one of them unless the node has none.
fn all_constants(operands: &[Option<Value>]) -> Option<Vec<Option<Constant>>> {
    operands
        .iter()
        .map(|operand| match operand {
            None => Some(None),
            Some(Value::Constant(constant)) => Some(Some(constant.clone())),
            Some(_) => None,
        })
        .collect()
}

/// The node's name, or that of its first result.
pub(super) fn node_name(node: &NodeProto) -> &str {
    if !node.name.is_empty() {
        return &node.name;
    }
    node.output.iter().find(|n| !n.is_empty()).map_or(node.op_type.as_str(), String::as_str)
}

fn unsupported(node: &NodeProto, refusal: Refusal) -> UnsupportedNode {
    UnsupportedNode {
        name: node_name(node).to_owned(),
        operator: operators::qualified(&node.domain, &node.op_type),
        reason: refusal.reason,
        advice: refusal.advice,
    }
}
