//! containerd's config: an edit adds what was asked for and nothing else, and comes out again to the byte.

use std::path::Path;

use inspect_probes::containerd::config::{
    ContainerdVersion, Document, EditRequest, Effective, plan_edit, plan_import, undo_lines,
};

use super::edits::Choices;

/// Two bytes choose the containerd and the request, the rest is the file.
pub fn containerd_config(data: &[u8]) {
    let (choice, text) = data.split_at(data.len().min(2));
    let mut choices = Choices(choice);
    let version = ["1.6.20", "1.7.24", "2.1.9"][choices.below(3)];
    let Some(containerd) = ContainerdVersion::parse(version) else { return };
    let request = request(choices.byte());
    let path = Path::new("/etc/containerd/config.toml");
    let Ok(document) = Document::parse(path, text) else { return };
    let Ok(effective) = Effective::merge(std::slice::from_ref(&document), containerd) else { return };
    let original = document.text();
    if let Ok(edit) = plan_import(&document, &effective, "/etc/containerd/conf.d/*.toml") {
        assert_eq!(
            undo_lines(&edit.after, &edit.hunks).as_deref(),
            Ok(original),
            "the import comes out again"
        );
    }
    let Ok(edit) = plan_edit(&document, &effective, &request) else { return };
    assert_eq!(edit.before, original);
    assert_eq!(undo_lines(&edit.after, &edit.hunks).as_deref(), Ok(original), "the edit comes out again");
    let after = Document::parse(path, edit.after.as_bytes()).expect("what is written parses");
    let effective = Effective::merge(std::slice::from_ref(&after), containerd).expect("and is merged");
    if let Some(binary) = &request.binary {
        assert_eq!(effective.binary_name(&request.handler).as_ref(), Some(binary), "the binary is in effect");
    }
    if request.make_default {
        assert_eq!(effective.default_handler(), request.handler, "the default is in effect");
    }
    let again = plan_edit(&after, &effective, &request).expect("it can be planned again");
    assert!(again.is_empty(), "applied twice is applied once");
}

fn request(choice: u8) -> EditRequest {
    EditRequest {
        handler: ["crun", "runc", "a.b c"][usize::from(choice & 3) % 3].to_owned(),
        binary: (choice & 4 == 0).then(|| "/usr/bin/crun".to_owned()),
        make_default: choice & 8 == 0,
        systemd_cgroup: [None, Some(true), Some(false)][usize::from(choice >> 4 & 3) % 3],
    }
}
