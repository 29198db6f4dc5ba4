//! What an output means: classes, two classes, or numbers. The compiler judges a plan by it and party 1
//! prints its answer by it, so both say the same of the same numbers.

use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How many scores are told of an input.
const TOP: usize = 3;
/// The most classes or numbers of one input that are told one by one.
const MOST_TOLD: usize = 16;

/// The meaning of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Scores of classes along an axis: the first largest is the class, at every position of the other
    /// axes.
    Classify {
        /// The axis of the classes.
        axis: usize,
    },
    /// Every element is a score of the second of two classes, 0 and 1.
    Binary {
        /// Whether the scores are probabilities, which are judged at one half; others at zero.
        is_probability: bool,
    },
    /// Numbers in a unit of their own.
    Regress,
}

impl Task {
    /// Its name, as `--task` takes it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Classify { .. } => "classify",
            Self::Binary { .. } => "binary",
            Self::Regress => "regress",
        }
    }

    /// Whether outputs of a shape can mean this.
    pub fn fits(&self, shape: &Shape) -> bool {
        match self {
            Self::Classify { axis } => shape.0.get(*axis).is_some_and(|&classes| classes > 1),
            Self::Binary { .. } | Self::Regress => true,
        }
    }

    /// How many classes there are to choose from in an output of a shape; `None` for numbers.
    pub fn class_count(&self, shape: &Shape) -> Option<usize> {
        match self {
            Self::Classify { axis } => Some(shape.0[*axis]),
            Self::Binary { .. } => Some(2),
            Self::Regress => None,
        }
    }

    /// What a binary score must exceed to be of class 1.
    pub fn threshold(&self) -> f32 {
        if let Self::Binary { is_probability: true } = self { 0.5 } else { 0.0 }
    }

    /// The scores of every position, in the order of the positions: one per class, a binary score over
    /// its threshold. Nothing for numbers.
    ///
    /// # Panics
    /// If the task does not fit the output.
    pub fn scores(&self, output: &Tensor<f32>) -> Vec<Vec<f32>> {
        match self {
            Self::Classify { axis } => {
                let (classes, inner) = (output.shape.0[*axis], output.shape.strides()[*axis]);
                let first = |position: usize| position / inner * inner * classes + position % inner;
                let scores = |position| {
                    let first = first(position);
                    (0..classes).map(|class| output.data[first + class * inner]).collect()
                };
                (0..output.data.len() / classes).map(scores).collect()
            }
            Self::Binary { .. } => {
                let threshold = self.threshold();
                output.data.iter().map(|&score| vec![score - threshold]).collect()
            }
            Self::Regress => vec![],
        }
    }

    /// The class at every position of an output; nothing for numbers.
    ///
    /// # Panics
    /// If the task does not fit the output.
    pub fn classes(&self, output: &Tensor<f32>) -> Vec<usize> {
        self.scores(output).iter().map(|scores| class(scores)).collect()
    }

    /// What is said of an output.
    ///
    /// # Panics
    /// If the task does not fit the output.
    pub fn verdict(&self, output: &Tensor<f32>) -> Verdict {
        match (self, &output.data[..]) {
            (Self::Classify { .. }, data) => {
                let scores = self.scores(output);
                let [scores] = &scores[..] else { return self.of_positions(output) };
                debug_assert_eq!(scores.len(), data.len());
                let ranked = ranked(scores, TOP);
                Verdict::Class { class: class(scores), top: ranked }
            }
            (Self::Binary { is_probability }, &[score]) => Verdict::Binary {
                class: usize::from(score > self.threshold()),
                score,
                is_probability: *is_probability,
            },
            (Self::Binary { .. }, _) => self.of_positions(output),
            (Self::Regress, data) if data.len() <= MOST_TOLD => Verdict::Values(data.to_vec()),
            (Self::Regress, data) => {
                let finite = data.iter().copied().filter(|v| !v.is_nan());
                let (low, high) = finite
                    .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
                Verdict::Array { shape: output.shape.clone(), range: (low, high) }
            }
        }
    }

    fn of_positions(&self, output: &Tensor<f32>) -> Verdict {
        let mut shape = output.shape.clone();
        if let Self::Classify { axis } = self {
            shape.0.remove(*axis);
        }
        Verdict::Classes { shape, classes: self.classes(output) }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classify { axis } => write!(f, "classify (largest score along axis {axis})"),
            Self::Binary { is_probability: true } => write!(f, "binary (probability above 0.5)"),
            Self::Binary { is_probability: false } => write!(f, "binary (logit above 0)"),
            Self::Regress => write!(f, "regress (numbers)"),
        }
    }
}

/// What is said of one input's output.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// One class of several.
    Class {
        /// The class.
        class: usize,
        /// The largest scores and their classes, the largest first.
        top: Vec<(usize, f32)>,
    },
    /// One class of two.
    Binary {
        /// The class.
        class: usize,
        /// The score.
        score: f32,
        /// Whether it is a probability.
        is_probability: bool,
    },
    /// A class at every position.
    Classes {
        /// The shape of the positions.
        shape: Shape,
        /// The classes.
        classes: Vec<usize>,
    },
    /// A few numbers.
    Values(Vec<f32>),
    /// More numbers than one reads.
    Array {
        /// Their shape.
        shape: Shape,
        /// The least and the largest.
        range: (f32, f32),
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told(&[]))
    }
}

impl Verdict {
    /// In words; classes that have names are called by them.
    pub fn told(&self, names: &[String]) -> String {
        let name = |class: usize| names.get(class).cloned().unwrap_or_else(|| class.to_string());
        match self {
            Self::Class { class, top } => {
                let top: Vec<_> =
                    top.iter().map(|&(c, score)| format!("{}: {score:.3}", name(c))).collect();
                format!("class {} ({})", name(*class), top.join(", "))
            }
            Self::Binary { class, score, is_probability } => {
                let of = if *is_probability { "probability" } else { "logit" };
                format!("{of} {score:.4} → class {}", name(*class))
            }
            Self::Classes { classes, .. } if classes.len() <= MOST_TOLD => {
                let classes: Vec<String> = classes.iter().map(|&class| name(class)).collect();
                format!("classes {}", classes.join(" "))
            }
            Self::Classes { shape, classes } => {
                format!("classes at {shape}: {}; --output writes all", shares(classes, name))
            }
            Self::Values(values) => {
                let told: Vec<String> = values.iter().map(|&v| five_digits(v.into())).collect();
                let word = if told.len() == 1 { "value" } else { "values" };
                format!("{word} {}", told.join(", "))
            }
            Self::Array { shape, range: (low, high) } => {
                let (low, high) = (five_digits(f64::from(*low)), five_digits(f64::from(*high)));
                format!("numbers of shape {shape}, {low} to {high}; --output writes all")
            }
        }
    }
}

/// The commonest classes and the share of positions that have them.
fn shares(classes: &[usize], name: impl Fn(usize) -> String) -> String {
    let mut counts = std::collections::BTreeMap::<usize, usize>::new();
    classes.iter().for_each(|&class| *counts.entry(class).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.1));
    let share = |n: usize| 100.0 * n as f64 / classes.len() as f64;
    let told =
        counts.iter().take(TOP).map(|&(class, n)| format!("{} in {:.1}%", name(class), share(n)));
    let more = counts.len().saturating_sub(TOP);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    told.collect::<Vec<_>>().join(", ") + &more
}

/// A number with five significant digits.
pub fn five_digits(v: f64) -> String {
    let magnitude = v.abs();
    if v == 0.0 || !v.is_finite() {
        return v.to_string();
    }
    if !(1e-4..1e6).contains(&magnitude) {
        return format!("{v:.4e}");
    }
    let digits = (4 - magnitude.log10().floor() as i32).max(0) as usize;
    format!("{v:.digits$}")
}

/// The class of a position with these scores: the first largest; of a single score, whether it is above
/// zero. What is no number is no class.
pub fn class(scores: &[f32]) -> usize {
    match scores {
        [single] => usize::from(*single > 0.0),
        many => {
            let is_better = |best: Option<usize>, i: usize| {
                !many[i].is_nan() && best.is_none_or(|best| many[i] > many[best])
            };
            let choose = |best, i| if is_better(best, i) { Some(i) } else { best };
            (0..many.len()).fold(None, choose).unwrap_or(0)
        }
    }
}

/// The classes of the `count` largest scores, the largest first, of equal ones the first.
fn ranked(scores: &[f32], count: usize) -> Vec<(usize, f32)> {
    let mut order: Vec<usize> = (0..scores.len()).filter(|&i| !scores[i].is_nan()).collect();
    let falling = |&a: &usize, &b: &usize| {
        scores[b].partial_cmp(&scores[a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(&b))
    };
    if count < order.len() {
        order.select_nth_unstable_by(count, falling);
        order.truncate(count);
    }
    order.sort_unstable_by(falling);
    order.into_iter().map(|class| (class, scores[class])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(dims: &[usize], data: &[f32]) -> Tensor<f32> {
        Tensor::new(Shape::new(dims), data.to_vec())
    }

    #[test]
    fn ties_and_what_is_no_number() {
        let classify = Task::Classify { axis: 1 };
        let class = |data: &[f32]| classify.classes(&tensor(&[1, data.len()], data))[0];
        assert_eq!(class(&[1.0, 3.0, 3.0]), 1);
        assert_eq!(class(&[-0.0, 0.0]), 0);
        assert_eq!(class(&[f32::NAN, -5.0, -4.0]), 2);
        assert_eq!(class(&[f32::NAN, f32::NAN]), 0);
        let Verdict::Class { class, top } =
            classify.verdict(&tensor(&[1, 4], &[-0.0, 0.0, 1.0, 1.0]))
        else {
            panic!()
        };
        assert_eq!((class, &top[..]), (2, &[(2, 1.0), (3, 1.0), (0, -0.0)][..]));
        for is_probability in [false, true] {
            let binary = Task::Binary { is_probability };
            let at = binary.threshold();
            let scores = tensor(&[1, 4], &[at, at + 1e-6, at - 1e-6, f32::NAN]);
            assert_eq!(binary.classes(&scores), [0, 1, 0, 0]);
        }
    }

    #[test]
    fn classes_stand_along_their_axis() {
        // Two positions of three classes, both ways round.
        let last = tensor(&[1, 2, 3], &[0.0, 2.0, 1.0, 5.0, 4.0, 3.0]);
        assert_eq!(Task::Classify { axis: 2 }.classes(&last), [1, 0]);
        let first = tensor(&[1, 3, 2, 1], &[0.0, 5.0, 2.0, 4.0, 1.0, 3.0]);
        assert_eq!(Task::Classify { axis: 1 }.classes(&first), [1, 0]);
        assert!(!Task::Classify { axis: 3 }.fits(&first.shape));
        assert!(!Task::Classify { axis: 4 }.fits(&first.shape));
    }

    #[test]
    fn verdicts_in_words() {
        let said = |task: Task, dims: &[usize], data: &[f32]| {
            task.verdict(&tensor(dims, data)).to_string()
        };
        let classify = Task::Classify { axis: 1 };
        assert_eq!(said(classify, &[1, 2], &[0.5, 2.0]), "class 1 (1: 2.000, 0: 0.500)");
        assert_eq!(said(classify, &[1, 2, 2], &[0.5, 2.0, 1.0, 1.0]), "classes 1 0");
        let map = said(classify, &[1, 2, 20], &[0.5; 40]);
        assert_eq!(map, "classes at [1, 20]: 0 in 100.0%; --output writes all");
        let probability = Task::Binary { is_probability: true };
        assert_eq!(said(probability, &[1, 1], &[0.93]), "probability 0.9300 → class 1");
        let logit = Task::Binary { is_probability: false };
        assert_eq!(said(logit, &[1], &[-0.1]), "logit -0.1000 → class 0");
        assert_eq!(said(Task::Regress, &[1, 1], &[3.21]), "value 3.2100");
        assert_eq!(said(Task::Regress, &[2], &[1e-7, 123456.0]), "values 1.0000e-7, 123456");
        let image = said(Task::Regress, &[1, 3, 4, 4], &[0.25; 48]);
        assert_eq!(image, "numbers of shape [1, 3, 4, 4], 0.25000 to 0.25000; --output writes all");
    }
}
