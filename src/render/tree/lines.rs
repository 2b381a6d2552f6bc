//! Lines with rails: indented by level, joined with `├─`, folded to the terminal's width, never cut.

use unicode_width::UnicodeWidthChar as _;

use crate::render::style::Style;

/// The columns of one level.
const STEP: usize = 3;
/// Deeper levels are drawn at this one, and say how deep they are.
const DEEPEST: usize = 40;
/// However narrow the terminal, this many levels are told apart and this many columns are left for text.
const FEWEST_LEVELS: usize = 6;
const FEWEST_COLUMNS: usize = 16;

/// A blank at which no line is folded; it is drawn as a blank.
const UNBROKEN: char = '\u{a0}';

/// How a piece of text is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Strong,
    Faint,
    Good,
    Warning,
    Bad,
}

/// A piece of text, already escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) tone: Tone,
    pub(super) text: String,
}

/// One line of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TreeLine {
    /// 0 is the root.
    pub(super) level: usize,
    /// A note says more about the node above it and is no branch.
    pub(super) note: bool,
    pub(super) spans: Vec<Span>,
}

impl TreeLine {
    /// An empty node at `level`.
    pub(super) fn node(level: usize) -> Self {
        Self { level, note: false, spans: Vec::new() }
    }

    /// An empty note to the node at `level`.
    pub(super) fn note(level: usize) -> Self {
        Self { level: level + 1, note: true, spans: Vec::new() }
    }

    /// Adds text, as it is.
    pub(super) fn then(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.spans.push(Span { tone, text: text.into() });
        self
    }

    /// Adds a fact, apart from the one before it.
    pub(super) fn fact(self, tone: Tone, text: impl Into<String>) -> Self {
        let apart =
            if self.spans.is_empty() { self } else { self.then(Tone::Faint, format!("{UNBROKEN}· ")) };
        apart.then(tone, text)
    }

    /// Adds a fact of a few words that stay on one line, where there is one.
    pub(super) fn whole(self, tone: Tone, text: Option<String>) -> Self {
        self.fact_if(tone, text.map(|text| text.replace(' ', &UNBROKEN.to_string())))
    }

    /// Adds a fact where there is one.
    pub(super) fn fact_if(self, tone: Tone, text: Option<String>) -> Self {
        match text {
            Some(text) => self.fact(tone, text),
            None => self,
        }
    }
}

/// The deepest level that is drawn as such in `width` columns: rails take half of them at most.
pub(super) fn deepest_level(width: Option<usize>) -> usize {
    width.map_or(DEEPEST, |width| (width / 2 / STEP).clamp(FEWEST_LEVELS, DEEPEST))
}

/// Draws the lines.
pub(super) fn render_lines(lines: &[TreeLine], style: Style, width: Option<usize>) -> String {
    let deepest = deepest_level(width);
    let mut text = String::new();
    for (line, rails) in lines.iter().zip(rails(lines, deepest)) {
        let indent = rails.first.chars().count();
        let columns = |indent: usize| width.map(|width| width.saturating_sub(indent).max(FEWEST_COLUMNS));
        let rows = fold(&line.spans, columns(indent), columns(indent + 2));
        for (number, row) in rows.iter().enumerate() {
            let rail = if number == 0 { &rails.first } else { &rails.next };
            let mut drawn = style.faint(rail);
            drawn.extend(row.iter().map(|span| styled(style, span)));
            text.push_str(drawn.trim_end());
            text.push('\n');
        }
    }
    text
}

fn styled(style: Style, span: &Span) -> String {
    match span.tone {
        Tone::Plain => span.text.clone(),
        Tone::Strong => style.strong(&span.text),
        Tone::Faint => style.faint(&span.text),
        Tone::Good => style.good(&span.text),
        Tone::Warning => style.warning(&span.text),
        Tone::Bad => style.bad(&span.text),
    }
}

/// What stands before a line, and before what of it did not fit.
struct Rails {
    first: String,
    next: String,
}

/// From the last line to the first: a rail is drawn at a level where a line still follows.
fn rails(lines: &[TreeLine], deepest: usize) -> Vec<Rails> {
    let mut open = 0_u64;
    let mut drawn: Vec<Rails> = Vec::with_capacity(lines.len());
    for line in lines.iter().rev() {
        let level = line.level.min(deepest + usize::from(line.note));
        let follows = |level: usize| open & (1 << level) != 0;
        let above: String = (1..level).map(|level| if follows(level) { "│  " } else { "   " }).collect();
        let pass = if follows(level) { "│  " } else { "   " };
        drawn.push(match (level, line.note) {
            (0, _) => Rails { first: String::new(), next: if follows(1) { "│ " } else { "  " }.to_owned() },
            (_, true) => Rails { first: format!("{above}{pass}"), next: format!("{above}{pass}  ") },
            (_, false) => {
                let branch = if follows(level) { "├─ " } else { "└─ " };
                let below = if follows(level + 1) { "│ " } else { "  " };
                Rails { first: format!("{above}{branch}"), next: format!("{above}{pass}{below}") }
            }
        });
        if !line.note {
            open = (open | 1 << level) & ((1 << (level + 1)) - 1);
        }
    }
    drawn.reverse();
    drawn
}

/// Folds at blanks, and inside of words that are longer than a row. Every character that is not the blank at a fold is
/// kept.
fn fold(spans: &[Span], first: Option<usize>, next: Option<usize>) -> Vec<Vec<Span>> {
    let cells: Vec<(char, Tone)> =
        spans.iter().flat_map(|span| span.text.chars().map(|c| (c, span.tone))).collect();
    let (Some(first), Some(next)) = (first, next) else { return vec![to_spans(&cells)] };
    let mut rows = Vec::new();
    let mut rest = cells.as_slice();
    loop {
        let columns = if rows.is_empty() { first } else { next };
        let fits = cells_that_fit(rest, columns);
        if fits == rest.len() {
            rows.push(to_spans(rest));
            return rows;
        }
        let blank = rest[..=fits].iter().rposition(|(c, _)| *c == ' ').filter(|blank| *blank > 0);
        let end = blank.unwrap_or(fits.max(1));
        rows.push(to_spans(&rest[..end]));
        rest = &rest[end + usize::from(blank.is_some())..];
    }
}

fn cells_that_fit(cells: &[(char, Tone)], columns: usize) -> usize {
    let mut used = 0;
    let over = cells.iter().position(|(c, _)| {
        used += c.width().unwrap_or(0);
        used > columns
    });
    over.unwrap_or(cells.len())
}

fn to_spans(cells: &[(char, Tone)]) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for (c, tone) in cells {
        let c = if *c == UNBROKEN { ' ' } else { *c };
        match spans.last_mut() {
            Some(span) if span.tone == *tone => span.text.push(c),
            _ => spans.push(Span { tone: *tone, text: c.to_string() }),
        }
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: usize, text: &str) -> TreeLine {
        TreeLine::node(level).then(Tone::Plain, text)
    }

    #[test]
    fn rails_join_siblings_and_pass_notes() {
        let lines = [
            line(0, "root"),
            line(1, "a"),
            TreeLine::note(1).then(Tone::Plain, "note"),
            line(2, "b"),
            line(1, "c"),
            TreeLine::note(1).then(Tone::Plain, "note"),
        ];
        let text = render_lines(&lines, Style::new(false), None);
        assert_eq!(text, "root\n├─ a\n│  │  note\n│  └─ b\n└─ c\n      note\n");
    }

    #[test]
    fn folding_keeps_every_word_and_every_width() {
        let words = "alpha beta gamma 日本語日本語日本語日本語日本語日本語日本語日本語 delta".repeat(3);
        let lines = [line(0, "root"), line(1, &words), line(2, "x"), line(1, &"y".repeat(100))];
        let text = render_lines(&lines, Style::new(false), Some(30));
        let width = |row: &str| row.chars().map(|c| c.width().unwrap_or(0)).sum::<usize>();
        assert!(text.lines().all(|row| width(row) <= 30), "{text}");
        assert_eq!(text.matches('本').count(), 24, "{text}");
        assert_eq!(text.matches('y').count(), 100, "{text}");
    }

    #[test]
    fn a_level_beyond_the_deepest_is_drawn_there() {
        let lines: Vec<_> = (0..5000).map(|level| line(level, "x")).collect();
        let text = render_lines(&lines, Style::new(false), Some(80));
        assert_eq!(text.lines().count(), 5000);
        assert!(text.lines().all(|row| row.chars().count() <= 80));
    }
}
