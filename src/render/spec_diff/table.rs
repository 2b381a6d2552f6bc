//! Side by side: first what everybody looks at, then each concern with what differs, then why it matters.

use inspect_probes::spec::{Change, Section, Verdict};

use super::{SpecDiff, fields, mark};
use crate::render::style::Style;
use crate::render::table;
use crate::render::wrap::wrap;

/// Items of a detail that are shown without being asked for all.
const FEW: usize = 16;

/// The comparison for people.
pub(crate) fn render_table(difference: &SpecDiff, all: bool, style: Style, width: Option<usize>) -> String {
    let mut rows = Vec::new();
    if !difference.filtered {
        rows.extend(difference.headline.iter().map(|line| {
            let verdict = line.verdict.map_or_else(|| style.good("same"), |verdict| styled(verdict, style));
            vec![line.subject.to_owned(), line.left.clone(), line.right.clone(), verdict]
        }));
    }
    let shown: Vec<&Change> = difference.shown(all).collect();
    for (section, changes) in by_section(&shown) {
        let beyond: Vec<&Change> = changes
            .iter()
            .copied()
            .filter(|change| difference.filtered || !in_headline(difference, change))
            .collect();
        if !beyond.is_empty() {
            rows.push(vec![
                style.strong(&section.as_str().to_uppercase()),
                String::new(),
                String::new(),
                String::new(),
            ]);
        }
        rows.extend(beyond.iter().map(|change| {
            vec![
                format!("  {}", change.subject),
                change.left.text.clone(),
                change.right.text.clone(),
                styled(change.verdict, style),
            ]
        }));
    }
    let left = format!("LEFT {}", difference.left);
    let right = format!("RIGHT {}", difference.right);
    let mut text = table::render_table(&["", &left, &right, "VERDICT"], &rows, width);
    text.push_str(&reasons(&shown, all, style, width));
    text.push('\n');
    let overall = fold(&format!("{}; {}", difference.overall(), difference.summary(all)), "  ", width);
    // Escape sequences have no width: the words are made strong after they were folded.
    let worst = difference.overall();
    text.push_str(&overall.replacen(&worst, &style.strong(&worst), 1));
    for note in &difference.notes {
        text.push_str(&fold(&format!("note: {note}"), "  ", width));
    }
    text
}

/// Whether the headline shows the same, or a summary of it.
fn in_headline(difference: &SpecDiff, change: &Change) -> bool {
    change.is_listed() && difference.headline.iter().any(|line| line.subject == change.subject)
}

fn by_section<'a>(changes: &[&'a Change]) -> Vec<(Section, Vec<&'a Change>)> {
    let mut groups: Vec<(Section, Vec<&Change>)> = Vec::new();
    for change in changes {
        match groups.last_mut() {
            Some((section, group)) if *section == change.section => group.push(change),
            _ => groups.push((change.section, vec![change])),
        }
    }
    groups
}

fn styled(verdict: Verdict, style: Style) -> String {
    let text = mark(verdict);
    match verdict {
        Verdict::MorePermissive => style.bad(&text),
        Verdict::CannotTell | Verdict::Changed => style.warning(&text),
        Verdict::LessPermissive => style.good(&text),
        Verdict::SameEffect => style.faint(&text),
    }
}

/// Why each change matters, the worst verdict first; changes of one reason together.
fn reasons(changes: &[&Change], all: bool, style: Style, width: Option<usize>) -> String {
    let mut text = String::new();
    for verdict in [
        Verdict::MorePermissive,
        Verdict::CannotTell,
        Verdict::Changed,
        Verdict::LessPermissive,
        Verdict::SameEffect,
    ] {
        let of_verdict: Vec<&&Change> = changes.iter().filter(|change| change.verdict == verdict).collect();
        if !of_verdict.is_empty() {
            text.push_str(&format!("\n{}\n", style.strong(&format!("WHY: {}", verdict.as_str()))));
        }
        let mut told: Vec<(&str, Vec<&Change>)> = Vec::new();
        for change in of_verdict {
            match told.iter_mut().find(|(reason, _)| *reason == change.reason) {
                Some((_, same)) => same.push(change),
                None => told.push((&change.reason, vec![change])),
            }
        }
        for (reason, changes) in told {
            text.push_str(&explain(reason, &changes, all, style, width));
        }
    }
    text
}

fn explain(reason: &str, changes: &[&Change], all: bool, style: Style, width: Option<usize>) -> String {
    let subjects: Vec<&str> = changes.iter().map(|change| change.subject.as_str()).collect();
    let mut text = fold(&format!("  {}: {reason}", subjects.join(", ")), "    ", width);
    for change in changes {
        for detail in &change.details {
            let shown = if all { detail.items.len() } else { detail.items.len().min(FEW) };
            let rest = match detail.items.len() - shown {
                0 => String::new(),
                more => format!(" and {more} more (--all)"),
            };
            let items = format!("    {}: {}{rest}", detail.label, detail.items[..shown].join(", "));
            text.push_str(&fold(&items, "      ", width));
        }
    }
    if let Some(fields) = changes.first().and_then(|change| fields(change)) {
        for line in fold(&format!("    {fields}"), "      ", width).lines() {
            text.push_str(&style.faint(line));
            text.push('\n');
        }
    }
    text
}

/// A paragraph whose further lines are indented; without a width it stays one line.
fn fold(line: &str, indent: &str, width: Option<usize>) -> String {
    let lead = &line[..line.len() - line.trim_start().len()];
    let room = width.map(|width| width.saturating_sub(indent.len()).max(20));
    let mut text = String::new();
    for (number, part) in wrap(line.trim_start(), room).iter().enumerate() {
        text.push_str(if number == 0 { lead } else { indent });
        text.push_str(part);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_lines_fit_and_keep_every_word() {
        let text = fold("  one two three four five six seven eight nine ten", "    ", Some(24));
        assert!(text.lines().all(|line| line.len() <= 24), "{text}");
        assert_eq!(text.split_whitespace().count(), 10);
    }
}
