//! The data that an activation is fitted on: pairs (student's pre-activation, teacher's activation) per channel,
//! and the range that a fit covers.

use ir::Tensor;
use ir::op::Activation;
use rayon::prelude::*;

/// Rows per channel at most; more are thinned out evenly.
const MAX_ROWS: usize = 6000;
/// Mass of the grid beside the data's mass of one.
const GRID_MASS: f64 = 0.005;
/// Mass of the grid where the data are made up.
const WIDE_GRID_MASS: f64 = 0.3;
/// Ranges cover so many deviations of the rare inputs.
const RARE_REACH: f64 = 4.0;
/// The variance of fewer inputs than this is more of a guess than what other channels say.
const RARE_INPUTS: f64 = 10.0;

/// The data of one channel.
pub(super) struct Channel {
    /// `x`, `y` and how much their error counts.
    pub rows: Vec<(f64, f64, f64)>,
    /// The rows from here on are held out when the number of harmonics is chosen.
    pub held_out: usize,
    /// Middle of the student's range.
    pub middle: f64,
    /// Half of the student's range, positive.
    pub half: f64,
    /// Half of its range over the inputs that are not held out.
    pub fit_half: f64,
}

/// The data of all channels.
pub(super) struct Samples {
    /// Per channel.
    pub channels: Vec<Channel>,
    /// Mass of the grid beside the data's mass of one.
    pub grid_mass: f64,
}

impl Samples {
    /// Gathers pairs (student's `x`, `exact(teacher's x)`) and ranges, per channel. Every input has a
    /// weight; one of weight zero is ignored.
    pub fn gather(
        teacher: &[Tensor<f32>],
        student: &[Tensor<f32>],
        exact: &Activation,
        weights: &[f64],
    ) -> Self {
        let shape = &student[0].shape;
        let (stride, count) = (shape.channel_stride(), shape.channels());
        let blocks = shape.elements() / (stride * count);
        let total = student.len() * stride * blocks;
        let step = total.div_ceil(MAX_ROWS);
        // A step that shares no factor with the width of an image sees every column.
        let step = if step > 1 { step | 1 } else { 1 };
        let gathered: Vec<Gathered> = (0..count)
            .into_par_iter()
            .map(|channel| {
                let mut rows = Vec::with_capacity(total / step + 1);
                // Of the inputs that are not held out, of all usual ones, of the rare ones.
                let [mut fitted, mut usual, mut rare] = [Range::default(); 3];
                let mut position = 0usize;
                let (first_held_out, mut held_out) = (student.len() - student.len() / 5, None);
                for (image, (t, s)) in teacher.iter().zip(student).enumerate() {
                    if image == first_held_out {
                        held_out = Some(rows.len());
                    }
                    let weight = weights[image];
                    if weight == 0.0 {
                        continue;
                    }
                    let mut own = Range::default();
                    for block in 0..blocks {
                        let start = (block * count + channel) * stride;
                        let pairs = s.data[start..start + stride]
                            .iter()
                            .zip(&t.data[start..start + stride]);
                        for (&x, &z) in pairs {
                            let x = f64::from(x);
                            own.add(x);
                            if position.is_multiple_of(step) {
                                let y = exact.at(channel, f64::from(z));
                                if y.is_finite() {
                                    rows.push((x, y, weight));
                                }
                            }
                            position += 1;
                        }
                    }
                    if image < first_held_out {
                        fitted.join(&own);
                    }
                    if weight < 1.0 { rare.join(&own) } else { usual.join(&own) }
                }
                let held_out = held_out.unwrap_or(rows.len());
                (rows, held_out, [fitted, usual, rare])
            })
            .collect();
        let inputs = weights.iter().filter(|&&w| w > 0.0 && w < 1.0).count() as f64;
        let ranges: Vec<[Range; 3]> = gathered.iter().map(|(_, _, ranges)| *ranges).collect();
        let reaches = rare_reaches(&ranges, inputs);
        let channel = |((rows, held_out, [mut fitted, mut all, rare]), reach): (
            Gathered,
            Option<(f64, f64)>,
        )| {
            all.join(&rare);
            if let Some((low, high)) = reach {
                (all.low, all.high) = (all.low.min(low), all.high.max(high));
                (fitted.low, fitted.high) = (all.low, all.high);
            }
            let (middle, half) = (0.5 * (all.low + all.high), 0.5 * (all.high - all.low));
            Channel { rows, held_out, middle, half, fit_half: 0.5 * (fitted.high - fitted.low) }
        };
        let mut channels: Vec<Channel> = gathered.into_iter().zip(reaches).map(channel).collect();
        let most = |of: fn(&Channel) -> f64| channels.iter().map(of).fold(0.0, f64::max);
        let (widest, size) = (most(|c| c.half), most(|c| c.middle.abs()));
        // Values that do not vary, as those of a single input, have no width: their size is used instead.
        let widest = if widest > 1e-6 * size { widest } else { size }.max(1e-6);
        for channel in &mut channels {
            channel.half = channel.half.max(1e-2 * widest);
            channel.fit_half = channel.fit_half.max(1e-2 * widest);
        }
        Self { channels, grid_mass: GRID_MASS }
    }

    /// Trusts the data less: every range becomes `margin` times wider, and the grid over it weighs as
    /// much as the data.
    pub fn widen(&mut self, margin: f64) {
        self.channels.iter_mut().for_each(|c| c.half *= margin);
        self.grid_mass = WIDE_GRID_MASS;
    }

    /// Makes every range symmetric: an even function closes the circle without a jump if its middle is
    /// zero.
    pub fn centre(&mut self) {
        for channel in &mut self.channels {
            channel.half += channel.middle.abs();
            channel.fit_half += channel.middle.abs();
            channel.middle = 0.0;
        }
    }

    /// Smallest and largest pre-activation over all channels.
    pub fn interval(&self) -> (f64, f64) {
        let low = self.channels.iter().map(|c| c.middle - c.half).fold(f64::INFINITY, f64::min);
        let high =
            self.channels.iter().map(|c| c.middle + c.half).fold(f64::NEG_INFINITY, f64::max);
        (low, high)
    }
}

/// A channel's rows, where those that are held out begin, and ranges.
type Gathered = (Vec<(f64, f64, f64)>, usize, [Range; 3]);

/// Extremes and moments of some of a channel's values.
#[derive(Clone, Copy)]
struct Range {
    low: f64,
    high: f64,
    count: f64,
    sum: f64,
    squares: f64,
}

impl Default for Range {
    fn default() -> Self {
        Self { low: f64::INFINITY, high: f64::NEG_INFINITY, count: 0.0, sum: 0.0, squares: 0.0 }
    }
}

impl Range {
    fn add(&mut self, x: f64) {
        (self.low, self.high) = (self.low.min(x), self.high.max(x));
        (self.count, self.sum, self.squares) =
            (self.count + 1.0, self.sum + x, self.squares + x * x);
    }

    fn join(&mut self, other: &Self) {
        (self.low, self.high) = (self.low.min(other.low), self.high.max(other.high));
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    fn variance(&self) -> f64 {
        (self.squares / self.count.max(1.0) - self.mean().powi(2)).max(0.0)
    }
}

/// How far rare inputs reach per channel, from the [ranges](Samples::gather) of all: few have been seen, and
/// others of their kind go further. The variance of few is held to that of the usual ones times the ratio
/// that most channels have. `None` without rare inputs.
fn rare_reaches(channels: &[[Range; 3]], inputs: f64) -> Vec<Option<(f64, f64)>> {
    let mut ratios: Vec<f64> = channels
        .iter()
        .map(|[_, usual, rare]| rare.variance() / usual.variance().max(1e-30))
        .collect();
    ratios.sort_by(f64::total_cmp);
    let ratio = ratios.get(ratios.len() / 2).copied().unwrap_or(1.0);
    let reach = |[_, usual, rare]: &[Range; 3]| {
        let own = inputs / (inputs + RARE_INPUTS);
        let variance = own * rare.variance() + (1.0 - own) * ratio * usual.variance();
        let reach = RARE_REACH * variance.sqrt();
        (rare.count > 0.0).then(|| (rare.mean() - reach, rare.mean() + reach))
    };
    channels.iter().map(reach).collect()
}
