//! Keeps the host told where to ask for the network's names, on a thread of its own: the programs that do it take their time.
//!
//! ```text
//!   want(what) ──► thread: choose a way, tell the host ──► report
//!                     └─ every few seconds: did somebody undo it? tell again
//! ```
//! Owns what was told, and takes it back at the end. What a killed daemon told is taken back at the next start, and by `p2plus cleanup`.

use super::config::DnsBackend;
use crate::io::device_name::DeviceName;
use crate::io::host::{Change, Journal};
use crate::io::host_dns::{Delegation, FileState, HostDns, clear_leftovers};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How often is looked whether systemd-resolved, or the file, is still what was told: two system calls.
const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// What the host was told, for `dns status`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HostNamesReport {
    /// The way in which it was told; none where it was not.
    pub used: Option<HostDns>,
    /// Why it was not.
    pub reason: Option<String>,
}

/// See the module.
pub struct HostNames {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    backend: DnsBackend,
    wanted: Option<Delegation>,
    /// Grows with each change of what is wanted.
    generation: u64,
    report: HostNamesReport,
    is_over: bool,
}

/// What the thread does.
struct Teller {
    /// None for a node without an interface, whose host is never told anything.
    journal: Option<Journal>,
    told: Option<Told>,
}

/// What the thread has told.
struct Told {
    way: HostDns,
    delegation: Delegation,
    /// What somebody else's change would change; none where it could not be seen.
    watched: Option<FileState>,
}

impl HostNames {
    /// Starts the thread, and takes back what an earlier daemon left: as the journal tells, and for `interface`, because the host's files
    /// outlast a boot and the journal does not.
    ///
    /// # Errors
    /// The system's, when it gives no thread.
    pub fn start(backend: DnsBackend, interface: Option<&str>, journal: Option<Journal>) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::new(State { backend, ..State::default() }), ..Shared::default() });
        let inside = Arc::clone(&shared);
        let interface = interface.and_then(|name| name.parse().ok());
        let thread = thread::Builder::new().name("p2p-names".to_owned()).spawn(move || {
            let teller = Teller { journal, told: None };
            teller.take_back_leftovers(interface);
            inside.run(teller);
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Takes what the host is to be told; `None` takes it all back.
    pub fn want(&self, backend: DnsBackend, wanted: Option<Delegation>) {
        let mut state = self.shared.lock();
        if state.wanted != wanted || state.backend != backend {
            (state.wanted, state.backend) = (wanted, backend);
            state.generation += 1;
            self.shared.changed.notify_all();
        }
    }

    /// What the host was told.
    pub fn report(&self) -> HostNamesReport {
        self.shared.lock().report.clone()
    }
}

/// Takes back what was told, and waits for that.
impl Drop for HostNames {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // One that panicked has told all that it will.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, mut teller: Teller) {
        let mut seen: u64 = 0;
        loop {
            let mut state = self.lock();
            if !state.is_over && state.generation == seen {
                (state, _) = self.changed.wait_timeout(state, CHECK_INTERVAL).unwrap_or_else(PoisonError::into_inner);
            }
            let wanted = if state.is_over { None } else { state.wanted.clone() };
            let (backend, is_over, is_news) = (state.backend, state.is_over, state.generation != seen);
            seen = state.generation;
            drop(state);
            let report = teller.step(backend, wanted, is_news);
            if is_over {
                return;
            }
            self.lock().report = report;
        }
    }
}

impl Teller {
    /// Takes back what a daemon that was killed told.
    fn take_back_leftovers(&self, interface: Option<DeviceName>) {
        let changes = self.journal.iter().flat_map(Journal::changes);
        let noted = changes.filter_map(|change| if let Change::Names(it) = change { Some(it) } else { None });
        for interface in noted.chain(interface) {
            for undone in clear_leftovers(interface.as_str()) {
                tracing::info!(undone, "left over by a daemon that was killed");
            }
            self.forget(interface);
        }
    }

    /// Brings the host to what is wanted.
    fn step(&mut self, backend: DnsBackend, wanted: Option<Delegation>, is_news: bool) -> HostNamesReport {
        let Some(wanted) = wanted else {
            self.take_back();
            return HostNamesReport { used: None, reason: Some("there are no names to ask for yet".to_owned()) };
        };
        let told = self.told.as_ref();
        let is_as_told = told.is_some_and(|told| told.delegation == wanted && told.watched == told.way.watched());
        if is_as_told && !is_news {
            return HostNamesReport { used: told.map(|told| told.way), reason: None };
        }
        let Some(way) = choose(backend) else {
            self.take_back();
            let reason = match backend {
                DnsBackend::None => "backend = \"none\" stands under [dns]",
                _ => {
                    "neither systemd-resolved nor resolvconf is there; backend = \"file\" would write /etc/resolv.conf"
                }
            };
            return HostNamesReport { used: None, reason: Some(reason.to_owned()) };
        };
        if told.is_some_and(|told| told.way != way || told.delegation.interface != wanted.interface) {
            self.take_back();
        }
        match self.tell(way, &wanted) {
            Ok(()) => {
                let zone = wanted.zones.first().map(String::as_str).unwrap_or_default();
                tracing::info!(zone, servers = ?wanted.servers, by = way.name(), "this host asks here for the network's names");
                self.told = Some(Told { way, watched: way.watched(), delegation: wanted });
                HostNamesReport { used: Some(way), reason: None }
            }
            Err(reason) => {
                let is_first = self.told.take().is_some() || is_news;
                if is_first {
                    tracing::warn!(
                        reason,
                        by = way.name(),
                        "this host was not told where to ask for the network's names"
                    );
                }
                HostNamesReport { used: None, reason: Some(reason) }
            }
        }
    }

    /// Tells, once the journal has it.
    fn tell(&self, way: HostDns, wanted: &Delegation) -> Result<(), String> {
        if let Some(journal) = &self.journal {
            journal.record(Change::Names(wanted.interface.clone())).map_err(|error| error.to_string())?;
        }
        way.set(wanted).map_err(|error| error.to_string())
    }

    fn take_back(&mut self) {
        let Some(Told { way, delegation, .. }) = self.told.take() else { return };
        match way.clear(delegation.interface.as_str()) {
            Ok(()) => {
                tracing::info!(by = way.name(), "this host asks here for names no more");
                self.forget(delegation.interface);
            }
            Err(error) => {
                tracing::warn!(%error, by = way.name(), "what this host was told about names was not taken back");
            }
        }
    }

    fn forget(&self, interface: DeviceName) {
        let outcome = self.journal.as_ref().map(|journal| journal.forget(&Change::Names(interface)));
        if let Some(Err(error)) = outcome {
            tracing::warn!(%error, "what was undone is undone once more some day");
        }
    }
}

fn choose(backend: DnsBackend) -> Option<HostDns> {
    match backend {
        DnsBackend::Auto => HostDns::detect(),
        DnsBackend::Resolved => Some(HostDns::Resolved),
        DnsBackend::Resolvconf => Some(HostDns::Resolvconf),
        DnsBackend::File => Some(HostDns::File),
        DnsBackend::None => None,
    }
}
