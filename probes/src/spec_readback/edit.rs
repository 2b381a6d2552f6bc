//! Setting and removing fields of a spec by JSON pointer. Names here are runtime-spec's own: nothing to unescape.

use serde_json::{Map, Value};

/// Sets a field, making the objects around it.
pub(super) fn set(document: &mut Value, pointer: &str, value: impl Into<Value>) {
    let mut place = document;
    for name in pointer.split('/').skip(1) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(members) = place else { return };
        place = members.entry(name.to_owned()).or_insert(Value::Null);
    }
    *place = value.into();
}

/// Removes a field; what is not there needs no removing.
pub(super) fn remove(document: &mut Value, pointer: &str) {
    if let Some((parent, name)) = pointer.rsplit_once('/')
        && let Some(Value::Object(members)) = document.pointer_mut(parent)
    {
        members.shift_remove(name);
    }
}

/// A list of strings; empty where there is none.
pub(super) fn texts<'a>(document: &'a Value, pointer: &str) -> Vec<&'a str> {
    items(document, pointer).iter().filter_map(Value::as_str).collect()
}

/// A list; empty where there is none.
pub(super) fn items<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_made_and_what_is_absent_stays_so() {
        let mut spec = json!({"linux": null});
        set(&mut spec, "/linux/resources/memory/limit", 7);
        assert_eq!(spec, json!({"linux": {"resources": {"memory": {"limit": 7}}}}));
        remove(&mut spec, "/linux/resources/memory/limit");
        remove(&mut spec, "/process/user");
        assert_eq!(spec, json!({"linux": {"resources": {"memory": {}}}}));
    }
}
