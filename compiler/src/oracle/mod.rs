//! An oracle that is not ours: the file as it stands, evaluated by tract, or the user's own outputs, against
//! the graph that the import made of it, before any pass.
//!
//! tract trusts its input, and a file may be hostile, so it runs in a process of its own with limits on time
//! and memory. Its crash is no answer, never ours.

mod child;
mod compare;
mod source;

pub use child::answer;
pub use compare::{Agreement, compare, expected};
pub use source::{recall, remember};

use crate::onnx::{Batch, Declared, ImportOptions, Imported};
use ir::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// What the process of the oracle is asked.
#[derive(Serialize, Deserialize)]
pub(crate) struct Request {
    model: PathBuf,
    options: ImportOptions,
    /// Entries along the first axis of the inputs where the file leaves that open.
    rows: usize,
    /// The values to compute; the outputs if none are named.
    values: Option<Vec<String>>,
    /// Per case, the elements of every input.
    cases: Vec<Vec<Vec<f32>>>,
    /// Bytes that the process may take.
    memory: u64,
    /// Seconds of processor time that it may take.
    seconds: u64,
}

/// One answer: per value its shape and elements, or why there is none.
pub(crate) type Answer = Result<Vec<(Vec<usize>, Vec<f32>)>, String>;

/// What the oracle says of some inputs, in order, as far as it came.
pub struct Answers {
    /// Per case, the values.
    pub cases: Vec<Vec<Tensor<f32>>>,
    /// Why there are no more.
    pub stopped: Option<String>,
}

/// A model file and a program that evaluates it.
#[derive(Clone, Debug)]
pub struct Oracle {
    /// The program: `polyc`, which has the subcommand for it.
    pub program: PathBuf,
    /// The model.
    pub model: PathBuf,
    /// How it was imported.
    pub options: ImportOptions,
    /// Bytes that it may take.
    pub memory: u64,
    /// How long it may take.
    pub time: Duration,
}

impl Oracle {
    /// The oracle of a model file, in the process of this program, within half a minute.
    ///
    /// # Errors
    /// If the system does not tell which program this is.
    pub fn new(model: PathBuf, options: ImportOptions, memory: u64) -> std::io::Result<Self> {
        let program = std::env::current_exe()?;
        Ok(Self { program, model, options, memory, time: Duration::from_secs(30) })
    }

    /// Evaluates the file for cases of `rows` rows each, one tensor per input of the file.
    pub fn run(&self, rows: usize, values: Option<Vec<String>>, cases: &[Case]) -> Answers {
        let elements = |case: &Case| case.0.iter().map(|x| x.data.clone()).collect();
        let request = Request {
            model: self.model.clone(),
            options: self.options.clone(),
            rows,
            values,
            cases: cases.iter().map(elements).collect(),
            memory: self.memory,
            seconds: self.time.as_secs(),
        };
        child::ask(&self.program, &request, self.time)
    }
}

/// One evaluation of the file: a tensor per input.
pub struct Case(Vec<Tensor<f32>>);

/// Inputs of a model as the file takes them: so many at once as its first axis is long.
pub struct Stacked {
    /// Entries along the first axis where the file leaves that open.
    pub rows: usize,
    /// The evaluations.
    pub cases: Vec<Case>,
    /// The positions of the inputs of each.
    pub positions: Vec<Vec<usize>>,
}

/// How many inputs of an open batch are evaluated at once by the check: two, so that a mistake about the
/// batch shows.
const TOGETHER: usize = 2;

impl Stacked {
    /// About `count` inputs, taken evenly from all of them. `parts` are lists per input of the model.
    pub fn new(imported: &Imported, parts: &[Vec<Tensor<f32>>], count: usize) -> Self {
        let all = parts.first().map_or(0, Vec::len);
        let rows = match imported.batch {
            Batch::None => 1,
            Batch::Open => TOGETHER.min(all),
            Batch::Fixed(items) => items,
        };
        let count = count.clamp(1, all.max(1));
        let cases = count.div_ceil(rows);
        let position = |i: usize| i * all / (cases * rows).max(all.min(cases * rows));
        let positions: Vec<Vec<usize>> = (0..cases)
            .map(|case| (0..rows).map(|row| position(case * rows + row).min(all - 1)).collect())
            .collect();
        Self { rows, cases: stack(parts, &positions), positions }
    }

    /// Every input in order, as few at once as the file takes; the last are repeated where it takes more.
    fn in_order(batch: Batch, parts: &[Vec<Tensor<f32>>]) -> Self {
        let all = parts.first().map_or(0, Vec::len);
        let rows = if let Batch::Fixed(items) = batch { items } else { 1 };
        let of_case = |first: usize| (first..first + rows).map(|i| i.min(all - 1)).collect();
        let positions: Vec<Vec<usize>> = (0..all).step_by(rows).map(of_case).collect();
        Self { rows, cases: stack(parts, &positions), positions }
    }
}

/// What a model's outputs are, to ask the oracle for them when the import is gone.
#[derive(Clone)]
pub struct Outputs {
    batch: Batch,
    declared: Vec<Declared>,
}

impl Outputs {
    /// Of an import.
    pub fn of(imported: &Imported) -> Self {
        Self { batch: imported.batch, declared: imported.outputs.clone() }
    }

    /// The outputs for every input, in order, one tensor per output; `None` if the oracle does not come to
    /// an end.
    pub fn all(
        &self,
        oracle: &Oracle,
        parts: &[Vec<Tensor<f32>>],
    ) -> Option<Vec<Vec<Tensor<f32>>>> {
        let stacked = Stacked::in_order(self.batch, parts);
        let names = self.declared.iter().map(|o| o.name.clone()).collect();
        let answers = oracle.run(stacked.rows, Some(names), &stacked.cases).cases;
        let mut outputs = Vec::new();
        for values in answers {
            let fits = values.len() == self.declared.len()
                && values.iter().zip(&self.declared).all(|(value, output)| {
                    value.data.len() == stacked.rows * output.shape.elements()
                });
            if !fits {
                return None;
            }
            for row in 0..stacked.rows {
                let part = |(value, output): (&Tensor<f32>, &Declared)| {
                    let length = output.shape.elements();
                    let data = value.data[row * length..(row + 1) * length].to_vec();
                    Tensor::new(output.shape.clone(), data)
                };
                outputs.push(values.iter().zip(&self.declared).map(part).collect());
            }
        }
        let all = parts.first().map_or(0, Vec::len);
        outputs.truncate(all);
        (outputs.len() == all && all > 0).then_some(outputs)
    }
}

fn stack(parts: &[Vec<Tensor<f32>>], positions: &[Vec<usize>]) -> Vec<Case> {
    let tensor = |part: &Vec<Tensor<f32>>, positions: &[usize]| {
        let data: Vec<f32> = positions.iter().flat_map(|&p| part[p].data.iter().copied()).collect();
        Tensor::new(Shape::new([data.len()]), data)
    };
    let case = |positions: &Vec<usize>| Case(parts.iter().map(|p| tensor(p, positions)).collect());
    positions.iter().map(case).collect()
}
