//! How long compiling containerd's default profile takes, from the parsed spec to the BPF program.
#![allow(clippy::print_stdout, reason = "a benchmark's output")]

use std::time::Instant;

fn main() {
    let text = include_str!("configs/containerd.json");
    let spec: oci_spec::runtime::Spec = serde_json::from_str(text).expect("the config parses");
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().clone()).expect("a profile");
    let mut times: Vec<_> = (0..1001)
        .map(|_| {
            let start = Instant::now();
            let length =
                inspect_runtime::seccomp::compile(&profile).expect("it compiles").instructions().len();
            (start.elapsed(), length)
        })
        .collect();
    let first = times[0].0;
    times.sort();
    println!("first {first:?}, median {:?}, {} instructions", times[500].0, times[500].1);
}
