//! Fewer bits where they matter least.
//!
//! The bits of a plan are those of every phase (`p`), of its circle (`k`, which the values in front of
//! it travel in) and of its output's unit and the input's (`f_z`); the bits of weights follow from `k`
//! and `f_z`, since a weight counts units of the circle per unit of its operand. From a plan that is
//! finer than the given one everywhere, a greedy descent takes away one bit at a time, or a harmonic,
//! always the one that adds least noise at the output for the bytes that it saves: noise by the model
//! of [`phases`](crate::lower::phases), weighted with each layer's measured [sensitivity](super::sensitivity),
//! bytes from the plan's own rings. The descent makes no promise; it only orders the choices. Along it,
//! whole plans are compiled, with operators re-solved for the noise they get, and their exact
//! evaluation decides how far it goes.

use crate::lower::phases::{PhaseLayer, Place};
use crate::lower::rings::rings;
use crate::scales::bits::{Allocation, LEAST_SPARE_BITS, LayerBits, RingOptions, WORD};
use ir::plan::{Interactive, Phase, PhaseProducts, Plan, StepOp, ValueId};
use std::collections::{BTreeSet, HashMap};

/// What a plan should have little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Minimise {
    /// Bytes of the online phase.
    Online,
    /// Bytes of the offline phase.
    Offline,
    /// Time to an answer with nothing prepared: the bytes of both phases. Round trips are given by the
    /// network.
    Latency,
}

impl Minimise {
    /// The bytes that count of one inference.
    pub fn bytes(self, plan: &Plan) -> usize {
        let online = plan.traffic(1);
        let online = online.0 + online.1;
        let offline = || {
            let (to0, to1, _) = plan.offline_traffic(1);
            to0 + to1
        };
        match self {
            Self::Online => online,
            Self::Offline => offline(),
            Self::Latency => online + offline(),
        }
    }

    /// The options of its plans: where the bytes of the online phase count alone, what is made before may
    /// be finer.
    pub fn options(self, given: RingOptions) -> RingOptions {
        RingOptions { fine_offline: given.fine_offline || self == Self::Online, ..given }
    }

    /// For people: which bytes these are.
    pub fn of_what(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Latency => "online and offline",
        }
    }
}

/// The descent begins this many bits above the given plan.
const HEAD_START: u32 = 2;
/// The fewest bits of a phase.
const LEAST_PHASE: u32 = 3;
/// The descent ends at this multiple of the given plan's noise.
const MOST_NOISE: f64 = 3000.0;
/// Steps of a descent at most.
const MOST_STEPS: usize = 5000;
/// The measured rounding error of a compiled plan may be above the predicted one by this many bits
/// before its ring becomes one wider.
const SLACK: f64 = 0.25;

/// The bits of every layer.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// `k` per layer.
    ring: Vec<u32>,
    /// `p` per layer.
    phase: Vec<u32>,
    /// Bits by which every output's unit is coarser than the given plan's.
    coarser: Vec<i32>,
    /// Harmonics per layer.
    harmonics: Vec<usize>,
}

/// A plan with what the descent knows of it.
pub struct Descent<'a> {
    plan: &'a Plan,
    layers: &'a [PhaseLayer],
    sensitivities: &'a [f64],
    minimise: Minimise,
    /// Bits by which masks' phases are finer than openings, and, where there is room in a word, values at
    /// party 0 finer than responses.
    spare: u32,
    /// Per layer, the positions of the layers that read its value.
    readers: Vec<BTreeSet<usize>>,
    /// Bits of the products of one layer's elements, by its parameters.
    products: HashMap<(usize, u32, u32, usize), usize>,
}

impl<'a> Descent<'a> {
    /// Descends from the plan whose phases are `layers`.
    pub fn new(
        plan: &'a Plan,
        layers: &'a [PhaseLayer],
        sensitivities: &'a [f64],
        minimise: Minimise,
        options: &RingOptions,
    ) -> Self {
        let readers = layers.iter().map(|l| readers(plan, l.step, layers)).collect();
        let spare = options.spare_bits();
        let products = HashMap::new();
        Self { plan, layers, sensitivities, minimise, spare, readers, products }
    }

    fn given(&self) -> State {
        State {
            ring: self.layers.iter().map(|l| l.ring).collect(),
            phase: self.layers.iter().map(|l| l.phase).collect(),
            coarser: vec![0; self.layers.len()],
            harmonics: self.layers.iter().map(|l| l.harmonics).collect(),
        }
    }

    /// The cheaper and cheaper states of a descent that cost less than the given plan.
    pub fn states(mut self) -> Vec<State> {
        let given = self.given();
        let (Some(limit), most) = (self.cost(&given), MOST_NOISE * self.noise(&given)) else {
            return vec![];
        };
        let mut state = given;
        state.ring.iter_mut().for_each(|k| *k += HEAD_START);
        state.phase.iter_mut().filter(|p| **p > 0).for_each(|p| *p += HEAD_START);
        state.coarser.iter_mut().for_each(|c| *c -= HEAD_START as i32);
        let mut states = Vec::new();
        let (Some(mut cost), mut noise) = (self.cost(&state), self.noise(&state)) else {
            return vec![];
        };
        for _ in 0..MOST_STEPS {
            let mut best: Option<(f64, State, usize, f64)> = None;
            for next in self.moves(&state) {
                let Some(next_cost) = self.cost(&next).filter(|c| *c < cost) else { continue };
                let next_noise = self.noise(&next);
                let price = (next_noise - noise) / (cost - next_cost) as f64;
                if best.as_ref().is_none_or(|(least, ..)| price < *least) {
                    best = Some((price, next, next_cost, next_noise));
                }
            }
            let Some((_, next, next_cost, next_noise)) = best.filter(|b| b.3 <= most) else {
                break;
            };
            (state, cost, noise) = (next, next_cost, next_noise);
            if cost < limit {
                states.push(state.clone());
            }
        }
        states
    }

    /// What one bit or harmonic less can be.
    fn moves(&self, state: &State) -> Vec<State> {
        let mut moves = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            if state.phase[i] > LEAST_PHASE {
                let mut next = state.clone();
                next.phase[i] -= 1;
                moves.push(next);
            }
            if self.minimise != Minimise::Online
                && state.harmonics[i] > 1
                && !layer.errors.is_empty()
            {
                let mut next = state.clone();
                next.harmonics[i] -= 1;
                moves.push(next);
            }
            // The ring of this layer's output: that of its widest readers.
            if let Some(narrower) = self.narrower(state, &self.readers[i]) {
                let mut coarser = narrower.clone();
                coarser.coarser[i] += 1;
                moves.extend([narrower, coarser]);
            }
        }
        moves
    }

    /// The widest circles of some layers one bit narrower.
    fn narrower(&self, state: &State, layers: &BTreeSet<usize>) -> Option<State> {
        let widest = layers.iter().map(|&j| state.ring[j]).max()?;
        let mut next = state.clone();
        for &j in layers.iter().filter(|&&j| state.ring[j] == widest) {
            if widest <= state.phase[j] + LEAST_SPARE_BITS {
                return None;
            }
            next.ring[j] -= 1;
        }
        Some(next)
    }

    /// The squared deviation to expect at the output, up to a factor.
    fn noise(&self, state: &State) -> f64 {
        let of_layer = |(i, layer): (usize, &PhaseLayer)| {
            let before = layer.sources.iter().map(|&s| state.coarser[s]).min().unwrap_or(0);
            let bits = (state.ring[i], state.phase[i], state.harmonics[i]);
            let widest = self.readers[i].iter().map(|&j| state.ring[j]).max();
            let guard = widest.map_or(0, |ring| WORD.saturating_sub(ring).min(self.spare));
            let finer = (self.spare, guard);
            self.sensitivities[i] * layer.noise(bits, finer, state.coarser[i], before)
        };
        self.layers.iter().enumerate().map(of_layer).sum()
    }

    /// Bits of one inference; `None` if no rings fit.
    fn cost(&mut self, state: &State) -> Option<usize> {
        let position: HashMap<usize, usize> =
            self.layers.iter().enumerate().map(|(i, l)| (l.step, i)).collect();
        let wanted: HashMap<ValueId, u32> = self
            .layers
            .iter()
            .zip(&state.ring)
            .filter(|(l, _)| l.place == Place::Phase)
            .filter_map(|(l, &k)| Some((ValueId(l.circle? as u32), k)))
            .collect();
        let last = self.layers.iter().position(|l| l.place == Place::Output);
        let output = self.plan.output;
        let output = (output, last.map_or(self.plan.step(output).ring, |i| state.ring[i]));
        let phase_bits = |step: usize, p: u32| position.get(&step).map_or(p, |&i| state.phase[i]);
        let rings = rings(&self.plan.steps, &wanted, output, phase_bits).ok()?;
        let elements = |step: usize| self.plan.steps[step].shape.elements();
        let messages = self.layers.iter().zip(&state.phase);
        let online =
            messages.map(|(l, p)| (rings[l.step] + p) as usize * elements(l.step)).sum::<usize>();
        if self.minimise == Minimise::Online {
            return Some(online);
        }
        // Answers to the ciphertexts of linear steps have two bits for every bit of a ring.
        let linear = self.plan.steps.iter().enumerate().filter(|(_, s)| s.op.is_secret_linear());
        let mut offline: usize = linear.map(|(i, _)| 2 * rings[i] as usize * elements(i)).sum();
        for (i, layer) in self.layers.iter().enumerate() {
            let key = (layer.step, state.phase[i], rings[layer.step], state.harmonics[i]);
            let plan = self.plan;
            offline += *self.products.entry(key).or_insert_with(|| products(plan, key));
        }
        Some(if self.minimise == Minimise::Latency { online + offline } else { offline })
    }

    /// A state as bits to compile with.
    pub fn allocation(layers: &[PhaseLayer], state: &State, minimise: Minimise) -> Allocation {
        let bits = |(i, layer): (usize, &PhaseLayer)| {
            let before = layer.sources.iter().map(|&s| state.coarser[s]).min().unwrap_or(0);
            let units = layer.units.log2() - f64::from(before);
            let coarser = match layer.place {
                Place::Input | Place::Phase => state.coarser[i],
                Place::Output => layer.ring as i32 - state.ring[i] as i32 - before,
            };
            let bits = LayerBits {
                phase: state.phase[i],
                bucket: layer.bits.bucket,
                same_buckets: layer.bits.same_buckets,
                table: layer.bits.table,
                value: layer.bits.value - f64::from(coarser),
                rounding: f64::from(state.ring[i])
                    - f64::from(state.phase[i])
                    - units.max(0.0)
                    - SLACK,
                // Fits choose their harmonics for the noise they get, unless harmonics are what is
                // saved.
                harmonics: match minimise {
                    Minimise::Online => layer.bits.harmonics,
                    Minimise::Offline | Minimise::Latency => Some(state.harmonics[i]),
                },
            };
            (layer.node, bits)
        };
        layers.iter().enumerate().map(bits).collect()
    }
}

/// Bits of the messages that make the products of a phase step with these parameters: step, `p`, ring
/// of its value, harmonics.
fn products(plan: &Plan, (step, p, ring, harmonics): (usize, u32, u32, usize)) -> usize {
    let StepOp::Interactive(Interactive::Phase(phase)) = &plan.steps[step].op else { return 0 };
    let mask_bits = p + phase.spare_bits();
    let phase =
        Phase { p, mask_bits, q: phase.shift + ring, harmonics: harmonics as u32, ..*phase };
    let count = plan.steps[step].shape.elements();
    let cost = PhaseProducts::cheapest(&phase, count, &plan.rlwe).cost(&phase, count);
    8 * cost.total_bytes()
}

/// The layers whose circles a step's value reaches without another activation between, and the output.
fn readers(plan: &Plan, step: usize, layers: &[PhaseLayer]) -> BTreeSet<usize> {
    let mut reached = vec![false; plan.steps.len()];
    reached[step] = true;
    let mut found = BTreeSet::new();
    for (index, of) in plan.steps.iter().enumerate().skip(step + 1) {
        let reads = of.operands.iter().any(|o| reached[o.index()]);
        if reads && of.op.is_interactive() {
            found.extend(layers.iter().position(|l| l.step == index));
        }
        reached[index] = reads && !of.op.is_interactive();
    }
    if reached[plan.output.index()] {
        found.extend(layers.iter().position(|l| l.place == Place::Output));
    }
    found
}

#[cfg(test)]
#[path = "narrow_tests.rs"]
mod tests;
