use super::*;

fn line(scale: f64, t: u32, p: u32) -> Line {
    Line { scale, t, p }
}

fn polynomial(rows: &[&[f64]]) -> Polynomial {
    Polynomial { coefficients: rows.iter().map(|row| row.to_vec()).collect() }
}

/// `x² + c` at scales whose squares differ by a power of two.
#[test]
fn a_square_is_one_where_a_shift_brings_it_to_its_scale() {
    let of = |rows: &[&[f64]], line: Line, scale: f64| {
        lower_polynomial(&polynomial(rows), line, scale, "n").unwrap().0
    };
    let pure: &[&[f64]] = &[&[0.5, 0.0, 1.0], &[-3.0, 0.0, 1.0]];
    let StepOp::Interactive(Interactive::Square(square)) = of(pure, line(64.0, 3, 9), 128.0) else {
        panic!("a square")
    };
    assert_eq!((square.t, square.p, square.shift), (3, 9, 5));
    let is_square = |op: StepOp| matches!(op, StepOp::Interactive(Interactive::Square(_)));
    assert!(is_square(of(pure, line(64.0, 3, 9), 4096.0)), "no shift at all");
    assert!(!is_square(of(pure, line(64.0, 3, 9), 8192.0)), "a shift to the left");
    assert!(!is_square(of(pure, line(64.0, 3, 9), 100.0)), "no shift");
    assert!(!is_square(of(&[&[0.5, 0.1, 1.0]], line(64.0, 3, 9), 128.0)), "a linear part");
    assert!(!is_square(of(&[&[0.5, 0.0, 2.0]], line(64.0, 3, 9), 128.0)), "a factor");
    assert!(!is_square(of(&[&[0.5, 0.0, 1.0], &[0.0, 0.5, 1.0]], line(64.0, 3, 9), 128.0)));
}

#[test]
fn the_constant_of_a_square_is_in_units_of_the_square() {
    let rows: &[&[f64]] = &[&[0.5, 0.0, 1.0], &[-3.0, 0.0, 1.0]];
    let (_, secrets) = lower_polynomial(&polynomial(rows), line(64.0, 3, 9), 128.0, "n").unwrap();
    let StepWeights::Square { constant } = secrets else { panic!("a square") };
    assert_eq!(constant, [2048, -12288]);
}

/// The integers' polynomial over `2^t₂` is the reals' at the output's scale, to less than a unit.
#[test]
fn integer_coefficients_make_the_polynomial() {
    let rows: &[&[f64]] = &[&[0.25, -1.0, 0.7, 0.3], &[2.0, 0.5, 0.0, -0.1]];
    for (scale, p, out) in [(37.0, 8, 90.0), (64.0, 10, 128.0), (5.5, 6, 1000.0)] {
        let p_of_rows = polynomial(rows);
        let (op, secrets) = lower_polynomial(&p_of_rows, line(scale, 2, p), out, "n").unwrap();
        let (
            StepOp::Interactive(Interactive::Polynomial(ir::plan::Polynomial { square, degree })),
            StepWeights::Polynomial { coefficients },
        ) = (op, secrets)
        else {
            panic!("a polynomial")
        };
        assert_eq!((square.t, square.p, degree), (2, p, 3));
        let largest = 1i128 << (p - 2);
        for (row, integers) in rows.iter().zip(&coefficients) {
            for y in [-largest, -largest / 3, -1, 0, 1, largest / 2, largest] {
                let sum = integers.iter().rev().fold(0i128, |sum, c| sum * y + c);
                let got = sum as f64 / f64::from(square.shift).exp2();
                let x = y as f64 / scale;
                let want = out * row.iter().rev().fold(0.0, |sum, c| sum * x + c);
                assert!((got - want).abs() < 0.5, "{got} instead of {want} at {y}");
            }
        }
    }
}

#[test]
fn too_many_bits_before_the_truncation_are_refused_by_name() {
    let eighth: &[&[f64]] = &[&[0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]];
    let of = |p: u32| lower_polynomial(&polynomial(eighth), line(16.0, 2, p), 16.0, "node");
    assert!(of(14).is_ok());
    let why = of(15).err().unwrap().to_string();
    assert!(why.contains("node") && why.contains("degree 8"), "{why}");
}

#[test]
fn a_plan_tells_no_amplitude_below_the_usual_bound() {
    let of = |amplitude: f64| {
        let t = Trigonometric {
            period: vec![1.0],
            constant: vec![0.25],
            harmonics: vec![vec![[0.6 * amplitude, 0.8 * amplitude]]],
        };
        lower_phase(&t, 4.0, (7, 2))
    };
    let (phase, secrets) = of(1.0);
    assert_eq!((phase.p, phase.mask_bits, phase.harmonics, phase.amplitude), (7, 9, 1, AMPLITUDE));
    let StepWeights::Phase { constant, harmonics } = secrets else { panic!("a phase") };
    assert_eq!((constant[0], harmonics[0][0]), (1.0, [2.4, 3.2]));
    for amplitude in [63.9, 64.1, 200.0, 5000.0] {
        let bits = of(amplitude).0.amplitude;
        assert!(f64::from(bits).exp2() >= 4.0 * amplitude, "{amplitude}");
        assert!(bits == AMPLITUDE || f64::from(bits - 1).exp2() < 4.0 * amplitude, "{amplitude}");
    }
}
