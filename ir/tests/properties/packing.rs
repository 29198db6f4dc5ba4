//! Where masks, weights and results of linear steps stand in polynomials.

use crate::config;
use ir::Shape;
use ir::op::Convolution;
use ir::plan::{Linear, Packing, Plan, Planes, RingLwe, Step, StepOp, ValueId};
use ir::ring::packed_bytes;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};

/// A linear step behind the input.
pub fn plan_of(op: StepOp, input: Shape, output: Shape, ring: u32) -> Plan {
    let step = |op, operands, shape| Step {
        name: "n".into(),
        op,
        operands,
        shape,
        ring,
        fraction_bits: 0,
    };
    let steps = vec![step(StepOp::Input, vec![], input), step(op, vec![ValueId(0)], output)];
    Plan::of_steps("n", steps, ValueId(1), (1.0, 1.0), 1.0)
}

/// Convolutions of small images, their inputs and their outputs.
pub fn convolution() -> impl Strategy<Value = (Convolution, Shape, Shape)> {
    let pair = |low: usize, high: usize| [low..=high, low..=high];
    let geometry =
        (1..=3usize, pair(1, 4), pair(1, 3), pair(1, 3), [0..=3usize, 0..=3, 0..=3, 0..=3]);
    let sizes = (1..=5usize, 1..=4usize, 1..=12usize, 1..=12usize);
    (geometry, sizes).prop_filter_map(
        "the kernel is larger than the image",
        |((groups, kernel, stride, dilation, padding), (channels, outputs, height, width))| {
            let geometry = Convolution { groups, kernel, stride, dilation, padding };
            let input = Shape::new([1, groups * channels, height, width]);
            let output = geometry.output_shape(&input, groups * outputs)?;
            Some((geometry, input, output))
        },
    )
}

fn linear_plan() -> impl Strategy<Value = Plan> {
    let of_convolution =
        (convolution(), 1..=64u32).prop_map(|((geometry, input, output), ring)| {
            plan_of(
                StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 }),
                input,
                output,
                ring,
            )
        });
    let of_product = (1..=6usize, 1..=40usize, 1..=40usize, 1..=64u32).prop_map(
        |(rows, inputs, outputs, ring)| {
            let (input, output) = (Shape::new([rows, inputs]), Shape::new([rows, outputs]));
            plan_of(StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 }), input, output, ring)
        },
    );
    prop_oneof![3 => of_convolution, 1 => of_product]
}

/// Room for anything here in polynomials that are small enough to be full.
const SETS: [RingLwe; 2] = [
    RingLwe { log_degree: 8, prime_bits: 50, primes: 5 },
    RingLwe { log_degree: 9, prime_bits: 50, primes: 5 },
];

proptest! {
    #![proptest_config(config(192))]

    #[test]
    fn every_element_has_one_place(plan in linear_plan(), items in 1..=5usize) {
        let planes = Planes::of(&plan, 1).unwrap();
        let packing = Packing::new(planes, items, &SETS).unwrap();
        let degree = packing.lwe.degree();
        let (images, channels, outputs) = packing.groups();
        let (operand, result) = (planes.operand_elements(), planes.result_elements());
        prop_assert_eq!((operand, result), (plan.steps[0].shape.elements(), plan.steps[1].shape.elements()));
        for image in 0..images {
            for channel in 0..channels {
                let mut taken = HashSet::new();
                let mut is_sound = true;
                packing.operands((image, channel), |at, item, element| {
                    is_sound &= at < degree && item < items && element < operand && taken.insert(at);
                });
                prop_assert!(is_sound, "operands of {:?}", (image, channel));
            }
        }
        let mut weights = vec![];
        for output in 0..outputs {
            for channel in 0..channels {
                let mut taken = HashSet::new();
                let mut is_sound = true;
                packing.weights((output, channel), |at, index| {
                    is_sound &= at < degree && taken.insert(at);
                    weights.push(index);
                });
                prop_assert!(is_sound, "weights of {:?}", (output, channel));
            }
        }
        let count = match &plan.steps[1].op {
            StepOp::Linear(Linear::Convolution { geometry, .. }) => {
                plan.steps[1].shape.0[1] * geometry.fan_in(&plan.steps[0].shape)
            }
            _ => plan.steps[1].shape.0[1] * plan.steps[0].shape.0[1],
        };
        weights.sort_unstable();
        prop_assert_eq!(weights, (0..count).collect::<Vec<_>>(), "every weight once");
        let mut results = vec![];
        for image in 0..images {
            for output in 0..outputs {
                let mut taken = HashSet::new();
                let mut is_sound = true;
                packing.results((image, output), |at, item, element| {
                    is_sound &= at < degree && taken.insert(at);
                    results.push((item, element));
                });
                prop_assert!(is_sound, "results of {:?}", (image, output));
            }
        }
        results.sort_unstable();
        let all: Vec<_> = (0..items).flat_map(|i| (0..result).map(move |e| (i, e))).collect();
        prop_assert_eq!(results, all, "every result once");
    }

    #[test]
    fn bytes_are_those_of_what_is_sent(plan in linear_plan(), items in 1..=5usize) {
        let packing = Packing::new(Planes::of(&plan, 1).unwrap(), items, &SETS).unwrap();
        let (images, channels, outputs) = packing.groups();
        let (low, high) = packing.answer_bits();
        prop_assert_eq!(low, plan.steps[1].ring);
        let mut results = 0;
        for image in 0..images {
            (0..outputs).for_each(|output| packing.results((image, output), |_, _, _| results += 1));
        }
        let seconds = images * outputs * packed_bytes(packing.lwe.degree(), high);
        let want =
            (images * channels * packing.lwe.ciphertext_bytes(), packed_bytes(results, low) + seconds);
        prop_assert_eq!(packing.bytes(), want);
        let total = |set: &RingLwe| {
            let alone = Packing::new(*packing.planes(), items, &[*set]);
            alone.map(|p| p.bytes().0 + p.bytes().1)
        };
        let least = SETS.iter().filter_map(total).min();
        prop_assert_eq!(Some(packing.bytes().0 + packing.bytes().1), least, "the cheapest set");
    }

    /// Every product of a weight and an element of the operand falls on a coefficient of an answer that is read
    /// as the result which the convolution's definition says.
    #[test]
    fn products_fall_on_their_results((geometry, input, output) in convolution(), items in 1..=3usize) {
        let plan = plan_of(StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 }), input.clone(), output.clone(), 16);
        let packing = Packing::new(Planes::of(&plan, 1).unwrap(), items, &SETS).unwrap();
        let degree = packing.lwe.degree();
        let (images, channels, outputs) = packing.groups();
        for image in 0..images {
            for of in 0..outputs {
                let mut terms = vec![BTreeSet::new(); degree];
                let mut doubled = false;
                for channel in 0..channels {
                    let mut operands = vec![];
                    packing.operands((image, channel), |at, item, element| operands.push((at, item, element)));
                    packing.weights((of, channel), |shift, weight| {
                        for &(at, item, element) in &operands {
                            let to = (at + shift) % degree;
                            doubled |= !terms[to].insert((item, weight, element, at + shift >= degree));
                        }
                    });
                }
                prop_assert!(!doubled);
                let mut wrong = None;
                packing.results((image, of), |at, item, element| {
                    if terms[at] != defined(&geometry, &input, &output, item, element) {
                        wrong = Some((item, element));
                    }
                });
                prop_assert_eq!(wrong, None, "item and element of a result");
            }
        }
    }
}

/// Weight and element of the operand of every term of a result.
fn defined(
    geometry: &Convolution,
    input: &Shape,
    output: &Shape,
    item: usize,
    element: usize,
) -> BTreeSet<(usize, usize, usize, bool)> {
    let &[_, channels, height, width] = input.0.as_slice() else { unreachable!() };
    let &[_, outputs, rows, columns] = output.0.as_slice() else { unreachable!() };
    let (of, row, column) =
        (element / (rows * columns), element / columns % rows, element % columns);
    let per_group = channels / geometry.groups;
    let first = of / (outputs / geometry.groups) * per_group;
    let [kh, kw] = geometry.kernel;
    let mut terms = BTreeSet::new();
    for c in 0..per_group {
        for ky in 0..kh {
            for kx in 0..kw {
                let y = (row * geometry.stride[0] + ky * geometry.dilation[0])
                    .checked_sub(geometry.padding[0]);
                let x = (column * geometry.stride[1] + kx * geometry.dilation[1])
                    .checked_sub(geometry.padding[1]);
                let (Some(y), Some(x)) = (y.filter(|&y| y < height), x.filter(|&x| x < width))
                else {
                    continue;
                };
                let weight = ((of * per_group + c) * kh + ky) * kw + kx;
                terms.insert((item, weight, ((first + c) * height + y) * width + x, false));
            }
        }
    }
    terms
}
