//! The built-in OCI runtime's binary: takes the arguments, runs, gives the status.
//!
//! It starts as a C program does, without the standard library's start-up, and allocates from its own memory: containerd
//! starts it several times for each container, and most of its commands take less time than those two would.
// A test harness brings its own `main`.
#![cfg_attr(not(test), no_main)]

use std::ffi::OsString;
use std::io::Write as _;

use inspect_runtime::Call;
use inspect_runtime::sys::Arena;

#[global_allocator]
static ALLOCATOR: Arena<dlmalloc::GlobalDlmalloc> = Arena::new(dlmalloc::GlobalDlmalloc);

#[cfg(not(test))]
inspect_runtime::program!(run);

#[cfg_attr(test, allow(dead_code, reason = "called by the `main` that tests lack"))]
fn run(arguments: Vec<OsString>) -> u8 {
    let call = Call { arguments, environment: std::env::vars_os().collect() };
    let mut output = std::io::stdout();
    let status = inspect_runtime::run(&call, &mut output, &mut std::io::stderr());
    // Whoever no longer reads has what it wanted.
    output.flush().ok();
    status
}
