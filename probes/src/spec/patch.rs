//! RFC 6902 patches: one that makes the right of the left, and applying one.

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

use super::shape::child;

/// One operation of a patch: those three are enough to make any document of any other.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Operation {
    /// Adds a member, or inserts an item before an index.
    Add {
        /// Where (RFC 6901).
        path: String,
        /// What.
        value: Value,
    },
    /// Removes a member or an item.
    Remove {
        /// Where.
        path: String,
    },
    /// Replaces what is there.
    Replace {
        /// Where.
        path: String,
        /// By what.
        value: Value,
    },
}

impl Operation {
    /// Where it works.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Add { path, .. } | Self::Remove { path } | Self::Replace { path, .. } => path,
        }
    }

    /// The value that it carries.
    #[must_use]
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::Add { value, .. } | Self::Replace { value, .. } => Some(value),
            Self::Remove { .. } => None,
        }
    }
}

/// Why a patch does not fit a document.
#[derive(Debug, Error)]
pub enum PatchError {
    /// The place does not exist.
    #[error("cannot patch `{path}`: the document has no such place")]
    NoSuchPlace {
        /// The JSON pointer.
        path: String,
    },
}

/// The patch that makes `right` of `left`. Empty for equal documents alone.
#[must_use]
pub fn patch(left: &Value, right: &Value) -> Vec<Operation> {
    let mut operations = Vec::new();
    collect(left, right, String::new(), &mut operations);
    operations
}

fn collect(left: &Value, right: &Value, path: String, operations: &mut Vec<Operation>) {
    match (left, right) {
        _ if left == right => {}
        (Value::Object(before), Value::Object(after)) => {
            for (name, value) in before {
                let path = child(&path, name);
                match after.get(name) {
                    Some(new) => collect(value, new, path, operations),
                    None => operations.push(Operation::Remove { path }),
                }
            }
            for (name, value) in after.iter().filter(|(name, _)| !before.contains_key(*name)) {
                operations.push(Operation::Add { path: child(&path, name), value: value.clone() });
            }
        }
        (Value::Array(before), Value::Array(after)) => collect_items(before, after, &path, operations),
        _ => operations.push(Operation::Replace { path, value: right.clone() }),
    }
}

/// What two lists share at their start and end stays; what is between is replaced, then removed or inserted.
fn collect_items(before: &[Value], after: &[Value], path: &str, operations: &mut Vec<Operation>) {
    let shared = before.iter().zip(after).take_while(|(left, right)| left == right).count();
    let (old, new) = (&before[shared..], &after[shared..]);
    let tail = old.iter().rev().zip(new.iter().rev()).take_while(|(left, right)| left == right).count();
    let (old, new) = (&old[..old.len() - tail], &new[..new.len() - tail]);
    let both = old.len().min(new.len());
    for (index, (left, right)) in old.iter().zip(new).enumerate() {
        collect(left, right, format!("{path}/{}", shared + index), operations);
    }
    // From the end, so that no removal moves a later one's place.
    for index in (both..old.len()).rev() {
        operations.push(Operation::Remove { path: format!("{path}/{}", shared + index) });
    }
    for (index, value) in new.iter().enumerate().skip(both) {
        operations.push(Operation::Add { path: format!("{path}/{}", shared + index), value: value.clone() });
    }
}

/// Applies a patch.
///
/// # Errors
/// [`PatchError`] when an operation names a place that the document does not have.
pub fn apply_patch(document: &Value, operations: &[Operation]) -> Result<Value, PatchError> {
    let mut document = document.clone();
    for operation in operations {
        apply(&mut document, operation)
            .ok_or_else(|| PatchError::NoSuchPlace { path: operation.path().to_owned() })?;
    }
    Ok(document)
}

fn apply(document: &mut Value, operation: &Operation) -> Option<()> {
    if operation.path().is_empty() {
        *document = operation.value()?.clone();
        return Some(());
    }
    let (parent, last) = operation.path().rsplit_once('/')?;
    let name = last.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent)? {
        Value::Object(members) => match operation {
            Operation::Remove { .. } => members.shift_remove(&name).map(|_| ()),
            Operation::Replace { value, .. } => members.get_mut(&name).map(|place| *place = value.clone()),
            Operation::Add { value, .. } => {
                members.insert(name, value.clone());
                Some(())
            }
        },
        Value::Array(items) => {
            let index = if name == "-" { items.len() } else { name.parse().ok()? };
            match operation {
                Operation::Remove { .. } if index < items.len() => drop(items.remove(index)),
                Operation::Replace { value, .. } => *items.get_mut(index)? = value.clone(),
                Operation::Add { value, .. } if index <= items.len() => items.insert(index, value.clone()),
                _ => return None,
            }
            Some(())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_with_slashes_and_tildes_are_escaped() {
        let (left, right) = (json!({"a/b": {"c~d": 1}}), json!({"a/b": {"c~d": 2, "e": [1]}}));
        let operations = patch(&left, &right);
        assert_eq!(
            serde_json::to_value(&operations).unwrap(),
            json!([{"op": "replace", "path": "/a~1b/c~0d", "value": 2}, {"op": "add", "path": "/a~1b/e", "value": [1]}])
        );
        assert_eq!(apply_patch(&left, &operations).unwrap(), right);
    }

    #[test]
    fn a_patch_that_does_not_fit_is_refused() {
        let remove = [Operation::Remove { path: "/mounts/3".to_owned() }];
        let error = apply_patch(&json!({"mounts": [1]}), &remove).unwrap_err();
        assert_eq!(error.to_string(), "cannot patch `/mounts/3`: the document has no such place");
    }
}
