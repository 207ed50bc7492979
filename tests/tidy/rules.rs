//! The house rules, each a function from sources to complaints.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::scan::{Source, Token, attribute, closing, item_end, tokens};

/// A place that a rule does not like, and what to do about it.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub(crate) path: String,
    pub(crate) line: usize,
    pub(crate) advice: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

fn complaint(source: &Source, line: usize, advice: impl Into<String>) -> Complaint {
    Complaint { path: source.path.clone(), line, advice: advice.into() }
}

/// The modules of the library in their order, and where its short paths lead.
pub(crate) struct Layers {
    modules: Vec<String>,
    /// What `lib.rs` exports again, by its name there, and the module that it comes from.
    exports: BTreeMap<String, String>,
}

impl Layers {
    pub(crate) fn of(lib: &Source) -> Self {
        let tokens = tokens(&lib.product);
        let mut layers = Self { modules: Vec::new(), exports: BTreeMap::new() };
        for (i, token) in tokens.iter().enumerate() {
            let Some(name) = tokens.get(i + 1).filter(|name| is_word(name.text)) else { continue };
            match token.text {
                "mod" => layers.modules.push(name.text.to_owned()),
                "use" => {
                    let module = if name.text == "crate" { i + 4 } else { i + 1 };
                    let end = statement_end(&tokens, i);
                    let names = tokens[module..end].iter().filter(|one| is_word(one.text));
                    let mut names = names.map(|one| one.text.to_owned());
                    let Some(module) = names.next() else { continue };
                    layers.exports.extend(names.map(|name| (name, module.clone())));
                }
                _ => {}
            }
        }
        layers
    }

    /// Returns where the module stands that `crate::name` leads to; none where it leads to no module.
    fn position(&self, name: &str) -> Option<usize> {
        let module = self.exports.get(name).map_or(name, String::as_str);
        self.modules.iter().position(|one| one == module)
    }
}

/// (a) A module names only modules above its own line in `lib.rs`, and itself.
pub(crate) fn layer_order(layers: &Layers, source: &Source) -> Vec<Complaint> {
    let module = source.module();
    // `lib.rs` and `main.rs` stand above the layers.
    let Some(own) = module.first() else { return Vec::new() };
    let Some(own_position) = layers.position(own) else {
        return vec![complaint(
            source,
            1,
            format!("module {own} is not in src/lib.rs: add its layer"),
        )];
    };
    let tokens = tokens(&source.product);
    let named = names_in_crate(&tokens, module.len());
    let above = named
        .into_iter()
        .filter(|(name, _)| layers.position(name).is_some_and(|position| position > own_position));
    above
        .map(|(name, line)| {
            let advice = format!("{own} names {name}, which stands below it in src/lib.rs: turn the dependency round, or move the layer");
            complaint(source, line, advice)
        })
        .collect()
}

/// Returns the first names after `crate::`, `$crate::` and as many `super::` as lead to the root.
fn names_in_crate<'a>(tokens: &[Token<'a>], depth: usize) -> Vec<(&'a str, usize)> {
    let text = |i: usize| tokens.get(i).map_or("", |token| token.text);
    let path = |i: usize| text(i) == ":" && text(i + 1) == ":";
    let mut names = Vec::new();
    for (i, token) in tokens.iter().enumerate() {
        let after = match token.text {
            "crate" if path(i + 1) => i + 3,
            "super" if i < 2 || !(path(i - 2)) => {
                let steps = (0..).take_while(|n| text(i + 3 * n) == "super" && path(i + 3 * n + 1));
                if steps.count() != depth {
                    continue;
                }
                i + 3 * depth
            }
            _ => continue,
        };
        match text(after) {
            "{" => names.extend(first_names(&tokens[after..=closing(tokens, after)])),
            name if is_word(name) => names.push((name, tokens[after].line)),
            _ => {}
        }
    }
    names
}

/// Returns the first name of each path in a group `{a::b, c::{d, e}}`: `a` and `c`.
fn first_names<'a>(group: &[Token<'a>]) -> Vec<(&'a str, usize)> {
    let (mut names, mut depth) = (Vec::new(), 0_usize);
    for pair in group.windows(2) {
        match pair[0].text {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 1 && matches!(pair[0].text, "{" | ",") && is_word(pair[1].text) {
            names.push((pair[1].text, pair[1].line));
        }
    }
    names
}

/// (b) A file begins with `//!`.
pub(crate) fn begins_with_doc(source: &Source) -> Option<Complaint> {
    let advice = "begin with //!: what it is, what it guarantees, what it must not know";
    (!source.comments.starts_with("//!")).then(|| complaint(source, 1, advice))
}

/// (c) A file has at most `max` lines of code.
pub(crate) fn file_length(source: &Source, max: usize) -> Option<Complaint> {
    let lines = source.product.lines().filter(|line| !line.trim().is_empty()).count();
    let advice =
        format!("{lines} lines of code, at most {max}: give a part of it a file of its own");
    (lines > max).then(|| complaint(source, 1, advice))
}

/// (c) A function has at most `max` lines.
pub(crate) fn function_length(source: &Source, max: usize) -> Vec<Complaint> {
    let tokens = tokens(&source.product);
    let mut complaints = Vec::new();
    for (i, pair) in tokens.windows(2).enumerate() {
        let [keyword, name] = pair else { continue };
        if keyword.text != "fn" || !is_word(name.text) {
            continue;
        }
        let lines = tokens[item_end(&tokens, i)].line - keyword.line + 1;
        if lines > max {
            let name = name.text;
            let advice = format!(
                "fn {name} has {lines} lines, at most {max}: keep the branches, move the work to helpers"
            );
            complaints.push(complaint(source, keyword.line, advice));
        }
    }
    complaints
}

/// (d) A `mod.rs` has docs, attributes, `mod` and `use`, and nothing else.
pub(crate) fn mod_file(source: &Source) -> Vec<Complaint> {
    if !source.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    let tokens = tokens(&source.product);
    let (mut complaints, mut i) = (Vec::new(), 0);
    while i < tokens.len() {
        if let Some(open) = attribute(&tokens, i) {
            i = closing(&tokens, open) + 1;
            continue;
        }
        let mut keyword = i;
        if tokens[keyword].text == "pub" {
            keyword += 1;
            if tokens.get(keyword).is_some_and(|token| token.text == "(") {
                keyword = closing(&tokens, keyword) + 1;
            }
        }
        let word = tokens.get(keyword).map_or("", |token| token.text);
        let end = if word == "use" { statement_end(&tokens, i) } else { item_end(&tokens, i) };
        if word != "use" && (word != "mod" || tokens[end].text != ";") {
            let advice = "mod.rs holds docs, `mod` and `use` only: move this to a file of its own";
            complaints.push(complaint(source, tokens[i].line, advice));
        }
        i = end + 1;
    }
    complaints
}

/// (e) No lint is allowed: it is expected, or the code is changed.
pub(crate) fn no_allow(source: &Source) -> Vec<Complaint> {
    let tokens = tokens(&source.code);
    let mut complaints = Vec::new();
    for open in (0..tokens.len()).filter_map(|i| attribute(&tokens, i)) {
        let inside = &tokens[open..=closing(&tokens, open)];
        for pair in inside.windows(2) {
            if (pair[0].text, pair[1].text) == ("allow", "(") {
                let advice = "write #[expect(lint, reason = \"…\")]";
                complaints.push(complaint(source, pair[0].line, advice));
            }
        }
    }
    complaints
}

/// (e) Nothing is left that was meant to be finished before the merge.
pub(crate) fn unfinished(source: &Source) -> Vec<Complaint> {
    let macros = tokens(&source.code);
    let macros = macros.windows(2).filter(|pair| pair[1].text == "!");
    let macros = macros.filter(|pair| matches!(pair[0].text, "dbg" | "todo" | "unimplemented"));
    let mut complaints: Vec<Complaint> = macros
        .map(|pair| complaint(source, pair[0].line, format!("finish or remove {}!", pair[0].text)))
        .collect();
    for (i, line) in source.comments.lines().enumerate() {
        let open = line.split("TODO").skip(1).any(|rest| {
            !LATER
                .iter()
                .any(|when| rest.strip_prefix('(').is_some_and(|rest| rest.starts_with(when)))
        });
        if open || line.contains("FIXME") {
            let advice = "finish it, or say when as TODO(soon|someday|perf|cleanup|security)";
            complaints.push(complaint(source, i + 1, advice));
        }
    }
    complaints
}

/// (f) Every test runs, and asserts.
pub(crate) fn skipped_tests(source: &Source) -> Vec<Complaint> {
    let tokens = tokens(&source.code);
    let attributes = (0..tokens.len()).filter_map(|i| attribute(&tokens, i));
    let skips = attributes.filter_map(|open| tokens.get(open + 1));
    skips
        .filter_map(|token| match token.text {
            "ignore" => Some((
                token.line,
                "a test that doesn't run proves nothing: make it pass, or delete it",
            )),
            "should_panic" => {
                Some((token.line, "any panic would do: return the error, and compare it"))
            }
            _ => None,
        })
        .map(|(line, advice)| complaint(source, line, advice))
        .collect()
}

/// (f) Every channel has a bound.
pub(crate) fn unbounded_channels(source: &Source) -> Vec<Complaint> {
    let tokens = tokens(&source.code);
    let unbounded = tokens.iter().filter(|token| UNBOUNDED.contains(&token.text));
    unbounded
        .map(|token| complaint(source, token.line, "give the channel a bound, from `limits`"))
        .collect()
}

/// (g) The file does not know Cap'n Proto.
pub(crate) fn no_capnp(source: &Source) -> Vec<Complaint> {
    let tokens = tokens(&source.product);
    let named = tokens.windows(2).filter(|pair| matches!(pair[0].text, "capnp" | "capnp_rpc"));
    named
        .filter(|pair| matches!(pair[1].text, ":" | ";" | "," | "}"))
        .map(|pair| {
            let advice = "this module must not know Cap'n Proto: take a type of ours (MAY_NAME_CAPNP in tests/tidy.rs)";
            complaint(source, pair[0].line, advice)
        })
        .collect()
}

/// (h) A test waits for what happens, not for a time.
pub(crate) fn no_sleep(source: &Source) -> Vec<Complaint> {
    let tokens = tokens(&source.code);
    let sleeps = tokens.windows(2).filter(|pair| (pair[0].text, pair[1].text) == ("sleep", "("));
    sleeps
        .map(|pair| {
            let advice =
                "wait for the event, or pause the time and advance it (MAY_SLEEP in tests/tidy.rs)";
            complaint(source, pair[0].line, advice)
        })
        .collect()
}

/// (h) The name of a test leads to one test.
pub(crate) fn distinct_tests(sources: &[Source]) -> Vec<Complaint> {
    let mut seen = BTreeMap::new();
    let mut complaints = Vec::new();
    for source in sources {
        let tokens = tokens(&source.code);
        for (name, line) in test_names(&tokens) {
            let here = format!("{}:{line}", source.path);
            if let Some(there) = seen.insert(name.to_owned(), here) {
                let advice =
                    format!("{there} has a test {name} as well: name what each guarantees");
                complaints.push(complaint(source, line, advice));
            }
        }
    }
    complaints
}

/// Returns the functions that have an attribute `#[test]` or `#[…::test]`, with their lines.
fn test_names<'a>(tokens: &[Token<'a>]) -> Vec<(&'a str, usize)> {
    let mut names = BTreeSet::new();
    for open in (0..tokens.len()).filter_map(|i| attribute(tokens, i)) {
        let close = closing(tokens, open);
        let path = tokens[open + 1..close].iter().take_while(|token| token.text != "(");
        if path.last().is_none_or(|token| token.text != "test") {
            continue;
        }
        let end = item_end(tokens, close + 1);
        let mut item = tokens[close + 1..end].windows(2);
        if let Some(pair) = item.find(|pair| pair[0].text == "fn") {
            names.insert((pair[1].line, pair[1].text));
        }
    }
    names.into_iter().map(|(line, name)| (name, line)).collect()
}

/// (i) Every dependency has a comment that says why.
pub(crate) fn dependency_reasons(path: &str, manifest: &str) -> Vec<Complaint> {
    let (mut complaints, mut in_section, mut depth) = (Vec::new(), false, 0_usize);
    for (i, line) in manifest.lines().enumerate() {
        let (code, reason) = split_comment(line);
        let begins = depth == 0;
        depth += code.matches(['[', '{']).count();
        depth = depth.saturating_sub(code.matches([']', '}']).count());
        let header = code.trim().strip_prefix('[').filter(|_| begins);
        if let Some(header) = header {
            let header = header.trim_end_matches(']');
            in_section = header.ends_with("dependencies");
            // A table of its own, as `[dependencies.name]`, gives its reason in its header.
            if !header.contains("dependencies.") {
                continue;
            }
        } else if !in_section || !begins || !code.contains('=') {
            continue;
        }
        if reason.trim().len() < 3 {
            let advice = "say beside the dependency, after #, why it is there".to_owned();
            complaints.push(Complaint { path: path.to_owned(), line: i + 1, advice });
        }
    }
    complaints
}

/// Splits a line of TOML at the `#` that begins its comment.
fn split_comment(line: &str) -> (&str, &str) {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return (&line[..at], &line[at + 1..]),
            _ => {}
        }
    }
    (line, "")
}

/// Returns the index of the `;` that ends the statement at `start`, braces and all.
fn statement_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut i = start;
    while let Some(token) = tokens.get(i) {
        match token.text {
            ";" => return i,
            "{" | "(" | "[" => i = closing(tokens, i),
            _ => {}
        }
        i += 1;
    }
    tokens.len().saturating_sub(1)
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// When a thing to do may be left for later.
const LATER: [&str; 5] = ["soon)", "someday)", "perf)", "cleanup)", "security)"];
/// Names of channels without a bound, in the libraries that we use.
const UNBOUNDED: [&str; 5] =
    ["unbounded", "unbounded_channel", "unbounded_send", "UnboundedReceiver", "UnboundedSender"];

/// Asserts in which lines `rule` complains of `text`.
#[cfg(test)]
fn check<C: IntoIterator<Item = Complaint>>(
    rule: impl FnOnce(&Source) -> C,
    path: &str,
    text: &str,
    lines: &[usize],
) {
    let complaints: Vec<Complaint> = rule(&Source::new(path, text)).into_iter().collect();
    let got: Vec<usize> = complaints.iter().map(|one| one.line).collect();
    assert_eq!(got, lines, "{text}\n{complaints:?}");
}

#[test]
fn the_layer_rule_sees_every_way_to_name_a_module() {
    let lib = "//! mod no;\nmod a;\npub mod b;\n#[cfg(x)] mod c;\npub use b::{B, d::E as F};\nuse crate::c::C;";
    let layers = Layers::of(&Source::new("src/lib.rs", lib));
    assert_eq!(layers.modules, ["a", "b", "c"]);
    for (path, text, lines) in [
        ("src/b.rs", "use crate::a;\nuse crate::b::x;\ncrate::unknown!()", &[][..]),
        ("src/b.rs", "use crate::c::x;\nfn f() { crate::c::g() }", &[1, 2]),
        ("src/b/x.rs", "use crate::{\n a::{c, x},\n c as y};", &[3]),
        ("src/a.rs", "use crate::B;\nuse crate::{F, C};", &[1, 2, 2]),
        ("src/a.rs", "$crate::b::x!()\n// crate::b\nf(\"crate::b\")", &[1]),
        ("src/a.rs", "use super::b;\nuse super::super::b;", &[1]),
        ("src/a/x.rs", "use super::b;\nuse super::super::b;", &[2]),
        ("src/a.rs", "#[cfg(test)]\nmod tests { use crate::c; }", &[]),
        ("src/a/tests.rs", "use crate::c;", &[]),
        ("src/lib.rs", "pub use crate::c;", &[]),
        ("src/lost.rs", "", &[1]),
    ] {
        check(|source| layer_order(&layers, source), path, text, lines);
    }
}

#[test]
fn the_rule_on_beginnings_wants_the_first_line() {
    check(begins_with_doc, "src/a.rs", "//! A.\nfn a() {}", &[]);
    check(begins_with_doc, "src/a.rs", "// A.\nfn a() {}", &[1]);
    check(begins_with_doc, "src/a.rs", "\"//! A.\"", &[1]);
    check(begins_with_doc, "src/a.rs", "", &[1]);
}

#[test]
fn the_rules_on_length_count_code_and_functions() {
    let text = "//! A.\n\nfn a() {\n    // b\n    b(\"}\")\n}\n#[cfg(test)]\nmod tests {\n}\n";
    check(|source| file_length(source, 3), "src/a.rs", text, &[]);
    check(|source| file_length(source, 2), "src/a.rs", text, &[1]);
    check(|source| function_length(source, 4), "src/a.rs", text, &[]);
    check(|source| function_length(source, 3), "src/a.rs", text, &[3]);
    let text = "trait A {\n fn a(b: [u8;\n 2]);\n fn c(f: fn(u8)) where A: B\n { x(';') }\n}";
    check(|source| function_length(source, 1), "src/a.rs", text, &[2, 4]);
    check(|source| function_length(source, 2), "src/a.rs", text, &[]);
}

#[test]
fn the_rule_on_mod_files_takes_modules_and_imports_only() {
    let text = "//! A.\n#![x]\n#[cfg(y)]\npub(crate) mod a;\nuse b::{c, d};\npub use e::f;\n";
    check(mod_file, "src/a/mod.rs", text, &[]);
    let text = "mod a { use b; }\nfn c() {}\nuse d;\nconst E: [u8; 1] = [1];\nstruct F(u8);";
    check(mod_file, "src/a/mod.rs", text, &[1, 2, 4, 5]);
    check(mod_file, "src/a/b.rs", text, &[]);
}

#[test]
fn the_rules_on_lints_and_unfinished_work_read_code_and_comments() {
    let text =
        "#[allow(a)]\n#![allow(b)]\n#[cfg_attr(c, allow(d))]\n// #[allow(e)]\n\"#[allow(f)]\"";
    check(no_allow, "src/a.rs", text, &[1, 2, 3]);
    let text =
        "dbg!(1);\ntodo!()\n// TODO(soon): a\n// TODO(now): b\n// TODO: c\n// FIXME\n\"TODO\"";
    check(unfinished, "src/a.rs", text, &[1, 2, 4, 5, 6]);
}

#[test]
fn the_rules_on_tests_and_channels_find_what_they_forbid() {
    let text = "#[test]\n#[ignore = \"slow\"]\nfn a() {}\n#[should_panic]\n// #[ignore]";
    check(skipped_tests, "tests/a.rs", text, &[2, 4]);
    let text =
        "mpsc::unbounded_channel();\nuse mpsc::{channel, unbounded};\nlet unbounded_queue = 1;";
    check(unbounded_channels, "src/a.rs", text, &[1, 2]);
    check(no_sleep, "tests/a.rs", "time::sleep(x).await;\nasleep(y);\n// sleep(z)", &[1]);
}

#[test]
fn the_rule_on_capnp_tells_the_crate_from_words_like_it() {
    let text = "use capnp::Error;\nuse crate::stubborn_capnp as c;\nuse {capnp_rpc, x};\n// capnp::y\ncapnp = 1";
    check(no_capnp, "src/a.rs", text, &[1, 3]);
}

#[test]
fn the_rule_on_names_of_tests_compares_files() {
    let sources = [
        Source::new("tests/a.rs", "#[test]\nfn one() {}\nfn two() {}"),
        Source::new(
            "tests/b.rs",
            "fn one() {}\n#[tokio::test(start_paused = true)]\n#[cold]\nasync fn two() {}",
        ),
        Source::new("tests/c.rs", "#[test]\nfn two() {}"),
    ];
    let complaints = distinct_tests(&sources);
    let lines: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["tests/c.rs:2: tests/b.rs:4 has a test two as well: name what each guarantees"]
    );
}

#[test]
fn the_rule_on_dependencies_reads_every_kind_of_line() {
    let manifest = r##"
[package]
name = "a" # no dependency
[dependencies]
b = "1" # why
c = "1"
d = { git = "x#y" }
e = { features = [
    "f",
] } # why

[dev-dependencies.g]
version = "1"
[target.'cfg(unix)'.dependencies]
h = "1"
[features]
i = []
"##;
    let lines: Vec<usize> =
        dependency_reasons("Cargo.toml", manifest).iter().map(|one| one.line).collect();
    assert_eq!(lines, [6, 7, 8, 12, 15]);
}
