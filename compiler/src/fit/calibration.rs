//! The inputs that a network is fitted on.

use crate::task::Truths;
use ir::graph::Statistics;
use ir::{Shape, Tensor};
use rayon::prelude::*;

/// Inputs of the model's shape, preprocessed as in training.
pub struct Calibration {
    /// One tensor per input.
    pub inputs: Vec<Tensor<f32>>,
    /// The index of each in the given data, from 0.
    pub rows: Vec<usize>,
    /// Their labels, where known; a fit does not use them.
    pub truths: Truths,
    /// Whether nobody gave data and the inputs were made up.
    pub is_synthetic: bool,
    /// For people: where the inputs come from.
    pub description: String,
}

/// How many rows a message names.
const MOST_NAMED: usize = 5;

/// The most inputs that are made up when none are given.
const SYNTHETIC_INPUTS: usize = 256;

impl Calibration {
    /// Keeps at most so many inputs, evenly; whether some were left out.
    pub fn limit(&mut self, most: usize) -> bool {
        let count = self.inputs.len();
        self.inputs = evenly(std::mem::take(&mut self.inputs), most);
        self.rows = evenly(std::mem::take(&mut self.rows), most);
        for truths in self.truths.iter_mut().flatten() {
            *truths = evenly(std::mem::take(truths), most);
        }
        self.inputs.len() < count
    }

    /// Inputs as they were given, all of them.
    pub fn new(inputs: Vec<Tensor<f32>>, description: impl Into<String>) -> Self {
        let rows = (0..inputs.len()).collect();
        Self { inputs, rows, truths: vec![], is_synthetic: false, description: description.into() }
    }

    /// Smooth random images in `range`: noise on a coarse grid, interpolated along the last two axes,
    /// with a random contrast and a little noise per element, some of them mostly dark; at most `count`.
    /// Deterministic: nothing here is secret.
    pub fn synthetic(shape: &Shape, range: (f32, f32), count: usize) -> Self {
        let inputs: Vec<_> = (0..count.clamp(1, SYNTHETIC_INPUTS))
            .into_par_iter()
            .map(|i| smooth_image(shape, range, &mut Noise(0x5eed_0000 + i as u64)))
            .collect();
        Self { is_synthetic: true, ..Self::new(inputs, "synthetic inputs") }
    }
}

/// At most so many of a list, evenly spaced.
pub fn evenly<T>(list: Vec<T>, most: usize) -> Vec<T> {
    let count = list.len();
    if count <= most {
        return list;
    }
    let is_kept = |index: usize| (index + 1) * most / count > index * most / count;
    list.into_iter().enumerate().filter(|(i, _)| is_kept(*i)).map(|(_, entry)| entry).collect()
}

/// Some rows, for people.
pub fn name_rows(rows: &[usize]) -> String {
    let named: Vec<String> = rows.iter().take(MOST_NAMED).map(usize::to_string).collect();
    let more = rows.len().saturating_sub(MOST_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} {}{more}", if rows.len() == 1 { "row" } else { "rows" }, named.join(", "))
}

fn smooth_image(shape: &Shape, range: (f32, f32), noise: &mut Noise) -> Tensor<f32> {
    const GRID: usize = 4;
    let rank = shape.rank();
    let (h, w) =
        if rank >= 3 { (shape.0[rank - 2], shape.0[rank - 1]) } else { (1, shape.elements()) };
    let (centre, contrast) = (noise.uniform(), 0.3 + 1.2 * noise.uniform());
    // Part of the images are dark but for a few bright strokes, as scans are.
    let floor = (1.6 * noise.uniform() - 0.8).max(0.0);
    let stretch = |v: f32| if floor > 0.0 { (v - floor).max(0.0) * 4.0 } else { v };
    let mut data = Vec::with_capacity(shape.elements());
    for _ in 0..shape.elements() / (h * w) {
        let grid: Vec<f32> = (0..GRID * GRID).map(|_| noise.uniform()).collect();
        for y in 0..h {
            for x in 0..w {
                let smooth = interpolate(&grid, GRID, y as f32 / h as f32, x as f32 / w as f32);
                let value =
                    centre + contrast * (0.8 * (smooth - 0.5) + 0.2 * (noise.uniform() - 0.5));
                data.push(range.0 + (range.1 - range.0) * stretch(value).clamp(0.0, 1.0));
            }
        }
    }
    Tensor::new(shape.clone(), data)
}

fn interpolate(grid: &[f32], size: usize, y: f32, x: f32) -> f32 {
    let split = |v: f32| {
        let at = v * (size - 1) as f32;
        (at as usize, (at as usize + 1).min(size - 1), at.fract())
    };
    let ((y0, y1, fy), (x0, x1, fx)) = (split(y), split(x));
    let row = |r: usize| grid[r * size + x0] * (1.0 - fx) + grid[r * size + x1] * fx;
    row(y0) * (1.0 - fy) + row(y1) * fy
}

/// Shifts and scales every channel to the mean and deviation that a normalisation's statistics promise:
/// on made-up inputs, values downstream are then as large as in the trained network.
pub(super) fn impose_statistics(values: &mut [Tensor<f32>], statistics: &Statistics) {
    let Some(first) = values.first() else { return };
    let (stride, channels) = (first.shape.channel_stride(), first.shape.channels());
    for channel in 0..channels {
        let (mut n, mut sum, mut squares) = (0.0, 0.0, 0.0);
        for value in values.iter() {
            for &v in &value.data[channel * stride..(channel + 1) * stride] {
                (n, sum, squares) = (n + 1.0, sum + f64::from(v), squares + f64::from(v).powi(2));
            }
        }
        let mean = sum / n;
        let deviation = (squares / n - mean * mean).max(0.0).sqrt().max(1e-6);
        let factor = statistics.deviation[channel] / deviation;
        for value in values.iter_mut() {
            for v in &mut value.data[channel * stride..(channel + 1) * stride] {
                *v = (statistics.mean[channel] + (f64::from(*v) - mean) * factor) as f32;
            }
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): made-up inputs are the same in every compilation.
struct Noise(u64);

impl Noise {
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) as u32 as f32 / u32::MAX as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_are_taken_evenly() {
        let inputs = (0..3000).map(|i| Tensor::new(Shape::new([1]), vec![i as f32])).collect();
        let mut calibration = Calibration::new(inputs, "");
        assert!(calibration.limit(2048) && !calibration.limit(2048));
        assert_eq!((calibration.inputs.len(), calibration.rows.len()), (2048, 2048));
        assert!(calibration.inputs.iter().any(|x| x.data[0] > 2990.0), "from all of them");
        let in_step = calibration.inputs.iter().zip(&calibration.rows);
        assert!(in_step.clone().all(|(x, &row)| x.data[0] == row as f32));
    }
}
