//! Everything that this program changes on its host, behind one door: a plan comes in, the host becomes so, and every change is undone.
//!
//! ```text
//!   HostPlan ──► Host::apply ──► rules, "unreachable" routes ──► nft table ──► addresses ──► routes to the device ──► sysctls
//!                    │                 (each first in the Journal)
//!   SIGKILL ─────────┴─► the interface is gone, and with it addresses and routes to it: what is behind them refuses
//!   next start ──► Host::open finds its slot and what is in it; apply makes the difference
//!   clean stop, `cleanup` ──► undo ──► the host as it was
//! ```
//! Owns order and idempotence: what protects comes before what it protects, and goes after it. Refuses to know where a plan comes from, and
//! touches no foreign route, rule, table or setting. A plan is typed values alone, so that a helper process can be asked the same.

mod conflict;
mod filter;
mod foreign;
mod journal;
mod nft;
mod slot;
mod sysctl;

pub use conflict::{HostView, RouteConflict, route_conflicts};
use filter::Opened;
pub use filter::{FilterPlan, LockDown, Masquerade, table_name};
pub use foreign::ForwardBlocker;
pub use journal::{Change, Journal};
pub use nft::NftError;
pub use slot::{NoSlot, Slot};
pub use sysctl::{NoSuchSysctl, Sysctl};

use super::device_name::DeviceName;
use super::host_dns;
use super::lock::LockError;
use super::network::{Network, NetworkError};
use super::policy_routing::{TableRoute, Verdict};
use crate::wire::name::NetworkName;
use crate::wire::prefix::Prefix;
use filter::{RulesetInput, ruleset};
use journal::Found;
use slot::SlotLock;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Router advertisements are heeded by a host, and by one that passes packets on as well (`accept_ra`, ip-sysctl).
const HEEDED: &str = "1";
const ALWAYS_HEEDED: &str = "2";

/// What the host should be like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostPlan {
    /// Addresses of the interface, each with the length of its subnet.
    pub addresses: BTreeSet<(IpAddr, u8)>,
    /// Destinations that the interface leads to, and that nothing else may lead to while it is gone.
    pub routed: BTreeSet<Prefix>,
    /// Destinations that nothing leads to: senders are told so, and nothing leaves by the default route.
    pub refused: BTreeSet<Prefix>,
    /// Destinations within `routed` that the host's own tables decide about.
    pub spared: BTreeSet<Prefix>,
    /// The packet filter.
    pub filter: FilterPlan,
    /// Settings of the kernel.
    pub sysctls: BTreeMap<Sysctl, u8>,
}

/// What was not to be had. The rest of a plan is in force all the same.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel refused an address, a route or a rule.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The packet filter is not in force.
    #[error(transparent)]
    Filter(#[from] NftError),
    /// The undo journal cannot be written, so nothing is changed; or it cannot be read.
    #[error("the undo journal {}: {source}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// The system's reason, or where it is damaged.
        source: io::Error,
    },
    /// Somebody else's packet filter drops what this host passes on to the overlay and from it.
    #[error("the chain `{blocker}` of another program drops what this host should pass on: {}", blocker.remedy(device))]
    ForwardingBlocked {
        /// The chain.
        blocker: ForwardBlocker,
        /// Our interface.
        device: DeviceName,
    },
    /// A setting of the kernel was not read or written.
    #[error("cannot set {key}: {source}")]
    Sysctl {
        /// Which one.
        key: Sysctl,
        /// The system's reason.
        source: io::Error,
    },
    /// The lock of a slot cannot be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// As many daemons run here as there are slots, or others use the rules and tables.
    #[error("all {} places for daemons on this host are taken: stop one, or run `p2plus cleanup`", Slot::COUNT)]
    NoSlot,
    /// The changes were made elsewhere.
    #[error(
        "{} tells of changes in another network namespace: run this command in there, or remove the file when that namespace is gone",
        path.display()
    )]
    Elsewhere {
        /// The journal.
        path: PathBuf,
    },
}

/// Where a daemon's changes take place.
pub struct HostSetup<'a> {
    /// The network.
    pub network: NetworkName,
    /// The interface's name.
    pub device: DeviceName,
    /// The interface's index.
    pub index: u32,
    /// Where the locks of slots are.
    pub run_dir: &'a Path,
    /// The journal.
    pub journal: &'a Path,
}

/// The host, as far as this daemon changes it.
pub struct Host {
    name: NetworkName,
    device: DeviceName,
    index: u32,
    slot: SlotLock,
    journal: Journal,
    network: Network,
    /// The ruleset in force, as far as is known.
    ruleset: Option<String>,
    /// What the interface was given, and nobody took away since.
    addresses: BTreeSet<(IpAddr, u8)>,
}

impl Host {
    /// Takes a slot, the one of an earlier run if that left anything behind, and its rules, which lead to an empty table as yet.
    ///
    /// # Errors
    /// [`HostError`]: the journal cannot be read or written, all slots are taken, the kernel refuses the rules.
    pub fn open(setup: HostSetup<'_>) -> Result<Self, HostError> {
        let mut network = Network::open()?;
        let journal = match Journal::open(setup.journal)? {
            Found::Nothing(journal) | Found::Here(journal) => journal,
            Found::Elsewhere(journal) => {
                // As a rule that namespace is gone with the container around it; and nothing can be done about it from here.
                let path = journal.path().display().to_string();
                tracing::warn!(path, "what an earlier run changed is in another network namespace: forgotten");
                journal.clear()?;
                journal
            }
        };
        let slot = claim(setup.run_dir, &mut network, &journal)?;
        let HostSetup { network: name, device, index, .. } = setup;
        Ok(Self { name, device, index, slot, journal, network, ruleset: None, addresses: BTreeSet::new() })
    }

    /// The addresses that the interface was given and has.
    pub fn addresses(&self) -> &BTreeSet<(IpAddr, u8)> {
        &self.addresses
    }

    /// The undo journal, for who else changes this host for the network.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The daemon's slot.
    pub fn slot(&self) -> Slot {
        self.slot.slot()
    }

    /// Makes the host what the plan says, by the difference to what it is. Returns what was not to be had; the rest is in force.
    pub fn apply(&mut self, plan: &HostPlan) -> Vec<HostError> {
        let mut problems = Problems::default();
        let wanted = table_of(plan, self.index);
        let present = problems.or_default(self.network.table_routes(self.slot().table()));
        self.add_rules(&mut problems);
        self.add_routes(&present, wanted.iter().filter(|route| !leads_out(route)), &mut problems);
        let opened = self.opened(&plan.sysctls);
        let is_filtered = self.apply_filter(plan, &opened);
        // A ruleset that could not be replaced is in force still.
        let passes_on = is_filtered.is_ok() || has_table(&self.name);
        problems.note(is_filtered);
        if plan.filter.passes_on() {
            let blockers = problems.or_default(foreign::forward_blockers(&self.device));
            let device = &self.device;
            let of = |blocker| HostError::ForwardingBlocked { blocker, device: device.clone() };
            problems.0.extend(blockers.into_iter().map(of));
        }
        self.remove_routes(present.iter().filter(|route| leads_out(route) && !wanted.contains(route)), &mut problems);
        self.apply_addresses(plan, &mut problems);
        self.add_routes(&present, wanted.iter().filter(|route| leads_out(route)), &mut problems);
        self.remove_routes(present.iter().filter(|route| !leads_out(route) && !wanted.contains(route)), &mut problems);
        // What nothing guards is not passed on.
        let sysctls = plan.sysctls.iter().filter(|(key, _)| passes_on || !key.is_forwarding());
        self.apply_sysctls(&sysctls.map(|(key, value)| (key.clone(), *value)).collect(), &mut problems);
        problems.0
    }

    /// Where the kernel passes packets on, or will when these settings are made, because of this program alone.
    fn opened(&self, wanted: &BTreeMap<Sysctl, u8>) -> Opened {
        let changes = self.journal.changes();
        let is_set = |key: &Sysctl| key.read().ok().flatten().as_deref() == Some("1");
        let is_ours =
            |key: &Sysctl| changes.iter().any(|it| matches!(it, Change::Sysctl { key: noted, .. } if noted == key));
        let mut opened = Opened::default();
        for key in wanted.keys().filter(|key| is_ours(key) || !is_set(key)) {
            match key {
                Sysctl::Ipv4Forwarding(interface) => drop(opened.ipv4.insert(interface.clone())),
                Sysctl::Ipv6Forwarding(_) => opened.ipv6 = true,
                Sysctl::Ipv6AcceptRa(_) | Sysctl::Ipv4SourceHeedsMark => {}
            }
        }
        // Somebody switched it on for all interfaces, which this program never does.
        if is_set(&Sysctl::of_every_interface()) {
            opened.ipv4.clear();
        }
        opened
    }

    /// Undoes everything; what is on the interface goes with it. Returns what was not to be undone.
    pub fn undo(&mut self) -> Vec<HostError> {
        let mut problems = Vec::new();
        undo_changes(&self.name, &mut self.network, &self.journal, |_| {}, &mut problems);
        self.ruleset = None;
        problems
    }

    /// Puts back the rules that somebody took away.
    fn add_rules(&mut self, problems: &mut Problems) {
        let slot = self.slot();
        let present = problems.or_default(self.network.rules_at(slot.priority()));
        for rule in slot.rules().iter().filter(|rule| !present.contains(&(rule.family, rule.table))) {
            problems.note(self.network.add_rule(rule).map(drop).map_err(HostError::from));
        }
    }

    fn add_routes<'r>(
        &mut self,
        present: &[TableRoute],
        wanted: impl Iterator<Item = &'r TableRoute>,
        problems: &mut Problems,
    ) {
        for route in wanted.filter(|route| !present.contains(route)) {
            problems.note(self.network.add_table_route(self.slot.slot().table(), route).map_err(HostError::from));
        }
    }

    fn remove_routes<'r>(&mut self, routes: impl Iterator<Item = &'r TableRoute>, problems: &mut Problems) {
        for route in routes {
            problems.note(self.network.remove_table_route(self.slot.slot().table(), route).map_err(HostError::from));
        }
    }

    /// Brings the ruleset into force, unless it is already.
    fn apply_filter(&mut self, plan: &HostPlan, opened: &Opened) -> Result<(), HostError> {
        let text = ruleset(&RulesetInput {
            network: &self.name,
            device: &self.device,
            slot: self.slot(),
            own: &plan.addresses.iter().map(|(address, _)| *address).collect(),
            guarded: &plan.routed.union(&plan.refused).copied().collect(),
            opened,
            plan: &plan.filter,
        });
        if self.ruleset.as_ref() == Some(&text) && has_table(&self.name) {
            return Ok(());
        }
        self.journal.record(Change::Filter)?;
        self.ruleset = None;
        nft::run(&["-f", "-"], &text)?;
        self.ruleset = Some(text);
        Ok(())
    }

    /// Takes from the interface what it was given and should not have, and gives it what it should have.
    fn apply_addresses(&mut self, plan: &HostPlan, problems: &mut Problems) {
        let Some(present) = problems.some(self.network.addresses()) else { return };
        let present = present.iter().filter(|it| it.interface == self.index).map(|it| (it.address, it.prefix_len));
        let present: BTreeSet<_> = present.collect();
        self.addresses.retain(|given| present.contains(given));
        for (address, len) in self.addresses.difference(&plan.addresses).copied().collect::<Vec<_>>() {
            match self.network.remove_address(self.index, address, len) {
                Ok(()) => drop(self.addresses.remove(&(address, len))),
                Err(error) => problems.note(Err(error.into())),
            }
        }
        for (address, len) in plan.addresses.difference(&self.addresses).copied().collect::<Vec<_>>() {
            match self.network.add_address(self.index, address, len) {
                Ok(()) => drop(self.addresses.insert((address, len))),
                Err(error) => problems.note(Err(error.into())),
            }
        }
    }

    /// Sets what the plan says, and puts back what it says no longer.
    fn apply_sysctls(&mut self, wanted: &BTreeMap<Sysctl, u8>, problems: &mut Problems) {
        for change in self.journal.changes().into_iter().rev() {
            let Change::Sysctl { key, .. } = &change else { continue };
            // What was taken along stands beside what took it along, and goes with it.
            let belongs_to = |wanted: &Sysctl| {
                wanted == key || wanted.taken_along().contains(key) || wanted.obscured().contains(key)
            };
            let is_wanted = wanted.keys().any(belongs_to);
            if !is_wanted {
                problems.note(undo_change(&self.name, &mut self.network, &change).map(drop));
                problems.note(self.journal.forget(&change));
            }
        }
        for (key, value) in wanted {
            problems.note(self.set(key, &value.to_string()));
        }
    }

    fn set(&mut self, key: &Sysctl, value: &str) -> Result<(), HostError> {
        let Some(before) = key.read()? else { return Ok(()) };
        let is_ours = |change: &Change| matches!(change, Change::Sysctl { key: noted, .. } if noted == key);
        if before == value && !self.journal.changes().iter().any(is_ours) {
            return Ok(());
        }
        // First, and of interfaces that are new as well: what was learned is forgotten the moment it is set.
        for heeded in key.obscured() {
            if heeded.read()?.as_deref() == Some(HEEDED) {
                let (before, after) = (HEEDED.to_owned(), ALWAYS_HEEDED.to_owned());
                self.journal.record(Change::Sysctl { key: heeded.clone(), before, after })?;
                heeded.write(ALWAYS_HEEDED)?;
            }
        }
        if before == value {
            return Ok(());
        }
        for other in key.taken_along() {
            let Some(kept) = other.read()? else { continue };
            if kept != before {
                self.journal.record(Change::Sysctl { key: other, before: kept.clone(), after: kept })?;
            }
        }
        self.journal.record(Change::Sysctl { key: key.clone(), before, after: value.to_owned() })?;
        key.write(value)
    }
}

/// Takes a slot and adds its rules. A daemon with another run folder may be at it too: whose rule the kernel takes first has the slot.
fn claim(run_dir: &Path, network: &mut Network, journal: &Journal) -> Result<SlotLock, HostError> {
    for _ in 0..Slot::COUNT {
        let own = journal.slot();
        let lock = SlotLock::take(run_dir, network, own)?;
        if let Some(other) = own.filter(|own| *own != lock.slot()) {
            // Its lock is another daemon's, so what is in it is as well.
            journal.forget(&Change::Routing(other))?;
        }
        journal.record(Change::Routing(lock.slot()))?;
        let mut added = Vec::new();
        for rule in lock.slot().rules() {
            if network.add_rule(&rule)? {
                added.push(rule);
            }
        }
        if added.len() == lock.slot().rules().len() || own == Some(lock.slot()) {
            return Ok(lock);
        }
        for rule in added {
            network.remove_rule(&rule)?;
        }
        journal.forget(&Change::Routing(lock.slot()))?;
    }
    Err(HostError::NoSlot)
}

/// What went wrong on the way.
#[derive(Default)]
struct Problems(Vec<HostError>);

impl Problems {
    fn note(&mut self, outcome: Result<(), HostError>) {
        self.0.extend(outcome.err());
    }

    fn some<T>(&mut self, outcome: Result<T, impl Into<HostError>>) -> Option<T> {
        outcome.map_err(|error| self.0.push(error.into())).ok()
    }

    fn or_default<T: Default>(&mut self, outcome: Result<T, impl Into<HostError>>) -> T {
        self.some(outcome).unwrap_or_default()
    }
}

/// The routes of a plan.
fn table_of(plan: &HostPlan, device: u32) -> BTreeSet<TableRoute> {
    let to = |verdict| move |prefix: &Prefix| TableRoute { prefix: *prefix, verdict };
    let behind = plan.routed.union(&plan.refused).map(to(Verdict::Unreachable));
    let routed = plan.routed.iter().map(to(Verdict::Device(device)));
    behind.chain(routed).chain(plan.spared.iter().map(to(Verdict::Throw))).collect()
}

/// Says whether packets get anywhere by a route.
fn leads_out(route: &TableRoute) -> bool {
    route.verdict != Verdict::Unreachable
}

fn has_table(network: &NetworkName) -> bool {
    nft::run(&["list", "table", "inet", &table_name(network)], "").is_ok()
}

/// Undoes what a daemon of this network that is dead, or has no interface, left on the host. Returns a line for each change.
///
/// # Errors
/// [`HostError::Elsewhere`], a journal that cannot be read; or the first of the changes that could not be undone, the others are.
pub fn undo_leftovers(network_name: &NetworkName, journal: &Path) -> Result<Vec<String>, HostError> {
    let journal = match Journal::open(journal)? {
        Found::Nothing(journal) => {
            journal.clear()?;
            return Ok(Vec::new());
        }
        Found::Elsewhere(journal) => return Err(HostError::Elsewhere { path: journal.path().to_owned() }),
        Found::Here(journal) => journal,
    };
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    undo_changes(network_name, &mut Network::open()?, &journal, |line| lines.push(line), &mut problems);
    problems.into_iter().next().map_or(Ok(lines), Err)
}

/// Undoes all changes, the last one first; what cannot be undone stays in the journal.
fn undo_changes(
    name: &NetworkName,
    network: &mut Network,
    journal: &Journal,
    mut tell: impl FnMut(String),
    problems: &mut Vec<HostError>,
) {
    for change in journal.changes().into_iter().rev() {
        match undo_change(name, network, &change) {
            Ok(line) => {
                line.map(&mut tell);
                problems.extend(journal.forget(&change).err());
            }
            Err(error) => problems.push(error),
        }
    }
}

/// Undoes a change and says what was done, if it was still there.
fn undo_change(name: &NetworkName, network: &mut Network, change: &Change) -> Result<Option<String>, HostError> {
    match change {
        Change::Routing(slot) => {
            let (table, mut count) = (slot.table(), 0);
            for rule in slot.rules() {
                count += usize::from(network.remove_rule(&rule)?);
            }
            let routes = network.table_routes(table)?;
            routes.iter().try_for_each(|route| network.remove_table_route(table, route))?;
            let is_any = count > 0 || !routes.is_empty();
            Ok(is_any.then(|| format!("removed the routing rules {} and table {table}", slot.priority())))
        }
        Change::Filter => match has_table(name) {
            true => {
                nft::run(&["-f", "-"], &filter::removal(name))?;
                Ok(Some(format!("removed the nft table {}", table_name(name))))
            }
            false => Ok(None),
        },
        Change::Sysctl { key, before, after } => {
            let present = key.read()?;
            // Set by somebody else meanwhile: theirs.
            let is_ours = present.as_ref() == Some(after) || before == after;
            if !is_ours || present.as_ref() == Some(before) {
                return Ok(None);
            }
            key.write(before)?;
            Ok(Some(format!("set {key} back to {before}")))
        }
        Change::Bridging(bridging) => {
            let is_undone = network.undo_bridging(bridging)?;
            Ok(is_undone.then(|| format!("took {} out of the bridge {}", bridging.card, bridging.bridge)))
        }
        Change::Names(interface) => {
            let undone = host_dns::clear_leftovers(interface.as_str());
            Ok((!undone.is_empty()).then(|| undone.join(", ")))
        }
    }
}
