//! Control flow that constants decide: a branch of `If`, the iterations of `Loop` and `Scan`, put in the place of the
//! node as the walk comes to it. Conditions and counts may follow from shapes and folded constants; bodies read values
//! of the graphs around them.

use super::constant::Constant;
use super::kind::Kind;
use super::node::{Refusal, Value, invalid, refuse};
use super::scope::{Renaming, needed};
use super::walk::{Failure, Item, Walk, node_name};
use ir::graph::Op;
use ir::tensor::Shape;
use prost::Message;
use std::borrow::Cow;
use std::collections::HashSet;
use std::rc::Rc;
use tract_onnx::pb::{GraphProto, NodeProto};

/// The most nodes that control flow unrolls to.
const MAX_UNROLLED_NODES: usize = 1 << 16;
/// The most bytes of the nodes and constants that it unrolls to.
const MAX_UNROLLED_BYTES: usize = 1 << 28;

/// What control flow has unrolled to.
#[derive(Default)]
pub(super) struct Unrolled {
    nodes: usize,
    bytes: usize,
}

/// A `Loop` or `Scan` at the start of an iteration.
pub(super) struct Iteration {
    pub node: Rc<NodeProto>,
    done: usize,
    /// Iterations at most.
    count: Option<usize>,
    /// The value that must hold for the next iteration.
    condition: Option<String>,
    /// The names of the values that go from one iteration to the next.
    carried: Vec<String>,
    /// What `Scan` takes one entry of at a time.
    sliced: Vec<(Value, Kind, Direction)>,
    /// The names of what each iteration adds to the results that are stacked.
    stacked: Vec<(Vec<String>, Direction)>,
    /// What the constants of the body are called outside.
    constants: Renaming,
}

/// Along which axis, and whether backwards.
#[derive(Clone, Copy, Default)]
struct Direction {
    axis: i64,
    backwards: bool,
}

impl Walk<'_> {
    /// Puts the branch that a constant condition takes in the place of an `If`.
    pub(super) fn branch(
        &mut self,
        node: &NodeProto,
        operands: Vec<Option<Value>>,
    ) -> Result<(), Failure> {
        let condition = operands.into_iter().next().flatten();
        let condition = condition.ok_or_else(|| invalid("it has no condition"))?;
        let taken = if truth(&condition)? { "then_branch" } else { "else_branch" };
        let body = graph(node, taken)?;
        if body.output.len() < node.output.len() {
            return Err(Some(invalid(format!("its {taken} has too few results"))));
        }
        let mut renaming = self.constants(body)?;
        let (nodes, results) = self.body(node, body, &mut renaming, &node.output)?;
        for (from, to) in results.into_iter().zip(&node.output).rev() {
            if from != *to && !to.is_empty() {
                self.agenda.push(Item::Copy { from, to: to.clone() });
            }
        }
        self.agenda.extend(nodes.into_iter().rev().map(|n| Item::Node(Cow::Owned(n))));
        Ok(())
    }

    /// Begins a `Loop` or `Scan`.
    pub(super) fn begin(
        &mut self,
        node: &NodeProto,
        operands: Vec<Option<Value>>,
    ) -> Result<(), Failure> {
        let body = graph(node, "body")?;
        let constants = self.constants(body)?;
        let start = Iteration {
            node: Rc::new(node.clone()),
            done: 0,
            count: None,
            condition: None,
            carried: Vec::new(),
            sliced: Vec::new(),
            stacked: Vec::new(),
            constants,
        };
        let iteration = match node.op_type.as_str() {
            "Loop" => self.begin_loop(node, body, operands, start)?,
            _ => self.begin_scan(node, body, operands, start)?,
        };
        self.agenda.push(Item::Iterate(Box::new(iteration)));
        Ok(())
    }

    fn begin_loop(
        &self,
        node: &NodeProto,
        body: &GraphProto,
        operands: Vec<Option<Value>>,
        start: Iteration,
    ) -> Result<Iteration, Failure> {
        let count = match operands.first().cloned().flatten() {
            None => None,
            Some(value) => {
                let count = integer(&value, "its number of iterations")?;
                Some(usize::try_from(count).unwrap_or(0))
            }
        };
        let condition = node.input.get(1).filter(|n| !n.is_empty()).cloned();
        let carried: Vec<String> = node.input.iter().skip(2).cloned().collect();
        let stacked = body.output.len().checked_sub(1 + carried.len());
        let stacked = stacked.filter(|_| body.input.len() == 2 + carried.len());
        let stacked = stacked.ok_or_else(|| invalid("its body does not fit its operands"))?;
        let stacked = vec![(Vec::new(), Direction::default()); stacked];
        Ok(Iteration { count, condition, carried, stacked, ..start })
    }

    fn begin_scan(
        &self,
        node: &NodeProto,
        body: &GraphProto,
        operands: Vec<Option<Value>>,
        start: Iteration,
    ) -> Result<Iteration, Failure> {
        if self.model.opset < 9 {
            return Err(Some(refuse(
                "it is of operator set 8, which scans batches",
                "export the model again, with operator set 9 or newer",
            )));
        }
        let misfit = || invalid("its body does not fit its operands");
        let ints = |name: &str| {
            node.attribute
                .iter()
                .find(|a| a.name == name)
                .map(|a| a.ints.clone())
                .unwrap_or_default()
        };
        let inputs = node.attribute.iter().find(|a| a.name == "num_scan_inputs").map_or(0, |a| a.i);
        let inputs = usize::try_from(inputs).ok().filter(|&n| n > 0).ok_or_else(misfit)?;
        let states = operands.len().checked_sub(inputs).ok_or_else(misfit)?;
        let results = body.output.len().checked_sub(states).ok_or_else(misfit)?;
        if body.input.len() != operands.len() {
            return Err(Some(misfit()));
        }
        let direction = |axes: &[i64], directions: &[i64], i: usize| Direction {
            axis: axes.get(i).copied().unwrap_or(0),
            backwards: directions.get(i).is_some_and(|&d| d != 0),
        };
        let kinds = self.kinds.of_operands(node, &operands);
        let (axes, directions) = (ints("scan_input_axes"), ints("scan_input_directions"));
        let mut sliced = Vec::new();
        let mut count = None;
        for (i, (value, kind)) in operands.into_iter().zip(kinds).skip(states).enumerate() {
            let value = value.ok_or_else(misfit)?;
            let dims = match &value {
                Value::Node(id) => self.builder.dims(*id),
                Value::Constant(constant) => constant.dims().to_vec(),
                Value::Unknown => return Err(None),
                Value::Sequence(_) => return Err(Some(invalid("it scans a sequence"))),
            };
            let mut direction = direction(&axes, &directions, i);
            let axis = super::node::axis_of(direction.axis, dims.len())?;
            direction.axis = axis as i64;
            if count.is_some_and(|n| n != dims[axis]) {
                return Err(Some(invalid("its operands are not of one length")));
            }
            count = Some(dims[axis]);
            sliced.push((value, kind, direction));
        }
        let (axes, directions) = (ints("scan_output_axes"), ints("scan_output_directions"));
        let stacked =
            (0..results).map(|i| (Vec::new(), direction(&axes, &directions, i))).collect();
        let carried = node.input[..states].to_vec();
        Ok(Iteration { count, carried, sliced, stacked, ..start })
    }

    /// Unrolls one iteration, or ends the loop.
    pub(super) fn iterate(&mut self, mut at: Iteration) -> Result<(), Failure> {
        let holds = match &at.condition {
            None => true,
            Some(name) => truth(self.values.get(name).unwrap_or(&Value::Unknown))?,
        };
        if !holds || at.count.is_some_and(|count| at.done >= count) {
            return self.end(at);
        }
        self.take_room(1, 0)?;
        let node = at.node.clone();
        let body = graph(&node, "body")?;
        let mut renaming = at.constants.clone();
        let prefix = self.names.body();
        let mut inputs = body.input.iter();
        if node.op_type == "Loop" {
            let constants = [Constant::integers(&[], &[at.done as i64]), Constant::truth(true)];
            for (value, input) in constants.into_iter().zip(inputs.by_ref()) {
                let name = format!("{prefix}{}", input.name);
                self.insert(&name, Value::Constant(value.map_err(invalid)?));
                renaming.0.insert(input.name.clone(), name);
            }
        }
        for (name, input) in at.carried.iter().zip(inputs.by_ref()) {
            renaming.0.insert(input.name.clone(), name.clone());
        }
        for ((value, kind, direction), input) in at.sliced.clone().into_iter().zip(inputs) {
            let length = at.count.unwrap_or(0);
            let index = if direction.backwards { length - 1 - at.done } else { at.done };
            let entry = self.entry(&value, direction.axis as usize, index)?;
            let name = format!("{prefix}{}", input.name);
            self.insert(&name, entry);
            self.kinds.set(&name, kind);
            renaming.0.insert(input.name.clone(), name);
        }
        let (nodes, results) = self.body(&node, body, &mut renaming, &[])?;
        let mut results = results.into_iter();
        if node.op_type == "Loop" {
            at.condition = results.next();
        }
        for name in &mut at.carried {
            *name = results.next().unwrap_or_default();
        }
        for ((names, _), result) in at.stacked.iter_mut().zip(results) {
            names.push(result);
        }
        at.done += 1;
        self.agenda.push(Item::Iterate(Box::new(at)));
        self.agenda.extend(nodes.into_iter().rev().map(|n| Item::Node(Cow::Owned(n))));
        Ok(())
    }

    fn end(&mut self, at: Iteration) -> Result<(), Failure> {
        let mut outputs = at.node.output.iter();
        for (name, output) in at.carried.iter().zip(outputs.by_ref()) {
            self.copy(name, output);
        }
        for ((names, direction), output) in at.stacked.iter().zip(outputs) {
            if output.is_empty() {
                continue;
            }
            let get = |name| self.values.get(name).cloned().unwrap_or(Value::Unknown);
            let mut parts: Vec<Value> = names.iter().map(get).collect();
            if let Some(first) = names.first() {
                self.kinds.set(output, self.kinds.get(first));
            }
            if direction.backwards {
                parts.reverse();
            }
            let value = if parts.iter().any(|p| matches!(p, Value::Unknown)) {
                Value::Unknown
            } else {
                self.stack(&parts, direction.axis)?
            };
            self.insert(output, value);
        }
        Ok(())
    }

    /// The nodes of a body and the names of its results, as they are outside. Results get the names `wanted`
    /// where they are made by the body.
    fn body(
        &mut self,
        node: &NodeProto,
        body: &GraphProto,
        renaming: &mut Renaming,
        wanted: &[String],
    ) -> Result<(Vec<NodeProto>, Vec<String>), Failure> {
        let prefix = self.names.body();
        let results: Vec<String> = body.output.iter().map(|o| o.name.clone()).collect();
        let kept = needed(&body.node, &results);
        let bytes = kept.iter().map(|&i| body.node[i].encoded_len()).sum();
        self.take_room(kept.len(), bytes)?;
        let made: HashSet<&String> = kept.iter().flat_map(|&i| &body.node[i].output).collect();
        for (name, outside) in results.iter().zip(wanted).filter(|(_, o)| !o.is_empty()) {
            if made.contains(name) {
                renaming.0.entry(name.clone()).or_insert_with(|| outside.clone());
            }
        }
        for name in made.into_iter().filter(|n| !n.is_empty()) {
            renaming.0.entry(name.clone()).or_insert_with(|| format!("{prefix}{name}"));
        }
        let outer = node_name(node);
        let renamed = kept.into_iter().map(|i| {
            let mut inner = body.node[i].clone();
            inner.name = format!("{outer}/{}", node_name(&inner));
            renaming.apply(&mut inner);
            inner
        });
        let nodes = renamed.collect();
        Ok((nodes, results.iter().map(|name| renaming.of(name)).collect()))
    }

    /// Loads the constants of a body.
    fn constants(&mut self, body: &GraphProto) -> Result<Renaming, Failure> {
        let prefix = self.names.body();
        let mut renaming = Renaming::default();
        for tensor in &body.initializer {
            self.take_room(0, tensor.encoded_len())?;
            let constant = Constant::load(tensor).map_err(invalid)?;
            let name = format!("{prefix}{}", tensor.name);
            self.insert(&name, Value::Constant(constant));
            renaming.0.insert(tensor.name.clone(), name);
        }
        Ok(renaming)
    }

    /// Counts what control flow unrolls to.
    fn take_room(&mut self, nodes: usize, bytes: usize) -> Result<(), Refusal> {
        self.unrolled.nodes += nodes;
        self.unrolled.bytes += bytes;
        if self.unrolled.nodes <= MAX_UNROLLED_NODES && self.unrolled.bytes <= MAX_UNROLLED_BYTES {
            return Ok(());
        }
        Err(refuse(
            format!(
                "control flow unrolls to more than {MAX_UNROLLED_NODES} nodes or {MAX_UNROLLED_BYTES} bytes"
            ),
            "lower its number of iterations, or unroll it before export",
        ))
    }

    /// One entry along an axis, which goes.
    fn entry(&mut self, value: &Value, axis: usize, index: usize) -> Result<Value, Failure> {
        match value {
            Value::Constant(constant) => {
                Ok(Value::Constant(constant.entry(axis, index).map_err(invalid)?))
            }
            Value::Node(id) => {
                let taken = self.builder.take(*id, axis, vec![Some(index as u32)])?;
                let mut dims = self.builder.dims(taken);
                dims.remove(axis);
                Ok(Value::Node(self.builder.reshape(taken, &dims)?))
            }
            _ => Err(None),
        }
    }

    /// Values of one shape joined along a new axis.
    fn stack(&mut self, parts: &[Value], axis: i64) -> Result<Value, Failure> {
        let constants: Option<Vec<&Constant>> = parts
            .iter()
            .map(|part| match part {
                Value::Constant(constant) => Some(constant),
                _ => None,
            })
            .collect();
        if parts.is_empty() {
            return Err(Some(refuse("it has no iteration, and its result is empty", "remove it")));
        }
        if let Some(constants) = constants {
            let rank = constants[0].dims().len() + 1;
            let axis = super::node::axis_of(axis, rank)?;
            return Ok(Value::Constant(Constant::stack(axis, &constants).map_err(invalid)?));
        }
        let mut rows = Vec::with_capacity(parts.len());
        for part in parts {
            let id = self.builder.node(part)?;
            let mut dims = self.builder.dims(id);
            let axis = super::node::axis_of(axis, dims.len() + 1)?;
            dims.insert(axis, 1);
            rows.push(self.builder.reshape(id, &dims)?);
        }
        let mut dims = self.builder.dims(rows[0]);
        if rows.iter().any(|&r| self.builder.dims(r) != dims) {
            return Err(Some(invalid("its iterations give results of different shapes")));
        }
        let axis = super::node::axis_of(axis, dims.len())?;
        if let &[only] = rows.as_slice() {
            return Ok(Value::Node(only));
        }
        dims[axis] = rows.len();
        Ok(Value::Node(self.builder.add(Op::Concat(axis), Shape(dims), &rows)?))
    }
}

fn graph<'a>(node: &'a NodeProto, name: &str) -> Result<&'a GraphProto, Refusal> {
    let attribute = node.attribute.iter().find(|a| a.name == name);
    attribute.and_then(|a| a.g.as_ref()).ok_or_else(|| invalid(format!("it has no graph {name}")))
}

fn integer(value: &Value, what: &str) -> Result<i64, Failure> {
    match value {
        Value::Constant(constant) => match constant.to_integers().as_deref() {
            Some(&[value]) => Ok(value),
            _ => Err(Some(invalid(format!("{what} is not one number")))),
        },
        Value::Unknown => Err(None),
        _ => Err(Some(refuse(
            format!("{what} is computed from the input"),
            "expected a graph whose nodes all run for every input: export the path that is taken",
        ))),
    }
}

fn truth(condition: &Value) -> Result<bool, Failure> {
    Ok(integer(condition, "its condition")? != 0)
}
