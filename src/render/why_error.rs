//! The answer to `inspect why error`.

use inspect_probes::escape::escape;
use inspect_probes::known_error::Explanation;
use inspect_probes::known_error::node::Finding;
use serde::Serialize;

use super::style::Style;
use super::wrap::wrap;

/// An explanation with what the node shows for it.
#[derive(Debug, Serialize)]
pub(crate) struct ErrorAnswer {
    #[serde(flatten)]
    pub(crate) explanation: Explanation,
    /// What was found on this node.
    pub(crate) findings: Vec<Finding>,
}

/// All answers, the innermost cause first; where there is none, it says so.
pub(crate) fn render_answer(answers: &[ErrorAnswer], style: Style, width: Option<usize>) -> String {
    if answers.is_empty() {
        return "not known: no part of this text is one that inspect can explain\n\
                It knows texts of containerd, containerd-shim-runc-v2, runc and crun. The innermost part, after the last `: `, is the \
                best to search for; `journalctl -u containerd.service` and the bundle's log.json (`inspect bundle ID`) have more.\n"
            .to_owned();
    }
    let mut text = String::new();
    for (index, answer) in answers.iter().enumerate() {
        if index > 0 {
            text.push('\n');
        }
        render_one(answer, style, width, &mut text);
    }
    text
}

fn render_one(answer: &ErrorAnswer, style: Style, width: Option<usize>, text: &mut String) {
    let explanation = &answer.explanation;
    let mut item = |label: &str, value: &str| {
        let lines = wrap(value, width.map(|columns| columns.saturating_sub(10)));
        for (index, line) in lines.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            text.push_str(&format!("{}{line}\n", style.strong(&format!("{label:<10}"))));
        }
    };
    item("text", &escape(&explanation.matched));
    item("from", explanation.reported_by);
    item("cause", &explanation.cause);
    for (index, finding) in answer.findings.iter().enumerate() {
        let place = escape(&finding.path.to_string_lossy()).into_owned();
        let place = finding.line.map_or_else(|| place.clone(), |line| format!("{place}:{line}"));
        let mark = if finding.is_cause { "  ← the cause" } else { "" };
        item(if index == 0 { "here" } else { "" }, &format!("{place}: {}{mark}", finding.text));
    }
    for (index, fix) in explanation.fixes.iter().enumerate() {
        item(if index == 0 { "fix" } else { "or" }, fix);
    }
    item("known", explanation.known_from);
}
