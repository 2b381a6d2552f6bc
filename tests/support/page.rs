//! Pages of `docs/` whose commands are run as they stand there, and whose shown output is compared.
//!
//! A block `console` has commands, each after `$ `, with their output (both streams) below. What a page shows is what a
//! node printed once. It has to be printed again, but for three things:
//!
//! - a line `...` stands for lines that are left out;
//! - runs of blanks count as one: a table is as wide as its widest value;
//! - values that a comment of the page lists under `what differs` may be others of the same kind. A pid, digest, inode
//!   or version has to be the same one wherever the page shows the same one, and another where it shows another.
//!
//! The comment has a line for each kind: `pid: 592 615`. Values with blanks in them are quoted by backticks.
#![allow(dead_code, reason = "every suite is a crate of its own and uses what it needs")]

use std::collections::BTreeMap;

/// Begins the comment with the values that differ.
const COMMENT: &str = "<!-- what differs";

/// A command and what the page shows of its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) command: String,
    pub(crate) output: Vec<String>,
}

/// What a value that differs has to look like.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// Decimal digits.
    Number,
    /// 12 to 64 hexadecimal digits.
    Digest,
    /// Digits first, then what versions are written with.
    Version,
    /// Numbers, each with a unit of time.
    Duration,
    /// A number and a unit of bytes.
    Size,
    /// RFC 3339.
    Time,
    /// One of these.
    OneOf(Vec<String>),
}

#[derive(Debug)]
struct Value {
    shown: String,
    kind: Kind,
    /// Whether it stands for one thing wherever it is shown.
    is_name: bool,
}

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) commands: Vec<Shown>,
    values: Vec<Value>,
}

/// Which value of this node stands for which of the page's.
pub(crate) type Names = BTreeMap<String, String>;

#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    /// Index into the page's values.
    Value(usize),
}

impl Page {
    /// Takes the page apart.
    pub(crate) fn parse(page: &str) -> Self {
        let mut values = Vec::new();
        let comment = page.split_once(COMMENT).map_or("", |(_, rest)| rest);
        let comment = comment.split_once("-->").map_or(comment, |(inside, _)| inside);
        for line in comment.lines().skip(1).filter(|line| !line.trim().is_empty()) {
            let (kind, listed) = line.split_once(':').expect("a line of the comment is KIND: VALUES");
            values.extend(words(listed).into_iter().map(|word| value(kind.trim(), &word)));
        }
        // The longest first: what begins like another is not taken for it.
        values.sort_by_key(|value| std::cmp::Reverse(value.shown.len()));
        Self { commands: commands(page), values }
    }

    /// Listed values that no output shows.
    pub(crate) fn unused(&self) -> Vec<&str> {
        let shown = |value: &&Value| {
            let mut lines = self.commands.iter().flat_map(|shown| &shown.output);
            let index = self.index(value);
            lines.any(|line| self.pieces(&one_blank(line)).contains(&Piece::Value(index)))
        };
        self.values.iter().filter(|value| !shown(value)).map(|value| value.shown.as_str()).collect()
    }

    fn index(&self, value: &Value) -> usize {
        self.values.iter().position(|other| std::ptr::eq(other, value)).expect("it is one of ours")
    }

    /// What the names are when `text` is what `shown` shows; `None` when it is not.
    pub(crate) fn matches(&self, shown: &[String], text: &[&str], names: &Names) -> Option<Names> {
        match (shown.first().map(String::as_str), text.first()) {
            (None, None) => Some(names.clone()),
            (Some("..."), _) => {
                (0..=text.len()).find_map(|skip| self.matches(&shown[1..], &text[skip..], names))
            }
            (Some(pattern), Some(line)) => {
                let pattern = one_blank(pattern);
                let names = self.line_matches(&self.pieces(&pattern), &one_blank(line), names.clone())?;
                self.matches(&shown[1..], &text[1..], &names)
            }
            _ => None,
        }
    }

    /// The line in pieces: listed values that stand by themselves, and the text between them.
    fn pieces<'a>(&self, line: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < line.len() {
            let found = self.values.iter().position(|value| stands_at(line, at, &value.shown));
            if let Some(index) = found {
                pieces.push(Piece::Text(&line[start..at]));
                pieces.push(Piece::Value(index));
                at += self.values[index].shown.len();
                start = at;
            } else {
                at += line[at..].chars().next().map_or(1, char::len_utf8);
            }
        }
        pieces.push(Piece::Text(&line[start..]));
        pieces
    }

    fn line_matches(&self, pieces: &[Piece<'_>], line: &str, mut names: Names) -> Option<Names> {
        match pieces.first() {
            None => line.is_empty().then_some(names),
            Some(Piece::Text(text)) => self.line_matches(&pieces[1..], line.strip_prefix(text)?, names),
            Some(Piece::Value(index)) => {
                let value = &self.values[*index];
                let actual = &line[..value.kind.length(line)?];
                if value.is_name {
                    let known = names.get(&value.shown);
                    let taken = names.iter().any(|(shown, name)| *shown != value.shown && name == actual);
                    if known.map_or(taken, |known| known != actual) {
                        return None;
                    }
                    names.insert(value.shown.clone(), actual.to_owned());
                }
                self.line_matches(&pieces[1..], &line[actual.len()..], names)
            }
        }
    }
}

impl Kind {
    /// How many bytes of the text's start are such a value.
    fn length(&self, text: &str) -> Option<usize> {
        let run = |fits: fn(char) -> bool| text.find(|letter| !fits(letter)).unwrap_or(text.len());
        let digits = run(|letter| letter.is_ascii_digit());
        let length = match self {
            Self::Number => digits,
            Self::Digest => Some(run(|letter| letter.is_ascii_hexdigit())).filter(|length| *length >= 12)?,
            Self::Version if digits > 0 => {
                run(|letter| letter.is_ascii_alphanumeric() || "~+.-".contains(letter))
            }
            Self::Version => 0,
            Self::Time if digits == 4 => run(|letter| letter.is_ascii_digit() || "-:.TZ+".contains(letter)),
            Self::Time => 0,
            Self::Duration => units(text, &["ms", "s", "m", "h", "d"], true),
            Self::Size => units(text, &["KiB", "MiB", "GiB", "B"], false),
            Self::OneOf(all) => {
                all.iter().filter(|one| stands_at(text, 0, one)).map(String::len).max().unwrap_or(0)
            }
        };
        (length > 0).then_some(length)
    }
}

/// The length of a number with one of the units; where `many`, of several such with ever smaller units, blanks between.
fn units(text: &str, units: &[&str], many: bool) -> usize {
    let (mut at, mut left) = (0, units);
    loop {
        let rest = text[at..].strip_prefix(' ').filter(|_| at > 0).unwrap_or(&text[at..]);
        let number = rest.trim_start_matches(|letter: char| letter.is_ascii_digit() || letter == '.');
        let after = number.strip_prefix(' ').unwrap_or(number);
        let found = left.iter().position(|unit| stands_at(after, 0, unit));
        let (Some(unit), true) = (found, number.len() < rest.len()) else { return at };
        at = text.len() - after.len() + left[unit].len();
        if !many {
            return at;
        }
        // Smallest first: what follows a unit is smaller, or another value.
        left = &left[..unit];
    }
}

/// Whether `value` stands there by itself, not as a part of a longer word or number.
fn stands_at(line: &str, at: usize, value: &str) -> bool {
    let Some(rest) = line[at..].strip_prefix(value) else { return false };
    let is_part = |letter: char| letter.is_alphanumeric();
    let joins = |outside: Option<char>, inside: Option<char>| {
        outside.is_some_and(is_part) && inside.is_some_and(is_part)
    };
    !joins(line[..at].chars().next_back(), value.chars().next())
        && !joins(rest.chars().next(), value.chars().next_back())
}

fn value(kind: &str, word: &str) -> Value {
    let shown = word.split('|').next().unwrap_or_default().to_owned();
    let (kind, is_name) = match kind {
        "pid" | "inode" => (Kind::Number, true),
        "number" => (Kind::Number, false),
        "digest" => (Kind::Digest, true),
        "version" => (Kind::Version, true),
        "duration" => (Kind::Duration, false),
        "size" => (Kind::Size, false),
        "time" => (Kind::Time, false),
        "one of" => (Kind::OneOf(word.split('|').map(str::to_owned).collect()), false),
        other => panic!("`{other}` is no kind of value"),
    };
    assert_eq!(kind.length(&shown), Some(shown.len()), "`{shown}` is no {kind:?}");
    Value { shown, kind, is_name }
}

/// Words between blanks, or between backticks.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in text.split('`').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn one_blank(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn commands(page: &str) -> Vec<Shown> {
    let mut found: Vec<Shown> = Vec::new();
    let mut inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| inside) {
            found.push(Shown { command: command.to_owned(), output: Vec::new() });
        } else if let Some(last) = found.last_mut().filter(|_| inside) {
            last.output.push(line.trim_end().to_owned());
        }
    }
    found
}
