//! Every kernel against the definition, over random shapes and at the extremes.

use super::{InstructionSet, PackedLinear, Prefetch, Scratch, karatsuba};
use crate::testing::{Random, property};
use crate::words::Words;
use ir::op::Convolution;
use ir::plan::{Linear, Step, StepOp, StepWeights};
use ir::ring::low_mask;
use ir::{Shape, Tensor};
use proptest::prelude::*;
use std::cell::Cell;

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
    let positions = data.len() / channels;
    (0..data.len()).map(move |i| data[i % channels * positions + i / channels])
}

/// A product on a batch.
#[derive(Clone, Debug)]
struct Case {
    op: StepOp,
    input: Shape,
    output: Shape,
    ring: u32,
    operand_ring: u32,
    weight_bits: u32,
    batch: usize,
    extremes: bool,
    seed: u64,
}

/// Cases of steps with their operands and results.
fn cases(steps: impl Strategy<Value = (StepOp, Shape, Shape)>) -> impl Strategy<Value = Case> {
    let ring =
        prop_oneof![prop::sample::select(vec![16, 17, 20, 24, 25, 32, 33, 52, 53]), 1..=64u32,];
    let rings = (ring, 0..=3u32, 0..=10u32);
    let weight_bits = prop::sample::select(vec![8, 8, 16, 32]);
    (steps, rings, weight_bits, 1..=4usize, any::<bool>(), any::<u64>()).prop_map(
        |((op, input, output), (ring, few, wider), weight_bits, batch, extremes, seed)| {
            let operand_ring = (ring + few * wider).min(64);
            Case { op, input, output, ring, operand_ring, weight_bits, batch, extremes, seed }
        },
    )
}

/// Convolutions of small images: any, and many of those that take fewer products.
fn convolutions() -> impl Strategy<Value = (StepOp, Shape, Shape)> {
    let pair = |high: usize| [1..=high, 1..=high];
    let padding = || [0..=3usize, 0..=3, 0..=3, 0..=3];
    let any_geometry =
        (prop::sample::select(vec![1usize, 1, 1, 2, 3, 8]), pair(4), pair(3), pair(2), padding());
    let any_geometry = any_geometry.prop_map(|(groups, kernel, stride, dilation, padding)| {
        Convolution { groups, kernel, stride, dilation, padding }
    });
    let of_nine_taps = (1..=2usize, padding()).prop_map(|(dilation, padding)| Convolution {
        groups: 1,
        kernel: [3; 2],
        stride: [1; 2],
        dilation: [dilation, 1],
        padding,
    });
    let channels =
        prop_oneof![Just((1usize, 1usize)), (1..=7usize, 1..=70usize), (1..=20usize, 1..=20usize)];
    (prop_oneof![2 => any_geometry, 1 => of_nine_taps], channels, pair(11)).prop_filter_map(
        "the kernel is larger than the image",
        |(geometry, (inputs, outputs), [height, width])| {
            let groups = geometry.groups;
            let input = Shape::new([1, groups * inputs, height, width]);
            let output = geometry.output_shape(&input, groups * outputs)?;
            Some((StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 }), input, output))
        },
    )
}

/// Compares every instruction set with [`Step::apply_linear`] on a batch; the initial outputs are random.
/// Whether the convolution was also computed with fewer products.
fn check(case: &Case) -> Result<bool, TestCaseError> {
    let Case { input, ring, operand_ring, weight_bits, batch, extremes, .. } = case.clone();
    let random = &mut Random::new(case.seed);
    let count = match &case.op {
        StepOp::Linear(Linear::Convolution { geometry, .. }) => {
            case.output.0[1] * geometry.fan_in(&input)
        }
        StepOp::Linear(Linear::Hadamard { .. }) => input.elements(),
        _ => case.output.0.last().unwrap() * input.0.last().unwrap(),
    };
    let weights = weights(random, count, weight_bits, extremes);
    let step = step(case.op.clone(), case.output.clone(), ring);
    let secrets = StepWeights::Linear { weights: weights.clone(), bias: vec![] };
    let last = |shape: &Shape, data: &[u64]| match step.op {
        StepOp::Linear(Linear::Convolution { .. }) => channels_last(data, shape.0[1]).collect(),
        _ => data.to_vec(),
    };
    let (mut x, mut want, mut start) = (vec![], vec![], vec![]);
    for _ in 0..batch {
        let image = elements(random, input.elements(), operand_ring, extremes);
        let initial = elements(random, step.shape.elements(), ring, extremes);
        x.extend(last(&input, &image));
        let result = step.apply(&secrets, &[&Tensor::new(input.clone(), image)]);
        let sums = last(&step.shape, &result.data).into_iter().zip(&initial);
        want.extend(sums.map(|(a, b)| a.wrapping_add(*b) & low_mask(ring)));
        start.extend(initial);
    }
    let x = Words::new(operand_ring, x.into_iter());
    let mut scratch = Scratch::default();
    let mut ways = vec![];
    let mut was_fast = false;
    for set in InstructionSet::available() {
        let packed = PackedLinear::new(set, &step, &input, &weights).unwrap();
        let geometry = packed.geometry.clone();
        ways.push((format!("{set:?}"), packed));
        if !matches!(step.op, StepOp::Linear(Linear::Hadamard { .. })) {
            let plain = PackedLinear::pack(set, geometry.clone(), &weights, ring);
            ways.push((format!("{set:?} as it is"), plain));
            if karatsuba::fits(&geometry, &weights, ring) {
                let fast = PackedLinear::fast(set, geometry.clone(), &weights, ring);
                ways.push((format!("{set:?} with fewer products"), fast));
                was_fast = true;
            }
            #[cfg(target_arch = "x86_64")]
            if let Some(tiled) =
                PackedLinear::tiled(super::tiles::Unit::Reference, &geometry, &weights, ring)
            {
                ways.push(("tiles".into(), tiled));
            }
        }
    }
    for (set, packed) in ways {
        let mut out = Words::new(ring, start.iter().copied());
        packed.apply(&x, &mut out, &mut scratch);
        prop_assert!(out.elements() == want, "{set}");
        let mut parts = Words::new(ring, start.iter().copied());
        let mut running = packed.over(x.whole(), &mut scratch);
        let mut at = 0;
        while at < parts.len() {
            let left = (parts.len() - at) / packed.outputs();
            let end = at + random.between(1, left as u64) as usize * packed.outputs();
            running.prepare(at..end);
            running.add(at, parts.part_mut(at..end), Prefetch::default());
            at = end;
        }
        prop_assert!(parts == out, "{set}, by parts");
    }
    Ok(was_fast)
}

#[test]
fn convolutions_equal_the_definition() {
    let fast = Cell::new(0);
    property(600, cases(convolutions()), |case| {
        fast.set(fast.get() + u32::from(check(&case)?));
        Ok(())
    });
    assert!(fast.get() > 50, "{}", fast.get());
}

#[test]
fn matrix_and_hadamard_products_equal_the_definition() {
    let products = (1..=30usize, 1..=90usize, 1..=150usize).prop_map(|(rows, inputs, outputs)| {
        let op = StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 });
        (op, Shape::new([1, rows, inputs]), Shape::new([1, rows, outputs]))
    });
    let hadamards = (1..=30usize, 1..=90usize).prop_map(|(rows, columns)| {
        let shape = Shape::new([1, rows, columns]);
        (StepOp::Linear(Linear::Hadamard { weight_bits: 8 }), shape.clone(), shape)
    });
    property(400, cases(prop_oneof![products, hadamards]), |case| check(&case).map(|_| ()));
}

/// Large enough for several cores and several chunks.
#[test]
fn large_batches_equal_the_definition() {
    for (channels, side, ring) in [(64, 16, 16), (48, 24, 24), (3, 40, 16), (200, 14, 40)] {
        let geometry = Convolution {
            groups: 1,
            kernel: [3, 3],
            stride: [1, 1],
            dilation: [1, 1],
            padding: [1; 4],
        };
        let input = Shape::new([1, channels, side, side]);
        let output = geometry.output_shape(&input, 64).unwrap();
        let op = StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 });
        let (operand_ring, weight_bits, batch, extremes, seed) = (ring, 8, 3, false, 33);
        let case =
            Case { op, input, output, ring, operand_ring, weight_bits, batch, extremes, seed };
        check(&case).unwrap();
    }
}

/// The registers' shape, the instructions and their order; everything around them is tested with the reference.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_tile_unit_is_used_where_it_is() {
    use super::tiles::Unit;
    if !super::amx::is_available() {
        eprintln!("SKIPPED: this machine has no AMX; its instructions are not tested here");
        return;
    }
    assert_eq!(InstructionSet::best(), InstructionSet::Amx);
    let geometry = super::geometry::Geometry::matrix_product(4, 10, 4);
    assert!(PackedLinear::tiled(Unit::Amx, &geometry, &[1; 40], 16).is_some());
    assert!(PackedLinear::tiled(Unit::Amx, &geometry, &[128; 40], 16).is_none());
}

/// Several chunks of steps, and blocks that are not full, of the tile unit and of its reference.
#[test]
#[cfg(target_arch = "x86_64")]
fn many_steps_of_tiles_equal_the_definition() {
    use super::tiles::Unit;
    let mut random = Random::new(34);
    let units: &[Unit] =
        if super::amx::is_available() { &[Unit::Reference, Unit::Amx] } else { &[Unit::Reference] };
    for (ring, extremes) in [(16, false), (16, true), (25, false), (32, true), (32, false)] {
        let (rows, inputs, outputs) = (37, 2113, 50);
        let input = Shape::new([1, rows, inputs]);
        let op = StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 });
        let step = step(op, Shape::new([1, rows, outputs]), ring);
        let weights = weights(&mut random, inputs * outputs, 8, extremes);
        let x = elements(&mut random, rows * inputs, ring, extremes);
        let secrets = StepWeights::Linear { weights: weights.clone(), bias: vec![] };
        let want = step.apply(&secrets, &[&Tensor::new(input, x.clone())]).data;
        let want: Vec<u64> = want.iter().map(|v| v & low_mask(ring)).collect();
        let x = Words::new(ring, x.into_iter());
        let geometry = super::geometry::Geometry::matrix_product(rows, inputs, outputs);
        for &unit in units {
            let packed = PackedLinear::tiled(unit, &geometry, &weights, ring).unwrap();
            let mut out = Words::new(ring, (0..rows * outputs).map(|_| 0));
            packed.apply(&x, &mut out, &mut Scratch::default());
            assert!(out.elements() == want, "{unit:?} ring {ring}");
        }
    }
}
