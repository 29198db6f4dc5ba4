//! What values cannot exceed, by interval arithmetic from the input's range on: where nobody knows real inputs.

use ir::Shape;
use ir::Tensor;
use ir::graph::{Op, evaluate_node};
use ir::op::{Activation, Function};

/// Every element of a value lies within `radius` of `middle`.
pub(super) struct Bounds {
    middle: Tensor<f32>,
    radius: Tensor<f32>,
}

impl Bounds {
    /// Of values that all lie between the smallest and the largest of those of `inputs`.
    pub fn of_inputs(inputs: &[Tensor<f32>]) -> Option<Self> {
        let first = inputs.first()?;
        let values = || inputs.iter().flat_map(|x| &x.data).copied();
        let (low, high) = values()
            .fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        let all = |value: f32| first.map(|_| value);
        Some(Self { middle: all((low + high) / 2.0), radius: all((high - low) / 2.0) })
    }

    /// Of an operator's values; `None` where it is not known how intervals pass it.
    pub fn of(op: &Op, shape: &Shape, operands: &[&Self]) -> Option<Self> {
        let apply = |op: &Op, of: fn(&Self) -> &Tensor<f32>| {
            let operands: Vec<&Tensor<f32>> = operands.iter().map(|b| of(b)).collect();
            evaluate_node(op, shape, &operands)
        };
        let linear = |sizes: &Op| Self {
            middle: apply(op, |b| &b.middle),
            radius: apply(sizes, |b| &b.radius),
        };
        let zero = || Tensor::scalar(0.0);
        Some(match op {
            Op::Convolution { geometry, weights, .. } => linear(&Op::Convolution {
                geometry: *geometry,
                weights: weights.map(f32::abs),
                bias: zero(),
            }),
            Op::MatrixProduct { weights, .. } => {
                linear(&Op::MatrixProduct { weights: weights.map(f32::abs), bias: zero() })
            }
            Op::Affine { scale, .. } => {
                linear(&Op::Affine { scale: scale.map(f32::abs), shift: zero() })
            }
            Op::Add
            | Op::SumWindows { .. }
            | Op::SumAxes(_)
            | Op::AverageWindows { .. }
            | Op::Reshape
            | Op::Transpose(_)
            | Op::Take { .. }
            | Op::Concat(_) => linear(op),
            Op::Constant(value) => Self { middle: value.clone(), radius: value.map(|_| 0.0) },
            Op::Activation(activation) if *activation == Activation::function(Function::Relu) => {
                let [operand] = operands else { return None };
                let ends = operand.middle.data.iter().zip(&operand.radius.data);
                let (middle, radius) = ends
                    .map(|(m, r)| ((m - r).max(0.0), (m + r).max(0.0)))
                    .map(|(low, high)| ((low + high) / 2.0, (high - low) / 2.0))
                    .unzip();
                let of = |data| Tensor::new(shape.clone(), data);
                Self { middle: of(middle), radius: of(radius) }
            }
            Op::Input
            | Op::Activation(_)
            | Op::Multiply
            | Op::Divide
            | Op::MaxWindows { .. }
            | Op::Softmax(_)
            | Op::LogSoftmax(_)
            | Op::ArgMax(_)
            | Op::Integers(_) => return None,
        })
    }

    /// The largest magnitude.
    pub fn largest(&self) -> f64 {
        let ends = self.middle.data.iter().zip(&self.radius.data);
        ends.map(|(m, r)| f64::from(m.abs()) + f64::from(*r)).fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_hold_every_value_and_are_reached() {
        let inputs = [Tensor::new(Shape::new([1, 2]), vec![-1.0, 3.0])];
        let input = Bounds::of_inputs(&inputs).unwrap();
        assert_eq!(input.largest(), 3.0);
        let shape = Shape::new([1, 2]);
        let op = Op::MatrixProduct {
            weights: Tensor::new(Shape::new([2, 2]), vec![1.0, -2.0, 0.5, 0.0]),
            bias: Tensor::new(Shape::new([2]), vec![1.0, -4.0]),
        };
        // 1 + x − 2y of [−1, 3]² is between −6 and 6, 0.5·x − 4 between −4.5 and −2.5.
        let line = Bounds::of(&op, &shape, &[&input]).unwrap();
        assert_eq!(
            (line.middle.data.clone(), line.radius.data.clone()),
            (vec![0.0, -3.5], vec![6.0, 1.0])
        );
        let relu = Op::Activation(Activation::function(Function::Relu));
        let positive = Bounds::of(&relu, &shape, &[&line]).unwrap();
        assert_eq!((positive.middle.data, positive.radius.data), (vec![3.0, 0.0], vec![3.0, 0.0]));
        let sum = Bounds::of(&Op::Add, &shape, &[&line, &line]).unwrap();
        assert_eq!(sum.largest(), 12.0);
        let tanh = Op::Activation(Activation::function(Function::Tanh));
        assert!(Bounds::of(&tanh, &shape, &[&line]).is_none());
    }
}
