//! The text form of a plan: a line per step with shape, ring and fraction bits.

use super::Plan;
use std::fmt;

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
