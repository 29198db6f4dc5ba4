//! Plans of well-known shapes with arbitrary weights, for measurements: 16-bit rings, two harmonics.

use ir::Shape;
use ir::op::Convolution;
use ir::plan::{
    Interactive, Linear, Local, Phase, Plan, Step, StepOp, StepWeights, ValueId, Weights,
};

/// A plan by name: `resnet18` for CIFAR, `resnet50` at 224.
pub fn named(name: &str) -> Option<(Plan, Weights)> {
    match name {
        "resnet18" => Some(resnet18()),
        "resnet50" => Some(resnet50()),
        _ => None,
    }
}

fn resnet18() -> (Plan, Weights) {
    let mut b = Builder::new([1, 3, 32, 32]);
    let mut x = b.convolution(0, 64, 3, 1, true);
    for (stage, width) in [64, 128, 256, 512].into_iter().enumerate() {
        for block in 0..2 {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let inner = b.convolution(x, width, 3, stride, true);
            let inner = b.convolution(inner, width, 3, 1, false);
            let skip = if stride == 2 { b.convolution(x, width, 1, 2, false) } else { x };
            x = b.join(inner, skip);
        }
    }
    b.finish("resnet18", x, 10)
}

fn resnet50() -> (Plan, Weights) {
    let mut b = Builder::new([1, 3, 224, 224]);
    let x = b.convolution(0, 64, 7, 2, true);
    let op = StepOp::Local(Local::SumPool { kernel: [2, 2], stride: [2, 2] });
    let mut x = b.push(op, &[x], Shape::new([1, 64, 56, 56]), StepWeights::None);
    for (stage, blocks) in [3, 4, 6, 3].into_iter().enumerate() {
        let width = 64 << stage;
        for block in 0..blocks {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let inner = b.convolution(x, width, 1, 1, true);
            let inner = b.convolution(inner, width, 3, stride, true);
            let inner = b.convolution(inner, 4 * width, 1, 1, false);
            let skip = if block == 0 { b.convolution(x, 4 * width, 1, stride, false) } else { x };
            x = b.join(inner, skip);
        }
    }
    b.finish("resnet50", x, 1000)
}

struct Builder {
    steps: Vec<Step>,
    weights: Vec<StepWeights>,
}

impl Builder {
    fn new(input: [usize; 4]) -> Self {
        let mut builder = Self { steps: vec![], weights: vec![] };
        builder.push(StepOp::Input, &[], Shape::new(input), StepWeights::None);
        builder
    }

    fn push(
        &mut self,
        op: StepOp,
        operands: &[usize],
        shape: Shape,
        weights: StepWeights,
    ) -> usize {
        let operands = operands.iter().map(|&o| ValueId(o as u32)).collect();
        self.steps.push(Step {
            name: String::new(),
            op,
            operands,
            shape,
            ring: 16,
            fraction_bits: 0,
        });
        self.weights.push(weights);
        self.steps.len() - 1
    }

    fn linear(&self, count: usize, outputs: usize) -> StepWeights {
        let weights = (0..count).map(|i| (i * 37 % 255) as i32 - 127).collect();
        StepWeights::Linear { weights, bias: vec![1; outputs] }
    }

    fn convolution(
        &mut self,
        x: usize,
        outputs: usize,
        kernel: usize,
        stride: usize,
        activated: bool,
    ) -> usize {
        let geometry = Convolution {
            groups: 1,
            kernel: [kernel; 2],
            stride: [stride; 2],
            dilation: [1, 1],
            padding: [kernel / 2; 4],
        };
        let input = self.steps[x].shape.clone();
        let shape = geometry.output_shape(&input, outputs).unwrap_or_default();
        let weights = self.linear(outputs * geometry.fan_in(&input), outputs);
        let op = StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 });
        let y = self.push(op, &[x], shape, weights);
        if activated { self.activation(y) } else { y }
    }

    fn activation(&mut self, x: usize) -> usize {
        let phase = Phase {
            p: 8,
            mask_bits: 8,
            q: 32,
            shift: 16,
            g2: 7,
            h: 7,
            guard: 0,
            harmonics: 2,
            amplitude: 8,
        };
        let shape = self.steps[x].shape.clone();
        let weights = StepWeights::Phase {
            constant: vec![1.5; shape.channels()],
            harmonics: vec![vec![[3.0, 4.0], [1.0, 2.0]]; shape.channels()],
        };
        self.push(StepOp::Interactive(Interactive::Phase(phase)), &[x], shape, weights)
    }

    /// The end of a residual block: the skipped value scaled, added, activated.
    fn join(&mut self, inner: usize, skip: usize) -> usize {
        let shape = || self.steps[inner].shape.clone();
        let (scaled, sum) = (shape(), shape());
        let skip = self.push(
            StepOp::Local(Local::Scale { factor: 37 }),
            &[skip],
            scaled,
            StepWeights::None,
        );
        let sum = self.push(StepOp::Local(Local::Add), &[inner, skip], sum, StepWeights::None);
        self.activation(sum)
    }

    fn finish(mut self, name: &str, x: usize, classes: usize) -> (Plan, Weights) {
        let channels = self.steps[x].shape.channels();
        let pooled = Shape::new([1, channels, 1, 1]);
        let x = self.push(
            StepOp::Local(Local::ReduceSum { axes: vec![2, 3] }),
            &[x],
            pooled,
            StepWeights::None,
        );
        let x = self.push(
            StepOp::Local(Local::Reshape),
            &[x],
            Shape::new([1, channels]),
            StepWeights::None,
        );
        let weights = self.linear(channels * classes, classes);
        let op = StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 });
        let output = self.push(op, &[x], Shape::new([1, classes]), weights);
        let mut plan = Plan::of_steps(name, self.steps, ValueId(output as u32), (4.0, 16.0), 64.0);
        assert!(plan.choose_encryption(), "weights of 8 bits fit");
        let (_, digest) = plan.to_bytes();
        (plan, Weights { plan: digest, salt: [0; 32], steps: self.weights })
    }
}
