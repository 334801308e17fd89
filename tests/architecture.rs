//! Keeps the rules of the house that no compiler knows: who may import whom, and what may not be written.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use cycles::{Exception, Source};
use rules::{House, MAX_LINES};

#[path = "architecture/cycles.rs"]
mod cycles;
#[path = "architecture/rules.rs"]
mod rules;

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = walkdir::WalkDir::new(folder)
        .into_iter()
        .map(|entry| entry.unwrap().into_path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect();
    files.sort();
    files
}

#[test]
fn the_sources_keep_the_rules() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let house = House::read(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let files = sources(&src);
    assert!(files.len() > 10, "found {} source files", files.len());
    let breaches: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
            house.check(path, &fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(breaches.is_empty(), "\n{}", breaches.join("\n"));
}

/// Cycles that stay.
const EXCEPTIONS: [Exception; 1] = [Exception {
    folder: "training",
    parts: &["fit", "photos", "trainer"],
    reason: "a fit borrows the trainer's `Parts`; they are to move with the recipe",
}];

#[test]
fn the_parts_of_a_module_do_not_import_each_other() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let house = House::read(&fs::read_to_string(src.join("lib.rs")).unwrap());
    let read = |file: &PathBuf| {
        let path = file.strip_prefix(&src).unwrap().to_str().unwrap();
        house.imports(path, &fs::read_to_string(file).unwrap())
    };
    let sources: Vec<Source> = sources(&src).iter().map(read).collect();
    let found = cycles::check(&sources, &EXCEPTIONS);
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

const LIB: &str = "
//! | 0 | [`error`], `mapped` |
//! | 1 | [`kernels`], [`imaging`] |
//! | 3 | [`detector`] |
pub use detector::Detector;
pub use error::{Error, Result};
";

fn breaches(path: &str, source: &str) -> Vec<String> {
    House::read(LIB).check(path, source)
}

fn breach(path: &str, source: &str) -> String {
    let found = breaches(path, source);
    assert_eq!(found.len(), 1, "{source}: {found:?}");
    found[0].clone()
}

#[test]
fn imports_downwards_and_within_a_module_pass() {
    for (path, source) in [
        (
            "detector/mod.rs",
            "use crate::{Error, imaging::{decode, resize}}; fn f() -> crate::kernels::X {}",
        ),
        (
            "detector/predict.rs",
            "use super::Detector; mod tests { use super::{super::artifact, *}; }",
        ),
        (
            "imaging/decode.rs",
            "use crate::imaging::resize; use crate::Result; use super::augment;",
        ),
        ("mapped.rs", "use crate::error::Error;"),
        (
            "imaging/mod.rs",
            "mod decode; use self::decode::limits; use std::fs; pub(crate) fn detector() {}",
        ),
        (
            "main.rs",
            "use candle_fastflow::Detector; mod cli; fn main() { crate::cli::run() }",
        ),
    ] {
        assert_eq!(breaches(path, source), [""; 0], "{path}");
    }
}

#[test]
fn an_import_upwards_or_sideways_fails() {
    for source in [
        "use crate::detector::Detector;",
        "use crate::{Result, detector::{artifact, *}};",
        "use crate::Detector;",
        "use candle_fastflow::detector::Detector as D;",
        "fn f(x: &crate::detector::Detector) {}",
        "fn f() { let x = super::super::detector::load(); }",
        "mod tests { use super::super::super::detector; }",
        "fn f() { println!(\"{}\", crate::detector::NAME); }",
        "use crate::kernels::conv;",
        "use crate::nowhere::thing;",
    ] {
        let found = breach("imaging/decode.rs", source);
        assert!(found.starts_with("imaging/decode.rs:1: "), "{found}");
    }
    assert!(
        breach("imaging/decode.rs", "\nuse crate::kernels;")
            .contains(":2: `imaging` (floor 1) imports `kernels` (floor 1)")
    );
    assert!(breach("cellar/mod.rs", "").contains("`cellar` has no floor"));
}

#[test]
fn unwrap_and_panic_are_for_tests() {
    for call in [
        "x.unwrap();",
        "panic!(\"no\");",
        "todo!();",
        "println!(\"{}\", x.unwrap());",
    ] {
        let source = format!("fn f() {{ {call} }}");
        assert!(breach("imaging/decode.rs", &source).contains("outside tests"));
        for test in [
            format!("#[cfg(test)] mod tests {{ {source} }}"),
            format!("#[cfg(test)] {source}"),
            format!("impl X {{ #[cfg(test)] {source} }}"),
        ] {
            assert_eq!(breaches("imaging/decode.rs", &test), [""; 0], "{test}");
        }
        assert_eq!(
            breach("imaging/decode.rs", &format!("#[cfg(not(test))] {source}"))
                .len()
                .min(1),
            1
        );
    }
    assert_eq!(
        breaches(
            "imaging/decode.rs",
            "fn f() { x.unwrap_or(0); x.expect(\"why\"); }"
        ),
        [""; 0]
    );
}

#[test]
fn unsafe_has_its_place_and_its_reason() {
    let bare = "fn f() {\n\n\n\n    unsafe { g() };\n}";
    let reasoned = "fn f() {\n    // SAFETY: g has no precondition,\n    // as its page says.\n    unsafe { g() };\n}";
    assert!(breach("kernels/conv.rs", bare).contains(":5: `unsafe` without"));
    assert_eq!(breaches("kernels/conv.rs", reasoned), [""; 0]);
    assert_eq!(breaches("mapped.rs", reasoned), [""; 0]);
    assert!(breach("imaging/decode.rs", reasoned).contains("outside src/kernels"));
    assert!(breach("kernels/conv.rs", "\n\n\n\nunsafe impl Send for X {}").contains("without"));
}

#[test]
fn flags_are_the_programs() {
    let sources = [
        "const HELP: &str = \"give --backbone-weights FILE\";",
        "fn f() -> &'static Path { Path::new(\"--size\") }",
        "fn f(n: u8) -> String { format!(\"leave out `--resume` {n}\") }",
        "fn f() -> String { outer!(inner!(r#\"or --device cpu\"#)) }",
        "#[error(\"use a smaller --batch\")] struct E;",
    ];
    for source in sources {
        let found = breach("imaging/decode.rs", source);
        assert!(found.starts_with("imaging/decode.rs:1: "), "{found}");
        assert!(found.contains("names the flag `--"), "{found}");
        assert_eq!(
            breaches(
                "imaging/decode.rs",
                &format!("#[cfg(test)] mod tests {{ {source} }}")
            ),
            [""; 0]
        );
        assert_eq!(breaches("main.rs", source), [""; 0]);
    }
    assert!(breach("imaging/decode.rs", sources[0]).contains("`--backbone-weights`"));
    for source in [
        "/// As `train --rotation`.\nfn f() {} // not --seed",
        "simd! { /// As `train --rotation`.\nfn f() {} }",
        "const NAME: &str = \"models--org--name\";",
        "const LINE: &str = \"---\\n -- a dash -- and --\";",
        "fn f() -> u8 { let mut i = 0; i -= 1; i }",
    ] {
        assert_eq!(breaches("imaging/decode.rs", source), [""; 0], "{source}");
    }
    assert_eq!(
        House::read("//! | 7 | `cli` |").check("cli/advice.rs", sources[0]),
        [""; 0]
    );
}

#[test]
fn long_files_fail() {
    let source = "// one more\n".repeat(MAX_LINES + 1);
    assert!(breach("imaging/decode.rs", &source).contains("more than 500 lines"));
}

/// What [`cycles::check`] says about files of these texts.
fn cycles(files: &[(&str, &str)], exceptions: &[Exception]) -> Vec<String> {
    let house = House::read(LIB);
    let read = |(path, source): &(&str, &str)| house.imports(path, source);
    let sources: Vec<Source> = files.iter().map(read).collect();
    cycles::check(&sources, exceptions)
}

#[test]
fn files_that_import_each_other_fail() {
    let device = ("kernels/device.rs", "use crate::kernels::conv::open;");
    let conv = ("kernels/conv/cudnn.rs", "use super::super::device::tf32;");
    let found = cycles(&[device, conv], &[]);
    assert_eq!(found, ["kernels: conv, device import each other"]);
    let around = [
        ("imaging/a.rs", "fn f() { super::b::g() }"),
        ("imaging/b.rs", "use super::{c::C, d};"),
        ("imaging/c.rs", "fn f() { println!(\"{}\", super::a::N) }"),
        ("imaging/d.rs", "use crate::Error;"),
        ("imaging/e.rs", "use super::a;"),
    ];
    let found = cycles(&around, &[]);
    assert_eq!(found, ["imaging: a, b, c import each other"]);
    let deep = [
        ("kernels/conv/a.rs", "use super::b::B;"),
        ("kernels/conv/b.rs", "use crate::kernels::conv::a::A;"),
    ];
    let found = cycles(&deep, &[]);
    assert_eq!(found, ["kernels/conv: a, b import each other"]);
}

#[test]
fn imports_one_way_reexports_and_tests_are_no_cycle() {
    for files in [
        [
            ("imaging/a.rs", "use super::b::B;"),
            ("imaging/b.rs", "use super::A;"),
        ],
        [
            ("imaging/a.rs", "use super::b;"),
            ("imaging/b.rs", "mod tests { use super::b; }"),
        ],
        [
            ("imaging/a.rs", "use super::b;"),
            (
                "imaging/b.rs",
                "#[cfg(test)] mod tests { use super::super::a; }",
            ),
        ],
        [
            ("imaging/a.rs", "use super::b;"),
            ("imaging/b.rs", "#[cfg(test)] use super::a;"),
        ],
        [
            ("imaging/a.rs", "use super::tests;"),
            ("imaging/tests.rs", "use super::a;"),
        ],
        [
            ("imaging/a.rs", "use super::b;"),
            ("imaging/mod.rs", "mod a; mod b; use self::a::A;"),
        ],
    ] {
        assert_eq!(cycles(&files, &[]), [""; 0], "{files:?}");
    }
}

#[test]
fn a_cycle_may_be_excused_and_an_excuse_must_be_needed() {
    let excuse = || Exception {
        folder: "imaging",
        parts: &["a", "b"],
        reason: "one algorithm in two directions",
    };
    let (a, b) = (
        ("imaging/a.rs", "use super::b;"),
        ("imaging/b.rs", "use super::a;"),
    );
    assert_eq!(cycles(&[a, b], &[excuse()]), [""; 0]);
    let found = cycles(&[a, ("imaging/b.rs", "")], &[excuse()]);
    assert_eq!(found, ["imaging: a, b are no cycle; drop the exception"]);
}
