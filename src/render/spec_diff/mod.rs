//! Comparisons of specs as text.

mod document;
mod markdown;
mod redact;
mod table;
mod unified;

use inspect_probes::spec::{Change, Comparison, HeadlineRow, Verdict};

pub(crate) use markdown::render_markdown;
pub(crate) use redact::{Redaction, carries_env};
pub(crate) use table::render_table;
pub(crate) use unified::render_unified;

/// A comparison with what is needed to show it.
pub(crate) struct SpecDiff {
    /// The left side's name, escaped.
    pub(crate) left: String,
    /// The right side's name, escaped.
    pub(crate) right: String,
    pub(crate) headline: Vec<HeadlineRow>,
    /// Whether only a part was asked for: then there is no headline.
    pub(crate) filtered: bool,
    /// What the reader should know, escaped.
    pub(crate) notes: Vec<String>,
    pub(crate) comparison: Comparison,
}

impl SpecDiff {
    /// The changes to show: all, or those that have an effect.
    fn shown(&self, all: bool) -> impl Iterator<Item = &Change> {
        self.comparison.changes.iter().filter(move |change| all || change.is_listed())
    }

    /// `12 differences: 3 more permissive, 9 changed; 4 without effect`.
    fn summary(&self, all: bool) -> String {
        let listed: Vec<&Change> = self.comparison.listed().collect();
        let folded = match self.comparison.folded() {
            0 => String::new(),
            number if all => format!("; {number} without effect"),
            number => format!("; {number} without effect not listed (--all)"),
        };
        if listed.is_empty() {
            return format!("no difference in effect{folded}");
        }
        let number = |verdict: Verdict| listed.iter().filter(|change| change.verdict == verdict).count();
        let parts: Vec<String> =
            [Verdict::MorePermissive, Verdict::CannotTell, Verdict::Changed, Verdict::LessPermissive]
                .into_iter()
                .filter(|verdict| number(*verdict) > 0)
                .map(|verdict| format!("{} {}", number(verdict), verdict.as_str()))
                .collect();
        let noun = if listed.len() == 1 { "difference" } else { "differences" };
        format!("{} {noun}: {}{folded}", listed.len(), parts.join(", "))
    }

    /// `overall: more permissive`.
    fn overall(&self) -> String {
        format!("overall: {}", self.comparison.overall.map_or("the same", Verdict::as_str))
    }
}

/// The mark of a verdict: an arrow where somebody must look.
fn mark(verdict: Verdict) -> String {
    match verdict {
        Verdict::MorePermissive => format!("← {}", verdict.as_str()),
        _ => verdict.as_str().to_owned(),
    }
}

/// The fields of Kubernetes and the kernel that a change belongs to.
fn fields(change: &Change) -> Option<String> {
    let kubernetes = change.kubernetes.map(|field| format!("Kubernetes: {field}"));
    let kernel = change.kernel.filter(|file| *file != "-").map(|file| format!("kernel: {file}"));
    let parts: Vec<String> = kubernetes.into_iter().chain(kernel).collect();
    (!parts.is_empty()).then(|| parts.join(" · "))
}
