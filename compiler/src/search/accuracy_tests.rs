use super::*;
use ir::Shape;
use ir::plan::{OutputPort, Step, StepOp, ValueId};

/// A plan whose outputs have these tasks and shapes.
fn plan(outputs: &[(Task, &[usize])]) -> Plan {
    let width = outputs.iter().map(|(_, dims)| dims.iter().product::<usize>()).sum::<usize>();
    let shape = Shape::new([1, width]);
    let (name, op) = (String::from("x"), StepOp::Input);
    let input = Step { name, op, operands: vec![], shape, ring: 16, fraction_bits: 0 };
    let mut plan = Plan::of_steps("x", vec![input], ValueId(0), (1.0, 1.0), 1.0);
    plan.outputs = outputs
        .iter()
        .map(|&(task, dims)| OutputPort {
            task,
            ..OutputPort::whole("y", Shape::new(dims)).remove(0)
        })
        .collect();
    plan
}

/// Rows that change along the list.
fn rows(count: usize, width: usize) -> Vec<Tensor<f32>> {
    let value = |i: usize, j: usize| ((i * 7 + j * 5) % 11) as f32 / 5.0 - 1.0;
    let row = |i: usize| (0..width).map(|j| value(i, j)).collect();
    (0..count).map(|i| Tensor::new(Shape::new([1, width]), row(i))).collect()
}

fn moved(rows: &[Tensor<f32>], by: impl Fn(usize) -> f32) -> Vec<Tensor<f32>> {
    let moved = |(i, row): (usize, &Tensor<f32>)| row.map(|v| v + by(i));
    rows.iter().enumerate().map(moved).collect()
}

#[test]
fn outputs_without_noise_are_worth_all() {
    for task in [
        Task::Classify { axis: 1 },
        Task::Binary { is_probability: false },
        Task::Binary { is_probability: true },
        Task::Regress,
    ] {
        let (plan, exact) = (plan(&[(task, &[1, 4])]), rows(60, 4));
        let of = Accuracies::new(&plan, &exact, &exact, &vec![None]);
        assert_eq!(of.of(&exact), 1.0, "{task:?}");
        let twice: Vec<_> = exact.iter().chain(&exact).cloned().collect();
        assert_eq!(of.of(&twice), 1.0, "{task:?}, two rounds");
    }
}

/// What moves all scores alike changes no class; what moves numbers is their error.
#[test]
fn numbers_lose_their_error_over_the_spread() {
    let exact: Vec<_> = (0..50)
        .map(|i| Tensor::new(Shape::new([1, 2]), vec![(i % 2) as f32 * 2.0 - 1.0; 2]))
        .collect();
    let shape: &[usize] = &[1, 2];
    let numbers = plan(&[(Task::Regress, shape)]);
    let of = Accuracies::new(&numbers, &exact, &exact, &vec![None]);
    for error in [0.05, 0.25] {
        let found = of.of(&moved(&exact, |i| if i % 3 == 0 { error } else { -error }));
        assert!((found - (1.0 - f64::from(error))).abs() < 1e-4, "{found} for {error}");
    }
    let classes = plan(&[(Task::Classify { axis: 1 }, shape)]);
    let of = Accuracies::new(&classes, &exact, &exact, &vec![None]);
    assert_eq!(of.of(&moved(&exact, |i| i as f32)), 1.0);
}

#[test]
fn classes_that_change_are_lost() {
    let shape: &[usize] = &[1, 2];
    let plan = plan(&[(Task::Classify { axis: 1 }, shape)]);
    let row = |margin: f32| Tensor::new(Shape::new([1, 2]), vec![margin, 0.0]);
    let exact: Vec<_> = (0..100).map(|_| row(1.0)).collect();
    let of = Accuracies::new(&plan, &exact, &exact, &vec![None]);
    // A fourth of the differences turn a margin of one.
    let noisy: Vec<_> = (0..100).map(|i| row(if i % 4 == 0 { -1.0 } else { 1.0 })).collect();
    let found = of.of(&noisy);
    assert!((found - 0.75).abs() < 0.05, "{found}");
}

/// Where labels say that the network is wrong as often as not, turning it costs nothing.
#[test]
fn labels_say_what_a_change_costs() {
    let shape: &[usize] = &[1, 2];
    let plan = plan(&[(Task::Classify { axis: 1 }, shape)]);
    let exact: Vec<_> = (0..100).map(|_| Tensor::new(Shape::new([1, 2]), vec![1.0, 0.0])).collect();
    let turned: Vec<_> = exact.iter().map(|y| y.map(|v| 1.0 - v)).collect();
    let of = |wrong: usize| {
        let truth = |i: usize| Truth::Classes(vec![usize::from(i % 100 < wrong)]);
        let truths = vec![Some((0..100).map(truth).collect())];
        let of = Accuracies::new(&plan, &exact, &exact, &truths);
        (of.of(&exact), of.of(&turned))
    };
    let (kept, lost) = of(50);
    assert!((kept - 0.5).abs() < 0.03 && (lost - 0.5).abs() < 0.03, "{kept} {lost}");
    let (kept, lost) = of(10);
    assert!((kept - 0.9).abs() < 0.03 && (lost - 0.1).abs() < 0.03, "{kept} {lost}");
}

#[test]
fn several_outputs_count_alike() {
    let shape: &[usize] = &[1, 2];
    let two = plan(&[(Task::Classify { axis: 1 }, shape), (Task::Regress, shape)]);
    let exact: Vec<_> = (0..40)
        .map(|i| {
            let number = (i % 2) as f32 * 2.0 - 1.0;
            Tensor::new(Shape::new([1, 4]), vec![1.0, 0.0, number, -number])
        })
        .collect();
    let of = Accuracies::new(&two, &exact, &exact, &vec![None, None]);
    let noisy: Vec<_> = exact
        .iter()
        .map(|y| {
            Tensor::new(
                y.shape.clone(),
                vec![y.data[0], y.data[1], y.data[2] + 0.2, y.data[3] + 0.2],
            )
        })
        .collect();
    let found = of.of(&noisy);
    assert!((found - 0.9).abs() < 1e-4, "{found}: all of the classes, four fifths of the numbers");
}

/// More positions than are looked at: some of them, evenly.
#[test]
fn many_positions_are_sampled() {
    let dims: &[usize] = &[1, 2, 500];
    let map = plan(&[(Task::Classify { axis: 1 }, dims)]);
    let row = |i: usize| {
        let data: Vec<f32> = (0..1000).map(|j| ((i + j) % 7) as f32).collect();
        Tensor::new(Shape::new([1, 1000]), data)
    };
    let exact: Vec<_> = (0..20).map(row).collect();
    let accuracy = Accuracies::new(&map, &exact, &exact, &vec![None]);
    let looked_at = accuracy.outputs[0].scores.len();
    assert!((MOST_POSITIONS / 2..=MOST_POSITIONS + 20).contains(&looked_at), "{looked_at}");
    assert_eq!(accuracy.of(&exact), 1.0);
}
