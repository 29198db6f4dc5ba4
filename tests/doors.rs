//! A few thousand damaged files and greetings: refused in a line, never with a panic. The same doors
//! stand open to the fuzzers in `fuzz/`.

use ir::Shape;
use ir::plan::{Plan, Step, StepOp, Table, ValueId};
use polyrt::net::{Channel, MemoryChannel, Tap, memory_pair};
use polyrt::preprocess::Role;
use std::time::Duration;
use support::doors::{self, SMALL, SMALL_MODEL};
use support::{Numbers, array, digits, shipped};

/// Damaged copies of `bytes`: changed, cut, doubled and filled, one to four places each.
fn damaged(bytes: &[u8], count: usize, seed: u64) -> impl Iterator<Item = Vec<u8>> {
    let mut numbers = Numbers(seed);
    let original = bytes.to_vec();
    (0..count).map(move |_| {
        let mut bytes = original.clone();
        for _ in 0..1 + numbers.below(4) {
            let at = numbers.below(bytes.len());
            let end = at + numbers.below((bytes.len() - at).min(24) + 1);
            match numbers.below(6) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
                1 if !bytes.is_empty() => {
                    bytes[at] = [0, 1, 0x7f, 0x80, 0xfb, 0xff][numbers.below(6)]
                }
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..end)),
                4 => {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
                _ => bytes[at..end].fill(0xff),
            }
        }
        bytes
    })
}

/// Sends `count` damaged copies through a door; some must be refused and the original taken.
fn knock(door: fn(&[u8]) -> bool, bytes: &[u8], count: usize, seed: u64) {
    assert!(door(bytes), "the original is refused");
    assert!(!door(b""), "nothing is taken");
    let taken = damaged(bytes, count, seed).filter(|bytes| door(bytes)).count();
    assert!(taken < count, "everything is taken");
}

/// Otherwise every damaged payload would be refused for its header, and nothing behind it be tried.
#[test]
fn sealed_payloads_are_those_of_the_tools() {
    let (plan, _) = SMALL.plan.to_bytes();
    assert_eq!(doors::seal(b"polyplan", doors::payload(&plan)), plan);
    let weights = SMALL.weights.to_bytes(None);
    assert_eq!(doors::seal(b"polywght", doors::payload(&weights)), weights);
}

#[test]
fn onnx() {
    knock(doors::model, &SMALL_MODEL, 4000, 1);
    for name in ["digits_mlp.onnx", "digits_resnet.onnx"] {
        let model = std::fs::read(shipped(name)).unwrap();
        knock(doors::model, &model, 150, 2);
    }
}

#[test]
fn plans() {
    knock(doors::plan, doors::payload(&SMALL.plan.to_bytes().0), 6000, 3);
    for model in ["digits_resnet", "digits_herpn"] {
        let plan = support::compiled(model).bytes("plan.bin");
        knock(doors::plan, doors::payload(&plan), 3000, 4);
    }
    knock(doors::plan, doors::payload(&table().to_bytes().0), 4000, 6);
}

/// A plan of one table step, whose entries are most of its bytes.
fn table() -> Plan {
    let table = Table::of((9, 6, 7, 12), |y| y.abs() * 5.0).unwrap();
    let step = |op: StepOp, operands, ring| Step {
        name: op.name().into(),
        op,
        operands,
        shape: Shape::new([1, 5]),
        ring,
        fraction_bits: 0,
    };
    let steps = vec![step(StepOp::Input, vec![], 9), step(table.into(), vec![ValueId(0)], 12)];
    let plan = Plan::of_steps("table", steps, ValueId(1), (4.0, 60.0), 60.0);
    plan.verify().unwrap();
    plan
}

#[test]
fn every_flipped_byte_of_a_plan_is_noticed() {
    let (bytes, _) = SMALL.plan.to_bytes();
    for at in 0..bytes.len() {
        for flip in [1, 0x10, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            assert!(Plan::from_bytes(&damaged).is_err(), "byte {at}");
        }
        assert!(Plan::from_bytes(&bytes[..at]).is_err(), "{at} bytes");
    }
    assert!(Plan::from_bytes(&bytes).is_ok());
}

#[test]
fn weights() {
    knock(doors::weights, doors::payload(&SMALL.weights.to_bytes(None)), 6000, 5);
}

#[test]
fn greetings() {
    let hello = doors::own_hello(Role::Party1).to_bytes();
    let mut bytes = hello.to_vec();
    bytes.extend_from_slice(b"agreed\r\n");
    bytes.extend_from_slice(&2u64.to_le_bytes());
    knock(doors::hello, &bytes, 6000, 6);
    // Free is a number of items that only grows.
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x81;
        let is_free = matches!(at, 88..96);
        assert_eq!(doors::hello(&damaged), is_free, "byte {at}");
    }
}

#[test]
fn names_in_plans_have_no_control_characters() {
    let mut plan = SMALL.plan.clone();
    plan.steps[1].name = "a\u{1b}[2J\nb".into();
    assert!(Plan::from_bytes(&plan.to_bytes().0).is_err());
}

/// A channel that damages the message with this number.
fn tampering(channel: MemoryChannel, message: usize, seed: u64) -> impl Channel {
    let mut count = 0;
    let on_receive = move |bytes: &mut Vec<u8>| {
        if count == message {
            let mut numbers = Numbers(seed);
            bytes.iter_mut().for_each(|b| *b ^= numbers.draw() as u8);
        }
        count += 1;
    };
    Tap::new(channel, |_: &[u8]| (), on_receive)
}

/// Noise in place of any message ends in a line or in a wrong answer, never in a panic.
#[test]
fn noise_in_place_of_a_message() {
    let compiled = support::compiled("digits_herpn");
    let inputs = digits(&compiled.plan, 2);
    let messages = compiled.plan.messages().len();
    let (mut refused, mut wrong) = (0, 0);
    for message in 0..messages + 3 {
        for side in 0..2 {
            let (a, b) = memory_pair(Duration::from_secs(20));
            let noise = |channel: MemoryChannel, is_here: bool| {
                let at = if is_here { message } else { usize::MAX };
                tampering(channel, at, message as u64 + 1)
            };
            let channels = (noise(a, side == 0), noise(b, side == 1));
            match polyrt::in_process::run_over(&compiled.plan, &compiled.weights, &inputs, channels)
            {
                Ok(run) => wrong += usize::from(run.logits.len() == inputs.len()),
                Err(polyrt::Error::Internal(reason)) => panic!("message {message}: {reason}"),
                Err(error) => {
                    assert!(!error.to_string().contains('\n'));
                    refused += 1;
                }
            }
        }
    }
    assert!(refused >= 4 && wrong >= messages, "{refused} refused, {wrong} ran");
}

/// Damaged array files.
#[test]
fn arrays() {
    let npy = std::fs::read(shipped("one_digit.npy")).unwrap();
    let npz = std::fs::read(shipped("digits_mlp.expected.npz")).unwrap();
    assert_eq!(array(&shipped("digits_mlp.expected.npz"), "logits").shape.0, [500, 10]);
    fn read_npy(bytes: &[u8]) -> bool {
        ir::array_file::read_npy(bytes).is_ok()
    }
    fn read_npz(bytes: &[u8]) -> bool {
        ir::array_file::read_npz(std::io::Cursor::new(bytes), None).is_ok()
    }
    knock(read_npy, &npy, 3000, 7);
    knock(read_npz, &npz, 1000, 8);
}

/// Damaged images.
#[test]
fn images() {
    let png = support::grey_png(8, 8, &[50; 64]);
    let jpeg = include_bytes!("../ir/testdata/two_colours.jpg");
    fn read(bytes: &[u8]) -> bool {
        let model = ir::Shape::new([1, 3, 8, 8]);
        match ir::input::Preprocessing::default().read(bytes, ("x", true), &model, None) {
            Ok(inputs) => {
                assert_eq!(inputs.tensors[0].shape, model);
                true
            }
            Err(line) => {
                assert!(!line.contains('\n'), "{line}");
                false
            }
        }
    }
    knock(read, &png, 2000, 9);
    knock(read, jpeg, 2000, 10);
}
