//! Both parties in one process, with correlations preprocessed or dealt for the run.

use crate::Error;
use crate::net::{Channel, memory_pair};
use crate::preprocess::dealer::deal;
use crate::preprocess::expand::Seed;
use crate::preprocess::item::{Party0Item, Party1Item};
use crate::preprocess::store::{MemorySupply, NoSupply};
use crate::preprocess::{DealId, Network, Role, Supply};
use crate::session::{Connected, Finished};
use ir::Tensor;
use ir::plan::{Digest, Plan, Weights};
use rayon::prelude::*;
use std::time::Duration;

/// What [`run_in_memory`] returns.
pub struct InMemory {
    /// Party 1's side; the output's ring elements.
    pub party1: Finished<Vec<Tensor<u64>>>,
    /// Party 0's side.
    pub party0: Finished<()>,
    /// The decoded output of every input, before [`Plan::finish`].
    pub logits: Vec<Tensor<f32>>,
    /// What party 1 ends up with, after [`Plan::finish`].
    pub outputs: Vec<Vec<Tensor<f32>>>,
}

/// Party 0's and party 1's supplies of one deal.
pub type Supplies<'a> = (MemorySupply<Party0Item<'a>>, MemorySupply<Party1Item<'a>>);

/// Runs both parties over the in-memory channel with freshly dealt correlations, an item per input. The
/// inputs are reals of the plan's input shape.
///
/// # Errors
/// If an input does not fit the plan.
pub fn run_in_memory(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Tensor<f32>],
) -> Result<InMemory, Error> {
    let timeout = Duration::from_secs(600);
    run_over(plan, weights, inputs, memory_pair(timeout))
}

/// As [`run_in_memory`] over a connected pair of channels, party 0's and party 1's end.
///
/// # Errors
/// If an input does not fit the plan, or the channel breaks.
pub fn run_over<A: Channel, B: Channel>(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Tensor<f32>],
    channels: (A, B),
) -> Result<InMemory, Error> {
    let (_, digest) = plan.to_bytes();
    let mut supplies = deal_in_memory(plan, digest, weights, inputs.len())?;
    run_with(plan, weights, inputs, channels, (&mut supplies.0, &mut supplies.1))
}

/// As [`run_over`], where the two parties make the correlations.
///
/// # Errors
/// If an input does not fit the plan, or the channel breaks.
pub fn run_without_dealer<A: Channel, B: Channel>(
    plan: &Plan,
    weights: &Weights,
    inputs: &[Tensor<f32>],
    channels: (A, B),
) -> Result<InMemory, Error> {
    let (_, digest) = plan.to_bytes();
    let [network0, network1] = networks(digest, weights);
    let none = DealId([0; 16]);
    let (mut supply0, mut supply1) =
        (NoSupply::new(Role::Party0, network0, none), NoSupply::new(Role::Party1, network1, none));
    run_with(plan, weights, inputs, channels, (&mut supply0, &mut supply1))
}

fn run_with<'a, A: Channel, B: Channel>(
    plan: &'a Plan,
    weights: &Weights,
    inputs: &[Tensor<f32>],
    (channel0, channel1): (A, B),
    (supply0, supply1): (
        &mut (impl Supply<Material = Party0Item<'a>> + Send),
        &mut impl Supply<Material = Party1Item<'a>>,
    ),
) -> Result<InMemory, Error> {
    let encoded: Vec<Tensor<u64>> =
        inputs.iter().map(|x| plan.encode_input(x)).collect::<Result<_, _>>()?;
    let digest = supply1.offer().plan;
    let batch = inputs.len();
    let (party0, party1) = std::thread::scope(|scope| {
        let party0 = scope.spawn(|| {
            Connected::new(channel0)
                .agree(plan, digest, batch, supply0)?
                .preprocess_party0(weights, &mut |_| ())?
                .prepare_party0(weights)?
                .run()
        });
        let party1 = Connected::new(channel1)
            .agree(plan, digest, batch, supply1)
            .and_then(|agreed| agreed.preprocess_party1(&mut |_| ()))
            .and_then(|agreed| agreed.prepare_party1())
            .and_then(|prepared| prepared.run(&encoded));
        let party0 = party0.join();
        (party0, party1)
    });
    let party0 = party0.map_err(|_| Error::Internal("party 0's thread stopped".into()))?;
    let (party0, party1) = match (party0, party1) {
        (Ok(party0), Ok(party1)) => (party0, party1),
        (Err(Error::Net { .. }), Err(cause)) | (Err(cause), _) | (Ok(_), Err(cause)) => {
            return Err(cause);
        }
    };
    let logits: Vec<_> = party1.output.iter().map(|y| plan.decode_output(y)).collect();
    let outputs = logits.iter().map(|y| plan.finish(y)).collect();
    Ok(InMemory { party1, party0, logits, outputs })
}

/// Deals `count` items in memory.
///
/// # Errors
/// If the operating system has no randomness.
pub fn deal_in_memory<'a>(
    plan: &'a Plan,
    digest: Digest,
    weights: &Weights,
    count: usize,
) -> Result<Supplies<'a>, Error> {
    let mut id = DealId([0; 16]);
    getrandom::fill(&mut id.0)?;
    let make = |_| -> Result<_, Error> {
        let (item0, item1) = deal(plan, weights, Seed::from_system()?, Seed::from_system()?);
        let halves = Party0Item::new(plan, item0).zip(Party1Item::new(plan, item1));
        halves.ok_or_else(|| Error::Internal("a dealt item has another length".into()))
    };
    let items: Vec<_> = (0..count).into_par_iter().map(make).collect::<Result<_, _>>()?;
    let (items0, items1) = items.into_iter().unzip();
    let [network0, network1] = networks(digest, weights);
    Ok((
        MemorySupply::new(Role::Party0, network0, id, items0),
        MemorySupply::new(Role::Party1, network1, id, items1),
    ))
}

/// What the two parties know of a network.
fn networks(digest: Digest, weights: &Weights) -> [Network; 2] {
    [Network::of_party0(digest, weights), Network::of_party1(digest)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::TcpChannel;
    use crate::testing::plans;
    use ir::plan::{Evaluator, Rounding};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_meter_shows_the_plans_messages() {
        let (plan, weights) = plans::every_kind();
        for batch in [1, 5] {
            let run = run_in_memory(&plan, &weights, &plans::inputs(&plan, batch, 3)).unwrap();
            let (to0, to1, messages) = plan.traffic(batch);
            let online = run.party1.online;
            assert_eq!((online.sent_bytes, online.received_bytes), (to0, to1));
            assert_eq!(online.sent_messages + online.received_messages, messages);
            let online = run.party0.online;
            assert_eq!((online.received_bytes, online.sent_bytes), (to0, to1));
            assert_eq!(online.sent_messages + online.received_messages, messages);
        }
    }

    /// A batch whose messages are longer than the system's buffers, over a real connection: parts travel both
    /// ways at once, and nobody waits for ever.
    #[test]
    fn long_messages_cross_a_connection_in_parts() {
        let (plan, weights) = plans::large_phases();
        let inputs = plans::inputs(&plan, 360, 8);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let patience = Duration::from_secs(20);
        let end = |stream| TcpChannel::new(stream, patience).unwrap();
        let ends = (end(listener.accept().unwrap().0), end(client));
        let run = run_over(&plan, &weights, &inputs, ends).unwrap();
        let longest = plan.messages().iter().map(|m| m.bytes(inputs.len())).max().unwrap();
        assert!(longest > 3 << 20, "{longest} bytes");
        let (to0, to1, messages) = plan.traffic(inputs.len());
        for (online, expected) in [(run.party0.online, (to1, to0)), (run.party1.online, (to0, to1))]
        {
            assert_eq!((online.sent_bytes, online.received_bytes), expected);
            assert_eq!(online.sent_messages + online.received_messages, messages);
        }
        check(&plan, &weights, &inputs, &run);
    }

    #[test]
    fn a_small_network_agrees_with_the_evaluator() {
        let (plan, weights) = plans::tiny();
        let inputs = plans::inputs(&plan, 20, 4);
        let run = run_in_memory(&plan, &weights, &inputs).unwrap();
        check(&plan, &weights, &inputs, &run);
    }

    /// The logits are the evaluator's, up to carries.
    fn check(plan: &Plan, weights: &Weights, inputs: &[Tensor<f32>], run: &InMemory) {
        let encoded: Vec<_> = inputs.iter().map(|x| plan.encode_input(x).unwrap()).collect();
        let evaluator = Evaluator::new(plan, weights);
        let noise = ir::plan::carry_noise(&evaluator, &encoded, 20);
        let exact = evaluator.run_batch(&encoded, Rounding::Nearest);
        for (got, want) in run.logits.iter().zip(&exact) {
            for (a, b) in got.data.iter().zip(&want.data) {
                assert!(f64::from(a - b).abs() <= noise.bound, "{a} {b} {}", noise.bound);
            }
        }
    }
}
