//! Text that came from a container is hostile: a name may carry terminal escapes, newlines or invalid UTF-8.
//!
//! [`escape`] makes one line of it that a terminal shows and never obeys; [`quote`] is for error texts.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The most bytes of bad input that an error text repeats.
const QUOTE_LIMIT: usize = 80;

/// One printable line: control characters, line and paragraph separators, bidirectional overrides and other
/// invisible format characters become `\n`, `\t`, `\x1b` or `\u{202e}`; a backslash stays as it is.
#[must_use]
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        push_escaped(&mut out, c);
    }
    Cow::Owned(out)
}

/// [`escape`] for bytes: what is not UTF-8 becomes `\xNN`, byte for byte.
#[must_use]
pub fn escape_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return escape(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            push_escaped(&mut out, c);
        }
        for byte in chunk.invalid() {
            push_hex(&mut out, *byte);
        }
    }
    Cow::Owned(out)
}

/// Bad input for an error text: in double quotes, escaped, cut after 80 bytes with the number of bytes left out.
#[must_use]
pub fn quote(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(QUOTE_LIMIT)];
    let mut out = format!("\"{}\"", escape_bytes(shown));
    if shown.len() < bytes.len() {
        out.push_str(&format!(" (and {} bytes more)", bytes.len() - shown.len()));
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\t' => out.push_str("\\t"),
        '\r' => out.push_str("\\r"),
        c if !is_hostile(c) => out.push(c),
        c if (c as u32) < 0x100 => push_hex(out, c as u8),
        c => {
            let written = write!(out, "\\u{{{:x}}}", c as u32);
            debug_assert!(written.is_ok(), "a String takes every write");
        }
    }
}

fn push_hex(out: &mut String, byte: u8) {
    let written = write!(out, "\\x{byte:02x}");
    debug_assert!(written.is_ok(), "a String takes every write");
}

/// C0, DEL and C1 controls; separators that end a line; characters that reorder or hide what stands around them.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_borrowed() {
        assert!(matches!(escape("nginx: worker ü 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn terminal_escapes_and_newlines_are_shown_and_not_sent() {
        assert_eq!(escape("a\x1b[2J\nb\u{9b}1m"), "a\\x1b[2J\\nb\\x9b1m");
        assert_eq!(escape("\u{202e}evil"), "\\u{202e}evil");
    }

    #[test]
    fn bytes_that_are_not_utf8_stay_readable() {
        assert_eq!(escape_bytes(b"ok\xff\x00"), "ok\\xff\\x00");
    }

    #[test]
    fn a_quote_is_bounded() {
        assert_eq!(quote(&[b'x'; 100]), format!("\"{}\" (and 20 bytes more)", "x".repeat(80)));
    }
}
