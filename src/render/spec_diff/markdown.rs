//! A table for a ticket.

use super::{SpecDiff, fields, mark};

/// The comparison as a Markdown table (GitHub's flavour).
pub(crate) fn render_markdown(difference: &SpecDiff, all: bool) -> String {
    let mut text = format!("**{}** — {}\n\n", difference.overall(), difference.summary(all));
    text.push_str(&row(&["", &difference.left, &difference.right, "verdict", "why it matters"]));
    text.push_str("|---|---|---|---|---|\n");
    if !difference.filtered {
        for line in difference.headline.iter().filter(|line| line.verdict.is_none()) {
            text.push_str(&row(&[line.subject, &line.left, &line.right, "same", ""]));
        }
    }
    for change in difference.shown(all) {
        let details =
            change.details.iter().map(|detail| format!("{}: {}", detail.label, detail.items.join(" ")));
        let why: Vec<String> = details.chain([change.reason.clone()]).chain(fields(change)).collect();
        text.push_str(&row(&[
            &change.subject,
            &change.left.text,
            &change.right.text,
            &mark(change.verdict),
            &why.join(". "),
        ]));
    }
    for note in &difference.notes {
        text.push_str(&format!("\n> {}\n", cell(note)));
    }
    text
}

fn row(cells: &[&str]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// What Markdown or HTML would take for its own is shown as it is.
fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '|' | '*' | '_' | '`' | '[' | ']' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}
