//! The doors through which bytes of others come in. Whatever they are, nothing may panic; an answer is
//! either a value that keeps every rule or an error of one line.

use crate::{Numbers, onnx};
use ir::Tensor;
use ir::plan::{Digest, Evaluator, FileError, Plan, Rounding, Weights};
use polyc::fit::Calibration;
use polyc::onnx::{ImportError, ImportOptions, import_bytes};
use polyc::passes::PassOptions;
use polyc::report::{Network, report};
use polyc::{CompileOptions, Compiled, compile, prepare_plain};
use polyrt::handshake::{Hello, Purpose, confirm, exchange};
use polyrt::net::{Channel, NetError, Receiving, Sending};
use polyrt::preprocess::item::{Origin, item_bytes};
use polyrt::preprocess::{DealId, Offer, Role};
use polyrt::steps::Tables;
use sha2::{Digest as _, Sha256};
use std::fmt::Display;
use std::sync::LazyLock;

/// A small model that compiles in no time.
pub static SMALL_MODEL: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut numbers = Numbers(1);
    let mut layer =
        |inputs, outputs| (numbers.reals(inputs * outputs, 0.7), numbers.reals(outputs, 0.2));
    let (first, second) = (layer(5, 6), layer(6, 3));
    onnx::perceptron([5, 6, 3], (&first.0, &first.1), (&second.0, &second.1))
});

/// [`SMALL_MODEL`], compiled.
pub static SMALL: LazyLock<Compiled> = LazyLock::new(|| compile_bytes(&SMALL_MODEL));

/// Compiles a model on made-up inputs in [−1, 1].
///
/// # Panics
/// If it does not compile.
pub fn compile_bytes(model: &[u8]) -> Compiled {
    let imported = import_bytes(model, &ImportOptions::default()).unwrap();
    let prepared = prepare_plain(imported, &PassOptions::default()).unwrap();
    let shape = prepared.graph.node(prepared.graph.input()).shape.clone();
    let calibration = Calibration::synthetic(&shape, (-1.0, 1.0), 256);
    compile("small", &prepared, &calibration, &CompileOptions::default(), &mut |_| ()).unwrap()
}

/// Bytes of an ONNX model. Returns whether they were taken.
///
/// # Panics
/// If a rule is broken.
pub fn model(bytes: &[u8]) -> bool {
    match import_bytes(bytes, &ImportOptions::default()) {
        Ok(imported) => {
            if let Err(error) = prepare_plain(imported, &PassOptions::default()) {
                check_lines(&error);
            }
            true
        }
        Err(ImportError::Internal(reason)) => panic!("internal error: {reason}"),
        Err(error) => {
            check_lines(&error);
            false
        }
    }
}

/// Bytes of a plan, and a plan whose payload they are. Returns whether the latter was taken.
///
/// # Panics
/// If a rule is broken.
pub fn plan(payload: &[u8]) -> bool {
    if let Err(error) = Plan::from_bytes(payload) {
        check_line(&error);
    }
    match Plan::from_bytes(&seal(b"polyplan", payload)) {
        Ok((plan, digest)) => {
            use_plan(&plan, digest);
            true
        }
        // Step names may hold control characters: doors.rs, `names_in_plans_have_no_control_characters`.
        Err(error @ FileError::Plan(_)) => {
            check_line(&error.to_string().escape_debug());
            false
        }
        Err(error) => {
            check_line(&error);
            false
        }
    }
}

/// Bytes of weights, and weights of the small plan whose payload they are. Returns whether the latter
/// were taken.
///
/// # Panics
/// If a rule is broken.
pub fn weights(payload: &[u8]) -> bool {
    let small = &*SMALL;
    for bytes in [payload.to_vec(), seal(b"polywght", payload)] {
        if let Err(error) = Weights::reference_from_bytes(&bytes) {
            check_line(&error);
        }
    }
    if let Err(error) = Weights::from_bytes(payload, &small.plan, small.digest) {
        check_line(&error);
    }
    match Weights::from_bytes(&seal(b"polywght", payload), &small.plan, small.digest) {
        Ok(weights) => {
            evaluate(&small.plan, &weights);
            true
        }
        Err(error) => {
            check_line(&error);
            false
        }
    }
}

/// What a peer sends before the run: hello and confirmation. Returns whether both were taken.
///
/// # Panics
/// If a rule is broken.
pub fn hello(bytes: &[u8]) -> bool {
    let mut peer = Replay(bytes);
    let agreed = exchange(&mut peer, &own_hello(Role::Party0)).and_then(|agreement| {
        assert!(agreement.serials.end <= 7 && agreement.batch <= 4);
        confirm(&mut peer, Role::Party0, agreement.serials.start)
    });
    if let Err(error) = &agreed {
        check_line(error);
    }
    agreed.is_ok()
}

/// What a party says of the small plan and seven items.
pub fn own_hello(role: Role) -> Hello {
    let small = &*SMALL;
    let offer = Offer {
        role,
        origin: Origin::Dealer,
        plan: small.digest,
        weights: Some(small.weights.commitment()),
        is_stale: false,
        deal: DealId([9; 16]),
        next: 2,
        count: 7,
        length: 7,
    };
    let tables = Tables::new(&small.plan).digest();
    let purpose = Purpose::Run;
    Hello { batch: 4, tables, purpose, is_replaceable: false, offer }
}

/// The payload of a sealed file.
pub fn payload(sealed: &[u8]) -> &[u8] {
    &sealed[8 + 2 + 1 + sealed[10] as usize + 8 + 32..]
}

/// A payload behind a header of this version, as docs/plan-format.md says.
pub fn seal(magic: &[u8; 8], payload: &[u8]) -> Vec<u8> {
    let version = ir::plan::TOOL_VERSION;
    let mut bytes = magic.to_vec();
    bytes.extend([7, 0, version.len() as u8]);
    bytes.extend_from_slice(version.as_bytes());
    bytes.extend_from_slice(&(payload.len() as u64).to_le_bytes());
    let digest = Sha256::new().chain_update(&bytes).chain_update(payload).finalize();
    bytes.extend_from_slice(&digest);
    bytes.extend_from_slice(payload);
    bytes
}

/// Everything that is done with a plan before weights or peers come in.
fn use_plan(plan: &Plan, digest: Digest) {
    let _ = plan.to_string();
    let (to0, to1, messages) = plan.traffic(3);
    let report = report(plan, digest, 3, &[Network::parse("lan").unwrap()]);
    assert_eq!(
        (report.bytes_to_party0, report.bytes_to_party1, report.messages),
        (to0, to1, messages)
    );
    let _ = report.to_text();
    for role in [Role::Party0, Role::Party1] {
        let _ = item_bytes(plan, role, Origin::Parties);
    }
    let _ = plan.offline_traffic(2);
    let _ = Tables::new(plan).digest();
    let bytes = SMALL.weights.to_bytes(None);
    let mut of_this_plan = payload(&bytes).to_vec();
    of_this_plan[..32].copy_from_slice(&digest.0);
    if let Ok(weights) = Weights::from_bytes(&seal(b"polywght", &of_this_plan), plan, digest) {
        evaluate(plan, &weights);
    }
}

fn evaluate(plan: &Plan, weights: &Weights) {
    let input: Tensor<f32> =
        Tensor::new(plan.input_shape().clone(), vec![0.0; plan.input_shape().elements()]);
    let Ok(encoded) = plan.encode_input(&input) else { return };
    let evaluator = Evaluator::new(plan, weights);
    for rounding in [Rounding::Nearest, Rounding::Sampled(1)] {
        let output = plan.decode_output(&evaluator.run(&encoded, rounding, |_, _| ()));
        let _ = plan.finish(&output);
    }
}

/// A peer that sends these bytes, takes everything, and then is gone.
struct Replay<'a>(&'a [u8]);

impl Channel for Replay<'_> {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        (Box::new(Sink), Box::new(self))
    }
}

/// Takes everything.
struct Sink;

impl Sending for Sink {
    fn send_part(&mut self, _: &[u8], _: bool) -> Result<(), NetError> {
        Ok(())
    }
}

impl Receiving for &mut Replay<'_> {
    fn receive_part(&mut self, part: &mut [u8], _: bool) -> Result<(), NetError> {
        let (bytes, rest) = self.0.split_at_checked(part.len()).ok_or(NetError::Closed)?;
        self.0 = rest;
        part.copy_from_slice(bytes);
        Ok(())
    }
}

fn check_line(error: &impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && !text.contains(['\n', '\r']), "not a line: {text:?}");
}

fn check_lines(error: &impl Display) {
    error.to_string().split('\n').for_each(|line| check_line(&line));
}
