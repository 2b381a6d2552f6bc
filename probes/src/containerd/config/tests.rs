//! Golden edits: `fixtures/config/<case>/{case,in,out}.toml`.
//!
//! Every case is applied twice (the same as once) and taken back (the bytes that were there); a case without
//! `out.toml` is refused with the words that its `case.toml` gives. `in.toml` is absent where the node has no file.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::{
    ContainerdVersion, Document, Edit, EditError, EditRequest, Effective, Setting, Table, plan_edit,
    undo_lines,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/config")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.is_dir());
    cases.sort();
    cases
}

struct Case {
    table: Table,
    input: String,
    output: Option<String>,
}

impl Case {
    fn load(path: &Path) -> Self {
        let text = fs::read(path.join("case.toml")).unwrap();
        let table = Document::parse(path, &text).unwrap().table().clone();
        Self {
            table,
            input: fs::read_to_string(path.join("in.toml")).unwrap_or_default(),
            output: fs::read_to_string(path.join("out.toml")).ok(),
        }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.table.get(key).and_then(Setting::as_text)
    }

    fn apply(&self, input: &str) -> Result<Edit, EditError> {
        let containerd = ContainerdVersion::parse(self.text("containerd").unwrap()).unwrap();
        let document = Document::parse(Path::new("/etc/containerd/config.toml"), input.as_bytes())?;
        let files = if input.is_empty() { vec![] } else { vec![document.clone()] };
        let effective = Effective::merge(&files, containerd)?;
        let request = EditRequest {
            handler: self.text("handler").unwrap_or("crun").to_owned(),
            binary: self.text("binary").map(str::to_owned),
            make_default: self.table.get("default").and_then(Setting::as_bool).unwrap_or(true),
            systemd_cgroup: self.table.get("systemd_cgroup").and_then(Setting::as_bool),
        };
        plan_edit(&document, &effective, &request)
    }
}

/// The error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[test]
fn every_case_edits_as_its_golden_file_says_and_comes_back() {
    let cases = cases();
    assert!(cases.len() >= 40, "{} golden cases", cases.len());
    for path in &cases {
        let case = Case::load(path);
        let name = path.file_name().unwrap().to_string_lossy();
        match (&case.output, case.apply(&case.input)) {
            (Some(output), Ok(edit)) => {
                assert_eq!(&edit.after, output, "{name}");
                assert_eq!(
                    undo_lines(&edit.after, &edit.hunks).as_deref(),
                    Ok(case.input.as_str()),
                    "{name}"
                );
                let again = case.apply(&edit.after).unwrap_or_else(|e| panic!("{name} again: {}", chain(&e)));
                assert!(again.is_empty(), "{name} again: {:?}", again.hunks);
            }
            (None, Err(error)) => {
                let expected =
                    case.text("refused").unwrap_or_else(|| panic!("{name}: neither out.toml nor refused"));
                assert!(chain(&error).contains(expected), "{name}: {}", chain(&error));
            }
            (Some(_), Err(error)) => panic!("{name}: {}", chain(&error)),
            (None, Ok(edit)) => panic!("{name} was to be refused: {}", edit.after),
        }
    }
}

/// Writes the golden files anew; then read the difference: `cargo test -p inspect-probes -- --ignored bless_golden`.
#[test]
#[ignore = "writes the golden files"]
fn bless_golden() {
    for path in cases() {
        let case = Case::load(&path);
        match case.apply(&case.input) {
            Ok(edit) => fs::write(path.join("out.toml"), edit.after).unwrap(),
            Err(error) => assert!(case.text("refused").is_some(), "{}: {}", path.display(), chain(&error)),
        }
    }
}

/// Comments, blank lines, other tables, both quotes, indentation: what a person may have between the lines we write.
fn config_text() -> impl Strategy<Value = String> {
    let line = prop_oneof![
        Just("# a comment"),
        Just(""),
        Just("root = '/var/lib/containerd'"),
        Just("[grpc]\n  address = \"/run/x.sock\" # here"),
        Just("[plugins.'io.containerd.grpc.v1.cri'.cni]\n\tbin_dir = \"/opt\""),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  snapshotter = 'x'"),
        Just(
            "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = 'io.containerd.runc.v2'"
        ),
        Just(
            "  [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.runc.options]\n    SystemdCgroup = true"
        ),
        Just("[metrics]\n[debug]\n  level = 'info'"),
    ];
    (proptest::collection::vec(line, 0..12), any::<[bool; 3]>()).prop_map(|(lines, [crlf, bom, newline])| {
        let mut text = format!("version = 2\n{}", lines.join("\n"));
        if newline {
            text.push('\n');
        }
        let text = if crlf { text.replace('\n', "\r\n") } else { text };
        if bom { format!("\u{feff}{text}") } else { text }
    })
}

proptest! {
    #[test]
    fn an_edit_comes_back_and_applies_once(text in config_text(), default in any::<bool>(), systemd in any::<Option<bool>>()) {
        let path = Path::new("/etc/containerd/config.toml");
        let Ok(document) = Document::parse(path, text.as_bytes()) else { return Ok(()) };
        let request = EditRequest {
            handler: "crun".into(), binary: Some("/usr/bin/crun".into()), make_default: default, systemd_cgroup: systemd,
        };
        for containerd in ["1.6.20", "1.7.24", "2.1.9"] {
            let containerd = ContainerdVersion::parse(containerd).unwrap();
            let effective = Effective::merge(std::slice::from_ref(&document), containerd).unwrap();
            let edit = plan_edit(&document, &effective, &request).unwrap();
            prop_assert_eq!(undo_lines(&edit.after, &edit.hunks).unwrap(), text.clone());
            let after = Document::parse(path, edit.after.as_bytes()).unwrap();
            let effective = Effective::merge(std::slice::from_ref(&after), containerd).unwrap();
            prop_assert!(effective.handlers().contains(&effective.default_handler().to_owned()));
            prop_assert_eq!(effective.binary_name("crun"), Some("/usr/bin/crun".to_owned()));
            prop_assert!(plan_edit(&after, &effective, &request).unwrap().is_empty());
        }
    }

    #[test]
    fn no_bytes_make_the_parser_or_the_plan_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let containerd = ContainerdVersion { major: 1, minor: 7, patch: 0 };
        if let Ok(document) = Document::parse(Path::new("/x"), &bytes)
            && let Ok(effective) = Effective::merge(std::slice::from_ref(&document), containerd)
        {
            let request = EditRequest { handler: "a b".into(), binary: Some("/x".into()), make_default: true, systemd_cgroup: None };
            // Refused or planned: both are answers.
            let _planned_or_refused = plan_edit(&document, &effective, &request).is_ok();
        }
    }
}
