//! tract's optimised model as an independent float oracle.

use super::file::Model;
use super::quiet::{one_line, quietly};
use super::{ImportError, ImportOptions};
use ir::tensor::{Shape, Tensor};
use std::path::Path;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{Factoid, InferenceFact};

/// The same ONNX file run by tract in floating point. tract trusts its input more than the import does:
/// load only what [`super::import_file`] has accepted.
pub struct Oracle {
    /// For batch size 1, and for the batch size in the file where that is another one.
    variants: Vec<Variant>,
}

struct Variant {
    runnable: Arc<TypedRunnableModel>,
    shape: Shape,
    kind: DatumType,
}

impl Oracle {
    /// Loads a model for batch size 1, and for the batch size in the file.
    ///
    /// # Errors
    /// If the file is malformed, or if tract does not support it.
    pub fn load(path: &Path, options: &ImportOptions) -> Result<Self, ImportError> {
        let model = Model::open(path, options)?;
        let single = model.fixed_batch().and_then(|batch| model.with_batch_of_one(batch));
        let mut variants: Vec<Variant> = single.iter().flat_map(optimise).collect();
        match optimise(&model) {
            Ok(variant) => variants.push(variant),
            Err(e) if variants.is_empty() => return Err(ImportError::Oracle(e)),
            Err(_) => {}
        }
        Ok(Self { variants })
    }

    /// The model's output for one input: as many elements as the input that [`super::import_file`]
    /// found, in any shape.
    ///
    /// # Errors
    /// If the input has another size, or tract fails.
    pub fn run(&self, input: &Tensor<f32>) -> Result<Tensor<f32>, ImportError> {
        let elements = input.data.len();
        let variant = self.variants.iter().find(|v| v.shape.elements() == elements);
        let variant = variant.ok_or_else(|| {
            let shapes: Vec<String> = self.variants.iter().map(|v| v.shape.to_string()).collect();
            let expected = shapes.join(" or ");
            ImportError::Oracle(format!("the input has {elements} elements, expected {expected}"))
        })?;
        let run = || -> TractResult<Tensor<f32>> {
            let x = tract_onnx::prelude::Tensor::from_shape(&variant.shape.0, &input.data)?;
            let x = x.cast_to_dt(variant.kind)?.into_owned();
            let outputs = variant.runnable.run(tvec!(x.into_tvalue()))?;
            let y = outputs[0].cast_to::<f32>()?;
            let data = y.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            Ok(Tensor { shape: Shape::new(y.shape()), data })
        };
        attempt(run).map_err(ImportError::Oracle)
    }
}

fn optimise(model: &Model) -> Result<Variant, String> {
    let shape = model.input_shape.clone();
    attempt(|| {
        let mut tract = parse(model)?;
        let fact = tract.input_fact(0)?.clone();
        let kind = fact.datum_type.concretize().unwrap_or(DatumType::F32);
        tract.set_input_fact(0, InferenceFact::dt_shape(kind, &shape.0))?;
        Ok(Variant { runnable: tract.into_optimized()?.into_runnable()?, shape, kind })
    })
}

/// What tract says, its errors and panics as one line.
fn attempt<T>(f: impl FnOnce() -> TractResult<T>) -> Result<T, String> {
    quietly(f).and_then(|r| r.map_err(|e| one_line(&format!("{e:#}"))))
}

/// tract's model with the one input and the one output that count.
fn parse(model: &Model) -> TractResult<InferenceModel> {
    let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(&model.proto, None)?;
    let mut tract = parsed.model;
    if let Some(&input) = parsed.outlets_by_name.get(&model.input_name) {
        tract.set_input_outlets(&[input])?;
    }
    if let Some(&output) = parsed.outlets_by_name.get(&model.output_name) {
        tract.select_output_outlets(&[output])?;
    }
    Ok(tract)
}
