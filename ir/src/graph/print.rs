//! The text form of a graph: a line per node, weights left out.

use super::Graph;
use std::fmt;

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for id in self.order() {
            let node = self.node(id);
            let operands: Vec<String> = self.operands(id).iter().map(|o| o.to_string()).collect();
            let detail = match &node.op {
                super::Op::Activation(a) => format!(" [{}]", a.name()),
                super::Op::Convolution { geometry: g, .. } => format!(
                    " [{}x{} stride {:?} padding {:?} groups {}]",
                    g.kernel[0], g.kernel[1], g.stride, g.padding, g.groups
                ),
                _ => String::new(),
            };
            writeln!(
                f,
                "{id}: {} = {}{detail}({}) {}",
                node.shape,
                node.op.name(),
                operands.join(", "),
                node.name
            )?;
        }
        writeln!(f, "output {}", self.output())
    }
}
