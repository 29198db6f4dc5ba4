//! PNG and JPEG images as inputs: channels converted, resized by the shorter side and cropped.

use super::{Layout, Preprocessing, is_row, item};
use crate::tensor::{Shape, Tensor};
use std::io::Cursor;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// How a PNG file begins.
pub(super) const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
/// How a JPEG file begins.
pub(super) const JPEG: &[u8] = b"\xff\xd8\xff";
/// The longest side of an image.
const MAX_SIDE: usize = 1 << 14;
/// The most pixels of an image.
const MAX_PIXELS: usize = 1 << 26;

/// Pixels, channels last: one channel or three.
struct Image {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<u8>,
}

/// What a model makes of an image.
struct Target {
    channels: usize,
    height: usize,
    width: usize,
    is_channels_first: bool,
    note: Option<String>,
}

impl Preprocessing {
    /// A PNG or JPEG image as an input, with what was done to it.
    ///
    /// # Errors
    /// One line, to follow the file's name.
    pub fn image(&self, bytes: &[u8], shape: &Shape) -> Result<(Tensor<f32>, Vec<String>), String> {
        self.check(shape)?;
        let target = Target::of(shape, self.layout)?;
        let (channels, height, width) = (target.channels, target.height, target.width);
        let values = self.mean.len().max(self.std.len());
        if values > 1 && values != channels {
            return Err(format!("is read with {channels} channels, --mean or --std has {values}"));
        }
        let image = decode(bytes)?;
        let mut notes = Vec::from_iter(target.note);
        if [image.height, image.width] != [height, width] {
            notes.push(format!(
                "images of another size than {width}x{height} are resized by the shorter side and cropped"
            ));
        }
        let planes = image.planes(channels);
        let planes = planes.iter().map(|p| fit(p, [image.height, image.width], [height, width]));
        let scale = if self.raw { 1.0 } else { 255.0 };
        let data: Vec<f32> = planes
            .enumerate()
            .flat_map(|(c, plane)| plane.into_iter().map(move |v| self.normal(v / scale, c)))
            .collect();
        let tensor = Tensor::new(Shape::new([channels, height, width]), data);
        let tensor = if target.is_channels_first { tensor } else { tensor.transpose(&[1, 2, 0]) };
        Ok((tensor.reshape(shape.clone()), notes))
    }
}

impl Target {
    fn of(shape: &Shape, layout: Layout) -> Result<Self, String> {
        let target = |channels, height, width, is_channels_first| Self {
            channels,
            height,
            width,
            is_channels_first,
            note: None,
        };
        let is_pixel = |n: usize| n == 1 || n == 3;
        let other = || format!("is an image, and an input of shape {shape} is none");
        if is_row(item(shape)) {
            let elements = shape.elements();
            for channels in [1, 3] {
                let side = (elements / channels).isqrt();
                if channels * side * side == elements {
                    let mut target = target(channels, side, side, layout != Layout::Nhwc);
                    target.note = (channels == 3 && layout == Layout::Auto).then(|| {
                        format!("images become rows of {elements} values, channels first; --layout nhwc says otherwise")
                    });
                    return Ok(target);
                }
            }
            return Err(other());
        }
        match *item(shape) {
            [h, w] => Ok(target(1, h, w, true)),
            [a, b, c] if is_pixel(a) && (!is_pixel(c) || layout != Layout::Nhwc) => {
                let mut target = target(a, b, c, true);
                target.note = (is_pixel(c) && layout == Layout::Auto).then(|| {
                    format!("an input of shape {shape} is taken as channels first; --layout nhwc says otherwise")
                });
                Ok(target)
            }
            [h, w, c] if is_pixel(c) => Ok(target(c, h, w, false)),
            _ => Err(other()),
        }
    }
}

impl Image {
    /// The image as planes of one channel or three.
    fn planes(&self, channels: usize) -> Vec<Vec<f32>> {
        let pixels = || self.data.chunks_exact(self.channels);
        if channels == 1 && self.channels == 3 {
            // The luma of ITU-R 601 in 16 bits, as Pillow has it.
            let luma = |p: &[u8]| {
                let [r, g, b] = [p[0], p[1], p[2]].map(u32::from);
                (19595 * r + 38470 * g + 7471 * b + 0x8000) >> 16
            };
            return vec![pixels().map(|p| luma(p) as f32).collect()];
        }
        let plane = |c: usize| pixels().map(|p| f32::from(p[c.min(self.channels - 1)])).collect();
        (0..channels).map(plane).collect()
    }
}

fn decode(bytes: &[u8]) -> Result<Image, String> {
    let image = if bytes.starts_with(PNG) { decode_png(bytes) } else { decode_jpeg(bytes) };
    let image = image.map_err(|e| {
        let line: Vec<&str> = e.split_whitespace().collect();
        format!("is not a readable image: {}", line.join(" "))
    })?;
    let expected = image.height * image.width * image.channels;
    if image.data.len() < expected || expected == 0 {
        return Err("is not a readable image: it holds too few pixels".into());
    }
    Ok(image)
}

fn decode_png(bytes: &[u8]) -> Result<Image, String> {
    let text = |e: png::DecodingError| e.to_string();
    let mut decoder = png::Decoder::new(Cursor::new(bytes));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().map_err(text)?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    check_size(width, height)?;
    let mut data = vec![0; reader.output_buffer_size().ok_or("it is too large")?];
    let info = reader.next_frame(&mut data).map_err(text)?;
    data.truncate(info.buffer_size());
    let stored = info.color_type.samples();
    let channels = if stored < 3 { 1 } else { 3 };
    if stored != channels {
        // What is left out is opacity.
        data = data.chunks_exact(stored).flat_map(|p| p[..channels].iter().copied()).collect();
    }
    Ok(Image { height, width, channels, data })
}

fn decode_jpeg(bytes: &[u8]) -> Result<Image, String> {
    let options = DecoderOptions::default().set_max_width(MAX_SIDE).set_max_height(MAX_SIDE);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let (width, height) = decoder.dimensions().ok_or("it has no size")?;
    check_size(width, height)?;
    let is_grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let (space, channels) = if is_grey { (ColorSpace::Luma, 1) } else { (ColorSpace::RGB, 3) };
    decoder.set_options(options.jpeg_set_out_colorspace(space));
    let data = decoder.decode().map_err(|e| e.to_string())?;
    Ok(Image { height, width, channels, data })
}

fn check_size(width: usize, height: usize) -> Result<(), String> {
    if width.max(height) > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(format!("it has {width}x{height} pixels, at most {MAX_PIXELS} are read"));
    }
    Ok(())
}

/// A plane resized so that it covers `to`, and the middle of it: what torchvision's `Resize` and
/// `CenterCrop` do.
fn fit(plane: &[f32], from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    if from == to {
        return plane.to_vec();
    }
    // The axis that needs the larger factor becomes as long as wanted, the other one longer.
    let is_rows = to[0] * from[1] >= to[1] * from[0];
    let along = if is_rows { 0 } else { 1 };
    let covering = |axis: usize| (from[axis] * to[along] / from[along]).max(to[axis]);
    let rows = taps(from[0], covering(0), to[0]);
    let columns = taps(from[1], covering(1), to[1]);
    let mean = |taps: &[(usize, f32)], at: &dyn Fn(usize) -> f32| -> f32 {
        taps.iter().map(|&(i, weight)| weight * at(i)).sum()
    };
    let mut narrow = Vec::with_capacity(from[0] * to[1]);
    for row in plane.chunks_exact(from[1]) {
        narrow.extend(columns.iter().map(|taps| mean(taps, &|i| row[i])));
    }
    let mut result = Vec::with_capacity(to[0] * to[1]);
    for taps in &rows {
        result.extend((0..to[1]).map(|x| mean(taps, &|i| narrow[i * to[1] + x])));
    }
    result
}

/// What every pixel of the middle `to` of `resized` is a mean of: a triangle as wide as a pixel of the
/// result, or of the source where that is wider.
fn taps(from: usize, resized: usize, to: usize) -> Vec<Vec<(usize, f32)>> {
    let step = from as f64 / resized as f64;
    let reach = step.max(1.0);
    let first = ((resized - to) as f64 / 2.0).round_ties_even();
    (0..to)
        .map(|i| {
            let centre = (first + i as f64 + 0.5) * step;
            let low = (centre - reach).floor().max(0.0) as usize;
            let high = ((centre + reach).ceil() as usize).min(from);
            let weight = |j: usize| 1.0 - ((j as f64 + 0.5 - centre) / reach).abs();
            let taps: Vec<(usize, f64)> =
                (low..high).map(|j| (j, weight(j))).filter(|(_, w)| *w > 0.0).collect();
            let sum: f64 = taps.iter().map(|(_, w)| w).sum();
            taps.into_iter().map(|(j, w)| (j, (w / sum) as f32)).collect()
        })
        .collect()
}
