//! Files' bytes as inputs of a model: arrays and images, brought to its shape and preprocessing. Both
//! programs read inputs here, so that what the compiler measures is what a client sends.

mod image;
pub mod options;

use crate::array_file::{self, Array, ArrayError};
use crate::tensor::{Shape, Tensor};
use serde::{Deserialize, Serialize};

/// How the axes of an input are ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layout {
    /// Whichever fits the model.
    #[default]
    Auto,
    /// Channels first.
    Nchw,
    /// Channels last.
    Nhwc,
}

/// How the elements of a file become inputs of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Preprocessing {
    /// Subtracted, after bytes were divided by 255: one value, or one per channel; none for zero.
    pub mean: Vec<f32>,
    /// Divided by: one value, or one per channel; none for one.
    pub std: Vec<f32>,
    /// Leaves bytes as they are instead of dividing them by 255.
    pub raw: bool,
    /// The order of an array's axes in the file, and of an image's that becomes a row.
    pub layout: Layout,
}

/// Inputs of a model's shape.
pub struct Inputs {
    /// One tensor per input.
    pub tensors: Vec<Tensor<f32>>,
    /// What was decided where the file left a choice; for people.
    pub notes: Vec<String>,
}

/// What is done to the axes of every input.
#[derive(Clone, Copy, PartialEq)]
enum Arrangement {
    AsItStands,
    ChannelsFirst,
    ChannelsLast,
}

impl Preprocessing {
    /// What is done to the elements, for people; `None` if that is what every file gets.
    pub fn describe(&self) -> Option<String> {
        let list =
            |values: &[f32]| values.iter().map(|v| v.to_string()).collect::<Vec<_>>().join(",");
        let layout = match self.layout {
            Layout::Auto => None,
            Layout::Nchw => Some("layout nchw".to_owned()),
            Layout::Nhwc => Some("layout nhwc".to_owned()),
        };
        let mean = (!self.mean.is_empty()).then(|| format!("mean {}", list(&self.mean)));
        let std = (!self.std.is_empty()).then(|| format!("std {}", list(&self.std)));
        let raw = self.raw.then(|| "bytes as they are".to_owned());
        let parts: Vec<String> = [mean, std, raw, layout].into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    /// Checks the options against the shape of a model's input.
    ///
    /// # Errors
    /// One line.
    pub fn check(&self, shape: &Shape) -> Result<(), String> {
        let is_finite = self.mean.iter().chain(&self.std).all(|v| v.is_finite());
        if !is_finite || self.std.iter().any(|&s| s <= 0.0) {
            return Err("--mean and --std take finite numbers, --std positive ones".into());
        }
        let item = item(shape);
        let is_pixel = |n: usize| n == 1 || n == 3;
        for (option, values) in [("--mean", &self.mean), ("--std", &self.std)] {
            let count = values.len();
            let fits = match item {
                [] | [_] => shape.elements().is_multiple_of(count.max(1)),
                &[first, .., last] if is_pixel(first) != is_pixel(last) => {
                    count == if is_pixel(first) { first } else { last }
                }
                &[first, .., last] => [first, last].contains(&count),
            };
            if count > 1 && !fits {
                return Err(format!(
                    "{option} has {count} values, expected one, or one per channel of an input of shape {shape}"
                ));
            }
        }
        let channels = [self.mean.len(), self.std.len()];
        if channels.iter().all(|&n| n > 1) && channels[0] != channels[1] {
            return Err(format!("--mean has {} values and --std {}", channels[0], channels[1]));
        }
        Ok(())
    }

    /// The inputs in a file: at most `limit` of an `.npy` array or an array of an `.npz` archive, or one PNG
    /// or JPEG image. Of an archive the array of this `name`; where the input is the model's `only` one,
    /// another one does as well ([`array_file::read_npz`]).
    ///
    /// # Errors
    /// One line, to follow the file's name.
    pub fn read(
        &self,
        bytes: &[u8],
        (name, only): (&str, bool),
        shape: &Shape,
        limit: Option<usize>,
    ) -> Result<Inputs, String> {
        if is_image(bytes) {
            let (tensor, notes) = self.image(bytes, shape)?;
            return Ok(Inputs { tensors: vec![tensor], notes });
        }
        let array = match array_file::read(bytes, Some(name)) {
            Err(ArrayError::Missing { .. }) if only => array_file::read(bytes, None),
            other => other,
        };
        let array = array.map_err(|e| e.to_string())?;
        self.array(array, shape, limit)
    }

    /// The inputs in an array: one of them, or a batch along the first axis. Channels move where the
    /// model has them, and rows become images and images rows where the number of elements agrees.
    ///
    /// # Errors
    /// One line, to follow the file's name.
    pub fn array(
        &self,
        array: Array,
        shape: &Shape,
        limit: Option<usize>,
    ) -> Result<Inputs, String> {
        self.check(shape)?;
        let Array { tensor: Tensor { shape: found, mut data }, is_bytes } = array;
        let elements = shape.elements();
        let of_rest = |dims: &[usize]| dims.iter().product::<usize>();
        let dims = match found.0.as_slice() {
            [count, rest @ ..] if of_rest(rest) == elements => (*count, rest),
            all if of_rest(all) == elements => (1, all),
            [count, rest @ ..] => (*count, rest),
            [] => (1, &[][..]),
        };
        let (count, dims) = dims;
        if count == 0 {
            return Err("holds no inputs".into());
        }
        let (arrangement, mut notes) = self.arrangement(dims, shape).ok_or_else(|| {
            let order = match self.layout {
                Layout::Auto => "",
                Layout::Nchw => " (channels first, as --layout says)",
                Layout::Nhwc => " (channels last, as --layout says)",
            };
            format!("has shape {found}{order}, expected {shape} or a batch of them")
        })?;
        data.truncate(limit.unwrap_or(count).min(count) * elements);
        if is_bytes && !self.raw {
            data.iter_mut().for_each(|v| *v /= 255.0);
        }
        let channels = self.mean.len().max(self.std.len());
        if channels > 0 {
            let stride = self.channel_stride(channels, dims, shape, arrangement, &mut notes)?;
            data.iter_mut()
                .enumerate()
                .for_each(|(i, v)| *v = self.normal(*v, i / stride % channels));
        }
        let permutation: Option<[usize; 3]> = match arrangement {
            Arrangement::AsItStands => None,
            Arrangement::ChannelsFirst => Some([2, 0, 1]),
            Arrangement::ChannelsLast => Some([1, 2, 0]),
        };
        let arranged = |values: &[f32]| {
            let data = match permutation {
                None => values.to_vec(),
                Some(axes) => Tensor::new(Shape::new(dims), values.to_vec()).transpose(&axes).data,
            };
            Tensor::new(shape.clone(), data)
        };
        if let Some(bad) = data.iter().position(|v| !v.is_finite()) {
            let input = bad / elements;
            return Err(format!("input {input} holds an element that is infinite or not a number"));
        }
        Ok(Inputs { tensors: data.chunks_exact(elements).map(arranged).collect(), notes })
    }

    fn normal(&self, value: f32, channel: usize) -> f32 {
        let at = |values: &[f32], default: f32| match values {
            [] => default,
            [one] => *one,
            many => many[channel],
        };
        (value - at(&self.mean, 0.0)) / at(&self.std, 1.0)
    }

    /// How an input of shape `dims` becomes one of shape `shape`; `None` if it does not.
    fn arrangement(&self, dims: &[usize], shape: &Shape) -> Option<(Arrangement, Vec<String>)> {
        use Arrangement::{AsItStands, ChannelsFirst, ChannelsLast};
        let wanted = item(shape);
        if dims.iter().product::<usize>() != shape.elements() {
            return None;
        }
        let as_it_stands = |note: Option<String>| Some((AsItStands, Vec::from_iter(note)));
        if let (&[a, b, c], [_, _, _]) = (dims, wanted) {
            let may = |layout| self.layout == Layout::Auto || self.layout == layout;
            let is_cube = a == b && b == c && a > 1;
            match self.layout {
                Layout::Nhwc if is_cube => return Some((ChannelsFirst, vec![])),
                Layout::Auto if is_cube => {
                    return as_it_stands(Some(format!(
                        "inputs of shape {} are taken as channels first; --layout nhwc says otherwise",
                        Shape::new(dims)
                    )));
                }
                _ => {}
            }
            if dims == wanted {
                return as_it_stands(None);
            }
            if may(Layout::Nhwc) && [c, a, b] == *wanted {
                return Some((ChannelsFirst, vec![]));
            }
            if may(Layout::Nchw) && [b, c, a] == *wanted {
                return Some((ChannelsLast, vec![]));
            }
        }
        if dims == wanted || is_same(dims, wanted) {
            return as_it_stands(None);
        }
        if !is_row(dims) && !is_row(wanted) {
            return None;
        }
        let image = if is_row(dims) { wanted } else { dims };
        let is_open =
            self.layout == Layout::Auto && matches!(image, [a, b, c] if *a > 1 && *c > 1 && *b > 1);
        as_it_stands(is_open.then(|| {
            format!(
                "inputs of shape {} become {} in the order in which they stand in the file",
                Shape::new(dims),
                Shape::new(wanted)
            )
        }))
    }

    /// The number of neighbouring elements that belong to one channel.
    fn channel_stride(
        &self,
        channels: usize,
        dims: &[usize],
        shape: &Shape,
        arrangement: Arrangement,
        notes: &mut Vec<String>,
    ) -> Result<usize, String> {
        if channels == 1 {
            return Ok(1);
        }
        let (first, last) = if is_row(dims) && !dims.contains(&channels) {
            // Rows of an image: the model knows which.
            match (item(shape), self.layout) {
                (_, Layout::Nchw) => (true, false),
                (_, Layout::Nhwc) => (false, true),
                ([first, .., last], _) => (*first == channels, *last == channels),
                _ => (false, false),
            }
        } else {
            let is = |d: Option<&usize>| d == Some(&channels);
            let (first, last) = (is(dims.first()), is(dims.last()));
            match (arrangement, self.layout) {
                (Arrangement::ChannelsFirst, _) | (_, Layout::Nhwc) => (false, last),
                (Arrangement::ChannelsLast, _) | (_, Layout::Nchw) => (first, false),
                _ => (first, last),
            }
        };
        let (first, last) = if dims.len() == 1 && last { (false, true) } else { (first, last) };
        if first && last {
            notes.push(format!(
                "--mean and --std are taken along the first axis of inputs of shape {}; --layout nhwc says \
                 otherwise",
                Shape::new(dims)
            ));
        }
        match (first, last) {
            (true, _) => Ok(dims.iter().product::<usize>() / channels),
            (_, true) => Ok(1),
            _ => Err(format!(
                "inputs of shape {} have no axis of {channels} channels, as many as --mean or --std has values",
                Shape::new(dims)
            )),
        }
    }
}

/// Whether bytes are those of an image that can be read.
pub fn is_image(bytes: &[u8]) -> bool {
    bytes.starts_with(image::PNG) || bytes.starts_with(image::JPEG)
}

/// The shape of an input without its batch dimension.
fn item(shape: &Shape) -> &[usize] {
    match shape.0.as_slice() {
        [1, rest @ ..] => rest,
        all => all,
    }
}

/// Whether dimensions differ in ones only.
fn is_same(a: &[usize], b: &[usize]) -> bool {
    let strip = |dims: &[usize]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
    strip(a) == strip(b)
}

/// Whether at most one dimension is longer than one.
fn is_row(dims: &[usize]) -> bool {
    dims.iter().filter(|&&d| d != 1).count() <= 1
}

#[cfg(test)]
mod tests;
