//! Speed of the kernels, billions of products of weight and element per second on one core, beside what
//! the registers allow; the median of repetitions spread over the run.
//!
//! `cargo bench -p polyrt --bench kernels [-- "part of a name" [set [ring]]]`, or `-- elements` for the elementwise
//! loops alone.

use ir::Shape;
use ir::op::Convolution;
use ir::plan::{Linear, Step, StepOp};
use polyrt::kernel::sums::row_sums;
use polyrt::kernel::{InstructionSet, PackedLinear, Scratch, peak};
use polyrt::wire::{pack, unpack};
use polyrt::words::Words;
use std::time::Instant;

/// Name, input channels, side, outputs, kernel, stride, groups, items.
type Case = (&'static str, usize, usize, usize, usize, usize, usize, usize);

const CASES: [Case; 16] = [
    ("3 to 16 at 32", 3, 32, 16, 3, 1, 1, 1),
    ("16 to 16 at 32", 16, 32, 16, 3, 1, 1, 1),
    ("32 to 32 at 16", 32, 16, 32, 3, 1, 1, 1),
    ("64 to 64 at 8", 64, 8, 64, 3, 1, 1, 1),
    ("64 to 64 at 32", 64, 32, 64, 3, 1, 1, 1),
    ("128 to 128 at 16", 128, 16, 128, 3, 1, 1, 1),
    ("256 to 256 at 8", 256, 8, 256, 3, 1, 1, 1),
    ("512 to 512 at 4", 512, 4, 512, 3, 1, 1, 1),
    ("512 to 512 at 4, batch 8", 512, 4, 512, 3, 1, 1, 8),
    ("256 to 256 at 14", 256, 14, 256, 3, 1, 1, 1),
    ("64 to 64 at 56", 64, 56, 64, 3, 1, 1, 1),
    ("128 to 128 at 28", 128, 28, 128, 3, 1, 1, 1),
    ("3 to 64 at 224, 7x7", 3, 224, 64, 7, 2, 1, 1),
    ("256 to 64 at 56, 1x1", 256, 56, 64, 1, 1, 1, 1),
    ("1024 to 256 at 14, 1x1", 1024, 14, 256, 1, 1, 1, 1),
    ("96 at 56, depthwise", 96, 56, 96, 3, 1, 96, 1),
];

fn main() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let Ok(pool) = pool else { return };
    pool.install(|| {
        println!("one core, registers allow {:.0} products of 16-bit words per ns", peak());
        print!("{:26}", "GMAC/s");
        for ring in [16, 20, 28, 40] {
            for set in InstructionSet::available() {
                print!(" {:>12}", format!("{set:?} {ring}"));
            }
        }
        println!();
        let arguments: Vec<String> =
            std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
        if arguments.first().is_none_or(|a| a != "elements") {
            let is_chosen =
                |case: &&Case| arguments.first().is_none_or(|part| case.0.contains(part.as_str()));
            CASES.iter().filter(is_chosen).for_each(|case| line(case, &arguments));
            if !arguments.is_empty() {
                return;
            }
        }
        elementwise(1 << 14);
        elementwise(1 << 17);
        elementwise(1 << 20);
    });
}

/// Nanoseconds per element of what happens between the products.
fn elementwise(count: usize) {
    let random = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8;
    println!("{count} elements, ns each");
    let show = |name: &str, bits: u32, ns: f64| {
        println!("  {name:24} {bits:2} bits {:6.3}", ns / count as f64);
    };
    let words: Vec<u16> = (0..count).map(|i| random(i) as u16).collect();
    for bits in [8, 14, 15, 16] {
        let bytes = pack(&words, bits);
        let mut out = vec![0u16; count];
        show("pack", bits, median(|| drop(std::hint::black_box(pack(&words, bits)))));
        let sum = |a: u16, b: u16| a.wrapping_add(b);
        show("unpack and add", bits, median(|| assert!(unpack(&bytes, bits, &mut out, sum))));
    }
    let words: Vec<u32> = (0..count).map(|i| random(i) as u32).collect();
    for bits in [17, 20, 28] {
        let bytes = pack(&words, bits);
        let mut out = vec![0u32; count];
        show("pack", bits, median(|| drop(std::hint::black_box(pack(&words, bits)))));
        let sum = |a: u32, b: u32| a.wrapping_add(b);
        show("unpack and add", bits, median(|| assert!(unpack(&bytes, bits, &mut out, sum))));
    }
    let opening: Vec<u16> = (0..count).map(|i| (random(i) % 256) as u16).collect();
    for harmonics in [1, 2, 3] {
        let per = 2 * harmonics;
        let rows: Vec<u32> = (0..256 * per).map(|i| random(i) as u32).collect();
        let products: Vec<u32> = (0..count * per).map(|i| random(i) as u32).collect();
        let mut sums = vec![0u32; count];
        let time = median(|| row_sums(per, &rows, &opening, &products, &mut sums));
        show(&format!("sums of {harmonics} harmonics"), 32, time);
        let rows: Vec<u64> = rows.iter().map(|&v| v.into()).collect();
        let products: Vec<u64> = products.iter().map(|&v| v.into()).collect();
        let mut sums = vec![0u64; count];
        let time = median(|| row_sums(per, &rows, &opening, &products, &mut sums));
        show(&format!("sums of {harmonics} harmonics"), 64, time);
    }
}

/// Whether an argument names something, or there is none.
fn is_wanted(arguments: &[String], place: usize, name: &str) -> bool {
    arguments.get(place).is_none_or(|a| a == name)
}

fn line(case: &Case, arguments: &[String]) {
    let &(name, channels, side, outputs, kernel, stride, groups, items) = case;
    let padding = [(kernel - 1) / 2; 4];
    let geometry =
        Convolution { groups, kernel: [kernel; 2], stride: [stride; 2], dilation: [1, 1], padding };
    let input = Shape::new([1, channels, side, side]);
    let Some(shape) = geometry.output_shape(&input, outputs) else { return };
    let fan_in = geometry.fan_in(&input);
    let weights: Vec<i32> = (0..outputs * fan_in).map(|i| (i * 37 % 255) as i32 - 127).collect();
    let products = (shape.elements() * fan_in * items) as f64;
    print!("{name:26}");
    for ring in [16, 20, 28, 40] {
        let step = Step {
            name: String::new(),
            op: StepOp::Linear(Linear::Convolution { geometry, weight_bits: 8 }),
            operands: vec![],
            shape: shape.clone(),
            ring,
            fraction_bits: 0,
        };
        let random = |i: usize| (i as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - ring);
        let x = Words::new(ring, (0..input.elements() * items).map(random));
        for set in InstructionSet::available() {
            if !is_wanted(arguments, 1, &format!("{set:?}"))
                || !is_wanted(arguments, 2, &ring.to_string())
            {
                print!(" {:>12}", "");
                continue;
            }
            let Some(packed) = PackedLinear::new(set, &step, &input, &weights) else { return };
            let mut out = Words::zeros(ring, shape.elements() * items);
            let mut scratch = Scratch::default();
            print!(" {:12.1}", products / median(|| packed.apply(&x, &mut out, &mut scratch)));
        }
    }
    println!();
}

/// The median time of a run in nanoseconds.
fn median(mut run: impl FnMut()) -> f64 {
    run();
    let start = Instant::now();
    let mut times = vec![];
    while times.len() < 11 || (start.elapsed().as_millis() < 60 && times.len() < 2000) {
        let start = Instant::now();
        run();
        times.push(start.elapsed().as_nanos() as f64);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
