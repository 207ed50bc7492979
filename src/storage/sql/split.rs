//! Cuts a text into its statements, as SQLite's own `sqlite3_complete` finds their ends.
//!
//! SQLite prepares one statement at a time. It has to be known beforehand which is the last, as that one takes
//! the bindings and returns the rows; and a statement alone can be found among the prepared ones.
//!
//! **Invariant:** what is cut wrongly fails to parse; it is never run differently.

/// Returns the statements of `sql`, each with its semicolon, without white space and comments around.
pub(super) fn statements(sql: &str) -> Vec<&str> {
    let (mut found, mut state, mut start) = (Vec::new(), State::Start, None);
    let (mut at, mut end) = (0, 0);
    while let Some(rest) = sql.get(at..).filter(|rest| !rest.is_empty()) {
        let (token, length) = next(rest);
        if token != Token::Blank {
            if token != Token::Semicolon {
                start = start.or(Some(at));
            }
            end = at + length;
        }
        state = state.after(token);
        at += length;
        if state == State::Start {
            found.extend(start.take().and_then(|start| sql.get(start..end)));
        }
    }
    found.extend(start.and_then(|start| sql.get(start..end)));
    found
}

/// Returns the first word of a statement.
pub(super) fn first_word(statement: &str) -> &str {
    let end = statement.find(|c: char| !is_word(c)).unwrap_or(statement.len());
    statement.get(..end).unwrap_or_default()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Semicolon,
    /// White space, or a comment.
    Blank,
    Explain,
    Create,
    Temp,
    Trigger,
    End,
    Other,
}

/// Where in a statement we are. A trigger has semicolons inside, and ends with `; END;`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Start,
    Within,
    Explain,
    Create,
    Trigger,
    TriggerSemicolon,
    TriggerEnd,
}

impl State {
    fn after(self, token: Token) -> Self {
        match (self, token) {
            (state, Token::Blank) => state,
            (Self::Trigger | Self::TriggerSemicolon, Token::Semicolon) => Self::TriggerSemicolon,
            (Self::TriggerSemicolon, Token::End) => Self::TriggerEnd,
            (_, Token::Semicolon) => Self::Start,
            (Self::Trigger | Self::TriggerSemicolon | Self::TriggerEnd, _) => Self::Trigger,
            (Self::Start, Token::Explain) => Self::Explain,
            (Self::Start | Self::Explain, Token::Create) => Self::Create,
            // EXPLAIN QUERY PLAN CREATE …
            (Self::Explain, Token::Other) => Self::Explain,
            (Self::Create, Token::Temp) => Self::Create,
            (Self::Create, Token::Trigger) => Self::Trigger,
            _ => Self::Within,
        }
    }
}

/// Returns the token that `rest`, which is not empty, begins with, and its length.
fn next(rest: &str) -> (Token, usize) {
    let until = |end: &str, from: usize| {
        let found = rest.get(from..).and_then(|rest| rest.find(end));
        found.map_or(rest.len(), |at| from + at + end.len())
    };
    let mut chars = rest.chars();
    match (chars.next().unwrap_or_default(), chars.next()) {
        (';', _) => (Token::Semicolon, 1),
        ('-', Some('-')) => (Token::Blank, until("\n", 2)),
        ('/', Some('*')) => (Token::Blank, until("*/", 2)),
        // A doubled quote is the end of one quotation and the beginning of the next.
        ('\'', _) => (Token::Other, until("'", 1)),
        ('"', _) => (Token::Other, until("\"", 1)),
        ('`', _) => (Token::Other, until("`", 1)),
        ('[', _) => (Token::Other, until("]", 1)),
        (c, _) if is_space(c) => (Token::Blank, rest.find(|c| !is_space(c)).unwrap_or(rest.len())),
        (c, _) if is_word(c) => {
            let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            (keyword(rest.get(..length).unwrap_or_default()), length)
        }
        (c, _) => (Token::Other, c.len_utf8()),
    }
}

fn keyword(word: &str) -> Token {
    let is = |keyword: &str| word.eq_ignore_ascii_case(keyword);
    match () {
        () if is("explain") => Token::Explain,
        () if is("create") => Token::Create,
        () if is("temp") || is("temporary") => Token::Temp,
        () if is("trigger") => Token::Trigger,
        () if is("end") => Token::End,
        () => Token::Other,
    }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c')
}

/// What an identifier may have in it, for SQLite.
pub(super) fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$' || !c.is_ascii()
}

#[test]
fn statements_end_where_sqlite_ends_them() {
    fn check(sql: &str, expected: &[&str]) {
        assert_eq!(statements(sql), expected, "{sql}");
    }
    check("", &[]);
    check(" ;; -- a;\n /* b; */ ;", &[]);
    check("a; b", &["a;", "b"]);
    check(" a ; -- c;\n b /* ; */ ; ", &["a ;", "b /* ; */ ;"]);
    check("a -- tail", &["a"]);
    check("a 'x;''y;' \"z;\" `;` [;] ; b", &["a 'x;''y;' \"z;\" `;` [;] ;", "b"]);
    check("a 'open; b", &["a 'open; b"]);
    check("a /* open; b", &["a"]);
    let trigger = "create temp /* x; */ trigger t after insert on u begin a; b end; c; END;";
    check(&format!("{trigger} d; e"), &[trigger, "d;", "e"]);
    let explain = "EXPLAIN QUERY PLAN CREATE TRIGGER t BEGIN a; END;";
    check(&format!("{explain} b"), &[explain, "b"]);
    check("create table trigger_(a); end; b", &["create table trigger_(a);", "end;", "b"]);
    check("größe; ☃; x", &["größe;", "☃;", "x"]);
    assert_eq!(first_word("VACUUM;"), "VACUUM");
}
