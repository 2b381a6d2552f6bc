//! Specs: loading, comparing, patching.

use inspect_probes::spec::{
    Change, Side, Spec, Verdict, apply_patch, compare, diff, headline, parse_spec, patch,
};
use serde_json::Value;

use super::edits::{self, Choices};
use super::seeds::SPECS;

/// Two documents with a zero byte between them, or one that is compared with the first seed.
pub fn spec_bytes(data: &[u8]) {
    let (left, right) = match data.iter().position(|byte| *byte == 0) {
        Some(zero) => (&data[..zero], &data[zero + 1..]),
        None => (SPECS[0].as_bytes(), data),
    };
    if let (Ok(left), Ok(right)) = (parse_spec("left", left), parse_spec("right", right)) {
        check_pair(&left, &right);
    }
}

/// Two seeds, each after some edits.
pub fn spec_edits(data: &[u8]) {
    let mut choices = Choices(data);
    let limit = choices.below(12);
    let left = edits::edited(&mut choices, &SPECS, limit).to_string();
    let right = edits::edited(&mut choices, &SPECS, usize::MAX).to_string();
    if let (Ok(left), Ok(right)) =
        (parse_spec("left", left.as_bytes()), parse_spec("right", right.as_bytes()))
    {
        check_pair(&left, &right);
    }
}

fn check_pair(left: &Spec, right: &Spec) {
    let (left, right) = (&left.value, &right.value);
    assert!(diff(left, left).is_empty(), "a spec differs from itself");
    let forth = diff(left, right);
    assert_eq!(forth.is_empty(), left == right, "a difference that is missed or invented");
    assert!(
        apply_patch(left, &patch(left, right)).is_ok_and(|patched| patched == *right),
        "the patch gives RIGHT"
    );
    check_mirror(forth, diff(right, left));
    check_pointers(left, right);
    let rows = headline(left, right);
    assert!(!rows.is_empty(), "the headline has rows");
}

/// Exchanging the sides exchanges what is said, and mirrors every verdict.
fn check_mirror(forth: Vec<Change>, back: Vec<Change>) {
    let essence = |change: &Change, verdict: Verdict, left: &Side, right: &Side| {
        format!("{:?} {verdict:?} {:?} {:?}", change.section, left.value, right.value)
    };
    let mut forth: Vec<_> =
        forth.iter().map(|one| essence(one, one.verdict.mirrored(), &one.right, &one.left)).collect();
    let mut back: Vec<_> = back.iter().map(|one| essence(one, one.verdict, &one.left, &one.right)).collect();
    forth.sort();
    back.sort();
    assert_eq!(forth, back, "the verdicts mirror");
}

/// A pointer that a change gives leads to the value that it gives.
fn check_pointers(left: &Value, right: &Value) {
    for change in &compare(left, right).changes {
        for (side, document) in [(&change.left, left), (&change.right, right)] {
            if let (Some(pointer), Some(value)) = (&side.pointer, &side.value) {
                assert_eq!(document.pointer(pointer), Some(value), "`{pointer}` of {change:?}");
            }
        }
    }
}
