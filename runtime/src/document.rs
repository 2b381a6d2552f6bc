//! JSON documents of runtime-spec, read into the types of `oci-spec`.

use std::collections::BTreeSet;

use oci_spec::runtime::{Capability, LinuxResources, Spec};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A name of runtime-spec's config.md that the types have otherwise, and theirs.
const RESET_ON_FORK: (&str, &str) = ("\"SCHED_FLAG_RESET_ON_FORK\"", "\"SCHED_RESET_ON_FORK\"");

/// Parses a document.
///
/// # Errors
/// It is no JSON, or a field has a type or a name that runtime-spec does not give it.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    parse_warning(text, &mut |_| {})
}

/// As [`parse`], and calls `warn` with what is passed over: the specification wants a capability that nobody knows to be
/// warned of, and no failure of it.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_warning<T: DeserializeOwned>(
    text: &[u8],
    warn: &mut dyn FnMut(&str),
) -> serde_json::Result<T> {
    // Text that is checked as a whole is parsed quicker than bytes of which each string is checked.
    let Ok(text) = std::str::from_utf8(text) else { return serde_json::from_slice(text) };
    match serde_json::from_str(text) {
        Err(error) => parse_again(text, error, warn),
        parsed => parsed,
    }
}

/// Takes a limit of processes that gives no `limit`, which is no limit, out of a spec: to the types that is the same as 0.
pub(crate) fn drop_absent_pids_limit(spec: &mut Spec, text: &[u8]) {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let is_zero =
        |resources: &LinuxResources| resources.pids().as_ref().is_some_and(|pids| pids.limit() == 0);
    if !resources.is_some_and(is_zero) || has_number(text, "/linux/resources/pids/limit") {
        return;
    }
    let Some(mut linux) = spec.linux().clone() else { return };
    let mut resources = linux.resources().clone().unwrap_or_default();
    resources.set_pids(None);
    linux.set_resources(Some(resources));
    spec.set_linux(Some(linux));
}

/// Whether a document has a number at this JSON pointer (RFC 6901).
#[cold]
#[inline(never)]
pub(crate) fn has_number(text: &[u8], pointer: &str) -> bool {
    serde_json::from_slice::<Value>(text)
        .is_ok_and(|value| value.pointer(pointer).is_some_and(Value::is_number))
}

/// Parses what was refused with `error`. Hardly any document has anything of what is looked for here.
#[cold]
#[inline(never)]
fn parse_again<T: DeserializeOwned>(
    text: &str,
    error: serde_json::Error,
    warn: &mut dyn FnMut(&str),
) -> serde_json::Result<T> {
    let text = text.replace(RESET_ON_FORK.0, RESET_ON_FORK.1);
    // What is no JSON has an error with the right line and column already.
    let Ok(mut value) = serde_json::from_str::<Value>(&text) else { return Err(error) };
    let unknown = drop_unknown_capabilities(&mut value);
    let parsed =
        if unknown.is_empty() { serde_json::from_str(&text) } else { serde_json::from_value(value) }?;
    if !unknown.is_empty() {
        warn(&format!("ignoring unknown or unavailable capabilities: {unknown:?}"));
    }
    Ok(parsed)
}

/// Takes the names that are no capability's out of the sets of a spec's process, or of a process, and gives them.
fn drop_unknown_capabilities(document: &mut Value) -> BTreeSet<String> {
    let mut unknown = BTreeSet::new();
    for pointer in ["/process/capabilities", "/capabilities"] {
        let Some(sets) = document.pointer_mut(pointer).and_then(Value::as_object_mut) else { continue };
        for names in sets.values_mut().filter_map(Value::as_array_mut) {
            let is_unknown = |name: &mut Value| {
                name.is_string() && serde_json::from_value::<Capability>(name.clone()).is_err()
            };
            unknown
                .extend(names.extract_if(.., is_unknown).filter_map(|name| name.as_str().map(str::to_owned)));
        }
    }
    unknown
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxCapabilities, Process, Scheduler, Spec};

    #[test]
    fn unknown_capabilities_are_warned_of_and_passed_over() {
        let sets = r#"{"bounding":["CAP_KILL","CAP_B"],"ambient":["CAP_A"],"permitted":["CAP_B"]}"#;
        let text = format!(r#"{{"cwd":"/","user":{{"uid":0,"gid":0}},"capabilities":{sets}}}"#);
        let mut warnings = Vec::new();
        let process: Process =
            super::parse_warning(text.as_bytes(), &mut |text| warnings.push(text.to_owned())).unwrap();
        let known: LinuxCapabilities =
            serde_json::from_str(r#"{"bounding":["CAP_KILL"],"ambient":[],"permitted":[]}"#).unwrap();
        assert_eq!(process.capabilities().as_ref(), Some(&known));
        assert_eq!(warnings, [r#"ignoring unknown or unavailable capabilities: {"CAP_A", "CAP_B"}"#]);
        let wrong = text.replace(r#""cwd":"/""#, r#""cwd":1"#);
        assert!(super::parse::<Process>(wrong.as_bytes()).is_err());
        assert!(super::parse::<Process>(text.replace("\"CAP_A\"", "1").as_bytes()).is_err());
    }

    #[test]
    fn a_limit_of_processes_that_is_not_given_is_none() {
        let pids = |limit: &str| {
            let text = format!(r#"{{"ociVersion":"1.3.0","linux":{{"resources":{{"pids":{{{limit}}}}}}}}}"#);
            let mut spec: Spec = super::parse(text.as_bytes()).unwrap();
            super::drop_absent_pids_limit(&mut spec, text.as_bytes());
            spec.linux().as_ref()?.resources().as_ref()?.pids().as_ref().map(|pids| pids.limit())
        };
        assert_eq!((pids(""), pids(r#""limit":0"#), pids(r#""limit":-1"#)), (None, Some(0), Some(-1)));
    }

    #[test]
    fn names_of_the_specification_are_taken() {
        let text = br#"{"policy":"SCHED_BATCH","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_RECLAIM"]}"#;
        let scheduler: Scheduler = super::parse(text).unwrap();
        assert_eq!(scheduler.flags().as_ref().map(Vec::len), Some(2));
        assert!(super::parse::<Scheduler>(br#"{"policy":"SCHED_FLAG_RESET_ON_FORK"}"#).is_err());
    }
}
