//! Whether what `docs/threats.md` names as shown is there: tests that run by themselves, fuzz targets, files.

// What cannot be read is a failed test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;
use syn::visit::{self, Visit};

/// What may be named.
struct Evidence {
    tests: BTreeSet<String>,
    fuzz_targets: BTreeSet<String>,
}

/// Collects the functions that the test harness calls without being asked to.
#[derive(Default)]
struct TestFinder(BTreeSet<String>);

impl<'ast> Visit<'ast> for TestFinder {
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        let has = |names: &[&str]| {
            let is_one = |segment: &syn::PathSegment| names.iter().any(|name| segment.ident == name);
            function.attrs.iter().any(|attribute| attribute.path().segments.last().is_some_and(is_one))
        };
        if has(&["test"]) && !has(&["ignore", "cfg_attr", "cfg"]) {
            self.0.insert(function.sig.ident.to_string());
        }
        visit::visit_item_fn(self, function);
    }
}

fn tests_of(text: &str) -> BTreeSet<String> {
    let mut finder = TestFinder::default();
    finder.visit_file(&syn::parse_file(text).unwrap());
    finder.0
}

fn fuzz_targets_of(manifest: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().unwrap();
    let name = |target: &toml::Value| target["name"].as_str().unwrap().to_owned();
    manifest["bin"].as_array().unwrap().iter().map(name).collect()
}

/// What stands between `before` and `after` in a text.
fn between<'a>(text: &'a str, before: &'a str, after: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).filter_map(move |rest| Some(rest.split_once(after)?.0))
}

/// What `threats` names and nothing is. Every word in code is a path, a test or a fuzz target; links lead to files beside it.
fn unfounded<'a>(threats: &'a str, evidence: &Evidence, exists: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let named = threats.split('`').skip(1).step_by(2);
    let is_shown = |name: &str| match name.contains('/') {
        true => exists(name),
        false => evidence.tests.contains(name) || evidence.fuzz_targets.contains(name),
    };
    let links = between(threats, "](", ")").filter(|link| !exists(&format!("docs/{link}")));
    named.filter(|name| !is_shown(name)).chain(links).collect()
}

#[test]
fn every_test_named_in_the_threats_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let tests = ["src", "tests"]
        .iter()
        .flat_map(|folder| walkdir::WalkDir::new(root.join(folder)))
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .flat_map(|path| tests_of(&std::fs::read_to_string(path).unwrap()))
        .collect();
    let evidence = Evidence { tests, fuzz_targets: fuzz_targets_of(&read("fuzz/Cargo.toml")) };
    let threats = read("docs/threats.md");
    assert!(threats.matches('`').count() > 200, "the names were not found in the table");
    let unfounded = unfounded(&threats, &evidence, |path| root.join(path).exists());
    assert!(unfounded.is_empty(), "docs/threats.md names what is no test, fuzz target or file: {unfounded:?}");
}

// Planted violations.

#[test]
fn what_the_harness_does_not_call_by_itself_is_no_test() {
    let text = "
        #[test] fn plain() {}
        mod inner { #[tokio::test] async fn of_tokio() {} }
        /// fn in_a_comment() {}
        const TEXT: &str = \"fn in_a_string() {}\";
        fn helper() {}
        #[test] #[ignore = \"slow\"] fn ignored() {}
        #[test] #[cfg_attr(miri, ignore)] fn ignored_at_times() {}
        #[test] #[cfg(windows)] fn of_another_system() {}
    ";
    assert_eq!(tests_of(text), ["of_tokio", "plain"].map(str::to_owned).into());
}

#[test]
fn names_of_nothing_are_told() {
    let tests = BTreeSet::from(["a_test".to_owned()]);
    let evidence = Evidence { tests, fuzz_targets: fuzz_targets_of("[[bin]]\nname = \"target\"") };
    let exists = |path: &str| path == "scripts/there.sh" || path == "docs/there.md";
    let threats = "`a_test`; fuzz targets `target`, `gone`; `no_test`; `scripts/there.sh`, `scripts/gone.sh`; [a](there.md) [b](gone.md)";
    assert_eq!(unfounded(threats, &evidence, exists), ["gone", "no_test", "scripts/gone.sh", "gone.md"]);
}
