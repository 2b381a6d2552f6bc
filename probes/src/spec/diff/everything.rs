//! Every field of runtime-spec 1.3, one after the other: none is skipped.
//!
//! `everything.json` sets each field of the specification's JSON schema (v1.3.0) once; that was checked against the schema
//! itself. Here each of its values is changed, and taken away, and every object gets a field that nobody knows.

use serde_json::{Value, json};

use super::*;
use crate::spec::{Section, parse_spec};

const EVERYTHING: &str = include_str!("../../../../fixtures/specs/everything.json");

fn everything() -> Value {
    let spec = parse_spec("everything.json", EVERYTHING.as_bytes()).unwrap();
    assert_eq!(spec.unknown_fields, Vec::<String>::new(), "every field of the schema is known");
    spec.value
}

/// The pointers of all values, objects and lists too.
fn pointers(value: &Value, pointer: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                pointers(member, &shape::child(pointer, name), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                pointers(item, &format!("{pointer}/{index}"), found);
            }
        }
        _ => {}
    }
    if !pointer.is_empty() {
        found.push(pointer.to_owned());
    }
}

fn all_pointers() -> Vec<String> {
    let mut found = Vec::new();
    pointers(&everything(), "", &mut found);
    assert!(found.len() > 300, "{}", found.len());
    found
}

/// Another value of the same type.
fn other(value: &Value) -> Option<Value> {
    Some(match value {
        Value::Bool(flag) => json!(!flag),
        Value::Number(number) => number.as_i64().map_or(json!(7), |number| json!(number + 1)),
        Value::String(text) => json!(format!("{text}x")),
        _ => return None,
    })
}

/// Differences that are counted and not listed: names of this one container, the type of a bind mount, which the kernel
/// does not look at, and limits of kernel memory, which no kernel has any more (-1 and 0 are both none).
const FOLDED: [&str; 5] = [
    "/root/path",
    "/mounts/1/type",
    "/linux/cgroupsPath",
    "/linux/resources/memory/kernel",
    "/linux/resources/memory/kernelTCP",
];

#[test]
fn every_value_that_is_changed_is_reported() {
    let left = everything();
    let mut folded = Vec::new();
    for pointer in all_pointers() {
        let mut right = left.clone();
        let place = right.pointer_mut(&pointer).unwrap();
        let Some(changed) = other(place) else { continue };
        *place = changed;
        let comparison = compare(&left, &right);
        assert!(!comparison.changes.is_empty(), "{pointer} is skipped");
        if comparison.listed().count() == 0 {
            folded.push(pointer);
        }
    }
    assert_eq!(folded, FOLDED);
}

#[test]
fn every_value_that_is_missing_is_reported() {
    let left = everything();
    for pointer in all_pointers() {
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let mut right = left.clone();
        match right.pointer_mut(parent).unwrap() {
            Value::Object(members) => drop(members.shift_remove(&name.replace("~1", "/").replace("~0", "~"))),
            Value::Array(items) => drop(items.remove(name.parse().unwrap())),
            _ => unreachable!("a parent has members"),
        }
        assert!(!diff(&left, &right).is_empty(), "{pointer} is skipped");
    }
}

#[test]
fn a_field_that_nobody_knows_is_reported_wherever_it_is() {
    // In other platforms' sections and in maps of free names every field is a known one.
    const PLATFORMS: [&str; 5] = ["/solaris", "/windows", "/vm", "/zos", "/freebsd"];
    const MAPS: [&str; 6] = [
        "/annotations",
        "/linux/sysctl",
        "/linux/netDevices",
        "/linux/timeOffsets",
        "/linux/resources/rdma",
        "/linux/resources/unified",
    ];
    let is_free = |at: &str| MAPS.contains(&at) || PLATFORMS.iter().any(|platform| at.starts_with(platform));
    let (left, mut silent) = (everything(), Vec::new());
    for pointer in all_pointers().into_iter().chain([String::new()]) {
        let mut right = left.clone();
        let Some(Value::Object(members)) = right.pointer_mut(&pointer) else { continue };
        if is_free(&pointer) {
            continue;
        }
        members.insert("unheardOf".to_owned(), json!(1));
        let parsed = parse_spec("x", right.to_string().as_bytes()).unwrap();
        assert_eq!(parsed.unknown_fields, [format!("{pointer}/unheardOf")]);
        if compare(&left, &right).listed().count() == 0 {
            silent.push(pointer);
        }
    }
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn every_section_of_a_report_has_its_fields() {
    let empty = json!({"ociVersion": "1.3.0x"});
    let sections: std::collections::BTreeSet<Section> =
        diff(&everything(), &empty).iter().map(|change| change.section).collect();
    assert_eq!(sections.into_iter().collect::<Vec<_>>(), Section::ALL);
}
