//! The fuzz targets' functions over their seeds, cut and changed a little: so that they cannot rot, and no nightly
//! toolchain or C++ compiler is needed to see that they hold.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
