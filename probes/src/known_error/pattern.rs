//! Error texts as patterns: literal pieces with `{name}` where the text varies.

use std::collections::HashMap;

/// What a pattern found in a text.
#[derive(Debug)]
pub(super) struct Captures {
    /// Where the match starts.
    pub(super) start: usize,
    /// The matched part of the text.
    pub(super) matched: String,
    values: HashMap<String, String>,
}

impl Captures {
    /// What stood in place of `{name}`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// A sentence with its `{name}`s filled in, escaped for a terminal.
    pub(super) fn fill(&self, sentence: &str) -> String {
        self.values.iter().fold(sentence.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), &crate::escape::escape(value))
        })
    }
}

/// One line, without the backslashes that logging adds around quotes (once per layer that quoted the text again).
pub(super) fn normalise(text: &str) -> String {
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    while line.contains("\\\"") {
        line = line.replace("\\\\", "\\").replace("\\\"", "\"");
    }
    line
}

/// The last place in `text` where the pattern's pieces stand in order. A capture is the shortest text between two pieces,
/// and one at the pattern's end goes up to the next blank, quote or closing bracket.
pub(super) fn find(pattern: &str, text: &str) -> Option<Captures> {
    let pieces = pieces(pattern);
    let (Piece::Literal(first), rest) = pieces.split_first()? else {
        debug_assert!(false, "a pattern starts with a literal: {pattern}");
        return None;
    };
    let starts: Vec<usize> = text.match_indices(first).map(|(start, _)| start).collect();
    starts.into_iter().rev().find_map(|start| match_from(start, start + first.len(), rest, text))
}

fn match_from(start: usize, mut at: usize, pieces: &[Piece<'_>], text: &str) -> Option<Captures> {
    let mut values = HashMap::new();
    let mut pieces = pieces.iter().peekable();
    while let Some(piece) = pieces.next() {
        match piece {
            Piece::Literal(literal) => {
                at = text[at..].starts_with(literal).then_some(at + literal.len())?;
            }
            Piece::Capture(name) => {
                let length = match pieces.peek() {
                    Some(Piece::Literal(next)) => text[at..].find(next)?,
                    _ => text[at..].find([' ', '"', '`', ')', ',']).unwrap_or(text.len() - at),
                };
                if length == 0 {
                    return None;
                }
                values.insert((*name).to_owned(), text[at..at + length].to_owned());
                at += length;
            }
        }
    }
    Some(Captures { start, matched: text[start..at].to_owned(), values })
}

#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    Literal(&'a str),
    Capture(&'a str),
}

fn pieces(pattern: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = pattern;
    while let Some((literal, after)) = rest.split_once('{') {
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        pieces.push(Piece::Capture(name));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn captures_are_the_text_between_literals() {
        let found =
            find("no runtime for \"{handler}\" is configured", "x: no runtime for \"kata\" is configured: y")
                .expect("it is there");
        assert_eq!(found.get("handler"), Some("kata"));
        assert_eq!(found.matched, "no runtime for \"kata\" is configured");
        assert_eq!(found.fill("`{handler}`"), "`kata`");
    }

    #[test]
    fn a_match_that_fails_late_tries_an_earlier_place() {
        let found =
            find("fork/exec {path}: no", "fork/exec /a: no such, then fork/exec").expect("the first one");
        assert_eq!(found.get("path"), Some("/a"));
        assert!(find("fork/exec {path}: no", "fork/exec ").is_none());
    }

    #[test]
    fn a_capture_at_the_end_stops_at_a_blank_or_quote() {
        let found = find("runtime {name}", "runtime kata, and more").expect("it is there");
        assert_eq!(found.get("name"), Some("kata"));
    }

    #[test]
    fn quoting_is_undone_and_lines_are_joined() {
        assert_eq!(normalise("a \\\\\\\"b\\\\\\\"\n  c"), "a \"b\" c");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_matched_without_panic(text in "\\PC*", pattern in "[a-z]{1,3}\\{x\\}[a-z]{0,2}") {
            let text = normalise(&text);
            if let Some(found) = find(&pattern, &text) {
                proptest::prop_assert!(text.contains(&found.matched));
            }
        }
    }
}
