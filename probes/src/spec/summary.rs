//! A spec in a few lines.

use serde_json::Value;

use super::headline::show_rows;
use crate::escape::escape;

/// The headline of one spec, its namespaces, mounts and limits; escaped.
#[must_use]
pub fn summarise(spec: &Value) -> Vec<String> {
    let mut lines: Vec<String> =
        show_rows(spec).into_iter().map(|(subject, text)| format!("{subject} {text}")).collect();
    let items = |pointer: &str| {
        spec.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    };
    let kinds =
        items("/linux/namespaces").iter().filter_map(|entry| entry.get("type").and_then(Value::as_str));
    lines.push(format!(
        "own or joined namespaces: {}",
        kinds.map(|kind| escape(kind).into_owned()).collect::<Vec<_>>().join(" ")
    ));
    lines.push(format!("{} mounts", items("/mounts").len()));
    let limit = |pointer: &str| spec.pointer(pointer).and_then(Value::as_i64);
    let named = [
        ("memory.limit", "/linux/resources/memory/limit"),
        ("cpu.shares", "/linux/resources/cpu/shares"),
        ("cpu.quota", "/linux/resources/cpu/quota"),
        ("pids.limit", "/linux/resources/pids/limit"),
    ];
    let limits: Vec<String> =
        named.iter().filter_map(|(name, pointer)| Some(format!("{name} {}", limit(pointer)?))).collect();
    lines.push(if limits.is_empty() { "no limits".to_owned() } else { limits.join(", ") });
    lines.push(match spec.pointer("/linux/seccomp").is_some_and(Value::is_object) {
        true => "system calls are filtered (seccomp)".to_owned(),
        false => "no system call filter (seccomp)".to_owned(),
    });
    lines
}
