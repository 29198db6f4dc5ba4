use super::*;
use ir::Shape;
use ir::graph::Graph;
use ir::plan::Step;
use ir::plan::{Linear, Local};

fn step(op: StepOp, operands: &[u32], width: usize, ring: u32) -> Step {
    let operands = operands.iter().map(|&v| ValueId(v)).collect();
    let shape = Shape::new([1, width]);
    Step { name: "n".into(), op, operands, shape, ring, fraction_bits: 0 }
}

fn phase(ring: u32) -> StepOp {
    let (p, mask_bits, shift, g2, h) = (8, 8, 16, 8, 8);
    StepOp::Interactive(Interactive::Phase(Phase {
        p,
        mask_bits,
        q: shift + ring,
        shift,
        g2,
        h,
        guard: 0,
        harmonics: 4,
        amplitude: 8,
    }))
}

const PRODUCT: StepOp = StepOp::Linear(Linear::MatrixProduct { weight_bits: 8 });

/// input → product → phase → product → phase, a sum of both phases' values, product → output.
fn plan() -> Plan {
    let steps = vec![
        step(StepOp::Input, &[], 40, 16),
        step(PRODUCT, &[0], 64, 16),
        step(phase(18), &[1], 64, 18),
        step(PRODUCT, &[2], 64, 18),
        step(phase(20), &[3], 64, 20),
        step(StepOp::Local(Local::Add), &[2, 4], 64, 20),
        step(PRODUCT, &[5], 10, 20),
    ];
    Plan::of_steps("n", steps, ValueId(6), (1.0, 1.0), 1.0)
}

fn layers(plan: &Plan) -> Vec<PhaseLayer> {
    let node = Graph::new("x", Shape::new([1])).input();
    let layer = |place, step: usize, circle: Option<usize>, sources: &[usize]| {
        let is_phase = place == Place::Phase;
        let phase = if is_phase { 8 } else { 0 };
        PhaseLayer {
            place,
            node,
            step,
            circle,
            bits: LayerBits {
                phase,
                bucket: 6,
                same_buckets: false,
                table: 9,
                value: 5.0,
                rounding: -0.5,
                harmonics: None,
            },
            ring: plan.steps[circle.unwrap_or(step)].ring,
            phase,
            harmonics: if is_phase { 4 } else { 0 },
            value: 5.0,
            units: 30.0,
            slope: if place == Place::Input { 0.0 } else { 40.0 },
            width: 1.0,
            errors: if is_phase { vec![0.3, 0.1, 0.03, 0.01] } else { vec![] },
            sources: sources.to_vec(),
        }
    };
    vec![
        layer(Place::Input, 0, None, &[]),
        layer(Place::Phase, 2, Some(1), &[0]),
        layer(Place::Phase, 4, Some(3), &[1]),
        layer(Place::Output, 6, Some(6), &[1, 2]),
    ]
}

fn descent<'a>(
    plan: &'a Plan,
    layers: &'a [PhaseLayer],
    sensitivities: &'a [f64],
    minimise: Minimise,
) -> Descent<'a> {
    let options = minimise.options(RingOptions::default());
    Descent::new(plan, layers, sensitivities, minimise, &options)
}

const EVEN: [f64; 4] = [1.0; 4];

#[test]
fn a_value_is_read_by_the_circles_that_it_reaches_without_an_activation() {
    let (plan, layers) = (plan(), layers(&plan()));
    let of = |step: usize| readers(&plan, step, &layers).into_iter().collect::<Vec<_>>();
    assert_eq!(of(0), [1], "the first phase's circle");
    assert_eq!(of(2), [2, 3], "the second's, and the output by way of the sum");
    assert_eq!(of(4), [3]);
}

#[test]
fn every_state_is_cheaper_than_the_one_before_and_than_the_plan() {
    let (plan, layers) = (plan(), layers(&plan()));
    for minimise in [Minimise::Online, Minimise::Offline, Minimise::Latency] {
        let states = descent(&plan, &layers, &EVEN, minimise).states();
        assert!(states.len() > 10, "{minimise:?}: {}", states.len());
        let mut descent = descent(&plan, &layers, &EVEN, minimise);
        let given = descent.given();
        let (mut cost, most) = (descent.cost(&given).unwrap(), MOST_NOISE * descent.noise(&given));
        for state in &states {
            let next = descent.cost(state).unwrap();
            assert!(next < cost && descent.noise(state) <= most, "{minimise:?}: {state:?}");
            cost = next;
            for (i, layer) in layers.iter().enumerate() {
                if layer.place == Place::Phase {
                    assert!(state.phase[i] >= LEAST_PHASE, "{state:?}");
                    assert!(state.ring[i] >= state.phase[i] + LEAST_SPARE_BITS, "{state:?}");
                    assert!(state.harmonics[i] >= 1);
                }
            }
        }
    }
}

/// One step of the descent takes one bit, or one harmonic, from one layer or from the circles that read it.
#[test]
fn a_move_takes_one_bit() {
    let (plan, layers) = (plan(), layers(&plan()));
    let descent = descent(&plan, &layers, &EVEN, Minimise::Latency);
    let given = descent.given();
    let less = |a: &[u32], b: &[u32]| a.iter().zip(b).map(|(a, b)| a - b).sum::<u32>();
    let moves = descent.moves(&given);
    assert!(!moves.is_empty());
    for next in &moves {
        let (phases, rings) = (less(&given.phase, &next.phase), less(&given.ring, &next.ring));
        let harmonics: usize =
            given.harmonics.iter().zip(&next.harmonics).map(|(a, b)| a - b).sum();
        let kinds = usize::from(phases > 0) + usize::from(rings > 0) + usize::from(harmonics > 0);
        assert_eq!(kinds, 1, "{next:?}");
        assert!(phases <= 1 && harmonics <= 1 && rings <= 2, "{next:?}");
    }
}

#[test]
fn sensitive_layers_keep_their_bits() {
    let (plan, layers) = (plan(), layers(&plan()));
    for (kept, given) in [(1, 2), (2, 1)] {
        let mut sensitivities = EVEN;
        sensitivities[kept] = 1e4;
        let states = descent(&plan, &layers, &sensitivities, Minimise::Online).states();
        assert!(states.iter().all(|s| s.phase[kept] >= s.phase[given]), "{states:?}");
        let most = states.iter().map(|s| s.phase[kept] - s.phase[given]).max();
        assert!(most >= Some(3), "{most:?}");
    }
}

#[test]
fn harmonics_go_where_they_cost_something() {
    let (plan, layers) = (plan(), layers(&plan()));
    let least = |minimise| {
        let states = descent(&plan, &layers, &EVEN, minimise).states();
        states.iter().flat_map(|s| [s.harmonics[1], s.harmonics[2]]).min().unwrap()
    };
    assert_eq!(least(Minimise::Online), 4);
    assert!(least(Minimise::Offline) < 4);
}

#[test]
fn noise_grows_with_every_bit_that_goes() {
    let (plan, layers) = (plan(), layers(&plan()));
    let descent = descent(&plan, &layers, &EVEN, Minimise::Latency);
    let given = descent.given();
    let noise = descent.noise(&given);
    for next in descent.moves(&given) {
        assert!(descent.noise(&next) > noise, "{next:?}");
    }
}

/// Compiled with what the allocation says, a layer's circle has the ring of the state.
#[test]
fn an_allocation_asks_for_the_state() {
    let (plan, layers) = (plan(), layers(&plan()));
    let ids: Vec<_> = {
        let mut graph = Graph::new("x", Shape::new([1]));
        let x = graph.input();
        let more = (1..4).map(|_| graph.add("n", ir::graph::Op::Reshape, Shape::new([1]), &[x]));
        [x].into_iter().chain(more.collect::<Vec<_>>()).collect()
    };
    let layers: Vec<PhaseLayer> =
        layers.into_iter().zip(&ids).map(|(layer, &node)| PhaseLayer { node, ..layer }).collect();
    let descended = descent(&plan, &layers, &EVEN, Minimise::Offline);
    let mut state = descended.given();
    (state.ring[2], state.phase[2], state.harmonics[2], state.coarser[1]) = (17, 6, 2, 1);
    let allocation = Descent::allocation(&layers, &state, Minimise::Offline);
    let bits = allocation[&ids[2]];
    assert_eq!((bits.phase, bits.harmonics), (6, Some(2)));
    // Its operand is a bit coarser, which halves the error of rounding in units.
    let ring = f64::from(bits.phase) + (layers[2].units / 2.0).log2() + bits.rounding;
    assert_eq!(ring.ceil(), 17.0);
    assert_eq!(allocation[&ids[1]].value, layers[1].bits.value - 1.0);
    assert_eq!(allocation[&ids[0]].value, layers[0].bits.value);
    let online = Descent::allocation(&layers, &state, Minimise::Online);
    assert_eq!(online[&ids[2]].harmonics, None, "fits choose for the noise that they get");
}

#[test]
fn bytes_are_those_of_the_phases_that_count() {
    let mut plan = plan();
    plan.choose_encryption();
    let [online, offline, both] =
        [Minimise::Online, Minimise::Offline, Minimise::Latency].map(|m| m.bytes(&plan));
    assert_eq!(both, online + offline);
    assert!(online > 0 && offline > online);
}
