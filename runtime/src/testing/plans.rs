//! Small plans made by hand, for tests.

use super::Random;
use ir::op::Convolution;
use ir::plan::{
    Interactive, Linear, Local, Phase, Plan, Polynomial, Select, Square, Step, StepOp, StepWeights,
    Table, ValueId, Weights,
};
use ir::{Shape, Tensor};

/// Collects steps with their weights.
pub struct Builder {
    steps: Vec<Step>,
    weights: Vec<StepWeights>,
    pub random: Random,
}

impl Builder {
    pub fn new(input: impl Into<Vec<usize>>, ring: u32) -> Self {
        let mut builder = Self { steps: vec![], weights: vec![], random: Random::new(11) };
        builder.push(StepOp::Input, &[], Shape::new(input), ring, StepWeights::None);
        builder
    }

    pub fn push(
        &mut self,
        op: StepOp,
        operands: &[usize],
        shape: Shape,
        ring: u32,
        weights: StepWeights,
    ) -> usize {
        let operands = operands.iter().map(|&o| ValueId(o as u32)).collect();
        let name = format!("{} {}", op.name(), self.steps.len());
        self.steps.push(Step { name, op, operands, shape, ring, fraction_bits: 6 });
        self.weights.push(weights);
        self.steps.len() - 1
    }

    pub fn public(
        &mut self,
        op: StepOp,
        operands: &[usize],
        shape: impl Into<Vec<usize>>,
        ring: u32,
    ) -> usize {
        self.push(op, operands, Shape::new(shape), ring, StepWeights::None)
    }

    fn shape(&self, step: usize) -> Shape {
        self.steps[step].shape.clone()
    }

    fn linear(&mut self, count: usize, outputs: usize, ring: u32, limit: u64) -> StepWeights {
        let random = &mut self.random;
        let weights =
            (0..count).map(|_| random.between(0, 2 * limit) as i32 - limit as i32).collect();
        let bias = (0..outputs).map(|_| random.bits(6).wrapping_sub(32)).collect::<Vec<u64>>();
        let bias = bias.into_iter().map(|b| b & ir::ring::low_mask(ring)).collect();
        StepWeights::Linear { weights, bias }
    }

    pub fn matrix(&mut self, operand: usize, outputs: usize, ring: u32, limit: u64) -> usize {
        let mut shape = self.shape(operand);
        let inputs = shape.0.last().copied().unwrap();
        *shape.0.last_mut().unwrap() = outputs;
        let weights = self.linear(inputs * outputs, outputs, ring, limit);
        self.push(
            StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 }),
            &[operand],
            shape,
            ring,
            weights,
        )
    }

    pub fn convolution(&mut self, operand: usize, outputs: usize, ring: u32, limit: u64) -> usize {
        let geometry = Convolution {
            groups: 1,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1, 1, 1, 1],
        };
        let input = self.shape(operand);
        let shape = geometry.output_shape(&input, outputs).unwrap();
        let weights = self.linear(outputs * geometry.fan_in(&input), outputs, ring, limit);
        self.push(
            StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 }),
            &[operand],
            shape,
            ring,
            weights,
        )
    }

    pub fn phase(&mut self, operand: usize, ring: u32, amplitude: f64) -> usize {
        self.phase_of(operand, ring, amplitude, 2)
    }

    pub fn phase_of(&mut self, operand: usize, ring: u32, amplitude: f64, harmonics: u32) -> usize {
        let phase = Phase {
            p: 7,
            mask_bits: 8,
            q: ring + 24,
            shift: 24,
            g2: 7,
            h: 9,
            guard: 2,
            harmonics,
            amplitude: 6,
        };
        let shape = self.shape(operand);
        let random = &mut self.random;
        let mut value = || (random.unit() - 0.5) * amplitude;
        let constant = (0..shape.channels()).map(|_| value()).collect();
        let mut row = || (0..harmonics).map(|_| [value(), value()]).collect();
        let harmonics = (0..shape.channels()).map(|_| row()).collect();
        let weights = StepWeights::Phase { constant, harmonics };
        self.push(StepOp::Interactive(Interactive::Phase(phase)), &[operand], shape, ring, weights)
    }

    pub fn square(&mut self, operand: usize, square: Square) -> usize {
        let shape = self.shape(operand);
        let channels = shape.channels() as i64;
        let weights =
            StepWeights::Square { constant: (0..channels).map(|c| 37 - 90 * c).collect() };
        self.push(
            StepOp::Interactive(Interactive::Square(square)),
            &[operand],
            shape,
            square.q - square.shift,
            weights,
        )
    }

    pub fn polynomial(&mut self, operand: usize, square: Square, coefficients: Vec<i128>) -> usize {
        let shape = self.shape(operand);
        let degree = coefficients.len() as u32 - 1;
        let channel = |c: i128| coefficients.iter().map(|v| v - v / 5 * (c % 3)).collect();
        let channels = shape.channels() as i128;
        let weights =
            StepWeights::Polynomial { coefficients: (0..channels).map(channel).collect() };
        let op = StepOp::Interactive(Interactive::Polynomial(Polynomial { square, degree }));
        self.push(op, &[operand], shape, square.q - square.shift, weights)
    }

    pub fn select(&mut self, operand: usize, select: Select, ring: u32) -> usize {
        let (shape, weights) = (self.shape(operand), StepWeights::None);
        self.push(StepOp::Interactive(select.into()), &[operand], shape, ring, weights)
    }

    pub fn table(&mut self, operand: usize, table: Table) -> usize {
        let (shape, weights, ring) = (self.shape(operand), StepWeights::None, table.q);
        self.push(StepOp::Interactive(table.into()), &[operand], shape, ring, weights)
    }

    pub fn finish(self, output: usize) -> (Plan, Weights) {
        let mut plan =
            Plan::of_steps("test", self.steps, ValueId(output as u32), (4.0, 16.0), 64.0);
        assert!(plan.choose_encryption());
        plan.verify().unwrap();
        let (bytes, digest) = plan.to_bytes();
        let (plan, _) = Plan::from_bytes(&bytes).unwrap();
        let weights = Weights { plan: digest, salt: [5; 32], steps: self.weights };
        let bytes = weights.to_bytes(None);
        let weights = Weights::from_bytes(&bytes, &plan, digest).unwrap();
        (plan, weights)
    }
}

/// Convolutions of several geometries and matrix products, each of the input or a reshaped one, of
/// `ring` bits with weights of `bits` bits.
pub fn linear(ring: u32, weight_bits: u32) -> Plan {
    let mut b = Builder::new([1, 6, 9, 11], ring);
    let input = b.shape(0);
    let plain = |groups, kernel, stride, padding| Convolution {
        groups,
        kernel,
        stride,
        dilation: [1, 1],
        padding,
    };
    for (geometry, outputs) in [
        (plain(1, [3, 3], [1, 1], [1; 4]), 5),
        (plain(2, [3, 2], [2, 1], [1, 0, 1, 1]), 8),
        (plain(6, [3, 3], [1, 2], [1; 4]), 6),
        (plain(1, [1, 1], [2, 2], [0; 4]), 7),
        (Convolution { dilation: [2, 3], ..plain(1, [2, 3], [1, 1], [0, 3, 2, 1]) }, 3),
    ] {
        let shape = geometry.output_shape(&input, outputs).unwrap();
        let weights = b.linear(outputs * geometry.fan_in(&input), outputs, ring, 3);
        b.push(
            StepOp::Linear(Linear::Convolution { geometry, weight_bits }),
            &[0],
            shape,
            ring,
            weights,
        );
    }
    let weights = b.linear(11 * 4, 4, ring, 3);
    let op = StepOp::Linear(Linear::MatrixProduct { weight_bits });
    b.push(op, &[0], Shape::new([1, 6, 9, 4]), ring, weights);
    b.finish(1).0
}

/// Linear steps and phases alone, with a skip and a linear step behind a linear one.
pub fn phases() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 6, 6], 16);
    let first = b.convolution(0, 4, 16, 60);
    let phase = b.phase(first, 18, 40.0);
    let second = b.convolution(phase, 4, 18, 5);
    let linear = b.convolution(second, 4, 18, 3);
    let sum = b.public(StepOp::Local(Local::Add), &[linear, phase], [1, 4, 6, 6], 18);
    let last = b.phase(sum, 20, 30.0);
    let flat = b.public(StepOp::Local(Local::Reshape), &[last], [1, 144], 20);
    let logits = b.matrix(flat, 5, 20, 20);
    b.finish(logits)
}

/// Linear steps and phases of one harmonic, so large that encryption makes their products.
pub fn large_phases() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 32, 32], 16);
    let first = b.convolution(0, 5, 16, 60);
    let phase = b.phase_of(first, 18, 40.0, 1);
    let second = b.convolution(phase, 3, 18, 5);
    let last = b.phase_of(second, 20, 30.0, 1);
    let windows = b.public(
        StepOp::Local(Local::SumPool { kernel: [8, 8], stride: [8, 8] }),
        &[last],
        [1, 3, 4, 4],
        20,
    );
    let flat = b.public(StepOp::Local(Local::Reshape), &[windows], [1, 48], 20);
    let logits = b.matrix(flat, 5, 20, 2);
    b.finish(logits)
}

/// A Hadamard product of more elements than one exchange has, a public step and a phase behind it.
pub fn large_hadamard() -> (Plan, Weights) {
    let mut b = Builder::new([1, 5, 60, 60], 16);
    let elements = 5 * 60 * 60;
    let weights = b.linear(elements, elements, 16, 60);
    let op = StepOp::Linear(Linear::Hadamard { weight_bits: 8 });
    let hadamard = b.push(op, &[0], Shape::new([1, 5, 60, 60]), 16, weights);
    let twice =
        b.public(StepOp::Local(Local::Scale { factor: 3 }), &[hadamard], [1, 5, 60, 60], 16);
    let phase = b.phase(twice, 20, 40.0);
    b.finish(phase)
}

/// Every kind of step: matrix product, phase, convolution, square, polynomials with `Q` below and above
/// 64, a constant, a Hadamard product, and every structural step, with two interactive steps in one round.
pub fn every_kind() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 4, 4], 20);
    let scaled = b.matrix(0, 4, 16, 100);
    let phase = b.phase(scaled, 26, 60.0);
    let conv = b.convolution(phase, 3, 26, 8);
    let square = b.square(conv, Square { t: 4, p: 14, q: 40, shift: 10 });
    let conv2 = b.convolution(phase, 3, 24, 6);
    let narrow = Square { t: 4, p: 14, q: 60, shift: 28 };
    let cubic = b.polynomial(conv2, narrow, vec![1 << 30, -3000, 1 << 20, 77]);
    let sum = b.public(StepOp::Local(Local::Add), &[square, cubic], [1, 3, 4, 4], 28);
    let constant = b.push(
        StepOp::Constant,
        &[],
        Shape::new([1, 3, 4, 4]),
        28,
        StepWeights::Constant((0..48).map(|i| i * 3).collect()),
    );
    let sum = b.public(StepOp::Local(Local::Add), &[sum, constant], [1, 3, 4, 4], 28);
    let small = b.public(StepOp::Local(Local::Truncate { shift: 4 }), &[sum], [1, 3, 4, 4], 24);
    let windows = b.public(
        StepOp::Local(Local::SumPool { kernel: [2, 2], stride: [2, 2] }),
        &[small],
        [1, 3, 2, 2],
        24,
    );
    // Its twos push two bits of the operand out.
    let skip = b.public(StepOp::Local(Local::Scale { factor: -12 }), &[phase], [1, 2, 4, 4], 28);
    let taken = b.public(
        StepOp::Local(Local::Gather { axis: 2, indices: vec![Some(3), None] }),
        &[skip],
        [1, 2, 2, 4],
        28,
    );
    let taken =
        b.public(StepOp::Local(Local::ReduceSum { axes: vec![3] }), &[taken], [1, 2, 2, 1], 28);
    let taken = b.public(
        StepOp::Local(Local::Transpose { permutation: vec![0, 3, 1, 2] }),
        &[taken],
        [1, 1, 2, 2],
        28,
    );
    let joined =
        b.public(StepOp::Local(Local::Concat { axis: 1 }), &[windows, taken], [1, 4, 2, 2], 24);
    let flat = b.public(StepOp::Local(Local::Reshape), &[joined], [1, 16], 24);
    let factors = StepWeights::Linear {
        weights: (0..16).map(|i| i % 3 - 1).collect(),
        bias: (0..16).map(|i| i as u64).collect(),
    };
    let hadamard = b.push(
        StepOp::Linear(Linear::Hadamard { weight_bits: 8 }),
        &[flat],
        Shape::new([1, 16]),
        23,
        factors,
    );
    let wide = Square { t: 9, p: 14, q: 100, shift: 74 };
    let quintic = b.polynomial(hadamard, wide, vec![5 << 74, 1 << 70, 0, -(1 << 50), 0, 1 << 24]);
    let output = b.matrix(quintic, 5, 26, 20);
    b.finish(output)
}

/// Selects between linear steps, in rings that narrow and widen, three of them side by side; a phase that starts when a
/// select is half done; and a last select whose value is so narrow that no wrap shows in it.
pub fn selects() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 5, 5], 16);
    let first = b.convolution(0, 4, 16, 60);
    let relu = b.select(first, Select { k: 16, p: 5, t: 7 }, 16);
    let second = b.convolution(relu, 4, 14, 9);
    let narrow = b.select(second, Select { k: 13, p: 3, t: 0 }, 18);
    let fine = b.select(second, Select { k: 14, p: 8, t: 4 }, 18);
    let wide = b.select(second, Select { k: 14, p: 6, t: 4 }, 18);
    let phase = b.phase(second, 18, 30.0);
    let sum = b.public(StepOp::Local(Local::Add), &[narrow, wide], [1, 4, 5, 5], 18);
    let sum = b.public(StepOp::Local(Local::Add), &[sum, fine], [1, 4, 5, 5], 18);
    let sum = b.public(StepOp::Local(Local::Add), &[sum, phase], [1, 4, 5, 5], 18);
    let flat = b.public(StepOp::Local(Local::Reshape), &[sum], [1, 100], 18);
    let logits = b.matrix(flat, 5, 18, 3);
    let last = b.select(logits, Select { k: 18, p: 7, t: 2 }, 16);
    b.finish(last)
}

/// A rectifier whose value is so narrow that no wrap shows in it.
pub fn narrow_select() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 5, 5], 16);
    let first = b.convolution(0, 4, 16, 60);
    let relu = b.select(first, Select { k: 16, p: 5, t: 6 }, 10);
    b.finish(relu)
}

/// A rectifier on so many elements that its messages are sent in parts, and its exchange too.
pub fn large_selects() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 64, 64], 16);
    let first = b.convolution(0, 5, 16, 60);
    let relu = b.select(first, Select { k: 16, p: 4, t: 6 }, 12);
    let windows = b.public(
        StepOp::Local(Local::SumPool { kernel: [8, 8], stride: [8, 8] }),
        &[relu],
        [1, 5, 8, 8],
        12,
    );
    b.finish(windows)
}

/// Tables between linear steps: with a mask that counts finer than the opening, with bits above the window, exact ones of
/// narrow values, two of one value beside a phase, in words of every width.
pub fn tables() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 5, 5], 16);
    let first = b.convolution(0, 4, 16, 60);
    let relu = b.table(first, Table::of((16, 9, 10, 14), |y| y.max(0.0) / 32.0).unwrap());
    let second = b.convolution(relu, 4, 14, 9);
    let phase = b.phase(second, 18, 30.0);
    let wave = |y: f64| (y / 900.0).sin() * 3000.0;
    let smooth = b.table(second, Table::of((14, 7, 8, 18), wave).unwrap());
    let steep = b.table(second, Table::of((13, 6, 6, 40), |y| y.abs() * 1e4).unwrap());
    let narrow = b.public(StepOp::Local(Local::Truncate { shift: 22 }), &[steep], [1, 4, 5, 5], 18);
    let sum = b.public(StepOp::Local(Local::Add), &[smooth, narrow], [1, 4, 5, 5], 18);
    let sum = b.public(StepOp::Local(Local::Add), &[sum, phase], [1, 4, 5, 5], 18);
    let flat = b.public(StepOp::Local(Local::Reshape), &[sum], [1, 100], 18);
    let logits = b.matrix(flat, 5, 18, 3);
    let small = b.public(StepOp::Local(Local::Truncate { shift: 10 }), &[logits], [1, 5], 8);
    let squared = b.table(small, Table::of((8, 8, 8, 20), |y| y * y).unwrap());
    b.finish(squared)
}

/// A table on so many elements that its messages are sent in parts, and its exchange too.
pub fn large_tables() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 64, 64], 16);
    let first = b.convolution(0, 5, 16, 60);
    let relu = b.table(first, Table::of((16, 6, 7, 12), |y| y.max(0.0) / 32.0).unwrap());
    let windows = b.public(
        StepOp::Local(Local::SumPool { kernel: [8, 8], stride: [8, 8] }),
        &[relu],
        [1, 5, 8, 8],
        12,
    );
    b.finish(windows)
}

/// What no compiler emits and no rule forbids: a wide value that nothing reads, in memory that others share,
/// and joins and sums between values whose order online differs.
pub fn odd() -> (Plan, Weights) {
    let mut b = Builder::new([1, 2, 3, 2], 18);
    let first = b.convolution(0, 2, 16, 60);
    let phase = b.phase(first, 20, 40.0);
    let wide = b.public(StepOp::Local(Local::Scale { factor: 5 }), &[phase], [1, 2, 3, 2], 20);
    let joined =
        b.public(StepOp::Local(Local::Concat { axis: 0 }), &[wide, phase], [2, 2, 3, 2], 20);
    b.public(StepOp::Local(Local::Scale { factor: 3 }), &[joined], [2, 2, 3, 2], 20);
    let sum =
        b.public(StepOp::Local(Local::ReduceSum { axes: vec![0] }), &[joined], [1, 2, 3, 2], 20);
    let second = b.convolution(sum, 2, 20, 5);
    let last = b.phase(second, 20, 30.0);
    let flat = b.public(StepOp::Local(Local::Reshape), &[last], [1, 12], 20);
    let output = b.matrix(flat, 3, 20, 9);
    b.finish(output)
}

/// One matrix product, one phase, one matrix product.
pub fn tiny() -> (Plan, Weights) {
    let mut b = Builder::new([1, 6], 18);
    let scaled = b.matrix(0, 5, 16, 100);
    let phase = b.phase(scaled, 20, 60.0);
    let output = b.matrix(phase, 3, 20, 50);
    b.finish(output)
}

/// Inputs within the limit of the plans here.
pub fn inputs(plan: &Plan, count: usize, seed: u64) -> Vec<Tensor<f32>> {
    let mut random = Random::new(seed);
    let shape = plan.input_shape();
    let mut data = || (random.unit() * 7.9 - 3.95) as f32;
    let mut one = || (0..shape.elements()).map(|_| data()).collect::<Vec<_>>();
    (0..count).map(|_| Tensor::new(shape.clone(), one())).collect()
}
