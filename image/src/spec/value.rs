//! Fields of a JSON value by their path, without panics whatever the value is.

use serde_json::{Map, Value};

use super::SpecError;

/// Sets the field at `path`, making the objects on the way.
///
/// # Errors
/// [`SpecError::Shape`] where something on the way is no object.
pub fn put(spec: &mut Value, path: &[&str], field: Value) -> Result<(), SpecError> {
    let shape = || SpecError::Shape { field: path.join(".") };
    let (last, way) = path.split_last().ok_or_else(shape)?;
    let mut at = spec;
    for key in way {
        at = at.as_object_mut().ok_or_else(shape)?.entry(*key).or_insert(Value::Null);
        if at.is_null() {
            *at = Value::Object(Map::new());
        }
    }
    at.as_object_mut().ok_or_else(shape)?.insert((*last).to_owned(), field);
    Ok(())
}

/// The field at `path`, if it is there.
#[must_use]
pub fn get<'a>(spec: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(spec, |at, key| at.get(key))
}

/// Takes the field at `path` away.
pub(super) fn remove(spec: &mut Value, path: &[&str]) {
    let Some((last, way)) = path.split_last() else { return };
    let found = way.iter().try_fold(spec, |at, key| at.get_mut(key));
    if let Some(object) = found.and_then(Value::as_object_mut) {
        object.shift_remove(*last);
    }
}

/// The texts of the array at `path`.
pub(super) fn texts(spec: &Value, path: &[&str]) -> Vec<String> {
    let array = get(spec, path).and_then(Value::as_array);
    array.into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_made_on_the_way_and_no_shape_panics() {
        let mut spec = json!({"linux": null, "process": 5});
        put(&mut spec, &["linux", "resources", "pids"], json!(1)).unwrap();
        assert_eq!(get(&spec, &["linux", "resources", "pids"]), Some(&json!(1)));
        assert!(matches!(put(&mut spec, &["process", "args"], json!([])), Err(SpecError::Shape { .. })));
        remove(&mut spec, &["process", "args"]);
        remove(&mut spec, &["linux", "resources"]);
        assert_eq!(spec, json!({"linux": {}, "process": 5}));
    }
}
