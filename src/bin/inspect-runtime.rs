//! The built-in OCI runtime's binary: reads the arguments, runs, exits with the status.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    ExitCode::from(inspect_runtime::run(&arguments, &mut std::io::stdout()))
}
