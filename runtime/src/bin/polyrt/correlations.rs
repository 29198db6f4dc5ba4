//! Where a run's correlations come from, and what is said about it.

use crate::files;
use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use ir::plan::{Digest, Plan};
use polyrt::handshake::{Agreement, Hello, Purpose};
use polyrt::preprocess::item::{Item, Origin, Party0Item, Party1Item};
use polyrt::preprocess::parties::Progress;
use polyrt::preprocess::store::{NoSupply, Store, StoreError, list};
use polyrt::preprocess::{DealId, Network, Offer, Role, Supply};
use polyrt::steps::Tables;
use serde_json::{Value, json};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Where correlations come from: made with the peer, unless something else is said.
#[derive(clap::Args)]
pub struct CorrelationArguments {
    /// Take correlations that `polyrt prepare` put there; what is missing is made during the run
    #[arg(long, value_name = "DIR", conflicts_with = "dealer_correlations")]
    store: Option<PathBuf>,
    /// Take correlations from a dealer: the directory that `polyrt deal` wrote [default: the plan's path
    /// with extension `correlations`]
    ///
    /// Whoever dealt can open recorded runs together with either party. Both parties must say so.
    #[arg(long, value_name = "DIR", num_args = 0..=1)]
    dealer_correlations: Option<Option<PathBuf>>,
}

/// A party's source of correlations.
pub enum Source<'a, M> {
    /// A file: a dealer's, or one that `polyrt prepare` filled.
    Store(Store<'a, M>),
    /// Nothing is there: the run makes what it needs.
    Fresh(NoSupply<M>),
}

impl<M> Supply for Source<'_, M> {
    type Material = M;

    fn offer(&self) -> Offer {
        match self {
            Self::Store(store) => store.offer(),
            Self::Fresh(none) => none.offer(),
        }
    }

    fn claim(&mut self, serials: Range<u64>) -> Result<Vec<M>, StoreError> {
        match self {
            Self::Store(store) => store.claim(serials),
            Self::Fresh(none) => none.claim(serials),
        }
    }
}

/// Opens a party's file.
type Open<'a, M> = fn(&Path, &'a Plan, Network, Origin) -> Result<Store<'a, M>, StoreError>;

impl CorrelationArguments {
    /// Whether a dealer is to be trusted.
    pub fn is_dealt(&self) -> bool {
        self.dealer_correlations.is_some()
    }

    /// Party 0's source.
    pub fn party0<'a>(
        &self,
        path: &Path,
        plan: &'a Plan,
        network: Network,
    ) -> Result<Source<'a, Party0Item<'a>>> {
        self.open(Role::Party0, path, plan, network, Store::open_party0)
    }

    /// Party 1's source.
    pub fn party1<'a>(
        &self,
        path: &Path,
        plan: &'a Plan,
        network: Network,
    ) -> Result<Source<'a, Party1Item<'a>>> {
        self.open(Role::Party1, path, plan, network, Store::open_party1)
    }

    /// Says before anybody connects that party 0's store is of other weights. Runs say so as well, to both.
    pub fn warn_of_other_weights(&self, network: Network) {
        let Some(directory) = &self.store else { return };
        let path = store_file(directory, Role::Party0, network.plan);
        // What is wrong with a file otherwise is said by whoever opens it.
        if let Ok(listing) = list(&path)
            && Some(listing.weights) != network.weights
            && listing.items.1 > 0
        {
            let at = path.display();
            note!(
                "warning: {at} was filled with other weights: runs will be refused until it is made anew"
            );
        }
    }

    fn open<'a, M>(
        &self,
        role: Role,
        plan_path: &Path,
        plan: &'a Plan,
        network: Network,
        open: Open<'a, M>,
    ) -> Result<Source<'a, M>> {
        if let Some(directory) = &self.dealer_correlations {
            let name = if role == Role::Party0 { "party0" } else { "party1" };
            let name = format!("{name}.correlations");
            let path = files::correlation_file(directory.as_deref(), plan_path, &name)?;
            return Ok(Source::Store(open(&path, plan, network, Origin::Dealer)?));
        }
        if let Some(directory) = &self.store {
            let path = store_file(directory, role, network.plan);
            if path.exists() {
                return Ok(Source::Store(open(&path, plan, network, Origin::Parties)?));
            }
            let at = path.display();
            note!(
                "note: no {at}: what is needed is made during the run; `polyrt prepare {plan}` makes it before"
            );
        }
        Ok(Source::Fresh(NoSupply::new(role, network, DealId([0; 16]))))
    }
}

/// Party 0's hello before it opens its items: what a peer must fit to be let in.
pub fn hello(plan: &Plan, network: Network, is_dealt: bool, purpose: Purpose, most: u32) -> Hello {
    let supply = NoSupply::<()>::new(Role::Party0, network, DealId([0; 16]));
    let origin = if is_dealt { Origin::Dealer } else { Origin::Parties };
    let offer = Offer { origin, ..supply.offer() };
    let tables = Tables::new(plan).digest();
    Hello { batch: most, tables, purpose, is_replaceable: false, offer }
}

/// A party's file in a store directory.
pub fn store_file(directory: &Path, role: Role, digest: Digest) -> PathBuf {
    let role = if role == Role::Party0 { "party0" } else { "party1" };
    directory.join(format!("{digest}.{role}"))
}

/// The file that `polyrt prepare` appends to.
pub enum Growing<'a, M> {
    /// It is there.
    Open(Store<'a, M>),
    /// It will be made when the parties agreed on its deal.
    Absent(NoSupply<M>),
}

impl<'a, M> Growing<'a, M> {
    /// Opens the file if it is there.
    pub fn open(
        path: &Path,
        role: Role,
        plan: &'a Plan,
        network: Network,
        open: Open<'a, M>,
    ) -> Result<Self> {
        if path.exists() {
            return Ok(Self::Open(open(path, plan, network, Origin::Parties)?));
        }
        let mut id = DealId([0; 16]);
        getrandom::fill(&mut id.0).context("no randomness from the operating system")?;
        Ok(Self::Absent(NoSupply::new(role, network, id)))
    }

    /// The store that the agreed items go to, without those that the peer does not have.
    pub fn for_agreement(
        self,
        path: &Path,
        role: Role,
        plan: &'a Plan,
        agreement: &Agreement,
        open: Open<'a, M>,
    ) -> Result<Store<'a, M>> {
        let (digest, weights) = (self.offer().plan, agreement.weights);
        match self {
            Self::Open(mut store) if store.offer().deal == agreement.deal => {
                store.truncate(agreement.serials.start)?;
                return Ok(store);
            }
            Self::Absent(_) if path.exists() => {
                anyhow::bail!("{} was begun by another process meanwhile", path.display());
            }
            // The old file is closed before it is replaced.
            old => drop(old),
        }
        polyrt::preprocess::store::create_growing(
            path,
            role,
            plan,
            (digest, weights),
            agreement.deal,
        )?;
        let network = Network { plan: digest, weights: Some(weights) };
        Ok(open(path, plan, network, Origin::Parties)?)
    }
}

impl<M> Supply for Growing<'_, M> {
    type Material = M;

    fn offer(&self) -> Offer {
        match self {
            Self::Open(store) => store.offer(),
            Self::Absent(none) => none.offer(),
        }
    }

    fn claim(&mut self, serials: Range<u64>) -> Result<Vec<M>, StoreError> {
        match self {
            Self::Open(store) => store.claim(serials),
            Self::Absent(none) => none.claim(serials),
        }
    }
}

/// Appends made items.
pub fn keeper<'s, M>(
    store: &'s mut Store<'_, M>,
) -> impl FnMut(Item) -> Result<(), polyrt::Error> + 's {
    move |item| Ok(store.append(&item)?)
}

/// Says so where a party's stored items are of no use, because the peer has not the other halves.
pub fn note_unmatched(offer: &Offer, agreement: &Agreement) {
    let unused = offer.count - offer.next;
    if unused > 0 && agreement.serials.is_empty() {
        note!(
            "note: {unused} unused items of deal {} stay in the store: the peer has not their other halves; \
             what is needed is made during the run",
            offer.deal
        );
    }
}

/// The line about who made the correlations.
pub fn line(is_dealt: bool, agreement: &Agreement) -> String {
    if is_dealt {
        return crate::report::DEALER.into();
    }
    let Range { start, end } = agreement.serials;
    let stored = match end - start {
        0 => String::new(),
        _ => format!("items {start} to {} of deal {} from the store, ", end - 1, agreement.deal),
    };
    format!("correlations: by the two parties alone, {stored}{} made now", agreement.fresh)
}

/// The same, as members of a run's JSON.
pub fn add_to(run: &mut Value, is_dealt: bool, agreement: &Agreement) {
    run["correlations"] = json!(if is_dealt { "dealer" } else { "parties" });
    run["items"] = json!({
        "deal": agreement.deal.to_string(),
        "first": agreement.serials.start,
        "end": agreement.serials.end,
        "made_now": agreement.fresh,
    });
}

/// Shows the offline phase under way.
pub fn progress_bar(items: usize) -> impl FnMut(Progress) {
    let bar = ProgressBar::new(0);
    let template = "offline {bar:30} {bytes} of {total_bytes}, {msg}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    move |progress| {
        bar.set_length(progress.of_bytes as u64);
        bar.set_position(progress.bytes as u64);
        bar.set_message(format!("{} of {items} items", progress.items));
        if progress.items == items {
            bar.finish_and_clear();
        }
    }
}
