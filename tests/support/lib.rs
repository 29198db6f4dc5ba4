//! What the tests share: the two programs, the shipped models, folders that vanish, small ONNX files.

mod compiled;
pub mod doors;
pub mod golden;
pub mod onnx;
mod programs;

pub use compiled::{Written, compile_shipped, compiled};
pub use programs::{Listening, polyc, polyrt, run, stderr, stdout};

use ir::array_file::{read_npy, read_npz};
use ir::plan::Plan;
use ir::{Shape, Tensor};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The shipped models.
pub const MODELS: [&str; 5] =
    ["digits_mlp", "digits_cnn", "digits_resnet", "digits_herpn", "digits_pillar"];

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// A file in `models/`.
pub fn shipped(name: &str) -> PathBuf {
    workspace().join("models").join(name)
}

/// A folder that is removed at the end.
pub struct Folder(PathBuf);

impl Folder {
    /// A new empty folder.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("polyc-tests-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Names and lengths of all files in it, at any depth, sorted.
    pub fn listing(&self) -> Vec<(String, u64)> {
        let mut files = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let entry = entry.unwrap();
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                }
                let name = entry.path().strip_prefix(&self.0).unwrap().display().to_string();
                files.push((name, entry.metadata().unwrap().len()));
            }
        }
        files.sort();
        files
    }
}

impl Default for Folder {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Array `name` of an `.npz` file.
pub fn array(path: &Path, name: &str) -> Tensor<f32> {
    read_npz(File::open(path).unwrap(), Some(name)).unwrap().tensor
}

/// An `.npy` file.
pub fn npy(path: &Path) -> Tensor<f32> {
    read_npy(&fs::read(path).unwrap()).unwrap().tensor
}

/// The bytes of a PNG file of grey pixels.
pub fn grey_png(width: usize, height: usize, pixels: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    file
}

/// The bytes of an `.npy` file of bytes, as cameras and image libraries make them.
pub fn bytes_npy(dims: &[usize], elements: &[u8]) -> Vec<u8> {
    let dims: String = dims.iter().map(|d| format!("{d}, ")).collect();
    let header = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({dims}), }}");
    let padded = format!("{header:<117}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(padded.len() as u16).to_le_bytes());
    bytes.extend_from_slice(padded.as_bytes());
    bytes.extend_from_slice(elements);
    bytes
}

/// The rows of a batch, each of `shape`.
pub fn rows(batch: &Tensor<f32>, shape: &Shape) -> Vec<Tensor<f32>> {
    let rows = batch.data.chunks_exact(shape.elements());
    rows.map(|row| Tensor::new(shape.clone(), row.to_vec())).collect()
}

/// The first `count` images of `digits_test.npz`.
pub fn digits(plan: &Plan, count: usize) -> Vec<Tensor<f32>> {
    let mut images = rows(&array(&shipped("digits_test.npz"), "x"), plan.input_shape());
    images.truncate(count);
    images
}

/// The same numbers in every run of the tests (SplitMix64; Steele, Lea, Flood 2014).
pub struct Numbers(pub u64);

impl Numbers {
    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// One below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        (self.draw() % end.max(1) as u64) as usize
    }

    /// `count` reals in `[-size, size]`.
    pub fn reals(&mut self, count: usize, size: f32) -> Vec<f32> {
        let real = |_| (self.draw() >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
        (0..count).map(real).map(|v| v * size).collect()
    }
}
