//! The built-in OCI runtime's binary: reads the arguments, runs, exits with the status.

use std::process::ExitCode;

use inspect_runtime::Call;

fn main() -> ExitCode {
    let call = Call { arguments: std::env::args_os().collect(), environment: std::env::vars_os().collect() };
    ExitCode::from(inspect_runtime::run(&call, &mut std::io::stdout(), &mut std::io::stderr()))
}
