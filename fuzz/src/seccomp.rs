//! The seccomp compiler against the plain meaning of the profile.

use inspect_runtime::seccomp::compile;
use inspect_runtime::seccomp::evaluate::{Meaning, interpret, nearby_calls};
use oci_spec::runtime::LinuxSeccomp;

use super::edits::document;
use super::seeds::PROFILES;

/// Calls that are tried with each program.
const CALLS: usize = 3000;

/// A profile: every call gets what the profile says, and the kernel would take every instruction.
pub fn seccomp(data: &[u8]) {
    let text = document(data, &PROFILES);
    let Ok(profile) = serde_json::from_slice::<LinuxSeccomp>(&text) else { return };
    let Ok(program) = compile(&profile) else { return };
    let meaning = Meaning::of(&profile);
    for call in nearby_calls(&profile, CALLS) {
        let verdict = interpret(program.instructions(), &call);
        assert_eq!(verdict, Some(meaning.verdict(&call)), "{call:x?} of {}", String::from_utf8_lossy(&text));
    }
}
