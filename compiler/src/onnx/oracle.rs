//! tract's optimised model as an independent float oracle, and its shapes of values that the import
//! itself does not know.

use super::file::Model;
use super::quiet::{one_line, quietly};
use super::{ImportError, ImportOptions};
use ir::tensor::{Shape, Tensor};
use std::collections::HashMap;
use std::path::Path;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::{DimLike, Factoid, InferenceFact};

/// The same ONNX file run by tract in floating point.
pub struct Oracle {
    runnable: Arc<TypedRunnableModel>,
    shape: Vec<usize>,
    kind: DatumType,
}

impl Oracle {
    /// Loads a model with batch size 1.
    ///
    /// # Errors
    /// If the file is malformed, or if tract does not support it.
    pub fn load(path: &Path, options: &ImportOptions) -> Result<Self, ImportError> {
        let model = Model::open(path, options)?;
        match model.fixed_batch().and_then(|batch| model.with_batch_of_one(batch)) {
            Some(single) => Self::optimise(&single).or_else(|_| Self::optimise(&model)),
            None => Self::optimise(&model),
        }
    }

    fn optimise(model: &Model) -> Result<Self, ImportError> {
        let (runnable, kind) = quietly(|| -> TractResult<_> {
            let mut tract = parse(model)?;
            let fact = tract.input_fact(0)?.clone();
            let kind = fact.datum_type.concretize().unwrap_or(DatumType::F32);
            tract.set_input_fact(0, InferenceFact::dt_shape(kind, &model.input_shape.0))?;
            Ok((tract.into_optimized()?.into_runnable()?, kind))
        })
        .and_then(|r| r.map_err(|e| one_line(&format!("{e:#}"))))
        .map_err(ImportError::Oracle)?;
        Ok(Self { runnable, shape: model.input_shape.0.clone(), kind })
    }

    /// The model's output for one input, which has as many elements as the model's input with batch
    /// size 1.
    ///
    /// # Errors
    /// If the input has another size, or tract fails.
    pub fn run(&self, input: &Tensor<f32>) -> Result<Tensor<f32>, ImportError> {
        let run = || -> TractResult<Tensor<f32>> {
            let x = tract_onnx::prelude::Tensor::from_shape(&self.shape, &input.data)?;
            let x = x.cast_to_dt(self.kind)?.into_owned();
            let outputs = self.runnable.run(tvec!(x.into_tvalue()))?;
            let y = outputs[0].cast_to::<f32>()?;
            let data = y.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
            Ok(Tensor { shape: Shape::new(y.shape()), data })
        };
        quietly(run)
            .and_then(|r| r.map_err(|e| one_line(&format!("{e:#}"))))
            .map_err(ImportError::Oracle)
    }
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

/// The shapes of the real-valued values that tract can tell; empty where it fails.
pub(super) fn known_shapes(model: &Model) -> HashMap<String, Shape> {
    quietly(|| -> TractResult<_> {
        let parsed = tract_onnx::onnx().with_ignore_value_info(true).parse(&model.proto, None)?;
        let mut tract = parsed.model;
        if let Some(&input) = parsed.outlets_by_name.get(&model.input_name) {
            tract.set_outlet_fact(
                input,
                InferenceFact::dt_shape(DatumType::F32, &model.input_shape.0),
            )?;
        }
        let _ = tract.analyse(true);
        let shape = |outlet: OutletId| {
            let fact = tract.outlet_fact(outlet).ok()?;
            let dims = fact.shape.concretize()?;
            let dims: Option<Vec<usize>> = dims.iter().map(|d| d.to_usize().ok()).collect();
            let is_real = fact.datum_type.concretize()?.is_float();
            dims.filter(|_| is_real).map(Shape).filter(Shape::is_bounded)
        };
        let known =
            parsed.outlets_by_name.iter().filter_map(|(n, o)| Some((n.clone(), shape(*o)?)));
        Ok(known.collect())
    })
    .ok()
    .and_then(Result::ok)
    .unwrap_or_default()
}
