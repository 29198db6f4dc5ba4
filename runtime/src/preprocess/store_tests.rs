//! The store gives each item out once, whatever happens to the process or the file.

use super::dealer::deal;
use super::expand::Seed;
use super::item::{Origin, Party0Item};
use super::parties;
use super::store::{Store, StoreError, StoreWriter, create_growing};
use super::{DealId, Network, Role, Supply};
use crate::Connected;
use crate::net::memory_pair;
use crate::testing::plans;
use crate::words::Words;
use ir::plan::{Digest, Evaluator, Plan, Rounding, Weights, carry_noise};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A directory that is removed with the test.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("polyrt-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, role: Role) -> PathBuf {
        self.0.join(if role == Role::Party0 { "0" } else { "1" })
    }
}
impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn write(directory: &Directory, plan: &Plan, weights: &Weights, count: u64) -> Network {
    let network = Network::of_party0(plan.to_bytes().1, weights);
    let made_for = (network.plan, weights.commitment());
    let deal_id = DealId([3; 16]);
    let create = |role| {
        StoreWriter::create(&directory.file(role), role, plan, made_for, deal_id, count).unwrap()
    };
    let (mut writer0, mut writer1) = (create(Role::Party0), create(Role::Party1));
    for _ in 0..count {
        let seed = || Seed::from_system().unwrap();
        let (item0, item1) = deal(plan, weights, seed(), seed());
        writer0.append(&item0).unwrap();
        writer1.append(&item1).unwrap();
    }
    assert!(!directory.file(Role::Party0).exists(), "nothing has its name before it is whole");
    writer0.finish().unwrap();
    writer1.finish().unwrap();
    network
}

fn line<T>(result: Result<T, StoreError>) -> String {
    let Err(e) = result else { panic!("expected a refusal") };
    let line = e.to_string();
    assert!(!line.contains('\n'));
    line
}

fn damage(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn items_are_used_once_across_openings() {
    let directory = Directory::new("once");
    let (plan, weights) = plans::tiny();
    let network = write(&directory, &plan, &weights, 5);
    let path = directory.file(Role::Party1);
    let open = || Store::open_party1(&path, &plan, network, Origin::Dealer);
    let mut store = open().unwrap();
    assert!(line(open()).contains("is in use by another process"));
    assert_eq!((store.offer().next, store.offer().count), (0, 5));
    assert_eq!(store.claim(1..3).unwrap().len(), 2);
    drop(store);
    let mut store = open().unwrap();
    assert_eq!(store.offer().next, 3, "what was skipped is used up as well");
    for (serials, text) in [(0..1, "items 0 to 1"), (2..4, "items 2 to 4"), (3..6, "items 3 to 6")]
    {
        assert!(line(store.claim(serials)).starts_with(text));
    }
    assert!(store.claim(3..5).is_ok());
    assert!(line(store.claim(5..6)).contains("5 to 5 of 5 are left"));
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_alone_and_spent_items_are_erased() {
    use std::os::unix::fs::PermissionsExt;
    let directory = Directory::new("erased");
    let (plan, weights) = plans::tiny();
    let network = write(&directory, &plan, &weights, 2);
    let path = directory.file(Role::Party1);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&path).unwrap();
    let mut store = Store::open_party1(&path, &plan, network, Origin::Dealer).unwrap();
    store.claim(0..1).unwrap();
    let after = std::fs::read(&path).unwrap();
    let item = before.len() - 2 * 65 + 1..before.len() - 65;
    assert!(before[item.clone()].iter().any(|&b| b != 0));
    assert!(after[item.clone()].iter().all(|&b| b == 0));
    assert_eq!(before[item.end..], after[item.end..]);
}

/// Items that stay in the file give what items in memory give; they are erased when they were used, or by
/// the next opening after a crash, and nobody opens the file before.
#[test]
fn large_items_stay_in_the_file_while_they_are_used() {
    let directory = Directory::new("stay");
    let (plan, weights) = plans::tiny();
    let network = write(&directory, &plan, &weights, 4);
    let path = directory.file(Role::Party0);
    let before = std::fs::read(&path).unwrap();
    let open = || Store::open_party0(&path, &plan, network, Origin::Dealer);
    let copy = path.with_extension("copy");
    std::fs::copy(&path, &copy).unwrap();
    let mut in_memory = Store::open_party0(&copy, &plan, network, Origin::Dealer).unwrap();
    let mut store = open().unwrap().reading_at_once(0);
    let record = store.item_bytes() + 33;
    let records = before.len() - 4 * record;
    let item = |serial: usize| records + serial * record + 1..records + (serial + 1) * record;
    let is_erased = |serial| std::fs::read(&path).unwrap()[item(serial)].iter().all(|&b| b == 0);

    let mut stay = store.claim(1..3).unwrap();
    let mut read = in_memory.claim(1..3).unwrap();
    assert!(is_erased(0) && !is_erased(1) && !is_erased(2), "what was skipped is erased at once");
    drop(store);
    assert!(line(open()).contains("is in use by another process"), "its items are in use");
    for (stays, read) in stay.iter_mut().zip(&mut read) {
        let phase = |item: &mut Party0Item<'_>| {
            let (mut u, mut products) = (vec![0u16; 5], Words::zeros(44, 20));
            let record = item.take(2).unwrap();
            record.draw(crate::preprocess::expand::Domain::Opening, 7, 1, &mut u);
            record.field(0, &ir::Shape::new([5]), 4, products.part_mut(0..20)).unwrap();
            (u, products)
        };
        assert!(phase(stays) == phase(read));
    }
    drop(stay.pop());
    assert!(!is_erased(1) && is_erased(2) && !is_erased(3));
    drop(stay);
    assert!(is_erased(1));

    // A crash: the item is marked, used, and not erased.
    let crashed = std::fs::read(&path).unwrap();
    let mut store = open().unwrap().reading_at_once(0);
    drop(store.claim(3..4).unwrap());
    drop(store);
    let mut left = crashed;
    left[item(3).start - 1] = 2;
    std::fs::write(&path, &left).unwrap();
    assert!(!is_erased(3));
    assert_eq!(open().unwrap().offer().next, 4);
    assert!(is_erased(3), "the next opening erases it");

    damage(&copy, item(3).start + 40);
    drop(in_memory);
    let store = Store::open_party0(&copy, &plan, network, Origin::Dealer).unwrap();
    let claimed = store.reading_at_once(0).claim(3..4);
    assert!(line(claimed).contains("item 3 is damaged"));
}

#[test]
fn other_files_are_refused_with_both_values() {
    let directory = Directory::new("refused");
    let (plan, weights) = plans::tiny();
    let network = write(&directory, &plan, &weights, 2);
    let (path0, path1) = (directory.file(Role::Party0), directory.file(Role::Party1));
    let swapped = line(Store::open_party0(&path1, &plan, network, Origin::Dealer));
    assert!(swapped.ends_with("holds the correlations of party 1, expected those of party 0"));
    let other = line(Store::open_party0(
        &path0,
        &plan,
        Network { plan: Digest([1; 32]), ..network },
        Origin::Dealer,
    ));
    assert!(
        other.ends_with(&format!(
            "was made for plan {}, this is plan 0101010101010101",
            network.plan
        ))
    );
    let bytes = std::fs::read(&path0).unwrap();
    std::fs::write(&path0, &bytes[..bytes.len() - 1]).unwrap();
    assert!(
        line(Store::open_party0(&path0, &plan, network, Origin::Dealer))
            .contains("is damaged: it has")
    );
    for length in 0..100 {
        std::fs::write(&path0, &bytes[..length]).unwrap();
        line(Store::open_party0(&path0, &plan, network, Origin::Dealer));
    }
    std::fs::write(&path0, &bytes).unwrap();
    for at in 0..100 {
        damage(&path0, at);
        line(Store::open_party0(&path0, &plan, network, Origin::Dealer));
        damage(&path0, at);
    }
}

#[test]
fn a_damaged_item_is_refused_and_stays_used() {
    let directory = Directory::new("damaged");
    let (plan, weights) = plans::tiny();
    let network = write(&directory, &plan, &weights, 2);
    let path = directory.file(Role::Party0);
    let length = std::fs::metadata(&path).unwrap().len() as usize;
    damage(&path, length - 40);
    let mut store = Store::open_party0(&path, &plan, network, Origin::Dealer).unwrap();
    assert!(store.claim(0..1).is_ok());
    assert!(line(store.claim(1..2)).contains("item 1 is damaged"));
    drop(store);
    assert_eq!(Store::open_party0(&path, &plan, network, Origin::Dealer).unwrap().offer().next, 2);
}

#[test]
fn items_cannot_change_places() {
    let directory = Directory::new("places");
    let (plan, weights) = plans::tiny();
    let network = write(&directory, &plan, &weights, 2);
    let path = directory.file(Role::Party1);
    let mut bytes = std::fs::read(&path).unwrap();
    let (half, end) = (bytes.len() - 65, bytes.len());
    let last = bytes[half..end].to_vec();
    bytes.copy_within(half - 65..half, half);
    bytes[half - 65..half].copy_from_slice(&last);
    std::fs::write(&path, bytes).unwrap();
    let mut store = Store::open_party1(&path, &plan, network, Origin::Dealer).unwrap();
    assert!(line(store.claim(0..1)).contains("item 0 is damaged"));
}

/// A party that vanishes at any moment after the hellos leaves the peer's items marked, and the next run
/// takes later ones at both sides.
#[test]
fn a_crash_loses_items_and_never_uses_one_twice() {
    let directory = Directory::new("crash");
    let (plan, weights) = plans::tiny();
    let network = write(&directory, &plan, &weights, 6);
    let inputs: Vec<_> =
        plans::inputs(&plan, 2, 1).iter().map(|x| plan.encode_input(x).unwrap()).collect();
    let run = |party1_crashes: bool| {
        let (end0, end1) = memory_pair(Duration::from_secs(20));
        std::thread::scope(|scope| {
            let party0 = scope.spawn(|| {
                let path = directory.file(Role::Party0);
                let mut store = Store::open_party0(&path, &plan, network, Origin::Dealer).unwrap();
                let agreed = Connected::new(end0).agree(&plan, network.plan, 9, &mut store)?;
                agreed.prepare_party0(&weights)?.run()
            });
            let mut store =
                Store::open_party1(&directory.file(Role::Party1), &plan, network, Origin::Dealer)
                    .unwrap();
            let agreed = Connected::new(end1).agree(&plan, network.plan, 2, &mut store);
            if party1_crashes {
                drop(agreed);
                return party0.join().unwrap().map(|_| ());
            }
            agreed?.prepare_party1()?.run(&inputs)?;
            party0.join().unwrap().map(|_| ())
        })
    };
    let next = |role| match role {
        Role::Party0 => {
            Store::open_party0(&directory.file(role), &plan, network, Origin::Dealer)
                .unwrap()
                .offer()
                .next
        }
        Role::Party1 => {
            Store::open_party1(&directory.file(role), &plan, network, Origin::Dealer)
                .unwrap()
                .offer()
                .next
        }
    };
    assert!(run(true).is_err());
    assert_eq!((next(Role::Party0), next(Role::Party1)), (2, 2));
    Store::open_party0(&directory.file(Role::Party0), &plan, network, Origin::Dealer)
        .unwrap()
        .claim(2..3)
        .unwrap();
    assert!(run(false).is_ok());
    assert_eq!((next(Role::Party0), next(Role::Party1)), (5, 5));
    let exhausted = run(false).unwrap_err().to_string();
    assert!(exhausted.contains("1 of 6 correlations left, party 1 1 of 6, and 2 are needed"));
}

/// Trees of table steps come out of files as they went in, whoever made them and wherever their bytes stay meanwhile; of a
/// dealt item party 1's half has them as well.
#[test]
fn trees_come_out_of_files() {
    let (plan, weights) = plans::tables();
    let reals = plans::inputs(&plan, 2, 1);
    let inputs: Vec<_> = reals.iter().map(|x| plan.encode_input(x).unwrap()).collect();
    let evaluator = Evaluator::new(&plan, &weights);
    let want = evaluator.run_batch(&inputs, Rounding::Nearest);
    let bound = carry_noise(&evaluator, &inputs, 20).bound;
    for origin in [Origin::Dealer, Origin::Parties] {
        let directory = Directory::new(&format!("trees {}", origin == Origin::Dealer));
        let network = match origin {
            Origin::Dealer => write(&directory, &plan, &weights, 4),
            Origin::Parties => prepare(&directory, &plan, &weights, 4),
        };
        for at_once in [usize::MAX, 0] {
            let (end0, end1) = memory_pair(Duration::from_secs(20));
            let outputs = std::thread::scope(|scope| {
                let party0 = scope.spawn(|| {
                    let path = directory.file(Role::Party0);
                    let store = Store::open_party0(&path, &plan, network, origin).unwrap();
                    let mut store = store.reading_at_once(at_once);
                    let agreed = Connected::new(end0).agree(&plan, network.plan, 9, &mut store);
                    agreed.unwrap().prepare_party0(&weights).unwrap().run().unwrap();
                });
                let path = directory.file(Role::Party1);
                let store = Store::open_party1(&path, &plan, network, origin).unwrap();
                let mut store = store.reading_at_once(at_once);
                let agreed = Connected::new(end1).agree(&plan, network.plan, 2, &mut store);
                let finished = agreed.unwrap().prepare_party1().unwrap().run(&inputs).unwrap();
                party0.join().unwrap();
                finished.output
            });
            for (got, want) in outputs.iter().zip(&want) {
                for (a, b) in plan.decode_output(got).data.iter().zip(&want.data) {
                    assert!(f64::from(a - b).abs() <= bound, "{origin}: {a} {b} {bound}");
                }
            }
        }
    }
}

/// Files of items that the two parties make.
fn prepare(directory: &Directory, plan: &Plan, weights: &Weights, count: usize) -> Network {
    let network = Network::of_party0(plan.to_bytes().1, weights);
    let made_for = (network.plan, weights.commitment());
    for role in [Role::Party0, Role::Party1] {
        create_growing(&directory.file(role), role, plan, made_for, DealId([4; 16])).unwrap();
    }
    let (mut end0, mut end1) = memory_pair(Duration::from_secs(20));
    let (path0, path1) = (directory.file(Role::Party0), directory.file(Role::Party1));
    let mut store0 = Store::open_party0(&path0, plan, network, Origin::Parties).unwrap();
    let mut store1 = Store::open_party1(&path1, plan, network, Origin::Parties).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let keep = |item: super::item::Item| Ok(store0.append(&item)?);
            parties::party0(&mut end0, plan, weights, count, &mut |_| (), keep).unwrap();
        });
        let keep = |item: super::item::Item| Ok(store1.append(&item)?);
        parties::party1(&mut end1, plan, count, &mut |_| (), keep).unwrap();
    });
    network
}
