//! The rules of the house, checked on the sources themselves.
//!
//! ```text
//! shell   main → cli → daemon → io
//!                                 ↘
//! core    node → { router, session, path, ledger } → policy → wire → { crypto, time }
//! ```
//!
//! Arrows point down this picture only, the core touches nothing of the operating system, each external crate has one
//! home, and `unsafe` lives under `src/io`. The rules are a function over a set of sources, so the second half of this
//! file plants a violation of each kind and sees it reported.

#[path = "architecture/references.rs"]
mod references;
#[path = "architecture/threats.rs"]
mod threats;

use references::{Reference, Source, Target, module_path, references};
use std::collections::{BTreeMap, BTreeSet};

/// The rooms from the top down. A room may import those of lower floors; rooms of one floor do not know each other.
const FLOORS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["daemon"],
    &["io"],
    &["node"],
    &["router", "session", "path", "ledger"],
    &["policy"],
    &["wire"],
    &["crypto", "time"],
];

const SHELL: &[&str] = &["main", "cli", "daemon", "io"];

/// Where each external crate may be named; an empty list means everywhere.
const HOMES: &[(&str, &[&str])] = &[
    ("aes_gcm", &["crypto"]),
    // In the ledger, because the traits of jmt speak it.
    ("anyhow", &["ledger", "main", "cli", "daemon", "io"]),
    ("arc_malachitebft_core_consensus", &["ledger"]),
    ("arc_malachitebft_core_types", &["ledger"]),
    ("arc_malachitebft_peer", &["ledger"]),
    ("arc_swap", &["node", "daemon", "io"]),
    ("aws_lc_rs", &["crypto"]),
    ("axum", SHELL),
    ("bech32", &["wire", "cli"]),
    ("bip39", &["crypto", "cli"]),
    ("blake2", &["crypto"]),
    ("blake3", &["crypto"]),
    ("borsh", &[]),
    ("bytes", &["ledger", "node", "io", "daemon", "cli"]),
    ("chacha20poly1305", &["crypto"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli"]),
    ("comfy_table", &["cli"]),
    ("crc32c", &["ledger"]),
    ("ed25519_dalek", &["crypto"]),
    ("etherparse", &["wire"]),
    ("fast_qr", &["cli"]),
    ("futures_core", &["io"]),
    ("getrandom", &["io"]),
    ("hickory_proto", &["node"]),
    ("hmac", &["crypto"]),
    ("http_body_util", SHELL),
    ("hyper", SHELL),
    ("hyper_util", SHELL),
    ("jmt", &["ledger"]),
    ("libc", &["io"]),
    ("mainline", &["io"]),
    ("miette", SHELL),
    ("ml_kem", &["crypto"]),
    ("rand_core", &[]),
    ("redb", &["ledger"]),
    ("rtnetlink", &["io"]),
    ("rustls", &["io"]),
    ("sd_notify", &["io", "daemon"]),
    ("serde", SHELL),
    ("serde_json", SHELL),
    ("smoltcp", &["node"]),
    ("socket2", &["io"]),
    ("subtle", &["crypto"]),
    ("thiserror", &[]),
    ("tokio", SHELL),
    ("tokio_rustls", &["io"]),
    ("toml", SHELL),
    ("tracing", &[]),
    ("tracing_subscriber", SHELL),
    ("tun_rs", &["io"]),
    ("x25519_dalek", &["crypto"]),
    ("zeroize", &[]),
];

/// What the core may name of the modules of `std` through which the operating system would come in.
const HARMLESS_STD: &[(&str, &[&str])] = &[
    ("env", &[]),
    ("fs", &[]),
    ("net", &["AddrParseError", "IpAddr", "Ipv4Addr", "Ipv6Addr", "SocketAddr", "SocketAddrV4", "SocketAddrV6"]),
    ("os", &[]),
    ("process", &[]),
    ("thread", &[]),
    ("time", &["Duration"]),
];

const PRINTING_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Every rule that `sources` break, as lines for a person.
fn violations(sources: &[Source]) -> Vec<String> {
    let crates: BTreeSet<String> =
        HOMES.iter().map(|(name, _)| *name).chain(["std", "core", "alloc"]).map(str::to_owned).collect();
    let references = references(sources, &crates);
    let mut broken: Vec<String> = sources.iter().filter_map(|(file, _)| room_without_a_floor(file)).collect();
    broken.extend(references.iter().filter_map(|reference| {
        let complaint = complaint(reference)?;
        Some(format!("{}:{}: {complaint}", reference.file, reference.line))
    }));
    broken.extend(cycle(&references));
    broken
}

fn complaint(reference: &Reference) -> Option<String> {
    let room = reference.room.as_str();
    let core = room != "lib" && !SHELL.contains(&room);
    match &reference.target {
        Target::Room(other) if !may_import(room, other) => Some(format!("`{room}` may not import `{other}`")),
        Target::CrateRoot if room != "main" => Some("the crate root is imported as a whole: name the room".to_owned()),
        Target::Unsafe if room != "io" => Some("`unsafe` outside src/io".to_owned()),
        Target::Macro(name) if core && !reference.in_test && PRINTING_MACROS.contains(&name.as_str()) => {
            Some(format!("`{name}!` in the core"))
        }
        Target::External(path) if !reference.in_test => {
            away_from_home(room, path).or_else(|| if core { operating_system(path) } else { None })
        }
        _ => None,
    }
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// `lib` only declares the rooms; a room imports lower floors.
fn may_import(room: &str, other: &str) -> bool {
    matches!((floor(room), floor(other)), (Some(from), Some(to)) if from < to)
}

fn room_without_a_floor(file: &str) -> Option<String> {
    let module = module_path(file);
    let room = module.first()?;
    floor(room).is_none().then(|| format!("{file}: `{room}` has no floor in tests/architecture.rs"))
}

fn away_from_home(room: &str, path: &[String]) -> Option<String> {
    let (name, homes) = HOMES.iter().find(|(name, _)| *name == path[0])?;
    let at_home = homes.is_empty() || homes.contains(&room);
    (!at_home).then(|| format!("the crate `{name}` lives in {}, not in `{room}`", homes.join(", ")))
}

/// A bare `std::net` counts as everything in it: through a renamed module the rest would go unseen.
fn operating_system(path: &[String]) -> Option<String> {
    if !matches!(path[0].as_str(), "std" | "core" | "alloc") {
        return None;
    }
    let Some(module) = path.get(1) else { return Some(format!("`{}` as a whole in the core", path[0])) };
    let (_, harmless) = HARMLESS_STD.iter().find(|(name, _)| name == module)?;
    let allowed = path.get(2).is_some_and(|item| harmless.contains(&item.as_str()));
    (!allowed).then(|| format!("`{}` in the core", path.join("::")))
}

/// One cycle between rooms, if there is any.
fn cycle(references: &[Reference]) -> Option<String> {
    let mut imports: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for reference in references {
        if let Target::Room(other) = &reference.target {
            imports.entry(&reference.room).or_default().insert(other);
        }
    }
    let mut acyclic = BTreeSet::new();
    let found = imports.keys().find_map(|room| cycle_through(room, &imports, &mut Vec::new(), &mut acyclic))?;
    Some(format!("a cycle of imports: {}", found.join(" → ")))
}

fn cycle_through<'a>(
    room: &'a str,
    imports: &BTreeMap<&'a str, BTreeSet<&'a str>>,
    trail: &mut Vec<&'a str>,
    acyclic: &mut BTreeSet<&'a str>,
) -> Option<Vec<&'a str>> {
    if let Some(start) = trail.iter().position(|seen| *seen == room) {
        return Some([&trail[start..], &[room]].concat());
    }
    if acyclic.contains(room) {
        return None;
    }
    trail.push(room);
    let others = imports.get(room).into_iter().flatten();
    let found = others.into_iter().find_map(|other| cycle_through(other, imports, trail, acyclic));
    trail.pop();
    acyclic.insert(room);
    found
}

// The house as it stands.

#[test]
fn the_sources_keep_the_rules() {
    let root = env!("CARGO_MANIFEST_DIR");
    let files: Vec<(String, String)> = walkdir::WalkDir::new(format!("{root}/src"))
        .sort_by_file_name()
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), text)
        })
        .collect();
    let sources: Vec<Source> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    for known in ["src/lib.rs", "src/main.rs", "src/time.rs"] {
        assert!(sources.iter().any(|(path, _)| *path == known), "{known} was not read");
    }
    let broken = violations(&sources);
    assert!(broken.is_empty(), "{} violations\n{}", broken.len(), broken.join("\n"));
}

#[test]
fn every_dependency_has_a_home() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let declared: BTreeSet<String> =
        manifest["dependencies"].as_table().unwrap().keys().map(|name| name.replace('-', "_")).collect();
    let homes: BTreeSet<String> = HOMES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(declared, homes, "Cargo.toml and the table HOMES name different crates");
}

// Planted violations.

/// What is reported for `text` as the file `path`, beside a house that is in order.
fn planted(path: &str, text: &str) -> Vec<String> {
    violations(&[
        ("src/lib.rs", "//! The root.\npub mod wire; pub mod node; pub mod io; pub mod ledger; pub mod session;"),
        ("src/wire/mod.rs", "pub mod data;"),
        ("src/wire/data.rs", "use crate::crypto::hash::Digest; pub struct Counter(pub u64);"),
        ("src/node/mod.rs", "use crate::{ledger, session::Session};"),
        (path, text),
    ])
}

#[track_caller]
fn assert_reported(path: &str, text: &str, complaint: &str) {
    let broken = planted(path, text);
    assert!(
        broken.iter().any(|line| line.starts_with(path) && line.contains(complaint)),
        "{text}\nreported: {broken:?}"
    );
}

#[track_caller]
fn assert_clean(path: &str, text: &str) {
    assert_eq!(planted(path, text), Vec::<String>::new(), "{text}");
}

#[test]
fn an_arrow_that_points_up_is_seen_in_every_way_of_writing_it() {
    for text in [
        "use crate::node::Node;",
        "use crate::{time::Now, node::{self, Node}};",
        "use crate::node as frame;",
        "use crate::node::*;",
        "use super::node::Node;",
        "use {crate::time::Now, crate::node};",
        "pub use crate::node::Node;",
        "pub(crate) use super::{node::Node as Frame};",
        "fn run(node: &crate::node::Node) {}",
        "fn run() { let node = crate::node::Node::new(); }",
        "fn run() { use crate::node::Node; }",
        "fn run() { <crate::node::Node as Default>::default(); }",
        "impl crate::node::Listener for u8 {}",
        "mod inner { use super::super::node::Node; }",
        "mod inner { fn run() -> super::super::node::Node { loop {} } }",
        "fn run() { vec![crate::node::Node::new()]; }",
        "macro_rules! node { () => { $crate::node::Node::new() }; }",
        "macro_rules! node { () => { use crate::{time, node::Node}; }; }",
        "macro_rules! node { () => { use crate::node::*; }; }",
        "#[serde(with = \"crate::node::codec\")] struct Shown;",
        "#[derive(crate::node::Shown)] struct Shown;",
        "use p2plus::node::Node;",
        "struct Held<T: Into<crate::node::Node>>(T);",
        "#[cfg(test)] mod tests { use crate::node::Node; }",
    ] {
        assert_reported("src/session/mod.rs", text, "`session` may not import `node`");
    }
}

#[test]
fn each_floor_refuses_the_floors_above_it() {
    for (upper, rooms) in FLOORS.iter().enumerate() {
        for (lower, others) in FLOORS.iter().enumerate().skip(1) {
            for (room, other) in others.iter().flat_map(|room| rooms.iter().map(move |other| (*room, *other))) {
                let text = format!("use crate::{other}::Thing;");
                match room == other || lower < upper {
                    true => assert_clean(&format!("src/{room}/planted.rs"), &text),
                    false => assert_reported(
                        &format!("src/{room}/planted.rs"),
                        &text,
                        &format!("`{room}` may not import `{other}`"),
                    ),
                }
            }
        }
    }
}

#[test]
fn rooms_of_one_floor_do_not_know_each_other() {
    assert_reported("src/router/mod.rs", "use crate::session::Session;", "`router` may not import `session`");
    assert_reported("src/ledger/chain.rs", "use crate::path::Path;", "`ledger` may not import `path`");
    assert_reported("src/crypto/hash.rs", "use crate::time::Now;", "`crypto` may not import `time`");
}

#[test]
fn a_cycle_is_named_with_its_way() {
    let broken = violations(&[
        ("src/node/mod.rs", "use crate::path::Path;"),
        ("src/path/mod.rs", "use crate::wire::datagram;"),
        ("src/wire/mod.rs", "use crate::node::Node;"),
    ]);
    assert!(broken.contains(&"a cycle of imports: node → path → wire → node".to_owned()), "{broken:?}");
}

#[test]
fn the_crate_root_is_not_imported_as_a_whole() {
    for text in
        ["use crate::*;", "use crate as root;", "use crate::{self as root};", "use super::*;", "extern crate p2plus;"]
    {
        assert_reported("src/node/mod.rs", text, "the crate root is imported as a whole");
    }
}

#[test]
fn the_root_of_the_library_only_declares_rooms() {
    let broken = violations(&[("src/lib.rs", "pub mod node; pub use node::Node;"), ("src/node/mod.rs", "")]);
    assert_eq!(broken, ["src/lib.rs:1: `lib` may not import `node`"]);
}

#[test]
fn a_new_top_level_module_needs_a_floor() {
    assert_reported("src/util.rs", "", "`util` has no floor");
    assert_reported("src/util/strings.rs", "", "`util` has no floor");
}

#[test]
fn a_crate_is_named_only_at_home() {
    for (path, text, complaint) in [
        ("src/session/seal.rs", "use aws_lc_rs::aead;", "the crate `aws_lc_rs` lives in crypto"),
        ("src/session/seal.rs", "use aws_lc_rs as cipher;", "the crate `aws_lc_rs` lives in crypto"),
        ("src/session/seal.rs", "fn f() { aws_lc_rs::init(); }", "the crate `aws_lc_rs` lives in crypto"),
        ("src/session/seal.rs", "use ::x25519_dalek::PublicKey;", "the crate `x25519_dalek` lives in crypto"),
        ("src/session/seal.rs", "extern crate subtle;", "the crate `subtle` lives in crypto"),
        ("src/session/seal.rs", "use crate::crypto::subtle::Choice;", "the crate `subtle` lives in crypto"),
        ("src/node/store.rs", "use {redb::Database, crate::time::Now};", "the crate `redb` lives in ledger"),
        ("src/router/mod.rs", "#[derive(serde::Serialize)] struct Shown;", "the crate `serde` lives in main, cli"),
        ("src/ledger/pool.rs", "async fn f() { tokio::select! {} }", "the crate `tokio` lives in main, cli"),
        ("src/daemon/workers.rs", "fn f() { libc::poll(); }", "the crate `libc` lives in io"),
        ("src/path/mtu.rs", "fn f() { getrandom::fill(&mut []); }", "the crate `getrandom` lives in io"),
    ] {
        assert_reported(path, text, complaint);
    }
    assert_clean("src/crypto/aead.rs", "use aws_lc_rs::aead; use subtle::ConstantTimeEq; use zeroize::Zeroize;");
    assert_clean("src/session/seal.rs", "use tracing::debug; fn f(bytes: &[u8]) { bytes.len(); }");
    assert_clean(
        "src/session/seal.rs",
        "#[cfg(test)] mod tests { use aws_lc_rs::aead; use rand_chacha::ChaCha20Rng; }",
    );
}

#[test]
fn unsafe_is_written_only_under_io() {
    for text in [
        "fn f() { unsafe { g() } }",
        "unsafe fn f() {}",
        "unsafe impl Send for X {}",
        "fn f() { m!(unsafe { g() }); }",
        "#[unsafe(no_mangle)] fn f() {}",
    ] {
        for path in ["src/node/forward/mod.rs", "src/daemon/mod.rs", "src/lib.rs"] {
            assert_reported(path, text, "`unsafe` outside src/io");
        }
        assert_clean("src/io/udp.rs", text);
    }
    assert_clean("src/node/forward/mod.rs", "//! Not unsafe.\n#![deny(unsafe_code)]\nconst WORD: &str = \"unsafe\";");
}

#[test]
fn the_core_does_not_touch_the_operating_system() {
    for (text, complaint) in [
        ("use std::fs;", "`std::fs` in the core"),
        ("use std::{fmt, fs::File};", "`std::fs::File` in the core"),
        ("use std::net::UdpSocket;", "`std::net::UdpSocket` in the core"),
        ("use std::net;", "`std::net` in the core"),
        ("use std::net::*;", "`std::net` in the core"),
        ("use std::{net as n};", "`std::net` in the core"),
        ("use std as s;", "`std` as a whole in the core"),
        ("fn f() { std::thread::sleep(d); }", "`std::thread::sleep` in the core"),
        ("use std::time::{Duration, Instant};", "`std::time::Instant` in the core"),
        ("fn f() { ::std::time::SystemTime::now(); }", "`std::time::SystemTime::now` in the core"),
        ("fn f() { std::env::var(\"HOME\"); }", "`std::env::var` in the core"),
        ("fn f() { println!(\"seen\"); }", "`println!` in the core"),
        ("fn f() { std::eprintln!(\"seen\"); }", "`eprintln!` in the core"),
        ("macro_rules! shout { () => { println!(\"seen\") }; }", "`println!` in the core"),
        ("macro_rules! now { () => { std::time::Instant::now() }; }", "`std::time::Instant::now` in the core"),
        ("#[cfg(any(test, feature = \"x\"))] mod x { use std::fs; }", "`std::fs` in the core"),
    ] {
        assert_reported("src/node/overlay.rs", text, complaint);
        assert_clean("src/io/clock.rs", text);
    }
    assert_clean("src/node/overlay.rs", "use std::{net::{IpAddr, SocketAddr}, time::Duration, sync::Arc, io};");
    assert_clean("src/node/overlay.rs", "#[cfg(test)] mod tests { use std::time::Instant; fn f() { println!(); } }");
    assert_clean("src/node/overlay.rs", "#[test] fn f() { std::fs::read(\"x\"); }");
}

#[test]
fn a_file_of_a_test_module_counts_as_test() {
    let sources = [("src/node/mod.rs", "#[cfg(test)]\nmod tests;"), ("src/node/tests.rs", "use std::fs;")];
    assert_eq!(violations(&sources), Vec::<String>::new());
    let sources = [("src/node/mod.rs", "mod tests;"), ("src/node/tests.rs", "use std::fs;")];
    assert_eq!(violations(&sources), ["src/node/tests.rs:1: `std::fs` in the core"]);
}

#[test]
fn a_local_module_is_not_taken_for_a_crate_or_a_room_above() {
    assert_clean("src/session/mod.rs", "mod bytes; use bytes::Window; mod node { pub fn f() {} } use node::f;");
    assert_clean("src/ledger/bft.rs", "use arc_malachitebft_core_consensus as core; fn f() { core::process!(x); }");
    assert_reported("src/node/mod.rs", "use crate::wire as std; fn f() { ::std::fs::read(\"x\"); }", "`std::fs::read`");
    assert_clean("src/session/mod.rs", "pub(in crate::node) fn f() {} use self::replay::Window; mod replay;");
}

#[test]
fn the_binary_starts_at_the_top_floor() {
    assert_clean("src/main.rs", "fn main() -> std::process::ExitCode { p2plus::cli::run(std::env::args_os()) }");
    assert_reported("src/cli/mod.rs", "fn f() { crate::main::start(); }", "`cli` may not import `main`");
}
