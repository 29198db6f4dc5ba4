//! Stores of the two parties: what crashes, disks and old copies do to files that grow.

use super::item::{Item, Origin, Party0Item, Party1Item, item_bytes};
use super::store::{Store, StoreError, create_growing, list};
use super::{DealId, Network, Offer, Role, Supply};
use crate::Error;
use crate::handshake::{Agreement, Hello, Purpose, exchange};
use crate::net::memory_pair;
use crate::steps::Tables;
use crate::testing::{Random, plans};
use crate::words::Words;
use ir::plan::{Commitment, Plan};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use zeroize::Zeroizing;

/// Bytes of a record besides its item.
const EXTRA: usize = 33;

/// The weights of all items here.
const WEIGHTS: Commitment = Commitment([6; 32]);

/// Both parties' files of a small plan.
struct Pair {
    path: PathBuf,
    plan: Plan,
    network: Network,
}

impl Pair {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("polyrt-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let plan = plans::tiny().0;
        let network = Network { plan: plan.to_bytes().1, weights: Some(WEIGHTS) };
        Self { path, plan, network }
    }

    fn file(&self, role: Role) -> PathBuf {
        self.path.join(if role == Role::Party0 { "0" } else { "1" })
    }

    fn create(&self, role: Role, deal: DealId) {
        create_growing(&self.file(role), role, &self.plan, (self.network.plan, WEIGHTS), deal)
            .unwrap();
    }

    fn open0(&self) -> Result<Store<'_, Party0Item<'_>>, StoreError> {
        let path = self.file(Role::Party0);
        Store::open_party0(&path, &self.plan, self.network, Origin::Parties)
    }

    fn open1(&self) -> Result<Store<'_, Party1Item<'_>>, StoreError> {
        let path = self.file(Role::Party1);
        Store::open_party1(&path, &self.plan, self.network, Origin::Parties)
    }

    /// An item that says which one it is.
    fn item(&self, tag: u64) -> Item {
        let mut item = vec![0x5a; item_bytes(&self.plan, Role::Party0, Origin::Parties)];
        item[32..34].copy_from_slice(&(tag as u16).to_le_bytes());
        Zeroizing::new(item)
    }

    /// Party 0's file with so many items, tagged by their serials; its bytes, and those of a record.
    fn filled(&self, count: u64) -> (Vec<u8>, usize) {
        self.create(Role::Party0, DealId([7; 16]));
        let mut store = self.open0().unwrap();
        (0..count).for_each(|tag| store.append(&self.item(tag)).unwrap());
        (std::fs::read(self.file(Role::Party0)).unwrap(), store.item_bytes() + EXTRA)
    }
}
impl Drop for Pair {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Which items these are.
fn tags0(items: Vec<Party0Item<'_>>) -> Vec<u64> {
    let elements = plans::tiny().0.steps[1].shape.elements();
    let tag = |mut item: Party0Item<'_>| {
        let mut share = Words::zeros(16, elements);
        let record = item.take(1).unwrap();
        record.field(0, &ir::Shape::new([elements]), 1, share.part_mut(0..elements)).unwrap();
        share.elements()[0]
    };
    items.into_iter().map(tag).collect()
}

fn tags1(items: Vec<Party1Item<'_>>) -> Vec<u64> {
    items.into_iter().map(|mut item| item.mask(1).unwrap().data[0]).collect()
}

fn state<M>(store: &Store<'_, M>) -> (u64, u64) {
    (store.offer().next, store.offer().count)
}

#[test]
fn files_grow_and_marks_survive() {
    let pair = Pair::new("grow");
    pair.create(Role::Party0, DealId([7; 16]));
    let mut store = pair.open0().unwrap();
    assert_eq!(state(&store), (0, 0));
    assert!(store.claim(0..0).unwrap().is_empty());
    assert!(store.claim(0..1).is_err());
    for tag in 0..4 {
        store.append(&pair.item(tag)).unwrap();
    }
    assert!(matches!(pair.open0(), Err(StoreError::Locked(_))));
    assert_eq!(tags0(store.claim(0..2).unwrap()), [0, 1]);
    drop(store);
    let mut store = pair.open0().unwrap();
    assert_eq!(state(&store), (2, 4));
    for tag in 4..7 {
        store.append(&pair.item(tag)).unwrap();
    }
    assert!(store.claim(1..3).is_err() && store.claim(6..8).is_err());
    assert_eq!(tags0(store.claim(3..5).unwrap()), [3, 4], "also after what was skipped");
    drop(store);
    let listing = list(&pair.file(Role::Party0)).unwrap();
    assert_eq!((listing.items, listing.origin), ((7, 2), Origin::Parties));
    let mut store = pair.open0().unwrap();
    assert_eq!(tags0(store.claim(5..7).unwrap()), [5, 6]);
    store.append(&pair.item(7)).unwrap();
    drop(store);
    assert_eq!(state(&pair.open0().unwrap()), (7, 8));
}

#[test]
fn what_a_killed_process_left_is_in_nobodys_way() {
    let pair = Pair::new("left");
    let path = pair.file(Role::Party0);
    let left = path.with_added_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&left, "half a header").unwrap();
    pair.create(Role::Party0, DealId([7; 16]));
    assert!(pair.open0().is_ok() && !left.exists());
}

#[test]
fn items_that_the_peer_lacks_are_cut_off_and_marks_stay() {
    let pair = Pair::new("cut");
    let (bytes, record) = pair.filled(5);
    let header = bytes.len() - 5 * record;
    let mut store = pair.open0().unwrap();
    store.claim(0..2).unwrap();
    for (count, expected) in [(9, (2, 5)), (5, (2, 5)), (3, (2, 3)), (4, (2, 3)), (2, (2, 2))] {
        store.truncate(count).unwrap();
        assert_eq!(state(&store), expected);
        let length = std::fs::metadata(pair.file(Role::Party0)).unwrap().len();
        assert_eq!(length as usize, header + expected.1 as usize * record);
        drop(store);
        store = pair.open0().unwrap();
        assert_eq!(state(&store), expected);
    }
    store.append(&pair.item(77)).unwrap();
    assert_eq!(tags0(store.claim(2..3).unwrap()), [77]);
}

/// What a crash in the middle of a record leaves: any part of it, and perhaps zeros up to its end.
#[test]
fn a_torn_tail_of_any_length_is_left_out_and_overwritten() {
    let pair = Pair::new("torn");
    let (bytes, record) = pair.filled(3);
    let path = pair.file(Role::Party0);
    let whole = bytes.len() - record;
    for cut in 0..record {
        for zeros in [0, record - cut] {
            let mut torn = bytes[..whole + cut].to_vec();
            torn.resize(torn.len() + zeros, 0);
            // The checksum's last byte may be a zero anyway.
            if torn == bytes {
                continue;
            }
            std::fs::write(&path, &torn).unwrap();
            assert_eq!(list(&path).unwrap().items, (2, 2), "{cut} bytes, {zeros} zeros");
            let mut store = pair.open0().unwrap();
            assert_eq!(state(&store), (0, 2), "{cut} bytes, {zeros} zeros");
            store.append(&pair.item(50)).unwrap();
            drop(store);
            let mut store = pair.open0().unwrap();
            assert_eq!(tags0(store.claim(0..3).unwrap()), [0, 1, 50]);
        }
    }
    for cut in 0..whole - 2 * record {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        let refused = pair.open0().err().map(|e| e.to_string());
        assert!(refused.is_some_and(|line| !line.contains('\n')), "{cut} bytes of a header");
    }
}

#[test]
fn a_damaged_last_record_is_left_out_and_another_one_refused() {
    let pair = Pair::new("damaged_tail");
    let (bytes, record) = pair.filled(3);
    let path = pair.file(Role::Party0);
    for at in bytes.len() - record..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&path, damaged).unwrap();
        assert_eq!(state(&pair.open0().unwrap()), (0, 2), "byte {at}");
    }
    for at in bytes.len() - 2 * record + 1..bytes.len() - record {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x40;
        std::fs::write(&path, damaged).unwrap();
        let mut store = pair.open0().unwrap();
        assert_eq!(state(&store), (0, 3));
        let line = store.claim(0..2).err().map(|e| e.to_string()).unwrap();
        assert!(line.ends_with(
            "item 1 is damaged: its checksum does not match; it is marked as used, run again"
        ));
        drop(store);
        let mut store = pair.open0().unwrap();
        assert_eq!(state(&store), (2, 3), "it stays used");
        assert_eq!(tags0(store.claim(2..3).unwrap()), [2]);
    }
}

#[test]
fn items_of_another_place_party_or_deal_are_refused() {
    let pair = Pair::new("places");
    let (bytes, record) = pair.filled(3);
    let path = pair.file(Role::Party0);
    let start = bytes.len() - 3 * record;
    let mut swapped = bytes.clone();
    swapped.copy_within(start + record..start + 2 * record, start);
    std::fs::write(&path, swapped).unwrap();
    assert!(matches!(pair.open0().unwrap().claim(0..1), Err(StoreError::Item { serial: 0, .. })));
    for (role, deal) in [(Role::Party0, DealId([8; 16])), (Role::Party1, DealId([7; 16]))] {
        pair.create(role, deal);
        let mut other = std::fs::read(pair.file(role)).unwrap();
        other.extend(&bytes[start..]);
        std::fs::write(pair.file(role), other).unwrap();
        let refused = match role {
            Role::Party0 => pair.open0().unwrap().claim(0..1).err(),
            Role::Party1 => pair.open1().unwrap().claim(0..1).err(),
        };
        assert!(matches!(refused, Some(StoreError::Item { serial: 0, .. })), "{refused:?}");
    }
}

#[test]
fn used_items_are_erased() {
    let pair = Pair::new("erased");
    let (bytes, record) = pair.filled(3);
    let start = bytes.len() - 3 * record;
    pair.open0().unwrap().claim(1..2).unwrap();
    let after = std::fs::read(pair.file(Role::Party0)).unwrap();
    for serial in 0..2 {
        let at = start + serial * record;
        assert!(after[at + 1..at + record].iter().all(|&b| b == 0), "the skipped one as well");
    }
    assert_eq!(after[start + 2 * record..], bytes[start + 2 * record..]);
}

/// What both parties do at random, with one of them whose disk goes back to older copies of its file
/// again and again.
struct History<'a> {
    pair: &'a Pair,
    random: Random,
    copies: Vec<Vec<u8>>,
    made: u64,
    used: [BTreeSet<u64>; 2],
}

impl History<'_> {
    fn agree(
        &self,
        [(offer0, batch0), (offer1, batch1)]: [(Offer, u64); 2],
        purpose: Purpose,
        force: bool,
    ) -> Result<Agreement, Error> {
        let hello = |offer: Offer, batch: u64| Hello {
            batch: batch as u32,
            tables: Tables::new(&self.pair.plan).digest(),
            purpose,
            is_replaceable: force || offer.next == offer.count,
            offer,
        };
        let (hello0, hello1) = (hello(offer0, batch0), hello(offer1, batch1));
        let (mut end0, mut end1) = memory_pair(Duration::from_secs(20));
        let (agreed0, agreed1) = std::thread::scope(|scope| {
            let agreed0 = scope.spawn(|| exchange(&mut end0, &hello0));
            let agreed1 = exchange(&mut end1, &hello1);
            (agreed0.join().unwrap(), agreed1)
        });
        let line = |e: &Error| e.to_string();
        assert_eq!(agreed0.as_ref().map_err(line), agreed1.as_ref().map_err(line));
        agreed0
    }

    /// Both prepare; either may crash before it has the last items.
    fn prepare(&mut self) -> Result<(), Error> {
        let pair = self.pair;
        let (mut store0, mut store1) = (pair.open0()?, pair.open1()?);
        let (count, force) = (self.random.between(1, 4), self.random.bits(2) == 0);
        let offers = [(store0.offer(), 4), (store1.offer(), count)];
        let agreement = self.agree(offers, Purpose::Prepare, force)?;
        if store0.offer().deal == agreement.deal {
            store0.truncate(agreement.serials.start)?;
            store1.truncate(agreement.serials.start)?;
        } else {
            drop((store0, store1));
            pair.create(Role::Party0, agreement.deal);
            pair.create(Role::Party1, agreement.deal);
            (store0, store1) = (pair.open0()?, pair.open1()?);
        }
        let mut reached = || match self.random.bits(2) {
            0 => self.random.between(0, count),
            _ => count,
        };
        let reached = [reached(), reached()];
        for tag in 0..reached[0] {
            store0.append(&pair.item(self.made + tag))?;
        }
        for tag in 0..reached[1] {
            store1.append(&pair.item(self.made + tag))?;
        }
        self.made += count;
        Ok(())
    }

    /// Both run; either may crash before it has marked its items. Then the other one, which waits for the
    /// confirmation, uses nothing either.
    fn run(&mut self) -> Result<(), Error> {
        let pair = self.pair;
        let (mut store0, mut store1) = (pair.open0()?, pair.open1()?);
        let offers = [(store0.offer(), 4), (store1.offer(), self.random.between(1, 4))];
        let serials = self.agree(offers, Purpose::Run, false)?.serials;
        match self.random.bits(3) {
            0 => drop(store0.claim(serials)?),
            1 => drop(store1.claim(serials)?),
            _ => {
                let tags = [tags0(store0.claim(serials.clone())?), tags1(store1.claim(serials)?)];
                tags.into_iter().enumerate().for_each(|(party, tags)| self.note(party, tags));
            }
        }
        Ok(())
    }

    fn note(&mut self, party: usize, tags: Vec<u64>) {
        for tag in tags {
            assert!(self.used[party].insert(tag), "party {party} used item {tag} twice");
        }
    }

    /// Copies party 0's or party 1's file, or puts an old copy back.
    fn restore(&mut self, role: Role) {
        let path = self.pair.file(role);
        if self.random.bits(1) == 0 || self.copies.is_empty() {
            self.copies.push(std::fs::read(path).unwrap());
        } else {
            let which = self.random.between(0, self.copies.len() as u64 - 1) as usize;
            std::fs::write(path, &self.copies[which]).unwrap();
        }
    }
}

#[test]
fn old_copies_at_one_party_never_make_it_use_an_item_twice() {
    let pair = Pair::new("history");
    let (mut refused, mut used_in_all) = (BTreeSet::new(), 0);
    for (round, role) in [Role::Party0, Role::Party1].into_iter().cycle().take(40).enumerate() {
        let deal = DealId([round as u8; 16]);
        pair.create(Role::Party0, deal);
        pair.create(Role::Party1, deal);
        let (random, copies, used) = (Random::new(round as u64), vec![], Default::default());
        let mut history = History { pair: &pair, random, copies, made: 0, used };
        for _ in 0..60 {
            let done = match history.random.between(0, 9) {
                0..=3 => history.prepare(),
                4..=7 => history.run(),
                _ => {
                    history.restore(role);
                    Ok(())
                }
            };
            if let Err(e) = done {
                refused.insert(e.to_string().split(" has ").nth(1).is_some());
                assert!(matches!(e, Error::Agreement(_)), "{e}");
            }
        }
        used_in_all += history.used[0].len();
    }
    assert!(used_in_all > 400, "{used_in_all}");
    assert_eq!(refused.len(), 2, "old copies and other deals were refused");
}

/// The files' marks and lengths decide, whichever party they are of.
#[test]
fn a_store_that_went_back_below_the_marks_is_not_appended_to() {
    let pair = Pair::new("below");
    let (bytes, record) = pair.filled(5);
    pair.create(Role::Party1, DealId([7; 16]));
    let mut store1 = pair.open1().unwrap();
    (0..5).for_each(|tag| store1.append(&pair.item(tag)).unwrap());
    store1.claim(0..4).unwrap();
    std::fs::write(pair.file(Role::Party0), &bytes[..bytes.len() - 3 * record]).unwrap();
    let store0 = pair.open0().unwrap();
    let offers = [(store0.offer(), 4), (store1.offer(), 2)];
    let (copies, used) = (vec![], Default::default());
    let history = History { pair: &pair, random: Random::new(1), copies, made: 0, used };
    let refused = history.agree(offers, Purpose::Prepare, false).unwrap_err().to_string();
    assert_eq!(
        refused,
        "party 0 has 2 items, party 1 has 5, and 4 are used up: one store is an old copy; add --force at \
         both to start anew"
    );
    let forced = history.agree(offers, Purpose::Prepare, true).unwrap();
    assert!(forced.deal != DealId([7; 16]) && forced.serials == (0..0) && forced.fresh == 2);
    let run = history.agree(offers, Purpose::Run, false).unwrap();
    assert_eq!((run.serials, run.fresh), (4..4, 2));
}
