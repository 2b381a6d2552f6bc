//! Folding prose to the terminal's width, at blanks, by what a terminal shows.

use unicode_width::UnicodeWidthStr as _;

/// The lines of `text`, none wider than `columns` unless a single word is; one line where the width is not known.
pub(crate) fn wrap(text: &str, columns: Option<usize>) -> Vec<String> {
    let Some(columns) = columns else {
        return vec![text.to_owned()];
    };
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.is_empty() && line.width() + 1 + word.width() > columns {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_kept_whole_and_all_are_kept() {
        let lines = wrap("one two three averyveryverylongword x", Some(9));
        assert_eq!(lines, ["one two", "three", "averyveryverylongword", "x"]);
        assert_eq!(wrap("", Some(9)), [""]);
        assert_eq!(wrap("a b", None), ["a b"]);
    }
}
