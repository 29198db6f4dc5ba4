//! The text form of a plan: a line per step with shape, ring and fraction bits.

use super::{Plan, StepOp};
use std::fmt;

impl StepOp {
    /// The step's parameters for people; empty where its name says everything.
    pub fn parameters(&self) -> String {
        match self {
            Self::Convolution { geometry: g, weight_bits } => format!(
                "{}x{} stride {} groups {} weights i{weight_bits}",
                g.kernel[0], g.kernel[1], g.stride[0], g.groups
            ),
            Self::MatrixProduct { weight_bits } | Self::Diagonal { weight_bits } => {
                format!("weights i{weight_bits}")
            }
            Self::Scale { factor } => format!("by {factor}"),
            Self::Rescale { shift } => format!("t {shift}"),
            Self::Phase(s) => {
                format!(
                    "p {} mask {} t {} Q {} guard {} harmonics {} amplitude {}",
                    s.p, s.mask_bits, s.shift, s.q, s.guard, s.harmonics, s.amplitude
                )
            }
            Self::Square(s) => format!("t {} p {} t2 {} Q {}", s.t, s.p, s.shift, s.q),
            Self::Polynomial { square: s, degree } => {
                format!("t {} p {} t2 {} Q {} degree {degree}", s.t, s.p, s.shift, s.q)
            }
            _ => String::new(),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps.iter().enumerate() {
            let operands: Vec<String> = step.operands.iter().map(|o| o.to_string()).collect();
            let parameters = step.op.parameters();
            let parameters =
                if parameters.is_empty() { String::new() } else { format!(" [{parameters}]") };
            writeln!(
                f,
                "v{index}: {} k {} f {} = {}{parameters}({}) {}",
                step.shape,
                step.ring,
                step.fraction_bits,
                step.op.name(),
                operands.join(", "),
                step.name
            )?;
        }
        writeln!(f, "output {}", self.output)
    }
}
