use super::*;
use png::{BitDepth, ColorType};

/// 16x8 pixels, the left half (200, 40, 40), the right half (30, 60, 220).
const JPEG: &[u8] = include_bytes!("../../testdata/two_colours.jpg");
/// 16x8 grey pixels, 200 and 30.
const GREY_JPEG: &[u8] = include_bytes!("../../testdata/grey.jpg");

fn png(width: u32, height: u32, color: ColorType, depth: BitDepth, data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette(vec![10, 20, 30, 40, 50, 60]);
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    file
}

fn array(dims: &[usize]) -> Array {
    let shape = Shape::new(dims);
    let data = (0..shape.elements()).map(|i| i as f32).collect();
    Array { tensor: Tensor::new(shape, data), is_bytes: false }
}

fn read(dims: &[usize], model: &[usize], layout: Layout) -> Result<Inputs, String> {
    let how = Preprocessing { layout, ..Preprocessing::default() };
    how.array(array(dims), &Shape::new(model), None)
}

fn image(bytes: &[u8], model: &[usize]) -> Result<(Tensor<f32>, Vec<String>), String> {
    Preprocessing { raw: true, ..Preprocessing::default() }.image(bytes, &Shape::new(model))
}

#[test]
fn channels_move_where_the_model_has_them() {
    for (dims, model, second) in [
        (&[2, 3, 4, 5][..], &[1, 3, 4, 5][..], 1.0),
        (&[2, 4, 5, 3], &[1, 3, 4, 5], 3.0),
        (&[2, 3, 4, 5], &[1, 4, 5, 3], 20.0),
        (&[2, 4, 5], &[1, 1, 4, 5], 1.0),
        (&[2, 4, 5, 1], &[1, 1, 4, 5], 1.0),
        (&[2, 4, 5], &[1, 20], 1.0),
        (&[2, 20], &[1, 1, 4, 5], 1.0),
        (&[4, 5], &[1, 1, 4, 5], 1.0),
        (&[4, 5, 3], &[1, 3, 4, 5], 3.0),
        (&[20], &[1, 20], 1.0),
        (&[5], &[1], 0.0),
        (&[100, 4], &[100, 4], 1.0),
    ] {
        let inputs = read(dims, model, Layout::Auto).unwrap_or_else(|e| panic!("{dims:?}: {e}"));
        let elements: usize = model.iter().product();
        let count: usize = dims.iter().product::<usize>() / elements;
        assert_eq!(inputs.tensors.len(), count, "{dims:?} {model:?}");
        assert_eq!(inputs.notes, [""; 0], "{dims:?} {model:?}");
        let first = &inputs.tensors[0];
        assert_eq!((&first.shape.0[..], first.data[1.min(elements - 1)]), (model, second));
    }
}

#[test]
fn a_choice_that_the_shapes_leave_open_is_said() {
    for (dims, model, layout, notes, second) in [
        (&[2, 3, 3, 3][..], &[1, 3, 3, 3][..], Layout::Auto, 1, 1.0),
        (&[2, 3, 3, 3], &[1, 3, 3, 3], Layout::Nchw, 0, 1.0),
        (&[2, 3, 3, 3], &[1, 3, 3, 3], Layout::Nhwc, 0, 3.0),
        (&[2, 4, 5, 3], &[1, 60], Layout::Auto, 1, 1.0),
        (&[2, 60], &[1, 3, 4, 5], Layout::Auto, 1, 1.0),
        (&[2, 4, 5, 3], &[1, 60], Layout::Nhwc, 0, 1.0),
    ] {
        let inputs = read(dims, model, layout).unwrap();
        assert_eq!((inputs.notes.len(), inputs.tensors[0].data[1]), (notes, second), "{dims:?}");
    }
    assert!(read(&[2, 4, 5, 3], &[1, 3, 4, 5], Layout::Nchw).is_err());
    assert!(read(&[2, 3, 4, 5], &[1, 4, 5, 3], Layout::Nhwc).is_err());
}

#[test]
fn arrays_of_other_shapes_are_refused() {
    for (dims, model) in [
        (&[2, 6][..], &[1, 5][..]),
        (&[4, 4], &[1, 5]),
        (&[0, 5], &[1, 5]),
        (&[2, 5, 4, 3], &[1, 3, 4, 5]),
        (&[2, 2, 30], &[1, 3, 4, 5]),
        (&[], &[1, 5]),
    ] {
        let error = read(dims, model, Layout::Auto).err().unwrap_or_else(|| panic!("{dims:?}"));
        assert!(!error.contains('\n') && error.starts_with("h"), "{error}");
    }
}

#[test]
fn means_are_taken_along_the_channels() {
    let how = |mean: &[f32], layout| Preprocessing {
        mean: mean.to_vec(),
        std: vec![2.0],
        raw: false,
        layout,
    };
    let third = |dims: &[usize], model: &[usize], layout| {
        let how = how(&[0.0, 100.0, 200.0], layout);
        let inputs = how.array(array(dims), &Shape::new(model), None)?;
        Ok::<_, String>((inputs.tensors[1].data[41], inputs.notes.len()))
    };
    // Element 41 of the second input is row 0, column 1 of the third channel.
    assert_eq!(third(&[2, 3, 4, 5], &[1, 3, 4, 5], Layout::Auto), Ok(((101.0 - 200.0) / 2.0, 0)));
    assert_eq!(third(&[2, 4, 5, 3], &[1, 3, 4, 5], Layout::Auto), Ok(((65.0 - 200.0) / 2.0, 0)));
    assert_eq!(third(&[2, 60], &[1, 3, 4, 5], Layout::Auto), Ok(((101.0 - 200.0) / 2.0, 1)));
    assert_eq!(third(&[2, 4, 5, 3], &[1, 60], Layout::Auto), Ok(((101.0 - 200.0) / 2.0, 1)));
    assert_eq!(third(&[2, 60], &[1, 60], Layout::Nchw), Ok(((101.0 - 200.0) / 2.0, 0)));
    assert!(third(&[2, 60], &[1, 60], Layout::Auto).is_err());
    assert_eq!(third(&[2, 3, 5, 3], &[1, 3, 5, 3], Layout::Auto).map(|r| r.1), Ok(1));
    let check =
        |mean: &[f32], model: &[usize]| how(mean, Layout::Auto).check(&Shape::new(model)).is_ok();
    assert!(check(&[0.1; 3], &[1, 3, 8, 8]) && check(&[0.1; 3], &[1, 8, 8, 3]));
    assert!(check(&[0.1], &[1, 3, 8, 8]) && check(&[0.1; 14], &[1, 14]));
    assert!(!check(&[0.1; 2], &[1, 3, 8, 8]) && !check(&[0.1; 8], &[1, 3, 8, 8]));
    assert!(!check(&[0.1; 3], &[1, 1, 8, 8]) && !check(&[f32::NAN], &[1, 3, 8, 8]));
}

#[test]
fn bytes_are_divided_and_limits_kept() {
    let mut of = array(&[3, 4]);
    of.is_bytes = true;
    let how = Preprocessing::default();
    let inputs = how.array(of, &Shape::new([1, 4]), Some(2)).unwrap().tensors;
    assert_eq!((inputs.len(), inputs[1].data[1]), (2, 5.0 / 255.0));
    let mut infinite = array(&[3, 4]);
    infinite.tensor.data[2] = f32::INFINITY;
    assert!(how.array(infinite, &Shape::new([1, 4]), None).is_err());
}

#[test]
fn every_kind_of_png_is_read() {
    let pixels: Vec<u8> = (0..24).collect();
    for (color, depth, data, model, wanted) in [
        (ColorType::Grayscale, BitDepth::Eight, &pixels[..6], &[1, 1, 2, 3][..], [0.0, 1.0]),
        (ColorType::Grayscale, BitDepth::One, &[0x60, 0x20], &[1, 1, 2, 3], [0.0, 255.0]),
        (ColorType::Grayscale, BitDepth::Sixteen, &pixels[..12], &[1, 1, 2, 3], [0.0, 2.0]),
        (ColorType::Grayscale, BitDepth::Eight, &pixels[..6], &[1, 3, 2, 3], [0.0, 1.0]),
        (ColorType::GrayscaleAlpha, BitDepth::Eight, &pixels[..12], &[2, 3], [0.0, 2.0]),
        (ColorType::Rgb, BitDepth::Eight, &pixels[..18], &[1, 3, 2, 3], [0.0, 3.0]),
        (ColorType::Rgb, BitDepth::Eight, &pixels[..18], &[1, 2, 3, 3], [0.0, 1.0]),
        (ColorType::Rgba, BitDepth::Eight, &pixels[..24], &[1, 3, 2, 3], [0.0, 4.0]),
        (ColorType::Rgb, BitDepth::Eight, &pixels[..18], &[2, 3], [1.0, 4.0]),
        (ColorType::Indexed, BitDepth::One, &[0x60, 0x20], &[1, 3, 2, 3], [10.0, 40.0]),
    ] {
        let (tensor, notes) = image(&png(3, 2, color, depth, data), model).unwrap();
        assert_eq!(tensor.data[..2], wanted, "{color:?} {depth:?} {model:?}");
        let is_open = model.len() == 4 && model[3] == 3 && model[1] != 2;
        assert_eq!(notes.len(), usize::from(is_open), "{notes:?}");
    }
    let with = |layout, model: &[usize]| {
        let how = Preprocessing { raw: true, layout, ..Preprocessing::default() };
        let rgb = png(4, 2, ColorType::Rgb, BitDepth::Eight, &pixels);
        let (tensor, notes) = how.image(&rgb, &Shape::new(model)).unwrap();
        assert_eq!(notes, [""; 0], "{layout:?} {model:?}");
        tensor.data[1]
    };
    for layout in [Layout::Nchw, Layout::Nhwc] {
        assert_eq!((with(layout, &[1, 1, 2, 4]), with(layout, &[1, 2, 4, 3])), (4.0, 1.0));
    }
    let of_row = image(&png(2, 2, ColorType::Rgb, BitDepth::Eight, &pixels[..12]), &[1, 12]);
    let (tensor, notes) = of_row.unwrap();
    assert_eq!((&tensor.data[..4], notes.len()), (&[0.0, 3.0, 6.0, 9.0][..], 1));
}

#[test]
fn jpegs_are_read() {
    let close = |a: f32, b: f32| (a - b).abs() <= 3.0;
    let (colour, _) = image(JPEG, &[1, 3, 8, 16]).unwrap();
    for (plane, [left, right]) in
        colour.data.chunks_exact(128).zip([[200.0, 30.0], [40.0, 60.0], [40.0, 220.0]])
    {
        assert!(close(plane[17], left) && close(plane[30], right), "{} {}", plane[17], plane[30]);
    }
    let (grey, _) = image(GREY_JPEG, &[1, 1, 8, 16]).unwrap();
    assert!(close(grey.data[17], 200.0) && close(grey.data[30], 30.0));
    let (luma, _) = image(JPEG, &[1, 8, 16]).unwrap();
    assert!(close(luma.data[17], 87.8) && close(luma.data[30], 69.3), "{}", luma.data[17]);
    for cut in [4, 30, 150, 250] {
        let cut = &JPEG[..cut];
        let error = image(cut, &[1, 3, 8, 16]).err();
        assert!(error.is_none_or(|e| e.starts_with("is not a readable image")));
    }
}

#[test]
fn images_are_resized_by_the_shorter_side_and_cropped() {
    // Twice as large, and wider: a mean of four pixels, the middle of the columns.
    let wide: Vec<u8> = (0..4 * 12).map(|i| 10 * (i % 12 / 2) as u8).collect();
    let (small, notes) =
        image(&png(12, 4, ColorType::Grayscale, BitDepth::Eight, &wide), &[1, 1, 2, 2]).unwrap();
    assert_eq!(notes.len(), 1);
    assert!((small.data[0] - 20.0).abs() < 3.0 && (small.data[1] - 30.0).abs() < 3.0);
    assert_eq!(small.data[..2], small.data[2..]);
    let flat = png(5, 9, ColorType::Grayscale, BitDepth::Eight, &[77; 45]);
    for side in [1, 3, 16] {
        let (resized, _) = image(&flat, &[1, side, side]).unwrap();
        assert!(resized.data.iter().all(|v| (v - 77.0).abs() < 1e-3), "{side}");
    }
}

#[test]
fn images_that_do_not_fit_are_refused() {
    let pixel = png(1, 1, ColorType::Rgb, BitDepth::Eight, &[1, 2, 3]);
    for model in [&[1, 4, 8, 8][..], &[1, 5], &[1, 2, 3, 4, 5]] {
        assert!(image(&pixel, model).is_err(), "{model:?}");
    }
    let how = Preprocessing { mean: vec![0.5; 3], ..Preprocessing::default() };
    assert!(how.image(&pixel, &Shape::new([1, 4])).is_err(), "three means of grey images");
    let mut huge = pixel.clone();
    huge[16..20].copy_from_slice(&100_000u32.to_be_bytes());
    assert!(image(&huge, &[1, 3, 1, 1]).is_err());
    for length in 8..pixel.len() {
        let _ = image(&pixel[..length], &[1, 3, 1, 1]);
    }
}
