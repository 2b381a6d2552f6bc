//! JSON documents of runtime-spec, read into the types of `oci-spec`.

use serde::de::DeserializeOwned;

/// A name of runtime-spec's config.md that the types have otherwise, and theirs.
const RESET_ON_FORK: (&str, &str) = ("\"SCHED_FLAG_RESET_ON_FORK\"", "\"SCHED_RESET_ON_FORK\"");

/// Parses a document.
///
/// # Errors
/// It is no JSON, or a field has a type or a name that runtime-spec does not give it.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    // Text that is checked as a whole is parsed quicker than bytes of which each string is checked.
    let Ok(text) = std::str::from_utf8(text) else { return serde_json::from_slice(text) };
    match serde_json::from_str(text) {
        // Hardly any document has the name: the others are not searched for it.
        Err(_) if text.contains(RESET_ON_FORK.0) => {
            serde_json::from_str(&text.replace(RESET_ON_FORK.0, RESET_ON_FORK.1))
        }
        parsed => parsed,
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Scheduler;

    #[test]
    fn names_of_the_specification_are_taken() {
        let text = br#"{"policy":"SCHED_BATCH","flags":["SCHED_FLAG_RESET_ON_FORK","SCHED_FLAG_RECLAIM"]}"#;
        let scheduler: Scheduler = super::parse(text).unwrap();
        assert_eq!(scheduler.flags().as_ref().map(Vec::len), Some(2));
        assert!(super::parse::<Scheduler>(br#"{"policy":"SCHED_FLAG_RESET_ON_FORK"}"#).is_err());
    }
}
