//! Every kernel against the definition, over random shapes and at the extremes.

use super::{Ahead, InstructionSet, PackedLinear, Scratch, karatsuba};
use crate::testing::Random;
use crate::words::Words;
use ir::op::Convolution;
use ir::plan::{Step, StepOp, StepWeights};
use ir::ring::low_mask;
use ir::{Shape, Tensor};

const WEIGHT_EDGES: [i64; 8] = [-128, 127, -1, 1, 0, -32768, 32767, i32::MIN as i64];

fn step(op: StepOp, shape: Shape, ring: u32) -> Step {
    Step { name: String::new(), op, operands: vec![], shape, ring, fraction_bits: 0 }
}

/// Weights of `bits` bits, the extremes among them or alone.
fn weights(random: &mut Random, count: usize, bits: u32, extremes: bool) -> Vec<i32> {
    let (low, high) = (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1);
    let mut weight = || {
        let edge = WEIGHT_EDGES[random.between(0, 7) as usize].clamp(low, high);
        if extremes || random.bits(3) == 0 { edge } else { low + random.bits(bits) as i64 }
    };
    (0..count).map(|_| weight() as i32).collect()
}

/// Elements of a ring, the extremes among them or alone.
fn elements(random: &mut Random, count: usize, ring: u32, extremes: bool) -> Vec<u64> {
    let edges = [0, 0x8000, 0x7fff, 0xff00, 0xffff, 1 << (ring - 1), u64::MAX, 0x7f_8000];
    let mut element = || {
        let edge = edges[random.between(0, 7) as usize];
        (if extremes || random.bits(3) == 0 { edge } else { random.next() }) & low_mask(ring)
    };
    (0..count).map(|_| element()).collect()
}

/// `[1, C, H, W]` to channels last.
fn channels_last(data: &[u64], channels: usize) -> impl Iterator<Item = u64> + '_ {
    let places = data.len() / channels;
    (0..data.len()).map(move |i| data[i % channels * places + i / channels])
}

/// Compares every instruction set with [`Step::apply_linear`] on a batch; the initial outputs are random.
/// Whether the convolution was also computed with fewer products.
fn check(random: &mut Random, op: StepOp, input: &Shape, output: Shape, count: usize) -> bool {
    let ring = [random.between(1, 64), 16, 17, 20, 24, 25, 32, 33, 52, 53]
        [random.between(0, 9) as usize] as u32;
    let wider = random.between(0, 3) * random.between(0, 10);
    let operand_ring = (ring + wider as u32).min(64);
    let bits = [8, 8, 16, 32][random.between(0, 3) as usize];
    let (batch, extremes) = (random.between(1, 4) as usize, random.bits(2) == 0);
    let weights = weights(random, count, bits, extremes);
    let step = step(op, output, ring);
    let secrets = StepWeights::Linear { weights: weights.clone(), bias: vec![] };
    let last = |shape: &Shape, data: &[u64]| match step.op {
        StepOp::Convolution { .. } => channels_last(data, shape.0[1]).collect(),
        _ => data.to_vec(),
    };
    let (mut x, mut want, mut start) = (vec![], vec![], vec![]);
    for _ in 0..batch {
        let image = elements(random, input.elements(), operand_ring, extremes);
        let initial = elements(random, step.shape.elements(), ring, extremes);
        x.extend(last(input, &image));
        let result = step.apply_linear(&secrets, &[&Tensor::new(input.clone(), image)]);
        let sums = last(&step.shape, &result.data).into_iter().zip(&initial);
        want.extend(sums.map(|(a, b)| a.wrapping_add(*b) & low_mask(ring)));
        start.extend(initial);
    }
    let x = Words::new(operand_ring, x.into_iter());
    let mut scratch = Scratch::default();
    let mut ways = vec![];
    let mut was_fast = false;
    for set in InstructionSet::available() {
        let packed = PackedLinear::new(set, &step, input, &weights).unwrap();
        let walk = packed.walk.clone();
        ways.push((format!("{set:?}"), packed));
        if !matches!(step.op, StepOp::Diagonal { .. }) {
            let plain = PackedLinear::pack(set, walk.clone(), &weights, ring);
            ways.push((format!("{set:?} as it is"), plain));
            if karatsuba::fits(&walk, &weights, ring) {
                let fast = PackedLinear::fast(set, walk.clone(), &weights, ring);
                ways.push((format!("{set:?} with fewer products"), fast));
                was_fast = true;
            }
            #[cfg(target_arch = "x86_64")]
            if let Some(tiled) =
                PackedLinear::tiled(super::tiles::Unit::Meaning, &walk, &weights, ring)
            {
                ways.push(("tiles".into(), tiled));
            }
        }
    }
    for (set, packed) in ways {
        let mut out = Words::new(ring, start.iter().copied());
        packed.apply(&x, &mut out, &mut scratch);
        assert!(out.elements() == want, "{set} {:?} {input} ring {ring} {bits}", step.op);
        let mut parts = Words::new(ring, start.iter().copied());
        let mut running = packed.over(x.whole(), &mut scratch);
        let mut at = 0;
        while at < parts.len() {
            let left = (parts.len() - at) / packed.outputs();
            let end = at + random.between(1, left as u64) as usize * packed.outputs();
            running.bring(at..end);
            running.add(at, parts.part_mut(at..end), Ahead::default());
            at = end;
        }
        assert!(parts == out, "{set} {:?} {input} ring {ring} {bits}, by parts", step.op);
    }
    was_fast
}

#[test]
fn convolutions_equal_the_definition() {
    let mut random = Random::new(31);
    let (mut done, mut fast) = (0, 0);
    while done < 600 {
        let mut pick = |low, high| random.between(low, high) as usize;
        let groups = [1, 1, 1, 2, 3, 8][pick(0, 5)];
        let (inputs, outputs) = match pick(0, 2) {
            0 => (1, 1),
            1 => (pick(1, 7), pick(1, 70)),
            _ => (pick(1, 20), pick(1, 20)),
        };
        let padding = [pick(0, 3), pick(0, 3), pick(0, 3), pick(0, 3)];
        let mut geometry = Convolution {
            groups,
            kernel: [pick(1, 4), pick(1, 4)],
            stride: [pick(1, 3), pick(1, 3)],
            dilation: [pick(1, 2), pick(1, 2)],
            padding,
        };
        if pick(0, 2) == 0 {
            let dilation = [pick(1, 2), 1];
            geometry = Convolution { groups: 1, kernel: [3; 2], stride: [1; 2], dilation, padding };
        }
        let groups = geometry.groups;
        let input = Shape::new([1, groups * inputs, pick(1, 11), pick(1, 11)]);
        let Some(output) = geometry.output_shape(&input, groups * outputs) else { continue };
        let count = groups * outputs * geometry.fan_in(&input);
        let op = StepOp::Convolution { geometry, weight_bits: 8 };
        fast += usize::from(check(&mut random, op, &input, output, count));
        done += 1;
    }
    assert!(fast > 50, "{fast}");
}

#[test]
fn matrix_products_and_diagonals_equal_the_definition() {
    let mut random = Random::new(32);
    for _ in 0..200 {
        let mut pick = |low, high| random.between(low, high) as usize;
        let (rows, inputs, outputs) = (pick(1, 30), pick(1, 90), pick(1, 150));
        let (input, output) = (Shape::new([1, rows, inputs]), Shape::new([1, rows, outputs]));
        let op = StepOp::MatrixProduct { weight_bits: 8 };
        check(&mut random, op, &input, output, inputs * outputs);
        let op = StepOp::Diagonal { weight_bits: 8 };
        check(&mut random, op, &input, input.clone(), rows * inputs);
    }
}

/// Large enough for several cores and several chunks.
#[test]
fn large_batches_equal_the_definition() {
    let mut random = Random::new(33);
    for (channels, side) in [(64, 16), (48, 24), (3, 40), (200, 14)] {
        let geometry = Convolution {
            groups: 1,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1; 4],
        };
        let input = Shape::new([1, channels, side, side]);
        let output = geometry.output_shape(&input, 64).unwrap();
        let count = 64 * geometry.fan_in(&input);
        let op = StepOp::Convolution { geometry, weight_bits: 8 };
        check(&mut random, op, &input, output, count);
    }
}

/// The registers' shape, the instructions and their order; everything around them is tested by their meaning.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_tile_unit_is_used_where_it_is() {
    use super::tiles::Unit;
    if !super::amx::is_available() {
        eprintln!("SKIPPED: this machine has no AMX; its instructions are not tested here");
        return;
    }
    assert_eq!(InstructionSet::best(), InstructionSet::Amx);
    let walk = super::walk::Walk::matrix_product(4, 10, 4);
    assert!(PackedLinear::tiled(Unit::Amx, &walk, &[1; 40], 16).is_some());
    assert!(PackedLinear::tiled(Unit::Amx, &walk, &[128; 40], 16).is_none());
}

/// Several chunks of steps, and blocks that are not full, of the tile unit and of its meaning.
#[test]
#[cfg(target_arch = "x86_64")]
fn many_steps_of_tiles_equal_the_definition() {
    use super::tiles::Unit;
    let mut random = Random::new(34);
    let units: &[Unit] =
        if super::amx::is_available() { &[Unit::Meaning, Unit::Amx] } else { &[Unit::Meaning] };
    for (ring, extremes) in [(16, false), (16, true), (25, false), (32, true), (32, false)] {
        let (rows, inputs, outputs) = (37, 2113, 50);
        let input = Shape::new([1, rows, inputs]);
        let op = StepOp::MatrixProduct { weight_bits: 8 };
        let step = step(op, Shape::new([1, rows, outputs]), ring);
        let weights = weights(&mut random, inputs * outputs, 8, extremes);
        let x = elements(&mut random, rows * inputs, ring, extremes);
        let secrets = StepWeights::Linear { weights: weights.clone(), bias: vec![] };
        let want = step.apply_linear(&secrets, &[&Tensor::new(input, x.clone())]).data;
        let want: Vec<u64> = want.iter().map(|v| v & low_mask(ring)).collect();
        let x = Words::new(ring, x.into_iter());
        let walk = super::walk::Walk::matrix_product(rows, inputs, outputs);
        for &unit in units {
            let packed = PackedLinear::tiled(unit, &walk, &weights, ring).unwrap();
            let mut out = Words::new(ring, (0..rows * outputs).map(|_| 0));
            packed.apply(&x, &mut out, &mut Scratch::default());
            assert!(out.elements() == want, "{unit:?} ring {ring}");
        }
    }
}
