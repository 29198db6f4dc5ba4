use super::*;
use crate::op::Convolution;
use crate::plan::{Linear, Step, StepWeights, ValueId};
use crate::tensor::{Shape, Tensor};

fn plan_of(op: StepOp, input: Shape, output: Shape, ring: u32) -> Plan {
    let step = |op, operands, shape| Step {
        name: "n".into(),
        op,
        operands,
        shape,
        ring,
        fraction_bits: 0,
    };
    Plan::of_steps(
        "n",
        vec![step(StepOp::Input, vec![], input), step(op, vec![ValueId(0)], output)],
        ValueId(1),
        (1.0, 1.0),
        1.0,
    )
}

fn draw(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    *state >> 33
}

/// Multiplies the packed polynomials in the clear and compares with the step.
fn check(plan: &Plan, items: usize, degree: u32, seed: u64) {
    let planes = Planes::of(plan, 1).unwrap();
    let (mut state, ring) = (seed, plan.steps[1].ring);
    let lwe = RingLwe { log_degree: degree, prime_bits: 50, primes: 4 };
    let Some(packing) = Packing::with(planes, items, 0, lwe) else {
        panic!("{planes:?} does not fit")
    };
    let n = lwe.degree();
    let shape = &plan.steps[0].shape;
    let mask = crate::ring::low_mask(ring);
    let inputs: Vec<Vec<u64>> = (0..items)
        .map(|_| (0..shape.elements()).map(|_| draw(&mut state) & mask).collect())
        .collect();
    let count = planes.outputs * planes.fan_in();
    let weights: Vec<i32> = (0..count).map(|_| draw(&mut state) as i32 % 128).collect();
    let (image_groups, channel_groups, output_groups) = packing.groups();
    let mut results = vec![vec![None; plan.steps[1].shape.elements()]; items];
    for images in 0..image_groups {
        for outputs in 0..output_groups {
            let mut sum = vec![0u64; n];
            for channels in 0..channel_groups {
                let mut x = vec![0u64; n];
                packing.operands((images, channels), |at, item, element| {
                    assert_eq!(x[at], 0);
                    x[at] = inputs[item][element];
                });
                packing.weights((outputs, channels), |at, index| {
                    let w = i64::from(weights[index]) as u64;
                    for (i, &x) in x.iter().enumerate() {
                        let product = w.wrapping_mul(x);
                        let to = i + at;
                        let signed = if to < n { product } else { product.wrapping_neg() };
                        sum[to % n] = sum[to % n].wrapping_add(signed);
                    }
                });
            }
            packing.results((images, outputs), |at, item, element| {
                assert!(results[item][element].replace(sum[at] & mask).is_none());
            });
        }
    }
    let secrets = StepWeights::Linear { weights, bias: vec![] };
    for (input, got) in inputs.iter().zip(results) {
        let operand = Tensor::new(shape.clone(), input.clone());
        let expected = plan.steps[1].apply(&secrets, &[&operand]);
        for (g, e) in got.iter().zip(&expected.data) {
            assert_eq!(g.unwrap(), *e, "{packing:?}");
        }
    }
}

#[test]
fn packed_products_are_convolutions() {
    let mut state = 5;
    for round in 0..300 {
        let mut pick = |from: &[usize]| from[draw(&mut state) as usize % from.len()];
        let groups = pick(&[1, 1, 1, 2, 3]);
        let geometry = Convolution {
            groups,
            kernel: [pick(&[1, 2, 3, 5]), pick(&[1, 2, 3])],
            stride: [pick(&[1, 2, 3]), pick(&[1, 1, 2])],
            dilation: [pick(&[1, 1, 2]), pick(&[1, 1, 3])],
            padding: [pick(&[0, 1, 2]), pick(&[0, 1, 3]), pick(&[0, 1]), pick(&[0, 1, 2])],
        };
        let input =
            Shape::new([1, groups * pick(&[1, 2, 5]), pick(&[1, 4, 9, 14]), pick(&[3, 6, 13])]);
        let Some(output) = geometry.output_shape(&input, groups * pick(&[1, 3, 4])) else {
            continue;
        };
        let items = pick(&[1, 1, 2, 5]);
        let degree = pick(&[7, 8, 10]) as u32;
        let op = StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 });
        check(&plan_of(op, input, output, 16), items, degree, round);
    }
}

#[test]
fn packed_products_are_matrix_products() {
    for (rows, inputs, outputs, items) in
        [(1, 5, 3, 1), (1, 300, 7, 1), (1, 40, 50, 16), (3, 17, 9, 2), (7, 1, 1, 1)]
    {
        let op = StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 });
        let (input, output) = (Shape::new([rows, inputs]), Shape::new([rows, outputs]));
        check(&plan_of(op, input, output, 20), items, 7, 3);
    }
}

#[test]
fn several_inferences_share_ciphertexts() {
    let geometry = Convolution {
        groups: 1,
        kernel: [3, 3],
        stride: [1, 1],
        dilation: [1, 1],
        padding: [1; 4],
    };
    let op = StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 });
    let shape = Shape::new([1, 16, 32, 32]);
    let planes = Planes::of(&plan_of(op, shape.clone(), shape, 16), 1).unwrap();
    let lwe = planes.cheapest().unwrap();
    let bytes = |items| {
        let packing = Packing::new(planes, items, &[lwe]).unwrap();
        (packing.bytes().0 + packing.bytes().1) as f64 / items as f64
    };
    assert!(bytes(15) < 0.7 * bytes(1), "{} {}", bytes(15), bytes(1));
}

#[test]
fn quotients_are_all_group_sizes() {
    for n in 1..200usize {
        let mut expected: Vec<usize> = (1..=n).map(|i| n.div_ceil(i)).collect();
        expected.dedup();
        assert_eq!(distinct_quotients(n).collect::<Vec<_>>(), expected, "{n}");
    }
}

#[test]
fn a_kernel_that_reaches_far_gets_a_wider_ring() {
    let dilated = |dilation: usize| {
        let geometry = Convolution {
            groups: 1,
            kernel: [1, 3],
            stride: [1, 1],
            dilation: [1, dilation],
            padding: [0; 4],
        };
        let input = Shape::new([1, 2, 1, 500 + 2 * dilation]);
        let output = geometry.output_shape(&input, 3).unwrap();
        plan_of(StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 }), input, output, 16)
    };
    let degree = |dilation: usize| {
        let mut plan = dilated(dilation);
        plan.choose_encryption().then(|| plan.packing(1, 1).unwrap().lwe.log_degree)
    };
    assert_eq!([256, 2048, 4096].map(degree), [Some(12), Some(13), Some(14)]);
    let beyond = dilated(8192);
    assert_eq!((beyond.beyond_encryption(), dilated(4096).beyond_encryption()), (Some(1), None));
    check(&dilated(4096), 1, 14, 3);
}
