//! The fuzz targets' functions over their seeds, cut and changed a little: so that they cannot rot, and no nightly
//! toolchain or C++ compiler is needed to see that they hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub, dead_code, reason = "it is a library of its own package")]
mod targets;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Seeds of any size are run whole; at most this many of each target.
const SEEDS: usize = 60;

fn run(name: &str) {
    let (_, target) =
        targets::TARGETS.iter().find(|(other, _)| *other == name).expect("a target of that name");
    let seeds = targets::seeds::seeds_of(name, root());
    assert!(!seeds.is_empty(), "`{name}` has no seeds");
    for seed in seeds.iter().take(SEEDS) {
        target(seed);
        target(&seed[..seed.len() / 2]);
        for place in [0, seed.len() / 3, seed.len() / 2] {
            let mut changed = seed.clone();
            if let Some(byte) = changed.get_mut(place) {
                *byte ^= 0x11;
                target(&changed);
            }
        }
    }
    target(b"");
}

/// Random changes of the seeds for `INSPECT_FUZZ_SECONDS` (10) for each target, or for `INSPECT_FUZZ_TARGET` alone: what can be
/// had without libFuzzer. A failing input stays in `INSPECT_FUZZ_FILE`, where that is set.
#[test]
#[ignore = "takes as long as it is told to"]
fn random_changes_of_the_seeds() {
    let seconds = std::env::var("INSPECT_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let only = std::env::var("INSPECT_FUZZ_TARGET").ok();
    let file = std::env::var_os("INSPECT_FUZZ_FILE");
    for (name, target) in targets::TARGETS {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let seeds = targets::seeds::seeds_of(name, root());
        let started = Instant::now();
        let mut state = u64::from(std::process::id()) << 20 | 1;
        let mut runs = 0_u64;
        while started.elapsed() < Duration::from_secs(seconds) {
            let input = changed(&seeds, &mut state);
            if let Some(file) = &file {
                fs::write(file, &input).expect("the input can be kept");
            }
            target(&input);
            runs += 1;
        }
        println!("{name}: {runs} runs in {:?}", started.elapsed());
    }
}

/// The next number of a xorshift generator, below `bound`.
fn below(state: &mut u64, bound: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    usize::try_from(*state >> 1).unwrap_or(0) % bound.max(1)
}

/// A seed with bytes exchanged, put in, taken out, or with parts of another.
fn changed(seeds: &[Vec<u8>], state: &mut u64) -> Vec<u8> {
    let mut input = seeds[below(state, seeds.len())].clone();
    for _ in 0..=below(state, 8) {
        let at = below(state, input.len() + 1);
        let other = &seeds[below(state, seeds.len())];
        match below(state, 6) {
            0 if at < input.len() => input[at] ^= 1 << below(state, 8),
            1 if at < input.len() => input[at] = u8::try_from(below(state, 256)).unwrap_or(0),
            2 => input.insert(at, u8::try_from(below(state, 256)).unwrap_or(0)),
            3 => drop(input.drain(at..(at + below(state, 40)).min(input.len()))),
            4 => {
                let from = below(state, other.len() + 1);
                let part = &other[from..(from + below(state, 200)).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
            _ => input.truncate(at.max(input.len() / 2)),
        }
    }
    input
}

macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })*

        #[test]
        fn every_target_is_run_here_and_by_cargo_fuzz() {
            let here: BTreeSet<_> = [$(stringify!($name)),*].map(str::to_owned).into();
            let listed: BTreeSet<_> = targets::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
            assert_eq!(here, listed);
            let files = fs::read_dir(root().join("fuzz/fuzz_targets")).expect("the targets' directory");
            let files: BTreeSet<_> = files
                .map(|entry| entry.expect("an entry").path())
                .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
                .collect();
            assert_eq!(files, listed);
            let manifest = fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the fuzz package's manifest");
            for name in &listed {
                assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
            }
        }
    };
}

tests!(
    containerd_config,
    image_archive,
    image_documents,
    image_tar,
    image_unpack,
    kernel_text,
    proc_events,
    runtime_config,
    runtime_process,
    runtime_state,
    seccomp,
    spec_bytes,
    spec_edits,
);
