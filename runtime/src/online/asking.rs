//! Party 0's side of one activation: what it asks and its share of the answer, part by part.
//!
//! Everything about a part happens while it is in the cache: the products with the weights, the additions
//! behind them, the question and its bits. A part may go to several cores.

use super::local;
use super::schedule::Ask;
use super::stock::Stock0;
use super::{Model, missing};
use crate::Error;
use crate::kernel::{Ahead, Running, Scratch, cores};
use crate::protocol::{online_row, pack_wide, phase, polynomial, question_widths, square};
use crate::secret::WideElements;
use crate::tables::Tables;
use crate::wire;
use crate::words::{Words, WordsMut, WordsRef, each_slice, each_width};
use ir::op::matrix::Word;
use ir::plan::{PART, Phase, Step, StepOp, StepWeights};
use std::ops::Range;

/// What is done at once.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Elements that are computed at once, so that they stay in a core's cache.
    pub grain: usize,
    /// Elements that are sent at once.
    pub part: usize,
    /// Bytes of correlations that are taken before the phase begins.
    pub ahead: usize,
}

impl Sizes {
    /// Four hundred kilobytes of values and correlations; a part is worth a call of the system; a single
    /// inference of a large network waits for nothing.
    pub const DEFAULT: Self = Self { grain: 1 << 14, part: PART, ahead: 1 << 28 };

    /// Whether a message of so many elements is cut.
    pub fn cut(self, elements: usize) -> bool {
        elements >= 2 * self.part
    }
}

/// What elementwise work costs either party, in products of a kernel.
pub const ELEMENT: usize = 32;

/// One activation in progress.
pub struct Asking<'a> {
    model: &'a Model<'a>,
    step: &'a Step,
    ask: &'a Ask,
    values: &'a [Words],
    /// The products that begin the tail.
    running: Option<Running<'a>>,
    kind: Kind<'a>,
    sizes: Sizes,
}

enum Kind<'a> {
    Phase {
        phase: &'a Phase,
        u: &'a [u16],
        products: &'a Words,
        rows: &'a Words,
        constants: &'a Words,
    },
    Square {
        correlation: &'a square::SquareCorrelation,
        constant: &'a [i64],
    },
    Polynomial {
        correlation: &'a polynomial::PolynomialCorrelation,
        coefficients: &'a [Vec<i128>],
    },
}

/// What party 0 keeps of a part between its question and its share.
#[derive(Default)]
pub struct Kept {
    /// The questions of phases.
    phases: Vec<u16>,
    /// Questions of other activations.
    words: Vec<u64>,
    /// Their operands.
    delta: Vec<u64>,
    /// Polynomials' constants.
    constants: WideElements,
    /// The bits of `words`.
    packed: Vec<u8>,
}

impl Kept {
    /// Makes room for parts of so many elements.
    pub fn reserve(&mut self, elements: usize) {
        self.phases.resize(elements.max(self.phases.len()), 0);
    }
}

impl<'a> Asking<'a> {
    /// Takes up an activation with its correlation; `values` are those of the steps.
    pub fn new(
        model: &'a Model<'a>,
        tables: &'a Tables,
        ask: &'a Ask,
        values: &'a [Words],
        stock: &'a Stock0,
        scratch: &'a mut Scratch,
    ) -> Result<Self, Error> {
        let (plan, index) = (model.plan, ask.index);
        let step = &plan.steps[index];
        let other = || Error::Internal(format!("step v{index} has other weights"));
        let kind = match (&step.op, &model.weights.steps[index], stock) {
            (StepOp::Phase(phase), _, Stock0::Phase(u, products)) => Kind::Phase {
                phase,
                u,
                products,
                rows: tables.rows(index).ok_or_else(other)?,
                constants: model.phase_constants(index).ok_or_else(other)?,
            },
            (StepOp::Square(_), StepWeights::Square { constant }, Stock0::Square(correlation)) => {
                Kind::Square { correlation, constant }
            }
            (
                StepOp::Polynomial { .. },
                StepWeights::Polynomial { coefficients },
                Stock0::Polynomial(correlation),
            ) => Kind::Polynomial { correlation, coefficients },
            _ => return Err(other()),
        };
        let mut sizes = model.sizes;
        let mut running = None;
        if let Some(first) = ask.tail.first() {
            let operand = plan.steps[first.step].operands[0].index();
            let linear = model.linear(first.step).ok_or_else(|| missing(first.step))?;
            running = Some(linear.over(values[operand].whole(), scratch));
            // Whole places, and whole bytes of their bits.
            let unit = lcm(linear.outputs(), 8);
            sizes.grain = sizes.grain.max(linear.least_part()).next_multiple_of(unit);
            sizes.part = sizes.part.max(sizes.grain).next_multiple_of(unit);
        }
        Ok(Self { model, step, ask, values, running, kind, sizes })
    }

    /// Elements of a part, whole places of a linear step that is made with it.
    pub fn part(&self) -> usize {
        self.sizes.part
    }

    /// Bytes of the question about so many elements.
    pub fn bytes(&self, elements: usize) -> usize {
        ir::ring::packed_bytes(elements, self.model.plan.question_bits(self.ask.index))
    }

    /// Writes the question about the elements of a range, which `made` are of, memory of the linear step
    /// that begins the tail.
    pub fn question(
        &mut self,
        range: Range<usize>,
        made: Option<WordsMut<'_>>,
        kept: &mut Kept,
        bytes: &mut [u8],
    ) {
        let mut work = range.len() * ELEMENT;
        if let Some(running) = &mut self.running {
            running.bring(range.clone());
            work += range.len() * running.linear().fan_in();
        }
        if let Kind::Phase { .. } = self.kind {
            let question = &mut kept.phases[..range.len()];
            return self.phases(cores(work), Part { first: range.start, made, question, bytes });
        }
        let operand = self.step.operands[0].index();
        kept.delta.clear();
        match made {
            Some(mut made) => {
                self.make(range.start, made.borrow(), Ahead::default());
                each_slice!(WordsMut, made, v => kept.delta.extend(v.iter().map(|v| v.element())));
            }
            None => each_width!(&self.values[operand], v => {
                kept.delta.extend(v[range.clone()].iter().map(|v| v.element()));
            }),
        }
        match (&self.step.op, &self.kind) {
            (StepOp::Square(square), Kind::Square { correlation, .. }) => {
                kept.words.clear();
                let question = square::question(square, &kept.delta, correlation.part(range));
                kept.words.extend(question);
            }
            (
                StepOp::Polynomial { square, degree },
                Kind::Polynomial { correlation, coefficients },
            ) => {
                let row = |i| &online_row(coefficients, self.step, range.start + i)[..];
                let part = correlation.part(*degree, range.clone());
                let Kept { words, delta, constants, .. } = kept;
                polynomial::question(square, *degree, row, delta, part, words, constants);
            }
            _ => {}
        }
        let memory = std::mem::take(&mut kept.packed);
        kept.packed = pack_wide(&kept.words, &question_widths(&self.step.op), memory);
        bytes.copy_from_slice(&kept.packed);
    }

    /// Writes party 0's share of the elements of a range, whose question was the last.
    pub fn share(&self, range: Range<usize>, kept: &Kept, out: WordsMut<'_>) {
        match (&self.step.op, &self.kind) {
            (StepOp::Square(square), Kind::Square { correlation, constant }) => {
                let of = |i| *online_row(constant, self.step, range.start + i);
                let part = correlation.part(range.clone());
                put(out, square::party0_share(square, of, &kept.delta, &kept.words, part));
            }
            (StepOp::Polynomial { square, degree }, Kind::Polynomial { correlation, .. }) => {
                let part = correlation.part(*degree, range);
                let Kept { words, constants, .. } = kept;
                put(out, polynomial::party0_share(square, *degree, words, constants, part));
            }
            _ => {
                let question = &kept.phases[..range.len()];
                self.phase_shares(cores(range.len() * ELEMENT), range.start, question, out);
            }
        }
    }

    /// Makes the operand's elements from `first` on, where the correlation of the linear step stands.
    fn make(&self, first: usize, mut made: WordsMut<'_>, ahead: Ahead) {
        if let Some(running) = &self.running {
            running.add(first, made.borrow(), ahead);
        }
        let range = first..first + made.len();
        for link in self.ask.tail.iter().skip(1) {
            let other = link.other.map(|other| self.values[other].part(range.clone()));
            local::in_place(&self.model.plan.steps[link.step], made.borrow(), other);
        }
    }

    /// The questions of a part of phases, on so many cores.
    fn phases(&self, cores: usize, part: Part<'_>) {
        let Kind::Phase { phase, u, products, .. } = self.kind else { return };
        let unit = self.running.as_ref().map_or(8, |r| lcm(r.linear().outputs(), 8));
        let count = part.question.len();
        let half = (count / 2).next_multiple_of(unit);
        if cores > 1 && half < count {
            let (left, right) = part.split(half, phase.p);
            rayon::join(|| self.phases(cores / 2, left), || self.phases(cores - cores / 2, right));
            return;
        }
        let operand = self.step.operands[0];
        let ring = self.model.plan.step(operand).ring;
        let mut rest = part;
        while !rest.question.is_empty() {
            let count = self.sizes.grain.min(rest.question.len());
            let (now, mut later) = rest.split(count, phase.p);
            let range = now.first..now.first + count;
            let u = &u[range.clone()];
            match now.made {
                Some(mut made) => {
                    let per = 2 * phase.harmonics as usize;
                    let mut ahead = Ahead::of(products.part(range.start * per..range.end * per))
                        .and(WordsRef::W16(u));
                    if let Some(next) = &mut later.made {
                        let count = self.sizes.grain.min(next.len());
                        ahead = ahead.and(next.borrow().split_at(count).0.as_ref());
                    }
                    self.make(range.start, made.borrow(), ahead);
                    each_slice!(WordsMut, made, delta => {
                        phase::question(phase, ring, delta, u, now.question);
                    });
                }
                None => each_width!(&self.values[operand.index()], delta => {
                    phase::question(phase, ring, &delta[range], u, now.question);
                }),
            }
            wire::pack_into(now.question, phase.p, now.bytes);
            rest = later;
        }
    }

    /// The shares of phases from `first` on, on so many cores.
    fn phase_shares(&self, cores: usize, first: usize, question: &[u16], out: WordsMut<'_>) {
        let Kind::Phase { phase, products, rows, constants, .. } = self.kind else { return };
        if cores > 1 && question.len() > 1 {
            let half = question.len() / 2;
            let (left, right) = out.split_at(half);
            let (asked, asked_next) = question.split_at(half);
            rayon::join(
                || self.phase_shares(cores / 2, first, asked, left),
                || self.phase_shares(cores - cores / 2, first + half, asked_next, right),
            );
            return;
        }
        let per = 2 * phase.harmonics as usize;
        let of = first * per..(first + question.len()) * per;
        let at = first % constants.len();
        each_slice!(WordsMut, out, out => match (constants, rows, products) {
            (Words::W16(c), Words::W16(rows), Words::W16(p)) => {
                phase::party0_share(phase, (c, at), rows, question, &p[of], out);
            }
            (Words::W32(c), Words::W32(rows), Words::W32(p)) => {
                phase::party0_share(phase, (c, at), rows, question, &p[of], out);
            }
            (Words::W64(c), Words::W64(rows), Words::W64(p)) => {
                phase::party0_share(phase, (c, at), rows, question, &p[of], out);
            }
            _ => unreachable!("constants, tables and products of one phase have words of one width"),
        });
    }
}

/// Consecutive elements of a phase step, and where their question goes.
struct Part<'a> {
    first: usize,
    made: Option<WordsMut<'a>>,
    question: &'a mut [u16],
    bytes: &'a mut [u8],
}

impl Part<'_> {
    /// The first `count` elements, whole bytes of `bits` bits each unless they are all, and the rest.
    fn split(self, count: usize, bits: u32) -> (Self, Self) {
        let (question, question_rest) = self.question.split_at_mut(count);
        let (bytes, bytes_rest) = self.bytes.split_at_mut(ir::ring::packed_bytes(count, bits));
        let (made, made_rest) = self.made.map(|made| made.split_at(count)).unzip();
        (
            Self { first: self.first, made, question, bytes },
            Self {
                first: self.first + count,
                made: made_rest,
                question: question_rest,
                bytes: bytes_rest,
            },
        )
    }
}

fn put(out: WordsMut<'_>, shares: impl Iterator<Item = u64>) {
    each_slice!(WordsMut, out, out => {
        out.iter_mut().zip(shares).for_each(|(out, share)| *out = Word::low(share));
    });
}

fn lcm(a: usize, b: usize) -> usize {
    let gcd = |mut a: usize, mut b: usize| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    a / gcd(a, b) * b
}
