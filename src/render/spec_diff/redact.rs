//! Values of environment variables are secrets until somebody asks for them.

use inspect_probes::spec::{Change, Comparison, Operation, Section, Side};
use serde_json::Value;

const HIDDEN: &str = "(hidden)";

/// Whether values of environment variables are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redaction {
    /// They are.
    On,
    /// They are shown.
    Off,
}

impl Redaction {
    /// The comparison without values of environment variables.
    pub(crate) fn of_comparison(self, mut comparison: Comparison) -> Comparison {
        if self == Self::On {
            comparison.changes.iter_mut().for_each(hide);
        }
        comparison
    }

    /// Two documents without them, in which what differed still differs.
    pub(super) fn of_documents(self, left: &Value, right: &Value) -> (Value, Value) {
        let (mut left, mut right) = (left.clone(), right.clone());
        if self == Self::On {
            let known: Vec<String> = entries(&mut left).into_iter().map(|entry| entry.clone()).collect();
            for entry in entries(&mut right) {
                let differs = !known.contains(entry);
                *entry = hidden_entry(entry, if differs { "(hidden, differs)" } else { HIDDEN });
            }
            for entry in entries(&mut left) {
                *entry = hidden_entry(entry, HIDDEN);
            }
        }
        (left, right)
    }
}

/// Whether an operation of a patch shows a value of an environment variable.
pub(crate) fn carries_env(operation: &Operation) -> bool {
    let in_env = operation.path().split('/').any(|name| name == "env");
    let holds = |value: &Value| in_env || holds_env(value);
    operation.value().is_some_and(holds)
}

fn holds_env(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| name == "env" || holds_env(value)),
        Value::Array(items) => items.iter().any(holds_env),
        _ => false,
    }
}

fn hide(change: &mut Change) {
    let sides = [&mut change.left, &mut change.right];
    match change.section {
        Section::Env => sides.into_iter().for_each(hide_side),
        _ => sides.into_iter().filter_map(|side| side.value.as_mut()).for_each(|value| {
            for entry in entries(value) {
                *entry = hidden_entry(entry, HIDDEN);
            }
        }),
    }
}

fn hide_side(side: &mut Side) {
    if let Some(Value::String(entry)) = &mut side.value {
        *entry = hidden_entry(entry, HIDDEN);
        side.text = HIDDEN.to_owned();
    }
}

fn hidden_entry(entry: &str, by: &str) -> String {
    entry.split_once('=').map_or_else(|| by.to_owned(), |(name, _)| format!("{name}={by}"))
}

/// Every string of every `env` list in a value.
fn entries(value: &mut Value) -> Vec<&mut String> {
    match value {
        Value::Object(members) => members
            .iter_mut()
            .flat_map(|(name, value)| {
                if name == "env"
                    && let Value::Array(items) = value
                {
                    return items.iter_mut().filter_map(text_of).collect();
                }
                entries(value)
            })
            .collect(),
        Value::Array(items) => items.iter_mut().flat_map(entries).collect(),
        _ => Vec::new(),
    }
}

fn text_of(value: &mut Value) -> Option<&mut String> {
    if let Value::String(text) = value { Some(text) } else { None }
}

#[cfg(test)]
mod tests {
    use inspect_probes::spec::{compare, patch};
    use serde_json::json;

    use super::*;

    #[test]
    fn no_value_of_a_variable_is_left_anywhere() {
        let left = json!({"process": {"env": ["TOKEN=s3cret"]}, "hooks": {"prestart": [{"path": "/h", "env": ["A=s3cret"]}]}});
        let right = json!({"process": {"env": ["TOKEN=s3cret2", "KEY=s3cret"]}});
        let comparison = Redaction::On.of_comparison(compare(&left, &right));
        let text = serde_json::to_string(&comparison).unwrap();
        assert!(!text.contains("s3cret") && text.contains("TOKEN=(hidden)"), "{text}");
        let (left_text, right_text) = Redaction::On.of_documents(&left, &right);
        assert!(!format!("{left_text}{right_text}").contains("s3cret"));
        assert_ne!(left_text.pointer("/process/env/0"), right_text.pointer("/process/env/0"));
        assert!(patch(&left, &right).iter().any(carries_env));
    }
}
