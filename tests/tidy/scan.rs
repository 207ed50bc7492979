//! Takes a Rust file apart as far as the house rules need it: code, comments, tests.
//!
//! It is no parser. **Invariant:** every view of a file has the same lines as the file, so that a
//! position in a view is one in the file.

/// One Rust file, and the views of it that rules look at.
pub(crate) struct Source {
    /// Its path below the root, with `/` between the parts.
    pub(crate) path: String,
    /// Its code: comments are blank, and what strings say is replaced by `~`.
    pub(crate) code: String,
    /// As `code`, but tests (items for `#[cfg(test)]`, whole test files) are blank as well.
    pub(crate) product: String,
    /// Its comments alone.
    pub(crate) comments: String,
}

/// A word of a program: an identifier, or one character that is neither that nor white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    /// Where it begins, in bytes.
    pub(crate) at: usize,
    /// The line it is in, from 1.
    pub(crate) line: usize,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let path = path.replace('\\', "/");
        let (code, comments) = split(text);
        let all_tests =
            !["src/", "client/src/", "vfs/src/"].iter().any(|src| path.starts_with(src))
                || path.ends_with("/tests.rs")
                || path.contains("/tests/");
        let product = if all_tests { blank(&code, 0, code.len()) } else { without_tests(&code) };
        Self { path, code, product, comments }
    }

    /// Returns the modules that lead to it: `["vat", "wire"]` for `src/vat/wire.rs`.
    pub(crate) fn module(&self) -> Vec<&str> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.split_once("src/").map_or(path, |(_, path)| path);
        let mut parts: Vec<&str> = path.split('/').collect();
        if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
            parts.pop();
        }
        parts
    }

    /// Tells whether it is the module `a::b` or stands below it.
    pub(crate) fn is_of(&self, module: &str) -> bool {
        self.module().starts_with(&module.split("::").collect::<Vec<_>>())
    }
}

/// Cuts `code` into tokens.
pub(crate) fn tokens(code: &str) -> Vec<Token<'_>> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let (mut tokens, mut line, mut end) = (Vec::new(), 1, 0);
    for (at, c) in code.char_indices() {
        if c == '\n' {
            line += 1;
        }
        if at < end || c.is_whitespace() {
            continue;
        }
        let rest = &code[at..];
        let len = rest.find(|c| !word(c)).filter(|&len| len > 0);
        let len = len.unwrap_or(if word(c) { rest.len() } else { c.len_utf8() });
        end = at + len;
        tokens.push(Token { text: &code[at..end], at, line });
    }
    tokens
}

/// Returns the index of the token that closes the bracket at `open`; the last one if nothing does.
pub(crate) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (i, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => continue,
        }
        if depth == 0 {
            return i;
        }
    }
    tokens.len().saturating_sub(1)
}

/// Returns the index of the token that ends the item at `start`: its `;`, or its body's brace.
pub(crate) fn item_end(tokens: &[Token<'_>], start: usize) -> usize {
    let mut i = start;
    while let Some(token) = tokens.get(i) {
        match token.text {
            "{" => return closing(tokens, i),
            ";" => return i,
            "(" | "[" => i = closing(tokens, i),
            _ => {}
        }
        i += 1;
    }
    tokens.len().saturating_sub(1)
}

/// Returns the index of the `[` of the attribute that begins at `i`; none where no attribute does.
pub(crate) fn attribute(tokens: &[Token<'_>], i: usize) -> Option<usize> {
    match tokens.get(i..)? {
        [hash, open, ..] if (hash.text, open.text) == ("#", "[") => Some(i + 1),
        [hash, bang, open, ..] if (hash.text, bang.text, open.text) == ("#", "!", "[") => {
            Some(i + 2)
        }
        _ => None,
    }
}

/// Blanks the items that are compiled for tests only.
fn without_tests(code: &str) -> String {
    let tokens = tokens(code);
    let (mut left, mut i) = (code.to_owned(), 0);
    while i < tokens.len() {
        let Some(open) = attribute(&tokens, i) else {
            i += 1;
            continue;
        };
        let close = closing(&tokens, open);
        let inside: Vec<&str> = tokens[open + 1..close].iter().map(|token| token.text).collect();
        let for_tests = inside.last() == Some(&"test")
            || inside.first() == Some(&"cfg")
                && inside.contains(&"test")
                && !inside.contains(&"not");
        if for_tests {
            let mut item = close + 1;
            while let Some(open) = attribute(&tokens, item) {
                item = closing(&tokens, open) + 1;
            }
            let end = item_end(&tokens, item);
            left = blank(&left, tokens[i].at, tokens[end].at + 1);
            i = end + 1;
        } else {
            i = close + 1;
        }
    }
    left
}

/// Replaces all but white space from `start` to `end` by spaces; the length in bytes stays.
fn blank(code: &str, start: usize, end: usize) -> String {
    let inside = |c: char| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) };
    let middle: String = code[start..end].chars().map(inside).collect();
    [&code[..start], &middle, &code[end..]].concat()
}

/// Splits a file into its code and its comments: two texts with the lines of the file.
fn split(text: &str) -> (String, String) {
    let (mut code, mut comments) = (String::new(), String::new());
    let mut rest = text;
    while !rest.is_empty() {
        let after_word = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (kind, len) = piece(rest, after_word);
        let (taken, left) = rest.split_at(len);
        match kind {
            Piece::Code => code.push_str(taken),
            Piece::Comment => code.extend(fill(taken, ' ')),
            Piece::Literal => code.extend(fill(taken, '~')),
        }
        match kind {
            Piece::Comment => comments.push_str(taken),
            _ => comments.extend(fill(taken, ' ')),
        }
        rest = left;
    }
    (code, comments)
}

/// Puts `filling` in the place of every character but line ends.
fn fill(text: &str, filling: char) -> impl Iterator<Item = char> {
    text.chars().map(move |c| if c == '\n' { c } else { filling })
}

enum Piece {
    Code,
    Comment,
    Literal,
}

/// Returns what `rest` begins with, and its length in bytes. Code comes one character at a time.
fn piece(rest: &str, after_word: bool) -> (Piece, usize) {
    if rest.starts_with("//") {
        return (Piece::Comment, rest.find('\n').unwrap_or(rest.len()));
    }
    if rest.starts_with("/*") {
        return (Piece::Comment, block_comment(rest));
    }
    if !after_word && let Some(len) = raw_string(rest) {
        return (Piece::Literal, len);
    }
    if rest.starts_with('"') {
        return (Piece::Literal, quoted(rest, '"'));
    }
    if rest.starts_with('\'') && is_character(rest) {
        return (Piece::Literal, quoted(rest, '\''));
    }
    (Piece::Code, rest.chars().next().map_or(0, char::len_utf8))
}

/// Returns the length of a block comment; they nest.
fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        let here = &rest[at..];
        if here.starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if here.starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += here.chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// Returns the length of a raw string with its prefix, where `rest` begins with one.
fn raw_string(rest: &str) -> Option<usize> {
    let body = ["r", "br", "cr"].iter().find_map(|prefix| rest.strip_prefix(prefix))?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inside = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    let len = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(rest.len() - inside.len() + len)
}

/// Returns the length of a literal in `quote`s, in which `\` takes the meaning from what follows.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

/// Tells whether `'` begins a character, not a lifetime.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    matches!((chars.next(), chars.next()), (Some('\\'), _) | (Some(_), Some('\'')))
}

#[test]
fn strings_and_comments_are_told_from_code() {
    for (text, code, comments) in [
        ("a // b\nc", "a     \nc", "  // b\n "),
        ("a /* b /* c */ d */ e", "a                   e", "  /* b /* c */ d */  "),
        (r#"f("// b \" c") // d"#, "f(~~~~~~~~~~~)     ", "               // d"),
        ("r#\"a \" // b\"# c", "~~~~~~~~~~~~~ c", "               "),
        ("'\"' 'a '\\'' \"x\"", "~~~ 'a ~~~~ ~~~", "               "),
        ("b'{' br\"{\" bar", "b~~~ ~~~~~ bar", "              "),
        ("\"a\n// b\"", "~~\n~~~~~", "  \n     "),
    ] {
        assert_eq!(split(text), (code.to_owned(), comments.to_owned()), "{text}");
    }
}

#[test]
fn items_for_tests_are_left_out_of_the_product() {
    for (text, left) in [
        ("a(); #[cfg(test)] mod tests { fn b() {} } c();", "a(); c();"),
        ("#[cfg(all(test, unix))] use a; b", "b"),
        ("#[cfg(not(test))] fn a() {}", "#[cfg(not(test))] fn a() {}"),
        ("#[tokio::test] #[cold] fn a(b: [u8; 2]) { { } } c", "c"),
        ("#[cfg(feature = \"x\")] mod a;", "#[cfg(feature = ~~~)] mod a;"),
    ] {
        let source = Source::new("src/a.rs", text);
        let words: Vec<&str> = source.product.split_whitespace().collect();
        assert_eq!(words.join(" "), left);
    }
    assert_eq!(Source::new("src/a/tests.rs", "fn a() {}").product.trim(), "");
}

#[test]
fn tokens_are_words_and_single_marks_with_their_lines() {
    let got: Vec<_> = tokens("a::b_1\n(é)").iter().map(|one| (one.text, one.line)).collect();
    assert_eq!(got, [("a", 1), (":", 1), (":", 1), ("b_1", 1), ("(", 2), ("é", 2), (")", 2)]);
}

#[test]
fn a_path_tells_the_module() {
    let of = |path: &str| Source::new(path, "").module().join("::");
    assert_eq!(
        ["src/lib.rs", "src/a.rs", "src/a/mod.rs", "src/a/b.rs"].map(of),
        ["", "a", "a", "a::b"]
    );
    assert!(Source::new("src/a/b/c.rs", "").is_of("a::b"));
    assert!(!Source::new("src/ab.rs", "").is_of("a"));
}
