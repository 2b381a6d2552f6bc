//! `cargo lab`: the test VM.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(2)
}
