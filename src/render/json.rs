//! JSON output: indented, one value, a newline at the end; or one value a line. A terminal never obeys it.

use inspect_probes::escape::is_hostile;
use serde::Serialize;

use crate::error::{CommandError, ErrorKind};

/// The value as indented JSON. A value that cannot be written as JSON is a bug of ours.
pub(crate) fn render_json(value: &impl Serialize) -> Result<String, CommandError> {
    finish(serde_json::to_string_pretty(value))
}

/// The value as JSON on one line, for streams of values.
pub(crate) fn render_json_line(value: &impl Serialize) -> Result<String, CommandError> {
    finish(serde_json::to_string(value))
}

fn finish(json: serde_json::Result<String>) -> Result<String, CommandError> {
    let text = json.map_err(|error| CommandError::new(ErrorKind::Bug, error))?;
    Ok(defuse(text) + "\n")
}

/// JSON need not escape DEL, C1 controls (U+009B begins a terminal's escape sequence) and what reorders or hides text.
/// They only stand inside of strings, where `\uXXXX` means the same.
fn defuse(json: String) -> String {
    let is_live = |c: char| c >= '\u{7f}' && is_hostile(c);
    if !json.contains(is_live) {
        return json;
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if is_live(c) {
            let mut units = [0; 2];
            text.extend(c.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_written_as_an_escape_and_reads_back_the_same() {
        let hostile = "\x1b[2J\u{9b}1m\u{7f}\u{202e}\u{e0041}\nü日";
        let json = render_json(&[hostile]).unwrap();
        assert!(!json.chars().any(|c| c != '\n' && is_hostile(c)), "{json:?}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), [hostile]);
        assert_eq!(render_json_line(&[1, 2]).unwrap(), "[1,2]\n");
    }
}
