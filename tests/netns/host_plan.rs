//! The host's side by itself: whole plans on the real kernel, and what an end without goodbye leaves of them.

use crate::device::config;
use crate::host_state::{assert_untouched, dump};
use crate::lab::{Host as LabHost, Lab, eventually};
use crate::node::PATIENCE;
use p2plus::io::device::Device;
use p2plus::io::host::{FilterPlan, Host, HostPlan, HostSetup, LockDown, Masquerade, Sysctl, undo_leftovers};
use p2plus::io::network::Network;
use p2plus::wire::prefix::Prefix;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A host of a lab with a device, and the folder where the journal and the locks are.
struct Place {
    lab_host: LabHost,
    folder: tempfile::TempDir,
    _lab: Lab,
}

impl Place {
    fn new() -> Option<Self> {
        let mut lab = Lab::new()?;
        let lab_host = lab.host("host");
        Some(Self { lab_host, folder: tempfile::tempdir().unwrap(), _lab: lab })
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("lab.undo")
    }

    fn run_dir(&self) -> &Path {
        self.folder.path()
    }

    /// Opens a device, and what a daemon has of its host.
    fn open(&self) -> (Device, Host) {
        self.lab_host.run(|| {
            let device = Device::open(&config("p2p-lab")).unwrap();
            let index = device.index().unwrap();
            Network::open().unwrap().set_up(index, 1400, 500).unwrap();
            let host = Host::open(HostSetup {
                network: "lab".parse().unwrap(),
                device: "p2p-lab".parse().unwrap(),
                index,
                run_dir: self.run_dir(),
                journal: &self.journal(),
            });
            (device, host.unwrap())
        })
    }

    /// Ends as a process does that is killed. A child that another test starts at that moment has the device, too, until it runs its program.
    #[track_caller]
    fn end(&self, host: Host, device: Device) {
        drop((host, device));
        self.wait_for_end();
    }

    #[track_caller]
    fn wait_for_end(&self) {
        assert!(eventually(PATIENCE, || !self.lab_host.ip("link").contains("p2p-lab")), "the device stays");
    }

    #[track_caller]
    fn apply(&self, host: &mut Host, plan: &HostPlan) {
        let problems = self.lab_host.run(|| host.apply(plan));
        assert!(problems.is_empty(), "{problems:?}");
    }

    fn cleanup(&self) -> Vec<String> {
        self.lab_host.run(|| undo_leftovers(&"lab".parse().unwrap(), &self.journal())).unwrap()
    }

    fn sysctl(&self, path: &str) -> String {
        self.lab_host.run(|| std::fs::read_to_string(Path::new("/proc/sys").join(path)).unwrap()).trim().to_owned()
    }
}

fn prefixes(texts: &[&str]) -> BTreeSet<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// A member's plan.
fn plan() -> HostPlan {
    HostPlan {
        addresses: [("10.77.0.1".parse().unwrap(), 24), ("fd00:7::1".parse().unwrap(), 64)].into(),
        routed: prefixes(&["10.77.0.0/24", "fd00:7::/64"]),
        ..HostPlan::default()
    }
}

/// The same of a router that is an exit node and uses another, with everything that there is.
fn full_plan() -> HostPlan {
    let all = |text: &str| text.parse().unwrap();
    HostPlan {
        routed: prefixes(&["10.77.0.0/24", "fd00:7::/64", "192.168.9.0/24", "0.0.0.0/0", "::/0"]),
        refused: prefixes(&["10.78.0.0/24"]),
        spared: prefixes(&["198.18.1.0/24"]),
        filter: FilterPlan {
            forward_from: ["docker0".parse().unwrap()].into(),
            advertised: ["eth0".parse().unwrap()].into(),
            masquerade: [
                Masquerade { from: all("10.77.0.0/24"), to: all("0.0.0.0/0") },
                Masquerade { from: all("fd00:7::/64"), to: all("::/0") },
            ]
            .into(),
            mapped: BTreeMap::from([
                (all("10.99.1.0/24"), all("192.168.1.0/24")),
                (all("fd99:1::/64"), all("fd98:1::/64")),
            ]),
            lock_down: Some(LockDown { lan: prefixes(&["198.18.1.0/24", "2001:db8:1::/64"]) }),
            carries_default: true,
            underlay_ports: [4647].into(),
            forwards: true,
            is_exit: true,
            unmapped: prefixes(&["172.20.1.0/24", "fd97:1::/64"]),
        },
        sysctls: BTreeMap::from([
            (Sysctl::Ipv4Forwarding("eth0".parse().unwrap()), 1),
            (Sysctl::Ipv6Forwarding("all".parse().unwrap()), 1),
            (Sysctl::Ipv6AcceptRa("eth0".parse().unwrap()), 2),
            (Sysctl::Ipv4SourceHeedsMark, 1),
        ]),
        ..plan()
    }
}

#[test]
fn a_plan_becomes_the_next_one_by_the_difference_and_the_same_one_changes_nothing() {
    let Some(place) = Place::new() else { return };
    let before = dump(&place.lab_host);
    let (device, mut host) = place.open();
    place.apply(&mut host, &plan());
    let small = dump(&place.lab_host);
    place.apply(&mut host, &full_plan());
    let large = dump(&place.lab_host);
    for line in [
        "default dev p2p-lab table 52800",
        "unreachable default table 52800",
        "throw 198.18.1.0/24 table 52800",
        "unreachable 10.78.0.0/24 table 52800",
        "masquerade to :4648-65535",
        "/proc/sys/net/ipv6/conf/eth0/forwarding = 1",
        "/proc/sys/net/ipv4/conf/all/src_valid_mark = 1",
    ] {
        assert!(large.contains(line), "{line}: {large}");
    }
    place.apply(&mut host, &full_plan());
    assert_untouched(&large, &place.lab_host);
    place.apply(&mut host, &plan());
    assert_untouched(&small, &place.lab_host);
    assert!(place.lab_host.run(|| host.undo()).is_empty());
    place.end(host, device);
    assert_untouched(&before, &place.lab_host);
    assert!(!place.journal().exists());
}

#[test]
fn what_an_end_without_goodbye_leaves_is_undone_to_the_last_setting() {
    let Some(place) = Place::new() else { return };
    let before = dump(&place.lab_host);
    let (device, mut host) = place.open();
    place.apply(&mut host, &full_plan());
    place.end(host, device);
    let left = dump(&place.lab_host);
    assert!(left.contains("unreachable default table 52800") && left.contains("counter packets"), "{left}");
    // The next start takes it over and needs less.
    let (device, mut host) = place.open();
    place.apply(&mut host, &plan());
    assert_eq!(place.sysctl("net/ipv6/conf/all/forwarding"), "0");
    place.apply(&mut host, &full_plan());
    place.end(host, device);
    assert_eq!(place.cleanup().len(), 6, "four settings, the filter, the routing");
    assert_untouched(&before, &place.lab_host);
}

#[test]
fn a_setting_that_somebody_changed_meanwhile_is_theirs_and_one_that_was_so_already_stays() {
    let Some(place) = Place::new() else { return };
    // One interface forwards although not all do: setting all takes it along, and setting all back as well.
    place.lab_host.sysctl("net/ipv6/conf/eth0/forwarding", "1");
    place.lab_host.sysctl("net/ipv4/conf/eth0/forwarding", "1");
    let before = dump(&place.lab_host);
    let (device, mut host) = place.open();
    place.apply(&mut host, &full_plan());
    assert_eq!(place.sysctl("net/ipv6/conf/lo/forwarding"), "1");
    place.end(host, device);
    place.cleanup();
    assert_untouched(&before, &place.lab_host);

    let (device, mut host) = place.open();
    place.apply(&mut host, &full_plan());
    place.lab_host.sysctl("net/ipv6/conf/eth0/accept_ra", "0");
    place.end(host, device);
    place.cleanup();
    assert_eq!(place.sysctl("net/ipv6/conf/eth0/accept_ra"), "0");
}

#[test]
fn without_a_journal_nothing_is_changed() {
    let Some(place) = Place::new() else { return };
    let before = dump(&place.lab_host);
    let refused = place.lab_host.run(|| {
        let device = Device::open(&config("p2p-lab")).unwrap();
        Host::open(HostSetup {
            network: "lab".parse().unwrap(),
            device: "p2p-lab".parse().unwrap(),
            index: device.index().unwrap(),
            run_dir: place.run_dir(),
            journal: Path::new("/proc/nowhere/lab.undo"),
        })
        .map(drop)
    });
    assert!(refused.unwrap_err().to_string().contains("/proc/nowhere/lab.undo"));
    place.wait_for_end();
    assert_untouched(&before, &place.lab_host);
}
