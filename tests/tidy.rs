//! The house rules that a machine can see: which crate and which stage may import which, how long a file may be, and what
//! may not stand in the tree. The tables below are the structure; a change of them is a change of the design.
#![allow(clippy::unwrap_used)] // a test ends where something unexpected happens

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Past this a file fails; past [`LINES_AIM`] (without its tests) it is printed.
const LINES_MAX: usize = 600;
const LINES_AIM: usize = 400;

/// Crates depend one way.
const CRATES: [(&str, &[&str]); 7] = [
    ("core", &[]),
    ("core/xds", &["mesh-core"]),
    ("proxy", &["mesh-core", "mesh-xds"]),
    ("discovery", &["mesh-core", "mesh-xds"]),
    ("mesh-ctl", &["mesh-core", "mesh-discovery", "mesh-proxy"]),
    ("tests", &["mesh-core", "mesh-xds", "mesh-proxy", "mesh-discovery", "mesh-ctl"]),
    ("tests/bench", &["mesh-core", "mesh-proxy"]),
];

/// Composers may import any stage of their crate.
const COMPOSERS: [&str; 10] =
    ["app", "main", "lib", "ambient", "inbound", "outbound", "sources", "controller", "embedded", "command"];

/// Vocabulary: what every stage of a crate may import.
const PROXY_WORDS: &[&str] = &["error", "message", "h1", "h2", "endpoint", "metrics"];
const DISCOVERY_WORDS: &[&str] = &["provider"];

/// What a stage may import beyond the vocabulary. A stage that is not named imports no sibling.
const PROXY_STAGES: [(&str, &[&str]); 7] = [
    // The vocabulary speaks of limits, of why no endpoint was found, and of why a connection was not let in.
    ("error", &["balance", "identity", "listen", "resilience"]),
    ("metrics", &["balance", "identity", "resilience", "state"]),
    ("balance", &["resilience"]),
    ("state", &["balance", "resilience", "route"]),
    // A pool holds the permits of the breaker, and a server the limits of its listener.
    ("upstream", &["resilience"]),
    ("http", &["listen"]),
    ("admin", &["state", "balance", "resilience", "listen"]),
];
const DISCOVERY_STAGES: [(&str, &[&str]); 4] = [
    // Flags become the settings of each part.
    ("config", &["dns", "runtime"]),
    ("provider", &["runtime"]),
    ("admin", &["registry", "store", "xds"]),
    ("registry", &["store"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// Every file below `folder` with that ending, in order; never what a build made.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "corpus" {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn crates_depend_one_way() {
    for (folder, allowed) in CRATES {
        let manifest = read(&root().join(folder).join("Cargo.toml"));
        let dependencies = manifest.split("[dependencies]").nth(1).expect("a crate has dependencies");
        let ours = dependencies
            .lines()
            .filter_map(|line| line.split(['.', ' ', '=']).next())
            .filter(|n| n.starts_with("mesh-"));
        for name in ours {
            assert!(allowed.contains(&name), "{folder} depends on {name}; allowed are {allowed:?}");
        }
    }
}

#[test]
fn stages_import_no_sibling() {
    let mut wrong = BTreeSet::new();
    for (folder, words, table) in
        [("proxy", PROXY_WORDS, &PROXY_STAGES[..]), ("discovery", DISCOVERY_WORDS, &DISCOVERY_STAGES[..])]
    {
        let table: BTreeMap<&str, &[&str]> = table.iter().copied().collect();
        let source = root().join(folder).join("src");
        for file in files(&source, ".rs") {
            let stage = stage_of(&source, &file);
            if COMPOSERS.contains(&stage.as_str()) || is_test(&file) {
                continue;
            }
            let allowed = table.get(stage.as_str()).copied().unwrap_or(&[]);
            for import in imports(&production(&read(&file))) {
                let fits = import == stage || words.contains(&import.as_str()) || allowed.contains(&import.as_str());
                if !fits {
                    wrong.insert(format!("{}: {stage} imports {import}", shown(&file)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "a stage imports only the vocabulary and what the table allows:\n{}", join(&wrong));
}

/// The module below `lib.rs` that a file belongs to.
fn stage_of(source: &Path, file: &Path) -> String {
    let inner = file.strip_prefix(source).expect("the file was found below the source");
    let first = inner.components().next().expect("a file has a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// What follows `crate::` anywhere in the text, outside comments.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for line in code {
        for after in line.split("crate::").skip(1) {
            let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
            match after.strip_prefix('{') {
                Some(list) => found.extend(list.trim_end_matches(['}', ';']).split(',').map(|item| word(item.trim()))),
                None => drop(found.insert(word(after))),
            }
        }
    }
    found.retain(|name| !name.is_empty() && name.chars().next().is_some_and(char::is_lowercase));
    found
}

fn is_test(file: &Path) -> bool {
    let path = shown(file);
    path.ends_with("tests.rs") || path.contains("/tests/") || path.starts_with("tests/") || path.contains("/benches/")
}

/// A file's text before its unit tests.
fn production(text: &str) -> String {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned()
}

#[test]
fn files_are_short_enough_to_read() {
    let mut wrong = BTreeSet::new();
    for file in files(&root(), ".rs") {
        let text = read(&file);
        let (whole, own) = (text.lines().count(), production(&text).lines().count());
        if own > LINES_AIM && !is_test(&file) {
            println!("{}: {own} lines without tests; {LINES_AIM} are aimed at", shown(&file));
        }
        if whole > LINES_MAX {
            wrong.insert(format!("{}: {whole} lines", shown(&file)));
        }
    }
    assert!(wrong.is_empty(), "split by idea what is over {LINES_MAX} lines:\n{}", join(&wrong));
}

#[test]
fn nothing_half_done_stands_in_the_tree() {
    let banned = [concat!("todo", "!("), concat!("unimplemented", "!("), concat!("FIX", "ME"), concat!("XX", "X")];
    let mut wrong = BTreeSet::new();
    for file in files(&root(), ".rs") {
        for (number, line) in read(&file).lines().enumerate() {
            if banned.iter().any(|word| line.contains(word)) {
                wrong.insert(format!("{}:{}: {}", shown(&file), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", join(&wrong));
}

#[test]
fn tests_wait_for_conditions_and_never_sleep() {
    let banned = [concat!("thread::", "sleep("), concat!("time::", "sleep(")];
    // The one place that waits between two looks at a condition, with a deadline.
    let waits = ["tests/src/eventually.rs"];
    let mut wrong = BTreeSet::new();
    for file in files(&root(), ".rs").into_iter().filter(|file| is_test(file)) {
        if waits.contains(&shown(&file).as_str()) {
            continue;
        }
        for (number, line) in read(&file).lines().enumerate() {
            let said_why = line.contains("// between two looks") || line.contains("// a slow peer");
            if banned.iter().any(|word| line.contains(word)) && !said_why {
                wrong.insert(format!("{}:{}: {}", shown(&file), number + 1, line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "wait for a condition with a deadline instead:\n{}", join(&wrong));
}

#[test]
fn a_closed_reader_is_no_panic() {
    let banned = [concat!("print", "ln!("), concat!("print", "!(")];
    let mut wrong = BTreeSet::new();
    for folder in ["core", "proxy", "discovery", "mesh-ctl"] {
        for file in files(&root().join(folder).join("src"), ".rs").into_iter().filter(|file| !is_test(file)) {
            let text = production(&read(&file));
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            wrong.extend(code.filter(|line| banned.iter().any(|word| line.contains(word))).map(|_| shown(&file)));
        }
    }
    assert!(wrong.is_empty(), "`mesh_core::tell!` for stderr, `output::say` for stdout:\n{}", join(&wrong));
}

#[test]
fn unsafe_code_stays_out() {
    let allow = concat!("allow(un", "safe_code");
    let wrong: BTreeSet<_> =
        files(&root(), ".rs").iter().filter(|file| read(file).contains(allow)).map(|f| shown(f)).collect();
    assert!(wrong.is_empty(), "expect(…, reason = …) in one small file is the way:\n{}", join(&wrong));
}

#[test]
fn every_module_says_its_place_in_the_story() {
    let mut wrong = BTreeSet::new();
    for (folder, _) in CRATES {
        for file in files(&root().join(folder).join("src"), ".rs") {
            if !is_test(&file) && !read(&file).starts_with("//!") {
                wrong.insert(shown(&file));
            }
        }
    }
    assert!(wrong.is_empty(), "a module begins with its doc:\n{}", join(&wrong));
}

fn join(lines: &BTreeSet<String>) -> String {
    lines.iter().cloned().collect::<Vec<_>>().join("\n")
}
