//! Two specs as canonical JSON (sorted names, two spaces), line by line.

use serde_json::{Map, Value};
use similar::TextDiff;

use super::Redaction;

/// The unified diff of two named documents; empty when they are equal.
pub(crate) fn render_unified(left: (&str, &Value), right: (&str, &Value), redaction: Redaction) -> String {
    let (before, after) = redaction.of_documents(left.1, right.1);
    let (before, after) = (canonical_text(&before), canonical_text(&after));
    TextDiff::from_lines(&before, &after).unified_diff().context_radius(3).header(left.0, right.0).to_string()
}

fn canonical_text(value: &Value) -> String {
    // Alternate form of a Value is indented JSON.
    format!("{:#}\n", canonical(value))
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| name.as_str());
            Value::Object(
                sorted
                    .into_iter()
                    .map(|(name, value)| (name.clone(), canonical(value)))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}
