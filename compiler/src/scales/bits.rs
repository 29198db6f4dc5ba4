//! How many bits: one choice for all layers, or one per layer, and the errors that they make.

use ir::graph::NodeId;
use ir::plan::Select;
use std::collections::HashMap;

/// Bits and margins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RingOptions {
    /// Bits of a phase: `p`.
    pub phase_bits: u32,
    /// Bits of a bucket's number, of exact rectifiers of large layers: `p`. Small ones have more, where it costs little.
    pub bucket_bits: u32,
    /// Whether small layers have no more than these.
    pub same_buckets: bool,
    /// Bits of an operand that a public table is looked up by: `p`. Masks have one more.
    pub table_bits: u32,
    /// Bits of one deviation of an activation's output.
    pub value_bits: f64,
    /// A phase has steps of `2^rounding_bits` times the error of rounding the weights before it (times
    /// `√12`).
    pub rounding_bits: f64,
    /// The widest ring of a phase that only its fan-in asks for.
    pub max_phase_ring: u32,
    /// Whether what only the offline phase pays for is as fine as the online phase's words hold: phases of
    /// masks, tables, values at party 0. Less noise for the same messages.
    pub fine_offline: bool,
    /// Where a bound is needed, values may be this much larger than on the calibration inputs.
    pub margin: f64,
    /// Magnitudes that the plan takes beside those of the calibration inputs.
    pub reach: Reach,
}

/// Largest magnitudes of inputs that are not fitted on, and of their outputs.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Reach {
    /// Of any element of an input.
    pub input: f64,
    /// Of any element of an output.
    pub output: f64,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self {
            phase_bits: 8,
            bucket_bits: 6,
            same_buckets: false,
            table_bits: 9,
            value_bits: 5.0,
            rounding_bits: -0.5,
            max_phase_ring: 20,
            fine_offline: false,
            margin: 2.0,
            reach: Reach::default(),
        }
    }
}

/// Variance of `⌊x + c⌋` about `x` with a uniform carry `c` in `[0, 1)`: `f(1 − f)` for a fraction `f`
/// of `x`, this on average.
pub(crate) const CARRY: f64 = 1.0 / 6.0;

/// Bits by which the phases of party 1's masks are finer than party 0's openings where the offline phase
/// is [fine](RingOptions::fine_offline): they take off fifteen sixteenths of what any number of them could.
/// Each doubles the leaves of a tree, or the table that a phase is looked up in.
const SPARE_BITS: u32 = 2;

impl RingOptions {
    /// Bits by which the phases of masks are finer than the openings.
    pub(crate) fn spare_bits(&self) -> u32 {
        if self.fine_offline { SPARE_BITS } else { 0 }
    }
}

/// Variance of a truncation in units squared where one party's side is `spare` bits finer: of the phase that is
/// evaluated in steps of an opening ([`ir::plan::Phase::spare_bits`]), of its value in units of a response
/// ([`ir::plan::Phase::guard`]).
pub(crate) fn carry(spare: u32) -> f64 {
    CARRY * (0.5 + 0.5 * (-2.0 * f64::from(spare)).exp2())
}

/// Variance, in turns squared, of a phase of `p` bits, and `spare` ones of the mask, on a circle of `k` bits
/// behind weights whose rounding makes an error of `units/√12` units of it.
pub(crate) fn turn_error((p, spare): (u32, u32), k: u32, units: f64) -> f64 {
    let square = |bits: u32| (-2.0 * f64::from(bits)).exp2();
    carry(spare) * square(p) + units * units / 12.0 * square(k)
}

/// Bits of the words in which narrow rings are computed.
pub(crate) const WORD: u32 = 16;

/// Bits of one activation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerBits {
    /// [`RingOptions::phase_bits`].
    pub phase: u32,
    /// [`RingOptions::bucket_bits`].
    pub bucket: u32,
    /// [`RingOptions::same_buckets`].
    pub same_buckets: bool,
    /// [`RingOptions::table_bits`].
    pub table: u32,
    /// [`RingOptions::value_bits`].
    pub value: f64,
    /// [`RingOptions::rounding_bits`].
    pub rounding: f64,
    /// Harmonics, where they are not those of the options.
    pub harmonics: Option<usize>,
}

/// Layers of at most so many elements have one bit more in a bucket's number; a table of 512 bits each costs them a
/// few kilobytes.
const SMALL: [usize; 2] = [2048, 512];

/// Bits of a bucket's number for a layer of so many elements.
pub(crate) fn buckets(bits: u32, is_same: bool, elements: usize) -> u32 {
    let more = SMALL.iter().filter(|&&small| elements <= small && !is_same).count() as u32;
    (bits + more).min(*Select::BUCKET_BITS.end())
}

impl LayerBits {
    /// Bits of a bucket's number for a layer of so many elements.
    pub(crate) fn buckets(&self, elements: usize) -> u32 {
        buckets(self.bucket, self.same_buckets, elements)
    }
}

/// Activations whose bits are not those of the options; of the input and the output only the value's
/// count.
pub type Allocation = HashMap<NodeId, LayerBits>;

/// Where bits are allocated, a phase's ring has at least this many bits more than the phase.
pub(crate) const LEAST_SPARE_BITS: u32 = 4;

#[cfg(test)]
#[path = "bits_tests.rs"]
mod tests;
