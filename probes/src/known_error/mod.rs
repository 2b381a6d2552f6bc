//! Error texts of containerd, its shims and the OCI runtimes: what causes them, and where on this node the cause stands.
//!
//! [`explain`] is pure: text in, explanations out. [`examine`](node::examine) then looks at the node for the very file and line.
//! The texts were seen with containerd 1.6.20, 1.7.24 and 2.1.9, runc 1.1.5, 1.1.15 and 1.3.6, crun 1.8.1, 1.21 and 1.28,
//! or read in their source: each entry says which.

mod catalog;
pub mod node;
mod pattern;

use std::path::PathBuf;

use serde::Serialize;

use self::pattern::Captures;

/// Why a known error text is printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// A short stable name of the entry.
    pub id: &'static str,
    /// The program whose text it is.
    pub reported_by: &'static str,
    /// The part of the given text that was recognised, unescaped: hostile until escaped.
    pub matched: String,
    /// What it means, with what the text itself names filled in.
    pub cause: String,
    /// What to do, most likely first.
    pub fixes: Vec<String>,
    /// Where the text is known from.
    pub known_from: &'static str,
    /// What to look at on the node.
    #[serde(skip)]
    pub checks: Vec<Check>,
}

/// Something on a node that proves or disproves a cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// Is this runtime handler among the configured ones?
    Handler(String),
    /// Does `default_runtime_name` name a configured handler?
    DefaultHandler,
    /// Is the CRI plugin disabled in the config?
    CriDisabled,
    /// `SystemdCgroup` of every handler.
    CgroupDriver,
    /// The config's `version`.
    ConfigVersion,
    /// A line of the config that the text points at, counted from 1.
    ConfigLine(usize),
    /// A binary by absolute path: there, executable, for this machine?
    Binary(PathBuf),
    /// A binary by name, looked up in the usual directories.
    BinaryInPath(String),
    /// A file that has to be there.
    File(PathBuf),
}

/// Explains an error text; empty when nothing in it is known. The innermost cause stands first: containerd wraps its texts outside in.
#[must_use]
pub fn explain(text: &str) -> Vec<Explanation> {
    let text = pattern::normalise(text);
    let known = find_all(catalog::ENTRIES, &text);
    if known.is_empty() { find_all(catalog::WRAPPERS, &text).into_iter().take(1).collect() } else { known }
}

/// What stands later in the text is the inner cause; a more telling entry of the same place stands earlier in the catalogue.
fn find_all(entries: &[catalog::Entry], text: &str) -> Vec<Explanation> {
    let mut found: Vec<(usize, Explanation)> = Vec::new();
    for entry in entries {
        let Some(captures) = entry.patterns.iter().find_map(|pattern| pattern::find(pattern, text)) else {
            continue;
        };
        found.push((captures.start, fill(entry, &captures)));
    }
    found.sort_by_key(|(start, _)| std::cmp::Reverse(*start));
    found.into_iter().map(|(_, explanation)| explanation).collect()
}

fn fill(entry: &catalog::Entry, captures: &Captures) -> Explanation {
    Explanation {
        id: entry.id,
        reported_by: entry.reported_by,
        matched: captures.matched.clone(),
        cause: captures.fill(entry.cause),
        fixes: entry.fixes.iter().map(|fix| captures.fill(fix)).collect(),
        known_from: entry.known_from,
        checks: (entry.checks)(captures),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<&'static str> {
        explain(text).iter().map(|explanation| explanation.id).collect()
    }

    #[test]
    fn an_unknown_text_has_no_explanation() {
        assert!(explain("").is_empty());
        assert!(explain("the dog ate it").is_empty());
    }

    #[test]
    fn every_entry_is_found_by_its_own_sample_and_named_once() {
        let mut seen = std::collections::HashSet::new();
        for entry in catalog::ENTRIES.iter().chain(catalog::WRAPPERS) {
            assert!(seen.insert(entry.id), "{} stands twice", entry.id);
            for sample in entry.samples {
                assert!(ids(sample).contains(&entry.id), "{}: {sample}", entry.id);
                assert_eq!(explain(sample)[0].id, entry.id, "first for its own sample: {sample}");
            }
            assert!(!entry.samples.is_empty() && !entry.fixes.is_empty(), "{}", entry.id);
        }
    }

    #[test]
    fn no_placeholder_is_left_unfilled() {
        for entry in catalog::ENTRIES.iter().chain(catalog::WRAPPERS) {
            for sample in entry.samples {
                for explanation in explain(sample) {
                    let all = format!("{} {}", explanation.cause, explanation.fixes.join(" "));
                    assert!(!all.contains('{'), "{}: {all}", entry.id);
                }
            }
        }
    }

    #[test]
    fn a_text_quoted_twice_by_the_kubelet_is_still_recognised() {
        let text = r#"err="rpc error: code = Unknown desc = failed to get sandbox runtime: no runtime for \\\"kata\\\" is configured""#;
        let explanation = &explain(text)[0];
        assert_eq!(explanation.id, "handler-not-configured");
        assert_eq!(explanation.checks, [Check::Handler("kata".into())]);
        assert!(explanation.cause.contains("`kata`"), "{}", explanation.cause);
    }

    #[test]
    fn a_wrapper_is_told_of_only_where_the_reason_is_not_known() {
        let known = "failed to create shim task: OCI runtime create failed: exec format error";
        assert_eq!(ids(known), ["exec-format"]);
        let unknown = "failed to create shim task: OCI runtime create failed: crun: the dog ate it";
        assert_eq!(ids(unknown), ["create-refused"]);
        assert_eq!(ids("failed to create shim task"), ["shim-task-refused"]);
    }

    #[test]
    fn the_container_program_is_told_from_the_runtime_binary() {
        let program = r#"OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "nope": executable file not found in $PATH: unknown"#;
        assert_eq!(ids(program)[0], "container-program-missing");
        let runtime = r#"failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/io.containerd.runtime.v2.task/default/x/log.json: no such file or directory): exec: "nosuchrt": executable file not found in $PATH"#;
        assert_eq!(ids(runtime)[0], "runtime-binary-not-in-path");
    }
}
