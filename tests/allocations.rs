//! The online loop asks for no memory once a session has run: what it needs stays from one to the next.

use allocation_counter::{AllocationInfo, measure};
use polyrt::net::TcpChannel;
use polyrt::online::Model;
use polyrt::preprocess::item::{Party0Item, Party1Item};
use polyrt::preprocess::store::MemorySupply;
use polyrt::{Connected, Error, in_process};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use support::{compiled, digits};

/// Both parties over loopback, each measured in its online phase.
fn session<'a>(
    model: &Arc<Model<'a>>,
    compiled: &'a support::Written,
    supplies: (&mut MemorySupply<Party0Item<'a>>, &mut MemorySupply<Party1Item<'a>>),
    batch: usize,
) -> Result<(AllocationInfo, AllocationInfo), Error> {
    let support::Written { plan, digest, .. } = compiled;
    let encoded: Vec<_> =
        digits(plan, batch).iter().map(|x| plan.encode_input(x)).collect::<Result<_, _>>()?;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let patience = Duration::from_secs(20);
    thread::scope(|scope| {
        let party0 = scope.spawn(|| -> Result<_, Error> {
            let stream = listener.accept().unwrap().0;
            let channel = TcpChannel::new(stream, patience).unwrap();
            let agreed = Connected::new(channel).agree(plan, *digest, batch, supplies.0)?;
            let prepared = agreed.prepare_model(model.clone())?;
            let mut ended = None;
            let info = measure(|| ended = Some(prepared.run()));
            ended.unwrap().map(|_| info)
        });
        let channel = TcpChannel::new(TcpStream::connect(address).unwrap(), patience).unwrap();
        let agreed = Connected::new(channel).agree(plan, *digest, batch, supplies.1)?;
        let prepared = agreed.prepare_party1()?;
        let mut ended = None;
        let info = measure(|| ended = Some(prepared.run(&encoded)));
        ended.unwrap()?;
        Ok((party0.join().unwrap()?, info))
    })
}

#[test]
fn the_loop_asks_for_no_memory_after_the_first_inference() {
    // Convolutions, a shortcut, pooling, phases; messages that are sent whole.
    check("digits_resnet", 5, 0);
}

#[test]
fn squares_and_polynomials_ask_for_none_either() {
    check("digits_herpn", 3, 2);
    check("digits_pillar", 3, 2);
}

/// Two sessions of a shipped model with so many interactive steps at least, twice; so often a message is larger than
/// those before, and a new connection's buffers grow.
fn check(model: &str, least: usize, growth: u64) {
    let compiled = compiled(model);
    let interactive = compiled.plan.steps.iter().filter(|s| s.op.is_interactive()).count();
    assert!(interactive >= least, "{interactive} interactive steps");
    let model = Arc::new(Model::new(&compiled.plan, &compiled.weights));
    let (mut supply0, mut supply1) =
        in_process::deal_in_memory(&compiled.plan, compiled.digest, &compiled.weights, 9).unwrap();
    for batch in [1, 3] {
        let mut sessions = (0..2)
            .map(|_| session(&model, &compiled, (&mut supply0, &mut supply1), batch).unwrap());
        let (first, (party0, party1)) = (sessions.next().unwrap(), sessions.next().unwrap());
        // The halves of the channel and a new connection's buffers, whatever the number of rounds.
        assert!(party0.count_total <= 6 + growth, "{party0:?}");
        assert!(first.0.count_total > party0.count_total, "{:?}", first.0);
        // Those, the inputs in the order online, and the outputs.
        let few = 12 + 3 * batch as u64 + growth;
        assert!(party1.count_total <= few, "{party1:?}");
    }
}
