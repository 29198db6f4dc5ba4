use super::*;
use ir::Shape;
use ir::plan::{Interactive, Linear, Local, Phase, Polynomial, Square};

fn step(op: StepOp, operands: &[u32]) -> Step {
    let operands = operands.iter().map(|&v| ValueId(v)).collect();
    let (name, shape) = (String::from("n"), Shape::new([1, 2]));
    Step { name, op, operands, shape, ring: 0, fraction_bits: 0 }
}

fn phase(p: u32) -> StepOp {
    let (mask_bits, harmonics, amplitude) = (p, 1, 8);
    StepOp::Interactive(Interactive::Phase(Phase {
        p,
        mask_bits,
        q: 0,
        shift: 9,
        g2: 0,
        h: 0,
        guard: 0,
        harmonics,
        amplitude,
    }))
}

fn square(t: u32, p: u32) -> StepOp {
    StepOp::Interactive(Interactive::Square(Square { t, p, q: 0, shift: 5 }))
}

const PRODUCT: StepOp = StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 });

/// The rings of steps whose last is the output, in a ring of `k` bits.
fn planned(steps: &[Step], wanted: &[(u32, u32)], k: u32) -> Result<Vec<u32>, CompileError> {
    let wanted = wanted.iter().map(|&(value, ring)| (ValueId(value), ring)).collect();
    let output = ValueId(steps.len() as u32 - 1);
    rings(steps, &wanted, (output, k), |_, p| p)
}

#[test]
fn every_step_asks_for_what_it_reads() {
    let of = |op: StepOp| planned(&[step(StepOp::Input, &[]), step(op, &[0])], &[], 12).unwrap()[0];
    assert_eq!(of(PRODUCT), 12, "a sum's low bits take those of its terms");
    assert_eq!(of(StepOp::Local(Local::Truncate { shift: 7 })), 19, "and what is dropped");
    assert_eq!(of(phase(9)), 9, "an opening's bits, whatever the value has");
    assert_eq!(of(square(4, 10)), 14, "what is dropped and what is squared");
    let square = Square { t: 3, p: 8, q: 0, shift: 5 };
    assert_eq!(
        of(StepOp::Interactive(Interactive::Polynomial(Polynomial { square, degree: 3 }))),
        11
    );
    assert_eq!(of(StepOp::Local(Local::Scale { factor: 8 })), 9, "three bits leave at the top");
    assert_eq!(of(StepOp::Local(Local::Scale { factor: -3 })), 12);
    assert_eq!(of(StepOp::Local(Local::Scale { factor: 1 << 20 })), 1, "one bit at least");
}

#[test]
fn a_value_has_as_many_bits_as_its_most_demanding_reader() {
    let steps = [
        step(StepOp::Input, &[]),
        step(StepOp::Local(Local::Truncate { shift: 5 }), &[0]),
        step(StepOp::Local(Local::Scale { factor: 4 }), &[0]),
        step(phase(6), &[1]),
        step(StepOp::Local(Local::Add), &[2, 3]),
        step(StepOp::Local(Local::Add), &[4, 3]),
    ];
    // The rescaled value is read by the phase alone; the input by both.
    assert_eq!(planned(&steps, &[], 10).unwrap(), [11, 6, 10, 10, 10, 10]);
    assert_eq!(planned(&steps, &[], 20).unwrap(), [18, 6, 20, 20, 20, 20]);
}

#[test]
fn what_nobody_reads_has_one_bit() {
    let steps = [step(StepOp::Input, &[]), step(PRODUCT, &[0]), step(PRODUCT, &[0])];
    assert_eq!(planned(&steps, &[], 30).unwrap(), [30, 1, 30]);
}

#[test]
fn circles_are_as_wide_as_they_are_wanted() {
    let steps = [step(StepOp::Input, &[]), step(PRODUCT, &[0]), step(phase(8), &[1])];
    assert_eq!(planned(&steps, &[(1, 17)], 5).unwrap(), [17, 17, 5]);
    assert_eq!(planned(&steps, &[(1, 8)], 5).unwrap(), [8, 8, 5]);
    // Narrower than its reader asks.
    assert!(matches!(planned(&steps, &[(1, 7)], 5), Err(CompileError::Internal { .. })));
    // Another reader that wants more.
    let steps = [
        step(StepOp::Input, &[]),
        step(PRODUCT, &[0]),
        step(phase(8), &[1]),
        step(StepOp::Local(Local::Add), &[1, 2]),
    ];
    let why = planned(&steps, &[(1, 17)], 20).unwrap_err().to_string();
    assert!(why.contains("other readers"), "{why}");
    assert_eq!(planned(&steps, &[(1, 17)], 17).unwrap(), [17; 4]);
}

#[test]
fn no_ring_has_more_than_64_bits() {
    let of = |op: StepOp, k: u32| planned(&[step(StepOp::Input, &[]), step(op, &[0])], &[], k);
    assert!(of(PRODUCT, 64).is_ok());
    assert!(matches!(of(PRODUCT, 65), Err(CompileError::Range(_))));
    assert!(of(StepOp::Local(Local::Truncate { shift: 14 }), 50).is_ok());
    assert!(matches!(
        of(StepOp::Local(Local::Truncate { shift: 15 }), 50),
        Err(CompileError::Range(_))
    ));
    assert!(of(square(30, 34), 10).is_ok());
    assert!(matches!(of(square(31, 34), 10), Err(CompileError::Range(_))));
}

#[test]
fn secrets_and_tables_follow_the_rings() {
    let mut steps = [
        step(StepOp::Input, &[]),
        step(PRODUCT, &[0]),
        step(square(2, 6), &[1]),
        step(StepOp::Constant, &[]),
        step(StepOp::Local(Local::Add), &[2, 3]),
    ];
    let wide = 0x1234_5678_9abc_def0u64;
    let mut secrets = [
        StepWeights::None,
        StepWeights::Linear { weights: vec![-7; 4], bias: vec![wide, 3] },
        StepWeights::Square { constant: vec![i64::MIN] },
        StepWeights::Constant(vec![wide, u64::MAX]),
        StepWeights::None,
    ];
    plan_rings(&mut steps, &mut secrets, &HashMap::new(), (ValueId(4), 12)).unwrap();
    assert_eq!(steps.each_ref().map(|s| s.ring), [8, 8, 12, 12, 12]);
    let StepOp::Interactive(Interactive::Square(planned)) = &steps[2].op else { unreachable!() };
    assert_eq!(planned.q, planned.shift + 12);
    let StepWeights::Linear { weights, bias } = &secrets[1] else { unreachable!() };
    assert_eq!((weights[0], bias.as_slice()), (-7, &[0xf0, 3][..]));
    let StepWeights::Constant(values) = &secrets[3] else { unreachable!() };
    assert_eq!(values.as_slice(), [0xef0, 0xfff]);
    let StepWeights::Square { constant } = &secrets[2] else { unreachable!() };
    assert_eq!(constant[0], i64::MIN, "added before the truncation, at another scale");
}
