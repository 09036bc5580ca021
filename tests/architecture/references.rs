//! Reads Rust sources and answers one question: who refers to what?
//!
//! Owns the reading (module tree, use-trees, inline paths, tokens of macros, names in attributes) and the resolution of
//! a path to a room of the house or to an external crate. It knows no rule: those are in `architecture.rs`.
//!
//! Names are resolved as far as text goes. A path that starts at an import, such as `hash::derive` after
//! `use crate::crypto::hash`, counts at that import; so nothing may import the crate root itself, under which every room
//! could be reached unseen ([`Target::CrateRoot`] reports it).

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// One source file: its path from the root of the repository, and its text.
pub type Source<'a> = (&'a str, &'a str);

/// One mention, in one line, of something outside the speaker's own room.
#[derive(Clone, Debug)]
pub struct Reference {
    pub file: String,
    pub line: usize,
    /// The top-level module that speaks; `lib` for the root of the library.
    pub room: String,
    /// Whether the line is compiled for tests only.
    pub in_test: bool,
    pub target: Target,
}

/// What a line mentions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Another top-level module of the crate.
    Room(String),
    /// The crate root as a whole: `use crate::*`, `use super as up` in a room.
    CrateRoot,
    /// A path in an external crate, the standard library included.
    External(Vec<String>),
    /// A macro called by its bare name.
    Macro(String),
    /// The keyword `unsafe`.
    Unsafe,
}

type ModulePath = Vec<String>;

/// The modules that the sources declare, which tells a local name from the name of a crate.
#[derive(Default)]
struct ModuleTree {
    children: BTreeMap<ModulePath, BTreeSet<String>>,
    test_only: BTreeSet<ModulePath>,
}

impl ModuleTree {
    fn declares(&self, module: &[String], name: &str) -> bool {
        self.children.get(module).is_some_and(|names| names.contains(name))
    }

    fn is_test_only(&self, module: &[String]) -> bool {
        (1..=module.len()).any(|len| self.test_only.contains(&module[..len]))
    }
}

/// All references in `sources`, in order. `crates` are the external crates known by name, `std` and its kin included.
///
/// # Panics
/// When a source is not Rust.
pub fn references(sources: &[Source], crates: &BTreeSet<String>) -> Vec<Reference> {
    let mut tree = ModuleTree::default();
    let parsed: Vec<_> = sources.iter().map(|(path, text)| (*path, *text, parse(path, text))).collect();
    for (path, _, file) in &parsed {
        declare(&mut tree, &module_path(path), &file.items);
    }
    let mut found = Vec::new();
    for (path, text, file) in &parsed {
        let module = module_path(path);
        let in_test = tree.is_test_only(&module);
        let mut renamed = Renamed::default();
        renamed.visit_file(file);
        let mut reader =
            Reader { tree: &tree, crates, file: path, module, renamed: renamed.0, in_test, found: Vec::new() };
        reader.visit_file(file);
        reader.unsafe_keywords(text.parse().expect("it was parsed above"));
        found.extend(reader.found);
    }
    found
}

/// `src/path/probe.rs` → `["path", "probe"]`; `src/lib.rs` → `[]`; `src/main.rs` → `["main"]`.
pub fn module_path(file: &str) -> ModulePath {
    let inner = file.strip_prefix("src/").unwrap_or(file).trim_end_matches(".rs");
    let names = inner.split('/').filter(|name| !matches!(*name, "mod" | "lib"));
    names.map(str::to_owned).collect()
}

fn parse(path: &str, text: &str) -> syn::File {
    syn::parse_file(text).unwrap_or_else(|error| panic!("{path}:{}: {error}", error.span().start().line))
}

fn declare(tree: &mut ModuleTree, module: &[String], items: &[syn::Item]) {
    for item in items {
        let syn::Item::Mod(declared) = item else { continue };
        let name = declared.ident.to_string();
        let inner = [module, std::slice::from_ref(&name)].concat();
        tree.children.entry(module.to_vec()).or_default().insert(name);
        if is_test_only(&declared.attrs) {
            tree.test_only.insert(inner.clone());
        }
        if let Some((_, items)) = &declared.content {
            declare(tree, &inner, items);
        }
    }
}

/// `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, …))]`; `any(test, …)` is shipped too.
fn is_test_only(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::Path(path) => path.is_ident("test"),
        syn::Meta::List(list) if list.path.is_ident("cfg") => {
            let condition = list.tokens.to_string().replace(' ', "");
            condition == "test" || condition.starts_with("all(test,")
        }
        _ => false,
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    use syn::Item::{
        Const, Enum, ExternCrate, Fn, ForeignMod, Impl, Macro, Mod, Static, Struct, Trait, Type, Union, Use,
    };
    match item {
        Const(item) => &item.attrs,
        Enum(item) => &item.attrs,
        ExternCrate(item) => &item.attrs,
        Fn(item) => &item.attrs,
        ForeignMod(item) => &item.attrs,
        Impl(item) => &item.attrs,
        Macro(item) => &item.attrs,
        Mod(item) => &item.attrs,
        Static(item) => &item.attrs,
        Struct(item) => &item.attrs,
        Trait(item) => &item.attrs,
        Type(item) => &item.attrs,
        Union(item) => &item.attrs,
        Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The names that a file gives to what it imports: after `use engine as core`, `core::x` is none of the crate `core`.
#[derive(Default)]
struct Renamed(BTreeSet<String>);

impl<'ast> Visit<'ast> for Renamed {
    fn visit_use_rename(&mut self, rename: &'ast syn::UseRename) {
        self.0.insert(rename.rename.to_string());
    }
}

/// Walks one file. Each path is resolved where it stands, in the module that surrounds it.
struct Reader<'a> {
    tree: &'a ModuleTree,
    crates: &'a BTreeSet<String>,
    file: &'a str,
    module: ModulePath,
    renamed: BTreeSet<String>,
    in_test: bool,
    found: Vec<Reference>,
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let outside = self.in_test;
        self.in_test |= is_test_only(attributes(item));
        visit::visit_item(self, item);
        self.in_test = outside;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        let outside = self.in_test;
        self.in_test |= is_test_only(&item.attrs);
        visit::visit_impl_item_fn(self, item);
        self.in_test = outside;
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        item.attrs.iter().for_each(|attribute| self.visit_attribute(attribute));
        self.use_tree(&item.tree, &mut root(item.leading_colon));
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.path(&[item.ident.to_string()], item.ident.span().start().line);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string());
            let names: Vec<_> = root(path.leading_colon).into_iter().chain(segments).collect();
            self.path(&names, path.span().start().line);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        if let Some(name) = call.path.segments.last() {
            self.record(name.ident.span().start().line, Target::Macro(name.ident.to_string()));
        }
        visit::visit_macro(self, call);
        self.tokens(call.tokens.clone(), &[]);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone(), &[]);
            self.quoted_paths(list.tokens.clone());
        }
    }

    /// `pub(crate)` and `pub(in path)` say who may look in, not where we look.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}
}

impl Reader<'_> {
    fn record(&mut self, line: usize, target: Target) {
        let room = self.module.first().map_or("lib", String::as_str).to_owned();
        self.found.push(Reference { file: self.file.to_owned(), line, room, in_test: self.in_test, target });
    }

    /// Records each leaf of a use-tree by its full path; a glob counts as the module that it opens.
    fn use_tree(&mut self, tree: &syn::UseTree, prefix: &mut Vec<String>) {
        let line = tree.span().start().line;
        match tree {
            syn::UseTree::Path(path) => {
                prefix.push(path.ident.to_string());
                self.use_tree(&path.tree, prefix);
                prefix.pop();
            }
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.use_tree(item, prefix)),
            syn::UseTree::Glob(_) => self.path(prefix, line),
            syn::UseTree::Name(syn::UseName { ident, .. }) | syn::UseTree::Rename(syn::UseRename { ident, .. }) => {
                let leaf = (ident != "self" || prefix.is_empty()).then(|| ident.to_string());
                let full: Vec<_> = prefix.iter().cloned().chain(leaf).collect();
                self.path(&full, line);
            }
        }
    }

    /// Resolves a path of names, of which an empty first one stands for a leading `::`, and records where it leads, unless it stays in the room.
    fn path(&mut self, names: &[String], line: usize) {
        let Some(first) = names.first() else { return };
        let declared_here = self.tree.declares(&self.module, first);
        match first.as_str() {
            "crate" if self.module.first().is_some_and(|room| room == "main") => {}
            "crate" | "p2plus" => self.inner_path(&[], &names[1..], line),
            "self" | "super" => {
                let supers = names.iter().take_while(|name| matches!(name.as_str(), "self" | "super")).count();
                let up = names[..supers].iter().filter(|name| *name == "super").count();
                let base = self.module[..self.module.len().saturating_sub(up)].to_vec();
                self.inner_path(&base, &names[supers..], line);
            }
            "" if names.get(1).is_some_and(|name| self.crates.contains(name)) => {
                self.record(line, Target::External(names[1..].to_vec()));
            }
            _ if declared_here => self.inner_path(&self.module.clone(), names, line),
            name if self.crates.contains(name) && !self.renamed.contains(name) => {
                self.record(line, Target::External(names.to_vec()));
            }
            _ => {}
        }
    }

    /// `names` below the module `base`: a room, or an external crate that a room passes on (`crate::io::libc`).
    fn inner_path(&mut self, base: &[String], names: &[String], line: usize) {
        let full = [base, names].concat();
        let Some(room) = full.first() else { return self.record(line, Target::CrateRoot) };
        if self.module.first() != Some(room) {
            self.record(line, Target::Room(room.clone()));
        }
        for at in 1..full.len() {
            if self.crates.contains(&full[at]) && !self.tree.declares(&full[..at], &full[at]) {
                self.record(line, Target::External(full[at..].to_vec()));
            }
        }
    }

    /// Paths and macro calls in tokens that the parser leaves as they are; `prefix` stands before a group in a use-tree.
    fn tokens(&mut self, stream: TokenStream, prefix: &[String]) {
        let tokens: Vec<_> = stream.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            match &tokens[at] {
                TokenTree::Group(group) => self.tokens(group.stream(), &[]),
                TokenTree::Ident(first) => {
                    let line = first.span().start().line;
                    let mut names = [prefix, &[first.to_string()]].concat();
                    while let (true, Some(TokenTree::Ident(next))) = (is_separator(&tokens, at + 1), tokens.get(at + 3))
                    {
                        names.push(next.to_string());
                        at += 3;
                    }
                    if names.len() > 1 && names.last().is_some_and(|name| name == "self") {
                        names.pop();
                    }
                    let opens = is_separator(&tokens, at + 1).then(|| tokens.get(at + 3)).flatten();
                    match opens {
                        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                            self.tokens(group.stream(), &names);
                            at += 3;
                        }
                        Some(TokenTree::Punct(star)) if star.as_char() == '*' => self.path(&names, line),
                        _ if is_punct(tokens.get(at + 1), '!') => {
                            self.record(line, Target::Macro(names[names.len() - 1].clone()));
                        }
                        _ if names.len() > 1 => self.path(&names, line),
                        _ => {}
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// Paths in string literals of attributes, such as `#[serde(with = "crate::wire::codec")]`.
    fn quoted_paths(&mut self, stream: TokenStream) {
        for token in stream {
            match token {
                TokenTree::Group(group) => self.quoted_paths(group.stream()),
                TokenTree::Literal(literal) => {
                    let text = literal.to_string();
                    let path = text.trim_matches('"');
                    if let (true, Ok(inner)) = (path.contains("::"), path.parse()) {
                        self.tokens(inner, &[]);
                    }
                }
                _ => {}
            }
        }
    }

    fn unsafe_keywords(&mut self, stream: TokenStream) {
        for token in stream {
            match token {
                TokenTree::Group(group) => self.unsafe_keywords(group.stream()),
                TokenTree::Ident(ident) if ident == "unsafe" => {
                    self.record(ident.span().start().line, Target::Unsafe);
                }
                _ => {}
            }
        }
    }
}

fn root(leading_colon: Option<syn::token::PathSep>) -> Vec<String> {
    leading_colon.map(|_| String::new()).into_iter().collect()
}

fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':')
}

fn is_punct(token: Option<&TokenTree>, wanted: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted)
}
