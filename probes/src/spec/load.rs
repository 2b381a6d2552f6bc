//! From bytes to a checked spec. Bytes are foreign: whatever they are, the answer is a spec or an error that says where.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use thiserror::Error;

use super::shape;
use crate::escape::quote;

/// The most bytes of a config.json that are read: containerd's own are 5 to 30 kB, so this is room for everything
/// that a runtime would start.
pub const MAX_SPEC_BYTES: u64 = 16 << 20;

/// A spec, checked: every field of runtime-spec 1.3 in it has the type that runtime-spec gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Where it came from, for people: a path, `standard input`, `runc spec`.
    pub origin: String,
    /// The document.
    pub value: Value,
    /// JSON pointers of the fields that runtime-spec 1.3 does not have.
    pub unknown_fields: Vec<String>,
}

/// Why there is no spec.
#[derive(Debug, Error)]
pub enum SpecError {
    /// The file could not be opened.
    #[error("cannot open `{}`", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It could not be read to its end.
    #[error("cannot read `{origin}`")]
    Read {
        /// Where it came from.
        origin: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is more of it than any spec has.
    #[error("cannot load `{origin}`: it is larger than {} MiB, which no OCI spec is", MAX_SPEC_BYTES >> 20)]
    TooLarge {
        /// Where it came from.
        origin: String,
    },
    /// It is no JSON, is cut off, is nested too deep or names a key twice; the source says the line and column.
    #[error("cannot parse `{origin}` as JSON")]
    Json {
        /// Where it came from.
        origin: String,
        /// What is wrong, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A field has a type that runtime-spec does not give it.
    #[error("cannot load `{origin}`: `{pointer}` must be {expected}, and it is {found}")]
    WrongType {
        /// Where it came from.
        origin: String,
        /// The JSON pointer (RFC 6901) of the field; empty is the whole document.
        pointer: String,
        /// What runtime-spec says.
        expected: String,
        /// What is there.
        found: String,
    },
    /// It is JSON, and not a spec: `ociVersion` is the one field that every spec must have.
    #[error("cannot load `{origin}`: it is not an OCI spec, `/ociVersion` is missing")]
    NotASpec {
        /// Where it came from.
        origin: String,
    },
}

/// Loads a spec from a file.
///
/// # Errors
/// [`SpecError`], naming the file and the line and column or the JSON pointer.
pub fn load_spec(path: &Path) -> Result<Spec, SpecError> {
    let file = File::open(path).map_err(|source| SpecError::Open { path: path.to_path_buf(), source })?;
    read_spec(&path.display().to_string(), file)
}

/// Reads a spec from whatever can be read; `origin` names it in errors.
///
/// # Errors
/// [`SpecError`].
pub fn read_spec(origin: &str, source: impl Read) -> Result<Spec, SpecError> {
    let mut bytes = Vec::new();
    let read = source.take(MAX_SPEC_BYTES + 1).read_to_end(&mut bytes);
    read.map_err(|source| SpecError::Read { origin: origin.to_owned(), source })?;
    parse_spec(origin, &bytes)
}

/// Parses a spec.
///
/// # Errors
/// [`SpecError`]: bytes that are no JSON, a key that is there twice (a runtime takes the last and a reader sees the
/// first), a field of the wrong type, no `ociVersion`.
pub fn parse_spec(origin: &str, bytes: &[u8]) -> Result<Spec, SpecError> {
    let origin = origin.to_owned();
    if bytes.len() as u64 > MAX_SPEC_BYTES {
        return Err(SpecError::TooLarge { origin });
    }
    let value = match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(value)) => value,
        Err(source) => return Err(SpecError::Json { origin, source }),
    };
    if let Err(shape::Mismatch { pointer, expected, found }) = shape::check(&value) {
        return Err(SpecError::WrongType { origin, pointer, expected, found });
    }
    if value.get("ociVersion").is_none_or(Value::is_null) {
        return Err(SpecError::NotASpec { origin });
    }
    let unknown_fields = shape::unknown_fields(&value);
    Ok(Spec { origin, value, unknown_fields })
}

/// A [`Value`] in which no object names a key twice. serde_json itself bounds the depth (128), so that no nesting
/// reaches the end of the stack.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {} is there twice", quote(key.as_bytes()))));
            }
            let Strict(value) = entries.next_value()?;
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    fn refusal(bytes: &[u8]) -> String {
        let error = parse_spec("config.json", bytes).unwrap_err();
        match error.source() {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        }
    }

    #[test]
    fn a_spec_loads_and_its_unknown_fields_are_named() {
        let spec =
            parse_spec("x", br#"{"ociVersion":"1.2.0","linux":{"resources":{"memory":{"max":1}}}}"#).unwrap();
        assert_eq!(spec.unknown_fields, ["/linux/resources/memory/max"]);
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        assert_eq!(
            refusal(b"hello"),
            "cannot parse `config.json` as JSON: expected value at line 1 column 1"
        );
        assert!(
            refusal(b"{\"ociVersion\":\"1.2.0\",\n\"process\":{\"args\":[").contains("EOF while parsing")
        );
        assert!(refusal(b"{\"ociVersion\":\"1.2.0\"} x").contains("trailing characters at line 1 column 24"));
        assert!(refusal(b"\xff\xfe").contains("line 1 column 1"));
        assert!(refusal(b"").contains("EOF"));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_with_its_place() {
        let twice = b"{\"ociVersion\":\"1.2.0\",\n\"root\":{\"path\":\"a\",\"path\":\"b\"}}";
        let text = refusal(twice);
        assert!(text.contains("the key \"path\" is there twice at line 2"), "{text}");
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_pointer() {
        assert_eq!(
            refusal(br#"{"ociVersion":"1.2.0","process":{"user":{"uid":"0"}}}"#),
            "cannot load `config.json`: `/process/user/uid` must be an integer from 0 to 4294967295, and it is the string \"0\""
        );
        assert!(
            refusal(br#"{"ociVersion":"1.2.0","mounts":[{"destination":"/a"},7]}"#).contains("`/mounts/1`")
        );
        assert!(
            refusal(br#"{"ociVersion":"1","linux":{"resources":{"cpu":{"shares":-1}}}}"#).contains("shares")
        );
        assert!(
            refusal(br#"{"ociVersion":"1","linux":{"resources":{"cpu":{"shares":1.5}}}}"#).contains("shares")
        );
        assert!(refusal(b"[]").contains("must be an object"));
        assert!(refusal(b"{}").contains("/ociVersion"));
    }

    #[test]
    fn a_hundred_thousand_levels_are_an_error_and_no_stack_overflow() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let deep = format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
            assert!(refusal(deep.as_bytes()).contains("recursion limit exceeded at line 1"));
        }
    }

    #[test]
    fn a_hundred_megabytes_are_refused_after_sixteen() {
        let endless = io::repeat(b' ');
        let error = read_spec("big.json", endless.take(100 << 20)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot load `big.json`: it is larger than 16 MiB, which no OCI spec is"
        );
    }
}
