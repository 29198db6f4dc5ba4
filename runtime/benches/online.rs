//! Party 0's computation online, per inference, on one core: what it does between messages. The peer is
//! a stand-in that answers at once with bytes of the right length; the time within the channel is taken
//! off. Medians over repetitions. Bound to one core (`taskset -c 0`) it is the work of one core, that of
//! the thread which takes responses included.
//!
//! `cargo bench -p polyrt --bench online --profile dev -- plan.bin [plan.weights [batch [set]]]`; in the
//! place of a plan's file also `resnet18` or `resnet50`, with `-` for the weights.

mod networks;

use ir::plan::{Commitment, Plan, Weights};
use polyrt::handshake::{Hello, Purpose};
use polyrt::kernel::InstructionSet;
use polyrt::net::{Channel, NetError, Receiving, Sending};
use polyrt::online::Model;
use polyrt::preprocess::dealer::deal;
use polyrt::preprocess::expand::Seed;
use polyrt::preprocess::item::{Origin, Party0Item};
use polyrt::preprocess::store::MemorySupply;
use polyrt::preprocess::{DealId, Network, Offer, Role};
use polyrt::steps::Tables;
use polyrt::{Connected, Finished};
use std::collections::VecDeque;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use zeroize::Zeroizing;

const DEAL: DealId = DealId([7; 16]);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with("--"));
    let Some(path) = arguments.next() else {
        println!("no plan given: nothing to measure");
        return Ok(());
    };
    let weights = arguments.next().unwrap_or_else(|| path.replace(".bin", ".weights"));
    let batch = arguments.next().map_or(Ok(1), |b| b.parse())?;
    let only = arguments.next();
    let (plan, weights, digest) = match networks::named(&path) {
        Some((plan, weights)) => {
            plan.verify()?;
            let digest = weights.plan;
            (plan, weights, digest)
        }
        None => {
            let (plan, digest) = Plan::from_bytes(&std::fs::read(path)?)?;
            let weights = Weights::from_bytes(&std::fs::read(weights)?, &plan, digest)?;
            (plan, weights, digest)
        }
    };
    let products: usize = (0..plan.steps.len()).map(|s| plan.multiplications(s)).sum();
    println!("{}: {:.1} M products, batch {batch}", plan.name, products as f64 / 1e6);
    let item = deal(&plan, &weights, Seed::from_system()?, Seed::from_system()?).0;
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
    for set in InstructionSet::available() {
        if only.as_ref().is_some_and(|only| *only != format!("{set:?}")) {
            continue;
        }
        let model = Arc::new(Model::with(set, &plan, &weights));
        let (mut times, mut preparations) = (vec![], vec![]);
        for _ in 0..(if products > 1 << 30 { 7 } else { 41 }) {
            let (preparation, time) = pool.install(|| run(&plan, digest, &model, &item, batch))?;
            times.push(time);
            preparations.push(preparation);
        }
        times.sort_by(f64::total_cmp);
        preparations.sort_by(f64::total_cmp);
        let (median, least) = (times[times.len() / 2], times[0]);
        let preparation = preparations[preparations.len() / 2];
        println!(
            "{set:?}: {median:.3} ms per inference, at least {least:.3}; taking its correlations \
             before, {preparation:.3}"
        );
    }
    Ok(())
}

/// Milliseconds per inference of one run: before the online phase, and in it.
fn run(
    plan: &Plan,
    digest: ir::plan::Digest,
    model: &Arc<Model<'_>>,
    item: &Zeroizing<Vec<u8>>,
    batch: usize,
) -> Result<(f64, f64), polyrt::Error> {
    let items = (0..batch).filter_map(|_| Party0Item::new(plan, item.clone())).collect();
    let network = Network { plan: digest, weights: Some(Commitment([1; 32])) };
    let mut supply = MemorySupply::new(Role::Party0, network, DEAL, items);
    let offer = Offer {
        role: Role::Party1,
        origin: Origin::Dealer,
        plan: digest,
        weights: None,
        is_stale: false,
        deal: DEAL,
        next: 0,
        count: batch as u64,
        length: batch as u64,
    };
    let tables = Tables::new(plan).digest();
    let hello =
        Hello { batch: batch as u32, tables, purpose: Purpose::Run, is_replaceable: false, offer };
    let mut confirm = b"agreed\r\n".to_vec();
    confirm.extend([0; 8]);
    let hello = hello.to_bytes();
    let mut messages = VecDeque::from([[&hello[..], &confirm].concat()]);
    let received = plan.messages().into_iter();
    for message in received.filter(|m| m.direction == ir::plan::Direction::ToParty0) {
        let mut bytes: Vec<u8> =
            (0..message.bytes(batch)).map(|i| ((i * 151) >> 3) as u8).collect();
        if let Some(last) = bytes.last_mut() {
            *last = 0;
        }
        messages.push_back(bytes);
    }
    let within = Arc::new(AtomicU64::new(0));
    let channel = StandIn { messages, taken: 0, within: within.clone() };
    let agreed = Connected::new(channel).agree(plan, digest, batch, &mut supply)?;
    let start = Instant::now();
    let prepared = agreed.prepare_model(model.clone())?;
    let preparation = start.elapsed().as_secs_f64() * 1e3;
    within.store(0, Ordering::Relaxed);
    let Finished { elapsed, .. } = prepared.run()?;
    let own = elapsed.as_nanos() as u64 - within.load(Ordering::Relaxed);
    Ok((preparation / batch as f64, own as f64 / 1e6 / batch as f64))
}

/// A peer whose messages are there already.
struct StandIn {
    messages: VecDeque<Vec<u8>>,
    /// Bytes of the first that were taken.
    taken: usize,
    /// Nanoseconds spent in the channel.
    within: Arc<AtomicU64>,
}

impl Channel for StandIn {
    fn halves(&mut self) -> (Box<dyn Sending + '_>, Box<dyn Receiving + '_>) {
        let half = Half {
            messages: &mut self.messages,
            taken: &mut self.taken,
            within: self.within.clone(),
        };
        (Box::new(Silent), Box::new(half))
    }
}

struct Silent;

impl Sending for Silent {
    fn send_part(&mut self, _: &[u8], _: bool) -> Result<(), NetError> {
        Ok(())
    }
}

struct Half<'a> {
    messages: &'a mut VecDeque<Vec<u8>>,
    taken: &'a mut usize,
    within: Arc<AtomicU64>,
}

impl Receiving for Half<'_> {
    fn receive_part(&mut self, part: &mut [u8], _: bool) -> Result<(), NetError> {
        let start = Instant::now();
        // As the network would, it leaves the bytes in this core's cache.
        let message = self.messages.front().ok_or(NetError::Closed)?;
        let bytes = message.get(*self.taken..*self.taken + part.len()).ok_or(NetError::Closed)?;
        part.copy_from_slice(bytes);
        *self.taken += part.len();
        if *self.taken == message.len() {
            self.messages.pop_front();
            *self.taken = 0;
        }
        self.within.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(())
    }
}
