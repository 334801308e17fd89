//! The rules, and the walk over a syntax tree that finds where they are broken.
//!
//! The floors are the table in the docs of `src/lib.rs`. A module imports only from floors below its
//! own; `error` is the ground that everybody stands on, whatever the floor.

use std::collections::BTreeMap;

use super::cycles::Source;
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::{Attribute, Item, ItemUse, UseTree, spanned::Spanned, visit::Visit};

/// Longest file that a reader still finds his way in.
pub const MAX_LINES: usize = 500;
/// The module that every other may import, its own floor included.
const GROUND: &str = "error";
/// Where `unsafe` may be written.
const UNSAFE: [&str; 2] = ["kernels", "mapped"];
/// Where a command line's flags may be named: the program, and the build script, which calls nvcc.
const FLAGS: [&str; 3] = ["cli/", "main.rs", "kernels/build.rs"];
const BANNED_MACROS: [&str; 3] = ["panic", "todo", "unimplemented"];

/// What the crate's root says: floors from its docs, and which module a re-exported name is from.
pub struct House {
    floors: BTreeMap<String, u32>,
    reexports: BTreeMap<String, String>,
}

impl House {
    pub fn read(lib: &str) -> Self {
        let mut house = Self {
            floors: floors(lib),
            reexports: BTreeMap::new(),
        };
        for item in syn::parse_file(lib).unwrap().items {
            if let Item::Use(item) = item {
                let mut paths = Vec::new();
                flatten(&item.tree, &mut Vec::new(), &mut paths);
                for path in paths {
                    let module = path.iter().find(|part| *part != "crate" && *part != "self");
                    house
                        .reexports
                        .insert(path.last().unwrap().clone(), module.unwrap().clone());
                }
            }
        }
        house
    }

    /// Every breach of the rules in one file, as `path:line: what`.
    pub fn check(&self, path: &str, source: &str) -> Vec<String> {
        let mut found = Vec::new();
        let lines = source.lines().count();
        if lines > MAX_LINES {
            found.push(format!(
                "{path}:{lines}: more than {MAX_LINES} lines; split it"
            ));
        }
        let mut module = module_path(path);
        let test_file = is_test_module(&module);
        // main.rs and lib.rs stand above all floors: the program and the crate's root.
        let top = module.first().cloned().unwrap_or_default();
        if !top.is_empty() && !self.floors.contains_key(&top) {
            found.push(format!(
                "{path}:1: `{top}` has no floor in the table of src/lib.rs"
            ));
            return found;
        }
        let mut walk = Walk {
            house: self,
            path,
            source,
            top,
            module: &mut module,
            in_test: test_file,
            imports: Vec::new(),
            found,
        };
        walk.visit_file(&syn::parse_file(source).unwrap_or_else(|why| panic!("{path}: {why}")));
        walk.tokens(source.parse().unwrap(), &mut Walk::unsafe_word);
        walk.found
    }

    /// The full paths in the crate that a file imports outside its tests.
    pub fn imports(&self, path: &str, source: &str) -> Source {
        let module = module_path(path);
        let mut walk = Walk {
            house: self,
            path,
            source,
            // Floors are looked at elsewhere.
            top: String::new(),
            module: &mut module.clone(),
            in_test: is_test_module(&module),
            imports: Vec::new(),
            found: Vec::new(),
        };
        walk.visit_file(&syn::parse_file(source).unwrap_or_else(|why| panic!("{path}: {why}")));
        let imports = walk.imports;
        Source { module, imports }
    }
}

/// Rows `//! | floor | modules |`.
fn floors(lib: &str) -> BTreeMap<String, u32> {
    let mut floors = BTreeMap::new();
    for line in lib.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["//!", floor, modules, ""] = cells[..] else {
            continue;
        };
        let Ok(floor) = floor.parse() else { continue };
        for name in modules.split('`').skip(1).step_by(2) {
            floors.insert(name.to_owned(), floor);
        }
    }
    floors
}

/// `backbones/resnet.rs` is the module `backbones::resnet`; the crate's root is empty.
fn module_path(path: &str) -> Vec<String> {
    let parts = path.trim_end_matches(".rs").split('/').map(str::to_owned);
    let mut module: Vec<String> = parts.collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// `tests`, `x_tests`, or below one.
fn is_test_module(module: &[String]) -> bool {
    let is_test = |name: &String| name == "tests" || name.ends_with("_tests");
    module.iter().any(is_test)
}

fn flatten(tree: &UseTree, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let end = |name: String, paths: &mut Vec<Vec<String>>| {
        let mut path = prefix.clone();
        path.push(name);
        paths.push(path);
    };
    match tree {
        UseTree::Path(path) => {
            prefix.push(path.ident.to_string());
            flatten(&path.tree, prefix, paths);
            prefix.pop();
        }
        UseTree::Group(group) => group
            .items
            .iter()
            .for_each(|tree| flatten(tree, prefix, paths)),
        UseTree::Name(name) => end(name.ident.to_string(), paths),
        UseTree::Rename(name) => end(name.ident.to_string(), paths),
        _ => end("*".to_owned(), paths),
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        let condition = list.tokens.to_string();
        list.path.is_ident("cfg") && (condition == "test" || condition.starts_with("all (test"))
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// One file being read.
struct Walk<'a> {
    house: &'a House,
    path: &'a str,
    source: &'a str,
    top: String,
    module: &'a mut Vec<String>,
    in_test: bool,
    /// Full paths, tests' aside.
    imports: Vec<Vec<String>>,
    found: Vec<String>,
}

impl Walk<'_> {
    fn report(&mut self, line: usize, what: &str) {
        let breach = format!("{}:{line}: {what}", self.path);
        if !self.found.contains(&breach) {
            self.found.push(breach);
        }
    }

    /// A path as written; only those that leave the file's top-level module matter.
    fn import(&mut self, path: &[String], line: usize) {
        let mut at = self.module.clone();
        let mut rest = path;
        match rest.first().map(String::as_str) {
            Some("crate" | "candle_fastflow") => {
                at.clear();
                rest = &rest[1..];
            }
            Some("self") => rest = &rest[1..],
            Some("super") => {}
            _ => return,
        }
        while let Some("super") = rest.first().map(String::as_str) {
            at.pop();
            rest = &rest[1..];
        }
        if !self.in_test {
            self.imports.push(at.iter().chain(rest).cloned().collect());
        }
        if let (true, Some(name)) = (at.is_empty(), rest.first()) {
            self.reach(name, line);
        }
    }

    fn reach(&mut self, name: &str, line: usize) {
        let house = self.house;
        let target = house.reexports.get(name).map_or(name, String::as_str);
        if self.top.is_empty() || target == self.top || target == GROUND {
            return;
        }
        let own = house.floors[&self.top];
        match house.floors.get(target) {
            Some(&floor) if floor < own => {}
            Some(&floor) => {
                let what = format!(
                    "`{}` (floor {own}) imports `{target}` (floor {floor})",
                    self.top
                );
                self.report(line, &what);
            }
            None => self.report(
                line,
                &format!("`{name}` has no floor in the table of src/lib.rs"),
            ),
        }
    }

    /// Calls `see` with every run of tokens, inside out of every bracket.
    fn tokens(&mut self, stream: TokenStream, see: &mut dyn FnMut(&mut Self, &[TokenTree])) {
        let trees: Vec<TokenTree> = stream.into_iter().collect();
        see(self, &trees);
        for tree in trees {
            if let TokenTree::Group(group) = tree {
                self.tokens(group.stream(), see);
            }
        }
    }

    /// What a macro is called with has not been parsed: looks for paths and banned calls in its tokens.
    fn macro_words(&mut self, trees: &[TokenTree]) {
        let word = |at: usize| trees.get(at).map(ToString::to_string).unwrap_or_default();
        let colons = |at: usize| word(at) == ":" && word(at + 1) == ":";
        for (at, tree) in trees.iter().enumerate() {
            let line = tree.span().start().line;
            if matches!(word(at).as_str(), "crate" | "super" | "candle_fastflow")
                && !(at > 1 && colons(at - 2))
            {
                let mut path = vec![word(at)];
                let mut next = at + 1;
                while colons(next) {
                    path.push(word(next + 2));
                    next += 3;
                }
                self.import(&path, line);
            }
            if word(at) == "unwrap" && at > 0 && word(at - 1) == "." && !self.in_test {
                self.report(line, "`.unwrap()` outside tests");
            }
            if let TokenTree::Literal(_) = tree
                && !(at > 1 && word(at - 1) == "=" && word(at - 2) == "doc")
            {
                self.literal(&word(at), line);
            }
            if BANNED_MACROS.contains(&word(at).as_str()) && word(at + 1) == "!" && !self.in_test {
                self.report(line, &format!("`{}!` outside tests", word(at)));
            }
        }
    }

    fn unsafe_word(&mut self, trees: &[TokenTree]) {
        for (at, tree) in trees.iter().enumerate() {
            let TokenTree::Ident(word) = tree else {
                continue;
            };
            // A function pointer type (`unsafe extern "C" fn`, `unsafe fn(..)`) does nothing by itself.
            let is_type = matches!(trees.get(at + 2), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis);
            if word != "unsafe" || is_type {
                continue;
            }
            let line = word.span().start().line;
            if !UNSAFE.contains(&self.top.as_str()) {
                self.report(line, "`unsafe` outside src/kernels and src/mapped.rs");
            }
            if !has_reason(self.source, line) {
                self.report(line, "`unsafe` without a `SAFETY:` comment before it");
            }
        }
    }

    /// A string as written: the library names fields, and the program alone knows its flags.
    fn literal(&mut self, text: &str, line: usize) {
        let may = self.in_test || FLAGS.iter().any(|place| self.path.starts_with(place));
        if !may && let Some(flag) = flag(text) {
            self.report(
                line,
                &format!("a string outside src/cli names the flag `{flag}`"),
            );
        }
    }

    fn within(&mut self, test: bool, visit: impl FnOnce(&mut Self)) {
        let before = self.in_test;
        self.in_test |= test;
        visit(self);
        self.in_test = before;
    }
}

/// The first flag (`--seed`) in a text.
fn flag(text: &str) -> Option<&str> {
    text.match_indices("--").find_map(|(at, _)| {
        let apart = !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '-');
        let flag = &text[at..];
        let end = flag
            .find(|c: char| !c.is_ascii_lowercase() && c != '-')
            .unwrap_or(flag.len());
        let named = flag[2..].starts_with(|c: char| c.is_ascii_lowercase());
        (apart && named).then_some(&flag[..end])
    })
}

/// A comment with SAFETY among the comments, attributes and the statement's own lines just above.
/// (Clippy's `undocumented_unsafe_blocks` is exact about the place.)
fn has_reason(source: &str, line: usize) -> bool {
    let lines: Vec<&str> = source.lines().take(line - 1).collect();
    let block = lines.iter().rev().enumerate().take_while(|(above, text)| {
        let text = text.trim();
        *above < 3 || text.starts_with("//") || text.starts_with("#[")
    });
    block
        .map(|(_, text)| text.to_uppercase())
        .any(|text| text.contains("// SAFETY:") || text.contains("/// # SAFETY"))
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        self.within(is_test(attributes(item)), |walk| {
            syn::visit::visit_item(walk, item)
        });
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.within(is_test(&item.attrs), |walk| {
            syn::visit::visit_impl_item_fn(walk, item)
        });
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        syn::visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        for path in paths {
            self.import(&path, item.span().start().line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path
            .segments
            .iter()
            .map(|part| part.ident.to_string())
            .collect();
        self.import(&parts, path.span().start().line);
        syn::visit::visit_path(self, path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        // A doc comment is an attribute with a string.
        if !attribute.path().is_ident("doc") {
            syn::visit::visit_attribute(self, attribute);
        }
        if let syn::Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone(), &mut Walk::macro_words);
        }
    }

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.literal(&text.value(), text.span().start().line);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && call.args.is_empty() && !self.in_test {
            self.report(call.method.span().start().line, "`.unwrap()` outside tests");
        }
        syn::visit::visit_expr_method_call(self, call);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let name = call.path.segments.last().unwrap().ident.to_string();
        if BANNED_MACROS.contains(&name.as_str()) && !self.in_test {
            self.report(
                call.span().start().line,
                &format!("`{name}!` outside tests"),
            );
        }
        self.tokens(call.tokens.clone(), &mut Walk::macro_words);
        syn::visit::visit_macro(self, call);
    }
}
