//! What the messages of the offline phase and a party's items consist of, part by part, and which of their bits are fair.

use crate::preprocess::Role;
use crate::preprocess::transfer::setup;
use ir::plan::preprocess::transfers::{extension_bytes, tree_bytes};
use ir::plan::{Exchange, Field, Interactive, Linear, Plan, Polynomial, RingLwe, StepOp, Table};
use ir::ring::packed_bytes;

/// A part of a message whose elements have a width.
#[derive(Clone, Debug)]
pub struct Part {
    pub class: String,
    pub bytes: usize,
    /// Bits before the padding.
    pub bits: usize,
    pub width: usize,
    pub structure: Structure,
    /// Of ciphertexts.
    pub lwe: Option<RingLwe>,
}

/// Which bits are the same for everyone.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Structure {
    /// None but the padding.
    Plain,
    /// The lowest and the highest bit of a group element's encoding.
    Points,
    /// The low bits of a polynomial step's shares of `u_j·w_j` and `u_j·β·w_j`: `w_j` is a multiple of 2^p.
    Multiples(usize),
    /// The lowest bit of the sum of a tree's leaves, the first of so many openings, is that of the party's offset.
    Sums(usize, bool),
    /// So is the lowest bit of the offset, which follows a name, in the field of a whole table step.
    Offset(bool),
}

impl Part {
    pub fn new(class: &str, elements: usize, width: usize) -> Self {
        let (class, bits) = (class.to_owned(), elements * width);
        let structure = Structure::Plain;
        Self { class, bytes: bits.div_ceil(8), bits, width, structure, lwe: None }
    }

    pub fn points(class: &str, count: usize) -> Self {
        Self { structure: Structure::Points, ..Self::new(class, count, 256) }
    }

    pub fn ciphertexts(class: &str, count: usize, lwe: RingLwe) -> Self {
        let residues = count * lwe.degree() * lwe.primes as usize;
        Self { lwe: Some(lwe), ..Self::new(class, residues, lwe.prime_bits as usize) }
    }

    pub fn bytes(class: &str, bytes: usize) -> Self {
        Self::new(class, bytes, 8)
    }

    /// What a bit always is; nothing if it is fair.
    pub fn fixed(&self, bit: usize) -> Option<bool> {
        let (element, place) = (bit / self.width, bit % self.width);
        let (is_fixed, value) = match self.structure {
            Structure::Plain => (false, false),
            Structure::Points => (matches!(place, 0 | 255), false),
            Structure::Multiples(p) => (matches!(element % 4, 1 | 2) && place < p, false),
            Structure::Sums(per, value) => (element % per == 0 && place == 0, value),
            Structure::Offset(value) => ((element, place) == (2, 0), value),
        };
        let is_padding = bit >= self.bits;
        (is_padding || is_fixed).then_some(value && !is_padding)
    }
}

/// The parts of the messages of an exchange, in order.
fn parts(plan: &Plan, exchange: &Exchange) -> Vec<Vec<Part>> {
    let step = &plan.steps[exchange.step];
    let count = exchange.items.len() * exchange.elements.len();
    let name = |what: &str| format!("{what} of v{} ({})", exchange.step, step.op.name());
    let extension = |from: &str, n: usize| {
        Part::bytes(&name(&format!("{from}'s transfers")), extension_bytes(n))
    };
    let flips = |from: &str, n: usize| Part::new(&name(&format!("{from}'s choices")), n, 1);
    let corrections = |bits: usize| Part::new(&name("corrections"), count, bits);
    let cost = &exchange.cost;
    let asked = vec![extension("party 1", cost.transfers), flips("party 1", cost.transfers)];
    let back = |bits: usize| {
        let n = cost.reverse_transfers;
        vec![corrections(bits), extension("party 0", n), flips("party 0", n)]
    };
    let all = match &step.op {
        StepOp::Interactive(Interactive::Phase(phase)) => {
            let (p, scalars) = (phase.mask_bits as usize, 2 * phase.harmonics as usize);
            let blocks = tree_bytes(count, phase.mask_bits, 0, phase.q);
            vec![
                vec![extension("party 1", count * p), Part::new(&name("places"), count, p)],
                vec![
                    Part::bytes(&name("levels"), blocks),
                    Part::new(&name("corrections"), count * scalars, phase.q as usize),
                ],
            ]
        }
        StepOp::Interactive(Interactive::Square(square)) => {
            let q = square.q as usize;
            let low = square.low_bits() as usize;
            let bits = (0..low).map(|i| q - i).sum::<usize>() + 5 * q;
            vec![asked, back(bits), vec![Part::new(&name("last corrections"), 2 * count, q)]]
        }
        StepOp::Interactive(Interactive::Polynomial(Polynomial { square, degree })) => {
            let degree = *degree as usize;
            let bits = (cost.bytes[1]
                - extension_bytes(cost.reverse_transfers)
                - packed_bytes(cost.reverse_transfers, 1))
                * 8
                / count;
            let last = Part::new(&name("last corrections"), count * degree, square.q as usize);
            vec![asked, back(bits), vec![last]]
        }
        StepOp::Interactive(Interactive::Select(select)) => {
            let places = Part::new(&name("places"), count, select.p as usize);
            let last = Part::new(&name("last corrections"), count, step.ring as usize);
            vec![
                vec![extension("party 1", cost.transfers), places],
                vec![extension("party 0", count)],
                vec![last],
            ]
        }
        StepOp::Interactive(Interactive::Table(table)) => {
            let (bits, q) = (table.mask_bits as usize, table.q as usize);
            let level = || Part::bytes(&name("levels"), 16 * count);
            let last = |from: &str, is_odd: bool| {
                let sums = Part::new(&name(&format!("{from}'s sums")), 9 * count, q);
                let sums = Part { structure: Structure::Sums(9, is_odd), ..sums };
                vec![sums, Part::new(&name("starts"), count, bits)]
            };
            let small = tree_bytes(count, Table::NODE_BITS, 0, table.q);
            let small = Part::bytes(&name("small trees' levels"), small);
            let entries = Part::new(&name("small trees' corrections"), 8 * count, q);
            let mut all = vec![
                vec![extension("party 1", cost.transfers)],
                vec![extension("party 0", cost.reverse_transfers)],
                vec![level(), small, entries],
                vec![level(), corrections(bits * (bits - 1) / 2)],
            ];
            all.extend((2..table.levels()).flat_map(|_| [vec![level()], vec![level()]]));
            all.extend([last("party 1", false), last("party 0", true)]);
            all
        }
        StepOp::Linear(Linear::Hadamard { .. }) => {
            let ring = step.ring as usize;
            vec![asked, vec![corrections(ring * (ring + 1) / 2)]]
        }
        _ => {
            let packing = plan.packing(exchange.step, exchange.items.len()).unwrap();
            let (images, channels, outputs) = packing.groups();
            let lwe = plan.rlwe.iter().find(|lwe| {
                lwe.ciphertext_bytes() * images * channels == cost.bytes[0]
                    && packing.bytes().0 == cost.bytes[0]
            });
            let lwe = lwe.unwrap();
            let (low, high) = packing.answer_bits();
            vec![
                vec![Part::ciphertexts(&name("ciphertexts"), images * channels, *lwe)],
                vec![
                    Part::new(&name("seconds"), images * outputs * lwe.degree(), high as usize),
                    Part::new(&name("firsts"), count, low as usize),
                ],
            ]
        }
    };
    let found = all.iter().map(|parts| parts.iter().map(|p| p.bytes).sum::<usize>());
    assert!(found.eq(cost.bytes.iter().copied()), "{all:?}");
    all
}

/// The parts of every message of a session, to party 0 and to party 1.
pub fn layout(plan: &Plan, count: usize) -> [Vec<Vec<Part>>; 2] {
    let both = || {
        vec![
            vec![Part::bytes("nonce", 32), Part::points("first point", 1)],
            vec![Part::points("points", setup::POINTS_BYTES / 32)],
            vec![Part::bytes("trees of seeds", setup::SEEDS_BYTES)],
        ]
    };
    let [mut to0, mut to1] = [both(), both()];
    to0[0].push(Part::bytes("public seed", 32));
    let keys = |lwe: &RingLwe| Part::ciphertexts("public keys", 1, *lwe);
    to0[0].extend(plan.rlwe.iter().map(keys));
    assert_eq!(plan.group(count), count, "one group");
    let schedule = plan.offline_schedule(count);
    for action in &schedule.actions {
        let mut messages = parts(plan, &schedule.exchanges[action.exchange]).into_iter();
        let mut messages = messages.by_ref().skip(2 * action.turn);
        to0.extend(messages.next());
        to1.extend(messages.next());
    }
    [to0, to1]
}

/// The layout of the explicit part of a party's item; the seed is skipped.
pub fn item_layout(plan: &Plan, role: Role) -> Vec<Vec<Part>> {
    let fields = |step: usize| plan.correlation(step).map(|c| (step, [c.party0, c.party1]));
    let correlations = (0..plan.steps.len()).filter_map(fields).flat_map(|(step, fields)| {
        let op = &plan.steps[step].op;
        let field = move |(number, field): (usize, Field)| {
            let class = format!("field {number} of v{step} ({})", op.name());
            let part = Part::new(&class, field.elements, field.bits as usize);
            match op {
                StepOp::Interactive(Interactive::Polynomial(Polynomial { square, .. })) => {
                    Part { structure: Structure::Multiples(square.p as usize), ..part }
                }
                StepOp::Interactive(Interactive::Table(_)) if number == 0 => {
                    Part { structure: Structure::Offset(role == Role::Party0), ..part }
                }
                _ => part,
            }
        };
        fields[role as usize].clone().into_iter().enumerate().map(field)
    });
    vec![correlations.collect()]
}
