//! `inspect diff-spec LEFT RIGHT`: how two OCI specs differ and what each difference means.

mod default_spec;
mod operand;

use clap::{Args, ValueEnum};
use inspect_probes::Host;
use inspect_probes::spec::{Comparison, Section, Verdict, compare_on_host, headline, patch};

use self::operand::Operand;
use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::json::render_json;
use crate::render::spec_diff::{
    Redaction, SpecDiff, carries_env, render_markdown, render_table, render_unified,
};
use crate::render::style::Style;

/// The status of `--fail-on`.
const WEAKER: u8 = 3;

/// Compare two OCI specs by meaning: what the right allows that the left does not, and why it matters
///
/// LEFT and RIGHT are each a file, a bundle directory, a container (id, unique prefix, NAMESPACE/ID, container or pod
/// name), `live` (the one running container), `live:ID`, `-` (standard input), `default:runc|crun|builtin` (what that
/// runtime's own `spec` command writes) or `kernel:ID` (what the kernel enforces on the container's init now).
///
/// Exit status: 0 no difference in effect, 1 different, 2 trouble, 3 `--fail-on` applies.
#[derive(Debug, Args)]
pub(crate) struct DiffSpecArgs {
    /// The spec to start from
    #[arg(value_name = "LEFT")]
    left: String,
    /// The spec that is judged
    #[arg(value_name = "RIGHT")]
    right: String,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Only differences with these verdicts; they alone decide the exit status
    #[arg(long, value_enum, value_delimiter = ',', value_name = "VERDICT")]
    only: Vec<VerdictName>,
    /// Only these sections, such as `mounts,capabilities`; they alone decide the exit status
    #[arg(long, value_delimiter = ',', value_name = "SECTION", value_parser = parse_section)]
    section: Vec<Section>,
    /// List the differences without effect too: ids, order, spelling
    #[arg(long)]
    all: bool,
    /// Show the values of environment variables
    #[arg(long)]
    show_env: bool,
    /// Exit with 3 when a difference has this verdict or a worse one (changed, cannot-tell, more-permissive)
    #[arg(long, value_enum, value_name = "VERDICT")]
    fail_on: Option<VerdictName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Side by side, grouped by concern, with reasons
    Table,
    /// Lines of canonical JSON, as diff -u has them
    Unified,
    /// For programs
    Json,
    /// RFC 6902: applied to LEFT it gives RIGHT
    Patch,
    /// A table for a ticket
    Markdown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum VerdictName {
    /// The right allows more
    #[value(alias = "permissive")]
    MorePermissive,
    /// The specs alone do not say
    CannotTell,
    /// Different, neither allows more
    Changed,
    /// The right allows less
    LessPermissive,
}

impl VerdictName {
    fn verdict(self) -> Verdict {
        match self {
            Self::MorePermissive => Verdict::MorePermissive,
            Self::CannotTell => Verdict::CannotTell,
            Self::Changed => Verdict::Changed,
            Self::LessPermissive => Verdict::LessPermissive,
        }
    }
}

fn parse_section(name: &str) -> Result<Section, String> {
    let known = || Section::ALL.map(Section::as_str).join(", ");
    Section::find(name).ok_or_else(|| format!("no such section; there are {}", known()))
}

/// Compares and renders.
pub(crate) fn run(args: &DiffSpecArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    check(args)?;
    let left = operand::resolve(host, &args.left)?;
    let right = operand::resolve(host, &args.right)?;
    let comparison =
        args.select(compare_on_host((&left.spec.value, &left.joins), (&right.spec.value, &right.joins)));
    let status = args.status(&comparison);
    let text = args.render(&left, &right, comparison, output)?;
    output.print(&text)?;
    Ok(status)
}

/// What cannot be meant.
fn check(args: &DiffSpecArgs) -> Result<(), CommandError> {
    if args.left == "-" && args.right == "-" {
        return Err(CommandError::usage("standard input can be one side only, and `-` is given twice"));
    }
    let whole = matches!(args.format, Format::Patch | Format::Unified);
    if whole && !(args.only.is_empty() && args.section.is_empty()) {
        return Err(CommandError::usage(
            "`--only` and `--section` do not go with `--format patch` and `unified`: both show whole documents",
        ));
    }
    Ok(())
}

impl DiffSpecArgs {
    fn select(&self, comparison: Comparison) -> Comparison {
        let verdicts: Vec<Verdict> = self.only.iter().map(|name| name.verdict()).collect();
        let keep = comparison.changes.into_iter().filter(|change| {
            (verdicts.is_empty() || verdicts.contains(&change.verdict))
                && (self.section.is_empty() || self.section.contains(&change.section))
        });
        Comparison::of(keep.collect())
    }

    fn status(&self, comparison: &Comparison) -> Status {
        match (comparison.overall, self.fail_on.map(VerdictName::verdict)) {
            (None, _) => Status::Success,
            (Some(worst), Some(limit)) if worst >= limit => Status::Code(WEAKER),
            _ => Status::Negative,
        }
    }

    fn render(
        &self,
        left: &Operand,
        right: &Operand,
        comparison: Comparison,
        output: &Output,
    ) -> Result<String, CommandError> {
        let redaction = if self.show_env { Redaction::Off } else { Redaction::On };
        let documents = (&left.spec.value, &right.spec.value);
        if self.format == Format::Patch {
            let operations = patch(documents.0, documents.1);
            if !self.show_env && operations.iter().any(carries_env) {
                return Err(CommandError::usage("the patch holds values of environment variables, and without them it would not give RIGHT")
                    .hint("add `--show-env` to write them"));
            }
            return render_json(&operations);
        }
        if self.format == Format::Unified {
            return Ok(render_unified((&left.label, documents.0), (&right.label, documents.1), redaction));
        }
        let difference = SpecDiff {
            left: left.label.clone(),
            right: right.label.clone(),
            headline: headline(documents.0, documents.1),
            filtered: !(self.only.is_empty() && self.section.is_empty()),
            notes: left.notes.iter().chain(&right.notes).cloned().collect(),
            comparison: redaction.of_comparison(comparison),
        };
        match self.format {
            Format::Json => render_json(&difference.document(self.all)),
            Format::Markdown => Ok(render_markdown(&difference, self.all)),
            _ => Ok(render_table(&difference, self.all, Style::new(output.color()), output.width())),
        }
    }
}
