//! Elementary real functions of one variable that ONNX names and that a compiler must approximate.

use serde::{Deserialize, Serialize};

/// A function of one real variable. Names and defaults are ONNX's.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Function {
    /// `max(x, 0)`
    Relu,
    /// `x` where positive, `alpha·x` elsewhere
    LeakyRelu {
        /// slope of the negative side
        alpha: f64,
    },
    /// `min(max(x, low), high)`
    Clip {
        /// lower bound
        low: f64,
        /// upper bound
        high: f64,
    },
    /// `1/(1 + e^−x)`
    Sigmoid,
    /// hyperbolic tangent
    Tanh,
    /// `x·Φ(x)` with the exact normal distribution
    Gelu,
    /// the tanh approximation of [`Function::Gelu`]
    GeluTanh,
    /// `x·sigmoid(x)`
    Silu,
    /// `clip(alpha·x + beta, 0, 1)`
    HardSigmoid {
        /// slope
        alpha: f64,
        /// offset
        beta: f64,
    },
    /// `x·clip(x/6 + 1/2, 0, 1)`
    HardSwish,
    /// `x` where positive, `alpha·(e^x − 1)` elsewhere
    Elu {
        /// scale of the negative side
        alpha: f64,
    },
    /// `gamma·elu(x)`
    Selu {
        /// scale of the negative side
        alpha: f64,
        /// overall scale
        gamma: f64,
    },
    /// `ln(1 + e^x)`
    Softplus,
    /// `x/(1 + |x|)`
    Softsign,
    /// `x·tanh(softplus(x))`
    Mish,
    /// Gauss error function
    Erf,
    /// exponential
    Exp,
    /// natural logarithm
    Log,
    /// square root
    Sqrt,
    /// absolute value
    Abs,
    /// sine
    Sin,
    /// cosine
    Cos,
    /// −1, 0 or 1
    Sign,
    /// inverse cosine, of −1 to 1
    Acos,
    /// inverse hyperbolic cosine, from 1 on
    Acosh,
    /// inverse sine, of −1 to 1
    Asin,
    /// inverse hyperbolic sine
    Asinh,
    /// inverse tangent
    Atan,
    /// inverse hyperbolic tangent, between −1 and 1
    Atanh,
    /// hyperbolic cosine
    Cosh,
    /// hyperbolic sine
    Sinh,
    /// tangent
    Tan,
}

impl Function {
    /// The value at `x`.
    pub fn at(self, x: f64) -> f64 {
        match self {
            Self::Relu => x.max(0.0),
            Self::LeakyRelu { alpha } => {
                if x < 0.0 {
                    alpha * x
                } else {
                    x
                }
            }
            Self::Clip { low, high } => x.max(low).min(high),
            Self::Sigmoid => sigmoid(x),
            Self::Tanh => x.tanh(),
            Self::Gelu => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
            Self::GeluTanh => {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }
            Self::Silu => x * sigmoid(x),
            Self::HardSigmoid { alpha, beta } => (alpha * x + beta).clamp(0.0, 1.0),
            Self::HardSwish => x * (x / 6.0 + 0.5).clamp(0.0, 1.0),
            Self::Elu { alpha } => elu(x, alpha),
            Self::Selu { alpha, gamma } => gamma * elu(x, alpha),
            Self::Softplus => softplus(x),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Mish => x * softplus(x).tanh(),
            Self::Erf => erf(x),
            Self::Exp => x.exp(),
            Self::Log => x.ln(),
            Self::Sqrt => x.sqrt(),
            Self::Abs => x.abs(),
            Self::Sin => x.sin(),
            Self::Cos => x.cos(),
            Self::Sign => {
                if x == 0.0 {
                    0.0
                } else {
                    x.signum()
                }
            }
            Self::Acos => x.acos(),
            Self::Acosh => x.acosh(),
            Self::Asin => x.asin(),
            Self::Asinh => x.asinh(),
            Self::Atan => x.atan(),
            Self::Atanh => x.atanh(),
            Self::Cosh => x.cosh(),
            Self::Sinh => x.sinh(),
            Self::Tan => x.tan(),
        }
    }

    /// Whether the value never falls where `x` grows, over all real numbers: then it commutes with a
    /// maximum.
    pub fn is_non_decreasing(self) -> bool {
        match self {
            Self::Relu
            | Self::Clip { .. }
            | Self::Sigmoid
            | Self::Tanh
            | Self::Softplus
            | Self::Softsign
            | Self::Erf
            | Self::Exp
            | Self::Sign
            | Self::Asinh
            | Self::Atan
            | Self::Sinh => true,
            Self::LeakyRelu { alpha } | Self::HardSigmoid { alpha, .. } | Self::Elu { alpha } => {
                alpha >= 0.0
            }
            Self::Selu { alpha, gamma } => alpha >= 0.0 && gamma >= 0.0,
            Self::Gelu
            | Self::GeluTanh
            | Self::Silu
            | Self::HardSwish
            | Self::Mish
            | Self::Log
            | Self::Sqrt
            | Self::Abs
            | Self::Sin
            | Self::Cos
            | Self::Acos
            | Self::Acosh
            | Self::Asin
            | Self::Atanh
            | Self::Cosh
            | Self::Tan => false,
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn softplus(x: f64) -> f64 {
    if x > 30.0 { x } else { x.exp().ln_1p() }
}

fn elu(x: f64, alpha: f64) -> f64 {
    if x < 0.0 { alpha * x.exp_m1() } else { x }
}

/// The error function to about 1e-13: its Taylor series inside |x| < 3, the continued fraction of the
/// complementary function outside (Abramowitz and Stegun 7.1.5 and 7.1.14).
fn erf(x: f64) -> f64 {
    let a = x.abs();
    let value = if a < 3.0 {
        let (mut term, mut sum, mut n) = (a, a, 0.0);
        while term.abs() > 1e-17 * sum.abs() && n < 200.0 {
            n += 1.0;
            term *= -a * a / n;
            sum += term / (2.0 * n + 1.0);
        }
        sum * std::f64::consts::FRAC_2_SQRT_PI
    } else if a < 6.0 {
        let tail = (1..60).rev().fold(a, |fraction, i| a + 0.5 * f64::from(i) / fraction);
        1.0 - (-a * a).exp() / (tail * std::f64::consts::PI.sqrt())
    } else {
        1.0
    };
    value.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_function_matches_tables() {
        for (x, want) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.5, 0.999_593_047_982_555),
            (3.5, 0.999_999_256_901_627_7),
            (-1.0, -0.842_700_792_949_714_9),
        ] {
            assert!((erf(x) - want).abs() < 1e-12, "erf({x}) = {}", erf(x));
        }
    }

    #[test]
    fn functions_at_known_points() {
        assert_eq!(Function::Relu.at(-2.0), 0.0);
        assert_eq!(Function::HardSwish.at(3.0), 3.0);
        assert!((Function::Silu.at(1.0) - 0.731_058_578_630_004_9).abs() < 1e-12);
        assert!((Function::Gelu.at(1.0) - 0.841_344_746_068_542_9).abs() < 1e-12);
        assert!((Function::Softplus.at(0.0) - std::f64::consts::LN_2).abs() < 1e-12);
    }

    #[test]
    fn functions_that_claim_it_never_fall() {
        let grid: Vec<f64> = (-400..=400).map(|i| f64::from(i) / 40.0).collect();
        let functions = [
            Function::Relu,
            Function::LeakyRelu { alpha: 0.1 },
            Function::LeakyRelu { alpha: -0.1 },
            Function::Clip { low: -1.0, high: 2.0 },
            Function::Clip { low: 1.0, high: -2.0 },
            Function::Sigmoid,
            Function::Tanh,
            Function::Gelu,
            Function::GeluTanh,
            Function::Silu,
            Function::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Function::HardSigmoid { alpha: -0.2, beta: 0.5 },
            Function::HardSwish,
            Function::Elu { alpha: 1.0 },
            Function::Elu { alpha: -1.0 },
            Function::Selu { alpha: 1.67, gamma: 1.05 },
            Function::Selu { alpha: 1.67, gamma: -1.05 },
            Function::Softplus,
            Function::Softsign,
            Function::Mish,
            Function::Erf,
            Function::Exp,
            Function::Abs,
            Function::Sin,
            Function::Cos,
            Function::Sign,
            Function::Asinh,
            Function::Atan,
            Function::Cosh,
            Function::Sinh,
            Function::Tan,
        ];
        for function in functions {
            let rises = grid.windows(2).all(|x| function.at(x[1]) >= function.at(x[0]) - 1e-13);
            assert_eq!(function.is_non_decreasing(), rises, "{function:?}");
        }
    }
}
