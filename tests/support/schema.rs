//! JSON Schema, the part of it that `docs/*.schema.json` use: `$ref` to `$defs`, `type`, `const`, `enum`, `anyOf`,
//! `properties`, `required`, `additionalProperties: false`, `items`, `minimum`. Another keyword fails the test.

use serde_json::{Map, Value};

/// What is wrong with `value`, one line for each place; empty when the schema holds.
pub(crate) fn violations(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "$", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, place: &str, found: &mut Vec<String>) {
    let rules = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in rules {
        let holds = match keyword.as_str() {
            "$ref" => {
                let name =
                    rule.as_str().and_then(|name| name.strip_prefix("#/$defs/")).expect("a local $ref");
                let target = root.pointer(&format!("/$defs/{name}")).expect("the $ref has its $def");
                check(root, target, value, place, found);
                true
            }
            "anyOf" => {
                let schemas = rule.as_array().expect("anyOf is an array");
                schemas.iter().any(|schema| {
                    let mut inner = Vec::new();
                    check(root, schema, value, place, &mut inner);
                    inner.is_empty()
                })
            }
            "type" => match rule {
                Value::Array(kinds) => kinds.iter().any(|kind| is_a(value, kind)),
                kind => is_a(value, kind),
            },
            "const" => value == rule,
            "enum" => rule.as_array().expect("enum is an array").contains(value),
            "minimum" => value.as_i64().is_none_or(|number| Some(number) >= rule.as_i64()),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{place}[{index}]"), found);
                }
                true
            }
            "properties" => {
                let rules = rule.as_object().expect("properties is an object");
                check_members(root, rules, value, place, found);
                true
            }
            "required" => {
                let names = rule.as_array().expect("required is an array").iter().filter_map(Value::as_str);
                value.as_object().is_none_or(|object| names.into_iter().all(|name| object.contains_key(name)))
            }
            "additionalProperties" => {
                assert_eq!(rule, &Value::Bool(false), "only `false` is understood");
                let known = rules.get("properties").and_then(Value::as_object).expect("properties beside it");
                value.as_object().is_none_or(|object| object.keys().all(|name| known.contains_key(name)))
            }
            "description" | "title" | "$schema" | "$defs" => true,
            other => panic!("the keyword `{other}` is not understood here"),
        };
        if !holds {
            found.push(format!("{place}: {keyword} {rule} does not hold for {value}"));
        }
    }
}

fn check_members(
    root: &Value,
    rules: &Map<String, Value>,
    value: &Value,
    place: &str,
    found: &mut Vec<String>,
) {
    for (name, schema) in rules {
        if let Some(member) = value.get(name) {
            check(root, schema, member, &format!("{place}.{name}"), found);
        }
    }
}

fn is_a(value: &Value, kind: &Value) -> bool {
    match kind.as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        Some("null") => value.is_null(),
        other => panic!("the type {other:?} is not understood here"),
    }
}
