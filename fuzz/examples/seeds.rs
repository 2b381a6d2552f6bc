//! Writes the seed corpus and the dictionary: `cargo run --example seeds` in `fuzz/`.

use std::error::Error;
use std::fs;
use std::path::Path;

use inspect_fuzz::TARGETS;
use inspect_fuzz::seeds::{dictionary, seeds_of};

fn main() -> Result<(), Box<dyn Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (target, _) in TARGETS {
        let directory = here.join("corpus").join(target);
        fs::create_dir_all(&directory)?;
        for (index, seed) in seeds_of(target, &here.join("..")).iter().enumerate() {
            fs::write(directory.join(format!("seed-{index:03}")), seed)?;
        }
    }
    fs::write(here.join("corpus/dictionary"), dictionary())?;
    Ok(())
}
