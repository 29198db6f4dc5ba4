//! The file as it stands, run by tract in floating point: no import of ours, no optimisation.

use super::file::Model;
use super::quiet::{one_line, quietly};
use super::scope::graphs;
use super::{ImportError, ImportOptions};
use ir::tensor::{Shape, Tensor};
use std::path::Path;
use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Factoid, InferenceFact};

/// A model that tract runs. tract trusts its input more than the import does: on a file that somebody
/// else made, use it in a process of its own ([`crate::oracle`]).
pub struct TractModel {
    runnable: Arc<TypedRunnableModel>,
    /// Shape and element type of every input.
    inputs: Vec<(Shape, DatumType)>,
}

impl TractModel {
    /// Loads a model with `rows` entries along the first axis of its inputs where the file leaves that
    /// open. It computes the values of these names, or the outputs that the options choose.
    ///
    /// # Errors
    /// If the file is malformed, has no value of a name, or tract does not support it.
    pub fn load(
        path: &Path,
        options: &ImportOptions,
        rows: usize,
        values: Option<&[String]>,
    ) -> Result<Self, ImportError> {
        let model = Model::open(path, options)?;
        if let Some(operator) = wrong_operator(&model) {
            return Err(ImportError::Oracle(format!("it computes {operator} wrongly")));
        }
        let values = values.unwrap_or(&model.outputs);
        attempt(|| {
            let parsed =
                tract_onnx::onnx().with_ignore_value_info(true).parse(&model.proto, None)?;
            let outlet = |name: &String| {
                let found = parsed.outlets_by_name.get(name).copied();
                found.ok_or_else(|| anyhow_of(format!("it has no value {name:?}")))
            };
            let sized = model.sized(rows);
            let of_inputs: Vec<_> =
                sized.iter().map(|i| outlet(&i.name)).collect::<TractResult<_>>()?;
            let of_values: Vec<_> = values.iter().map(outlet).collect::<TractResult<_>>()?;
            let mut tract = parsed.model;
            tract.set_input_outlets(&of_inputs)?;
            tract.select_output_outlets(&of_values)?;
            let mut inputs = Vec::new();
            for (index, input) in sized.into_iter().enumerate() {
                let fact = tract.input_fact(index)?.clone();
                let kind = fact.datum_type.concretize().unwrap_or(DatumType::F32);
                tract.set_input_fact(index, InferenceFact::dt_shape(kind, &input.shape.0))?;
                inputs.push((input.shape, kind));
            }
            Ok(Self { runnable: tract.into_typed()?.into_runnable()?, inputs })
        })
        .map_err(ImportError::Oracle)
    }

    /// The values for one tensor per input of the model, in the file's order.
    ///
    /// # Errors
    /// If an input has another number of elements, or tract fails.
    pub fn run(&self, inputs: &[Tensor<f32>]) -> Result<Vec<Tensor<f32>>, ImportError> {
        let fits = inputs.len() == self.inputs.len()
            && inputs.iter().zip(&self.inputs).all(|(x, (s, _))| x.data.len() == s.elements());
        if !fits {
            return Err(ImportError::Oracle("its inputs have other shapes".into()));
        }
        let run = || -> TractResult<Vec<Tensor<f32>>> {
            let mut operands = tvec!();
            for (x, (shape, kind)) in inputs.iter().zip(&self.inputs) {
                let x = tract_onnx::prelude::Tensor::from_shape(&shape.0, &x.data)?;
                operands.push(x.cast_to_dt(*kind)?.into_owned().into_tvalue());
            }
            let reals = |y: &TValue| {
                let y = y.cast_to::<f32>()?;
                let data = y.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
                Ok(Tensor { shape: Shape::new(y.shape()), data })
            };
            self.runnable.run(operands)?.iter().map(reals).collect()
        };
        attempt(run).map_err(ImportError::Oracle)
    }
}

/// An operator of the model that tract computes wrongly.
fn wrong_operator(model: &Model) -> Option<&str> {
    let graph = model.proto.graph.as_ref()?;
    let nodes = model.order.iter().map(|&i| &graph.node[i]);
    nodes.into_iter().find(|node| is_wrong(node)).map(|node| node.op_type.as_str())
}

fn is_wrong(node: &NodeProto) -> bool {
    let attribute = |name: &str| node.attribute.iter().find(|a| a.name == name);
    match node.op_type.as_str() {
        // Their factors are left out, and so is the order.
        "Celu" | "Swish" => attribute("alpha").is_some_and(|alpha| alpha.f != 1.0),
        "SpaceToDepth" => attribute("mode").is_some_and(|mode| mode.s != b"DCR"),
        _ => graphs(node).any(|body| body.node.iter().any(is_wrong)),
    }
}

fn anyhow_of(text: String) -> TractError {
    TractError::msg(text)
}

/// What tract says, its errors and panics as one line.
fn attempt<T>(f: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    quietly(f).and_then(|r| r.map_err(|e| one_line(&format!("{e:#}"))))
}
