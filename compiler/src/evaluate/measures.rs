//! How right outputs are: classes that agree, and errors of numbers.

use crate::task::Truth;
use ir::plan::Task;
use ir::{Shape, Tensor};
use serde::Serialize;

/// The columns of the table.
const COLUMNS: usize = 3;
/// Numbers of which each may have a unit of its own, at most.
const MOST_UNITS: usize = 64;
/// Fewer inputs tell no spread of every number.
const LEAST_INPUTS: usize = 8;

/// One input's answers of one output.
pub struct Answers {
    /// The network in float.
    pub float: Option<Answer>,
    /// The network with fitted activations, in float.
    pub fitted: Option<Answer>,
    /// The plan, its truncations rounded to nearest.
    pub rounded: Answer,
    /// Simulated runs of the plan.
    pub runs: Vec<Answer>,
}

/// What is answered.
pub struct Answer {
    /// The class at every position; none where the output is numbers.
    pub classes: Vec<usize>,
    /// The output's numbers, or the scores of its classes.
    pub numbers: Tensor<f32>,
}

/// The classes of one input.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Classes {
    /// The network as imported; absent without the reference graphs.
    pub float: Option<usize>,
    /// The network with fitted activations, in float.
    pub fitted: Option<usize>,
    /// What most simulated runs answer.
    pub plan: usize,
}

/// Sums over positions; those of runs are means over the runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClassTally {
    /// Positions.
    pub count: f64,
    /// Right ones of float, fitted and runs.
    pub right: [f64; COLUMNS],
    /// Those of the rounded plan.
    pub right_rounded: f64,
    /// Positions of the float network's class, of fitted and runs.
    pub same: [f64; 2],
    /// Those of the rounded plan.
    pub same_rounded: f64,
    /// Positions where runs have the rounded plan's class.
    pub kept: f64,
    /// Positions where float is right, or known alone, and runs are not.
    pub lost: f64,
    /// The other way round.
    pub gained: f64,
}

impl ClassTally {
    /// Of one input; what it says of it where it has one position. `None` for numbers.
    pub fn of(
        task: Task,
        answers: &Answers,
        truth: Option<&Truth>,
    ) -> Option<(Self, Option<Classes>)> {
        if task == Task::Regress {
            return None;
        }
        let (float, fitted) = (answers.float.as_ref(), answers.fitted.as_ref());
        let (rounded, runs) = (&answers.rounded.classes, &answers.runs);
        let truth = truth.and_then(|t| if let Truth::Classes(c) = t { Some(c) } else { None });
        let (mut tally, each) = (Self::default(), 1.0 / runs.len().max(1) as f64);
        let count = |is_so: bool| f64::from(u8::from(is_so));
        for position in 0..rounded.len() {
            let at = |of: Option<&Answer>| of.map(|a| a.classes[position]);
            let (float, fitted, rounded) = (at(float), at(fitted), rounded[position]);
            let truth = truth.map(|t| t[position]);
            let is_right = |class: Option<usize>| class.is_some() && class == truth;
            tally.count += 1.0;
            tally.right[0] += count(is_right(float));
            tally.right[1] += count(is_right(fitted));
            tally.right_rounded += count(is_right(Some(rounded)));
            tally.same[0] += count(float.is_some() && fitted == float);
            tally.same_rounded += count(Some(rounded) == float);
            for run in runs {
                let run = Some(run.classes[position]);
                tally.right[2] += each * count(is_right(run));
                tally.same[1] += each * count(run == float);
                tally.kept += each * count(run == Some(rounded));
                let wanted = truth.or(float);
                tally.lost += each * count(float.is_some() && float == wanted && run != wanted);
                tally.gained += each * count(float.is_some() && float != wanted && run == wanted);
            }
        }
        let classes = (rounded.len() == 1).then(|| Classes {
            float: float.map(|a| a.classes[0]),
            fitted: fitted.map(|a| a.classes[0]),
            plan: most_common(runs.iter().map(|a| a.classes[0])).unwrap_or(rounded[0]),
        });
        Some((tally, classes))
    }

    /// Adds another input's.
    pub fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.right.iter_mut().zip(other.right).for_each(|(a, b)| *a += b);
        self.right_rounded += other.right_rounded;
        self.same.iter_mut().zip(other.same).for_each(|(a, b)| *a += b);
        self.same_rounded += other.same_rounded;
        self.kept += other.kept;
        self.lost += other.lost;
        self.gained += other.gained;
    }
}

/// The most common class, of equally common ones the first that was met.
fn most_common(classes: impl Iterator<Item = usize>) -> Option<usize> {
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for class in classes {
        match counts.iter_mut().find(|(c, _)| *c == class) {
            Some((_, n)) => *n += 1,
            None => counts.push((class, 1)),
        }
    }
    let most = counts.iter().map(|&(_, n)| n).max()?;
    counts.iter().find(|&&(_, n)| n == most).map(|&(class, _)| class)
}

/// Numbers whose errors are measured against a common spread.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Units {
    /// All of them.
    Common,
    /// Those of the same index `i / stride % count`.
    Own { stride: usize, count: usize },
}

/// Errors of numbers against targets, in three columns.
#[derive(Clone, Debug)]
pub struct Errors {
    units: Units,
    sums: Vec<Sums>,
    worst: [Option<f64>; COLUMNS],
}

/// Sums over the numbers of one unit.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
    errors: [f64; COLUMNS],
}

impl Errors {
    /// Of outputs of `shape`, a good many or a few inputs. A few numbers in a row, and the channels of
    /// images, have units of their own.
    pub fn new(shape: &Shape, inputs: usize) -> Self {
        let long = shape.0.iter().filter(|&&d| d > 1).count();
        let units = match (long, shape.rank()) {
            (1, _) if inputs >= LEAST_INPUTS => Units::Own { stride: 1, count: shape.elements() },
            (_, 4..) if shape.0[1] > 1 => {
                Units::Own { stride: shape.channel_stride(), count: shape.channels() }
            }
            _ => Units::Common,
        };
        let units = match units {
            Units::Own { count, .. } if count > MOST_UNITS => Units::Common,
            units => units,
        };
        let count = if let Units::Own { count, .. } = units { count } else { 1 };
        Self { units, sums: vec![Sums::default(); count], worst: [None; COLUMNS] }
    }

    /// Takes one input's numbers: `columns` are those of networks, runs share one.
    pub fn take(&mut self, target: &[f32], columns: [&[&[f32]]; COLUMNS]) {
        for (i, &target) in target.iter().enumerate() {
            let unit = match self.units {
                Units::Common => 0,
                Units::Own { stride, count } => i / stride % count,
            };
            let (sums, target) = (&mut self.sums[unit], f64::from(target));
            sums.count += 1.0;
            sums.sum += target;
            sums.squares += target * target;
            for (column, outputs) in columns.iter().enumerate() {
                for output in *outputs {
                    let error = (f64::from(output[i]) - target).abs();
                    sums.errors[column] += error * error / outputs.len() as f64;
                    let worst = &mut self.worst[column];
                    *worst = Some(worst.map_or(error, |worst| worst.max(error)));
                }
            }
        }
    }

    /// Adds another input's.
    pub fn add(&mut self, other: &Self) {
        for (a, b) in self.sums.iter_mut().zip(&other.sums) {
            a.count += b.count;
            a.sum += b.sum;
            a.squares += b.squares;
            a.errors.iter_mut().zip(b.errors).for_each(|(a, b)| *a += b);
        }
        for (a, b) in self.worst.iter_mut().zip(other.worst) {
            *a = [*a, b].into_iter().flatten().reduce(f64::max);
        }
    }

    /// How many numbers were compared.
    pub fn count(&self) -> f64 {
        self.sums.iter().map(|s| s.count).sum()
    }

    /// Root mean square of a column's errors.
    pub fn rms(&self, column: usize) -> Option<f64> {
        self.worst[column]?;
        let errors: f64 = self.sums.iter().map(|s| s.errors[column]).sum();
        Some((errors / self.count()).sqrt())
    }

    /// The largest error of a column.
    pub fn worst(&self, column: usize) -> Option<f64> {
        self.worst[column]
    }

    /// Squared errors of a column over the targets' squared distances from their mean, which is 1 less
    /// R²; a mean over the units. `None` where targets are all the same.
    pub fn unexplained(&self, column: usize) -> Option<f64> {
        self.worst[column]?;
        let of_unit = |s: &Sums| {
            let spread = s.squares - s.sum * s.sum / s.count;
            // What is left of equal numbers is rounding.
            (spread > 1e-12 * s.squares).then(|| s.errors[column] / spread)
        };
        let all: Vec<f64> = self.sums.iter().filter_map(of_unit).collect();
        (!all.is_empty()).then(|| all.iter().sum::<f64>() / all.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_measured_in_their_own_units() {
        // The second number is a thousand times the first; only the first is wrong.
        let mut errors = Errors::new(&Shape::new([1, 2]), 100);
        for i in 0..100 {
            let x = i as f32 / 10.0;
            let (target, run) = ([x, 1000.0 * x], [5.0, 1000.0 * x]);
            errors.take(&target, [&[&target], &[], &[&run, &target]]);
        }
        assert_eq!(errors.unexplained(0), Some(0.0));
        assert_eq!((errors.unexplained(1), errors.rms(1), errors.worst(1)), (None, None, None));
        // Half the runs answer about the mean, which explains nothing of one of two numbers.
        let found = errors.unexplained(2).unwrap();
        assert!((found - 0.25).abs() < 0.01, "{found}");
        assert_eq!(errors.worst(2), Some(5.0));
        assert!((errors.rms(2).unwrap() - (8.33f64 / 4.0).sqrt()).abs() < 0.02);
        let constant = [3.0f32; 2];
        let mut errors = Errors::new(&Shape::new([2]), 1);
        errors.take(&constant, [&[&constant], &[], &[&[4.0, 3.0]]]);
        assert_eq!((errors.unexplained(2), errors.worst(2)), (None, Some(1.0)));
    }

    #[test]
    fn classes_are_counted_per_position_and_run() {
        let tensor = |data: &[f32]| Tensor::new(Shape::new([1, 2, 2]), data.to_vec());
        let task = Task::Classify { axis: 2 };
        let answer = |data: &[f32]| {
            let numbers = tensor(data);
            Answer { classes: task.classes(&numbers), numbers }
        };
        let answers = Answers {
            float: Some(answer(&[1.0, 0.0, 1.0, 0.0])),
            fitted: Some(answer(&[1.0, 0.0, 0.0, 1.0])),
            rounded: answer(&[1.0, 0.0, 1.0, 0.0]),
            runs: vec![answer(&[0.0, 1.0, 1.0, 0.0]), answer(&[1.0, 0.0, 0.0, 1.0])],
        };
        let truth = Truth::Classes(vec![0, 1]);
        let (tally, one) = ClassTally::of(task, &answers, Some(&truth)).unwrap();
        assert!(one.is_none());
        assert_eq!((tally.count, tally.right), (2.0, [1.0, 2.0, 1.0]));
        assert_eq!((tally.same, tally.kept), ([1.0, 1.0], 1.0));
        assert_eq!((tally.lost, tally.gained), (0.5, 0.5));
        let (tally, _) = ClassTally::of(task, &answers, None).unwrap();
        assert_eq!((tally.lost, tally.gained), (1.0, 0.0));
        assert_eq!(most_common([3, 1, 1, 3].into_iter()), Some(3));
    }
}
