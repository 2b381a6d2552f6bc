//! The built-in OCI runtime: creates containers as runtime-spec 1.3 says, on Linux with cgroup v2.
//!
//! The binary `inspect-runtime` is a thin `main` around [`run`]. It starts no thread before its last clone.

pub mod cgroup;
pub mod default_spec;
pub mod seccomp;
pub mod sys;

use std::ffi::OsString;
use std::io::Write;

/// Runs one command of the runtime's command line (`arguments` without the program's name) and gives the exit status.
pub fn run(arguments: &[OsString], output: &mut dyn Write) -> u8 {
    let wants_version = arguments.iter().any(|argument| argument == "--version" || argument == "-v");
    if !wants_version {
        return 1;
    }
    match writeln!(output, "inspect-runtime version {}\nspec: 1.3.0", env!("CARGO_PKG_VERSION")) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}
