//! `inspect unpack` as a whole: a bundle is all there or not there, whatever the image does.
#![allow(clippy::unwrap_used, reason = "a test fails loudly")]

#[path = "../image/tests/support/mod.rs"]
mod image_support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use image_support::{Image, Layer, gzip};

fn unpack(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_inspect"));
    command.arg("unpack").args(arguments).current_dir(directory).output().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn archive(directory: &Path, name: &str, content: &str) {
    let layer = Layer::new().directory("etc/").file("etc/name", content);
    Image::new().layer(layer).write_archive(&directory.join(name));
}

#[test]
fn a_hostile_or_damaged_image_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let hostile = [
        ("digest.tar", Image::new().blob(gzip(b"not an archive"), b"another")),
        ("end.tar", Image::new().layer(Layer::new().file("a", "1").hardlink("b", "../../etc/passwd"))),
        ("root.tar", Image::new().layer(Layer::new().file("a", "1").symlink(".", "/"))),
        ("second.tar", Image::new().layer(Layer::new().file("a", "1")).blob(b"\x1f\x8bcut".to_vec(), b"")),
    ];
    let mut files = Vec::new();
    for (name, image) in hostile {
        image.write_archive(&directory.path().join(name));
        files.push(name);
    }
    for name in &files {
        let output = unpack(directory.path(), &[name, "bundle"]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{name}: {text}");
        assert!(text.starts_with("error: cannot "), "{name}: {text}");
        assert_eq!(names(directory.path()), files, "{name}: {text}");
    }
}

#[test]
fn limits_are_raised_by_the_flag_that_the_hint_names() {
    let directory = tempfile::tempdir().unwrap();
    archive(directory.path(), "image.tar", &"x".repeat(5000));
    for (flag, least, enough) in
        [("--max-bytes", "1000", "100000"), ("--max-entries", "1", "100"), ("--max-depth", "1", "2")]
    {
        let output = unpack(directory.path(), &["image.tar", "bundle", flag, least]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{flag}: {text}");
        assert!(text.contains("hint: ") && text.contains(flag), "{text}");
        assert_eq!(names(directory.path()), ["image.tar"]);
        let output = unpack(directory.path(), &["image.tar", "bundle", flag, enough]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::remove_dir_all(directory.path().join("bundle")).unwrap();
    }
}

#[test]
fn a_bundle_is_replaced_by_force_alone() {
    let directory = tempfile::tempdir().unwrap();
    archive(directory.path(), "one.tar", "one");
    archive(directory.path(), "two.tar", "two");
    let content = || fs::read_to_string(directory.path().join("bundle/rootfs/etc/name")).unwrap();
    assert!(unpack(directory.path(), &["one.tar", "bundle"]).status.success());
    let output = unpack(directory.path(), &["two.tar", "bundle"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("will not overwrite"));
    assert_eq!(content(), "one");
    assert!(unpack(directory.path(), &["two.tar", "bundle", "--force"]).status.success());
    assert_eq!(content(), "two");
    assert_eq!(names(directory.path()), ["bundle", "one.tar", "two.tar"]);
}
