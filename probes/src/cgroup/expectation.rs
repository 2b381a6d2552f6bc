//! What a spec's `linux.resources` should have become: field → conversion → file → the values that would be right.
//!
//! The fields are runtime-spec's config-linux.md; the conversions are those of runc's libcontainer/cgroups/fs2 and crun's
//! cgroup-resources.c, which runtime-spec and crun.1.md describe as well.

mod legacy;
mod unified;

use serde_json::Value;

pub use legacy::legacy_expectations;
pub use unified::unified_expectations;

/// A field of `linux.resources` and what it should have become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// `memory.limit`: the path below `linux.resources`.
    pub field: String,
    /// The spec's value.
    pub given: String,
    /// The file that it goes to; `None` when this cgroup version has none for it.
    pub file: Option<String>,
    /// How it is converted, in words; empty when it is taken as it is.
    pub conversion: String,
    /// Any of these in the file is what a runtime makes of it, with the conversion that gives it.
    pub accepted: Vec<Accepted>,
}

/// A value that would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The file's text, or for a file with a line per device that line.
    pub value: String,
    /// The conversion that gives it, where there is more than one.
    pub by: Option<&'static str>,
}

impl Expectation {
    /// A value that is taken as it is.
    fn plain(field: &str, given: impl ToString, file: &str, value: impl ToString) -> Self {
        Self::converted(field, given, file, "", value)
    }

    /// A value that is converted.
    fn converted(
        field: &str,
        given: impl ToString,
        file: &str,
        conversion: &str,
        value: impl ToString,
    ) -> Self {
        Self {
            field: field.to_owned(),
            given: given.to_string(),
            file: Some(file.to_owned()),
            conversion: conversion.to_owned(),
            accepted: vec![Accepted { value: value.to_string(), by: None }],
        }
    }

    /// A field that this version of cgroups has no file for.
    fn without_file(field: &str, given: impl ToString, why: &str) -> Self {
        Self {
            field: field.to_owned(),
            given: given.to_string(),
            file: None,
            conversion: why.to_owned(),
            accepted: Vec::new(),
        }
    }

    /// The conversion whose value the file has: `Some(None)` when it matches the only one.
    #[must_use]
    pub fn matches(&self, kernel: &str) -> Option<Option<&'static str>> {
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let lines: Vec<Vec<String>> = kernel.lines().map(words).collect();
        self.accepted
            .iter()
            .find(|accepted| {
                let wanted = words(&accepted.value);
                // A device's line in the kernel has every key; the spec names some of them.
                lines.contains(&wanted)
                    || lines.iter().any(|line| {
                        wanted.len() > 1
                            && wanted.iter().all(|word| line.contains(word))
                            && line.first() == wanted.first()
                    })
            })
            .map(|accepted| accepted.by)
    }
}

/// A limit as the kernel writes it: −1 is `max`; memory is counted in pages.
fn memory_values(limit: i64) -> Vec<Accepted> {
    let Ok(bytes) = u64::try_from(limit) else {
        return vec![Accepted { value: "max".to_owned(), by: None }];
    };
    // 4 KiB and 64 KiB are the page sizes that Linux runs containers with.
    let mut values: Vec<u64> = vec![bytes, bytes - bytes % 4096, bytes - bytes % 65_536];
    values.dedup();
    values.into_iter().map(|value| Accepted { value: value.to_string(), by: None }).collect()
}

fn integer(resources: &Value, pointer: &str) -> Option<i64> {
    resources.pointer(pointer).and_then(Value::as_i64)
}

fn text<'a>(resources: &'a Value, pointer: &str) -> Option<&'a str> {
    resources.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty())
}

fn list<'a>(resources: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    resources.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

/// `MAJOR:MINOR` of a device entry.
fn device(entry: &Value) -> Option<String> {
    Some(format!("{}:{}", entry.get("major")?.as_i64()?, entry.get("minor")?.as_i64()?))
}
