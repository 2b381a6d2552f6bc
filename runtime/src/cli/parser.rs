//! Flags as Go's flag package takes them: `-f`, `--flag`, `--flag value`, `--flag=value`, up to the first other word.

use std::path::PathBuf;

use super::UsageError;

/// A flag of the grammar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// Its short form, or another name.
    pub(super) alias: &'static str,
    pub(super) takes_value: bool,
}

/// A flag that is there or not.
pub(super) const fn switch(name: &'static str, alias: &'static str) -> Flag {
    Flag { name, alias, takes_value: false }
}

/// A flag with a value.
pub(super) const fn option(name: &'static str, alias: &'static str) -> Flag {
    Flag { name, alias, takes_value: true }
}

/// The flags and words of one command.
#[derive(Debug, Default)]
pub struct Parsed {
    flags: Vec<(&'static str, String)>,
    /// The words after the flags.
    pub words: Vec<String>,
}

impl Parsed {
    /// Reads flags up to the first word that is none, and gives the rest.
    pub(super) fn parse<'w>(
        grammar: &[Flag],
        words: &'w [String],
    ) -> Result<(Self, &'w [String]), UsageError> {
        let mut parsed = Parsed::default();
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            if !is_flag(word) {
                break;
            }
            rest = after;
            if word == "--" {
                break;
            }
            let (flag, inline) = find(grammar, word).ok_or_else(|| unknown(word))?;
            rest = parsed.take(flag, inline, rest)?;
        }
        parsed.words = rest.to_vec();
        Ok((parsed, rest))
    }

    /// As [`Self::parse`], with the flags of `grammar` taken after other words, too: runc does so for every command but those that pass
    /// on what follows.
    pub(super) fn parse_anywhere(grammar: &[Flag], words: &[String]) -> Result<Self, UsageError> {
        let mut parsed = Parsed::default();
        let mut rest = words;
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            if word == "--" {
                parsed.words.extend_from_slice(rest);
                break;
            }
            match find(grammar, word).filter(|_| is_flag(word)) {
                Some((flag, inline)) => rest = parsed.take(flag, inline, rest)?,
                // With one dash it may be a signal: `kill c1 -9`.
                None if is_flag(word) && (parsed.words.is_empty() || word.starts_with("--")) => {
                    return Err(unknown(word));
                }
                None => parsed.words.push(word.clone()),
            }
        }
        Ok(parsed)
    }

    fn take<'w>(
        &mut self,
        flag: Flag,
        inline: Option<&str>,
        rest: &'w [String],
    ) -> Result<&'w [String], UsageError> {
        if !flag.takes_value {
            match inline {
                None | Some("true" | "1" | "t" | "T" | "TRUE" | "True") => {
                    self.flags.push((flag.name, String::new()))
                }
                Some("false" | "0" | "f" | "F" | "FALSE" | "False") => {
                    self.flags.retain(|(name, _)| *name != flag.name)
                }
                Some(other) => return Err(super::invalid(flag.name, other, "expected true or false")),
            }
            return Ok(rest);
        }
        if let Some(value) = inline {
            self.flags.push((flag.name, value.to_owned()));
            return Ok(rest);
        }
        let (value, rest) = rest.split_first().ok_or(UsageError::MissingValue { flag: flag.name })?;
        self.flags.push((flag.name, value.clone()));
        Ok(rest)
    }

    /// Whether the flag was given.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(given, _)| *given == name)
    }

    /// The last value given for the flag.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// All values given for the flag.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.flags.iter().filter(move |(given, _)| *given == name).map(|(_, value)| value.as_str())
    }

    /// The last value given, as a path; an empty one counts as not given.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    /// The last value given; an empty one counts as not given.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    /// The last value given, as a number that is not negative; 0 if not given.
    pub(super) fn number(&self, name: &'static str) -> Result<u32, UsageError> {
        let Some(value) = self.value(name) else { return Ok(0) };
        value.parse().map_err(|_| super::invalid(name, value, "expected a number"))
    }
}

/// `-` alone is none: it stands for standard input.
fn is_flag(word: &str) -> bool {
    word.len() > 1 && word.starts_with('-')
}

/// The flag that a word names, and the value that it holds.
fn find<'w>(grammar: &[Flag], word: &'w str) -> Option<(Flag, Option<&'w str>)> {
    let text = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    let (name, inline) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let flag = grammar.iter().find(|flag| flag.name == name || flag.alias == name && !name.is_empty())?;
    Some((*flag, inline))
}

fn unknown(word: &str) -> UsageError {
    UsageError::UnknownFlag { flag: word.to_owned() }
}
