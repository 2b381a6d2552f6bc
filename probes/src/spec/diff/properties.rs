//! What holds for any two specs: generated from the shape of runtime-spec itself, with few values for each field, so
//! that two of them agree in much and differ in some.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};

use super::*;
use crate::spec::change::Change;
use crate::spec::parse_spec;
use crate::spec::patch::{apply_patch, patch};
use crate::spec::shape::{SPEC, Shape};

const PHASE1: &str = include_str!("../../../../fixtures/specs/phase1.json");
const WEAKER: &str = include_str!("../../../../fixtures/specs/weaker.json");
const SECCOMP: &str = include_str!("../../../../fixtures/specs/seccomp.json");

const TEXTS: [&str; 26] = [
    "",
    "/",
    "/proc",
    "/dev/shm",
    "/dev",
    "ro",
    "rw",
    "nosuid",
    "suid",
    "size=1k",
    "size=2k",
    "bind",
    "rbind",
    "rshared",
    "CAP_KILL",
    "CAP_CHOWN",
    "pid",
    "network",
    "A=1",
    "A=2",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_NOTIFY",
    "read",
    "0-3",
    "rwm",
];

fn any_text() -> BoxedStrategy<Value> {
    select(TEXTS.to_vec()).prop_map(Value::from).boxed()
}

/// Values of a shape, with null now and then.
fn any_of(shape: &'static Shape) -> BoxedStrategy<Value> {
    match shape {
        Shape::Flag => prop_oneof![Just(Value::Null), any::<bool>().prop_map(Value::from)].boxed(),
        Shape::Text => any_text(),
        Shape::Integer { min, max } => {
            let least = if *min < 0 { json!(-1) } else { json!(0) };
            prop_oneof![Just(Value::Null), Just(least), Just(json!(1)), Just(json!(22)), Just(json!(*max))]
                .boxed()
        }
        Shape::List(item) => vec(any_of(item), 0..4).prop_map(Value::from).boxed(),
        Shape::Map(value) => vec((select(vec!["memory.max", "a/b", "c~"]), any_of(value)), 0..3)
            .prop_map(|entries| Value::Object(entries.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()))
            .boxed(),
        Shape::Record(fields) => any_record(fields),
        Shape::Any => select(vec![json!({"x": 1}), json!({"x": [1, 2]}), json!({})]).boxed(),
    }
}

/// Most fields of a record are left out, and sometimes there is one that runtime-spec does not know.
fn any_record(fields: &'static [(&'static str, Shape)]) -> BoxedStrategy<Value> {
    let members: Vec<_> = fields
        .iter()
        .map(|(name, shape)| {
            proptest::option::weighted(0.5, any_of(shape)).prop_map(move |value| (*name, value))
        })
        .collect();
    (members, proptest::option::weighted(0.05, any_text()))
        .prop_map(|(members, unknown)| {
            let known = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
            let unknown = unknown.map(|value| ("unheardOf".to_owned(), value));
            Value::Object(known.chain(unknown).collect::<Map<_, _>>())
        })
        .boxed()
}

fn any_spec() -> impl Strategy<Value = Value> {
    any_of(&SPEC).prop_map(|mut spec| {
        spec["ociVersion"] = json!("1.2.0");
        spec
    })
}

/// What a change says, but for texts: those of the sides are exchanged by [`mirrored`].
fn essence(change: &Change) -> String {
    let details: Vec<_> = change.details.iter().map(|detail| &detail.items).collect();
    let subject = change.subject.replace("by the right only", "").replace("by the left only", "");
    format!(
        "{} {:?} {:?} {:?} {:?} {details:?}",
        subject, change.verdict, change.fold, change.left.text, change.right.text
    )
}

fn mirrored(change: &Change) -> Change {
    let mut mirrored = change.clone();
    std::mem::swap(&mut mirrored.left, &mut mirrored.right);
    mirrored.verdict = change.verdict.mirrored();
    mirrored
}

/// Reverses every list of a spec that is a set or is keyed, wherever it is.
fn reorder(spec: &mut Value) {
    const SETS: [&str; 13] = [
        "/process/capabilities/bounding",
        "/process/capabilities/effective",
        "/process/capabilities/permitted",
        "/process/capabilities/inheritable",
        "/process/capabilities/ambient",
        "/process/user/additionalGids",
        "/linux/maskedPaths",
        "/linux/readonlyPaths",
        "/linux/seccomp/architectures",
        "/linux/seccomp/flags",
        "/linux/seccomp/syscalls",
        "/linux/uidMappings",
        "/linux/gidMappings",
    ];
    for pointer in SETS {
        if let Some(Value::Array(items)) = spec.pointer_mut(pointer) {
            items.reverse();
        }
    }
    // Keyed lists keep the order of items of one key: there it counts.
    for (pointer, key) in [
        ("/process/rlimits", "type"),
        ("/linux/namespaces", "type"),
        ("/linux/devices", "path"),
        ("/linux/resources/hugepageLimits", "pageSize"),
    ] {
        if let Some(Value::Array(items)) = spec.pointer_mut(pointer) {
            items.sort_by_key(|item| item.get(key).and_then(Value::as_str).unwrap_or_default().to_owned());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_generated_spec_loads(spec in any_spec()) {
        prop_assert!(parse_spec("x", spec.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn no_difference_is_missed_and_none_is_invented(left in any_spec(), right in any_spec()) {
        prop_assert_eq!(diff(&left, &left), vec![]);
        prop_assert_eq!(diff(&left, &right).is_empty(), left == right);
    }

    #[test]
    fn the_patch_makes_the_right_of_the_left(left in any_spec(), right in any_spec()) {
        let operations = patch(&left, &right);
        prop_assert_eq!(apply_patch(&left, &operations).unwrap(), right);
    }

    #[test]
    fn exchanged_sides_have_mirrored_verdicts(left in any_spec(), right in any_spec()) {
        let mut forth: Vec<_> = diff(&left, &right).iter().map(mirrored).map(|change| essence(&change)).collect();
        let mut back: Vec<_> = diff(&right, &left).iter().map(essence).collect();
        forth.sort();
        back.sort();
        prop_assert_eq!(forth, back);
    }

    #[test]
    fn reordered_sets_change_nothing(spec in any_spec()) {
        let mut other = spec.clone();
        reorder(&mut other);
        let comparison = compare(&spec, &other);
        prop_assert_eq!(comparison.listed().collect::<Vec<_>>(), Vec::<&Change>::new());
        prop_assert_eq!(comparison.overall, None);
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(parse_spec("x", &bytes).is_err() || !bytes.is_empty());
    }

    /// Real specs with bytes exchanged, cut and doubled: refused, or compared and patched like any other.
    #[test]
    fn mutated_specs_are_refused_or_compared(
        seed in select(vec![PHASE1, WEAKER, SECCOMP]),
        exchanges in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        (from, to) in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        cut in any::<bool>(),
    ) {
        let mut bytes = seed.as_bytes().to_vec();
        for (index, byte) in exchanges {
            let place = index.index(bytes.len());
            bytes[place] = byte;
        }
        if cut {
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            bytes.drain(from.min(to)..from.max(to));
        }
        if let Ok(spec) = parse_spec("x", &bytes) {
            let original: Value = serde_json::from_str(seed).unwrap();
            prop_assert_eq!(diff(&original, &spec.value).is_empty(), original == spec.value);
            prop_assert_eq!(apply_patch(&original, &patch(&original, &spec.value)).unwrap(), spec.value);
        }
    }
}
