//! Copies programs, suites and container images into a machine: what changed, stripped, in one compressed stream.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::binaries::{self, Executable};
use crate::child;
use crate::error::LabError;
use crate::machine::Machine;
use crate::oci;
use crate::progress::Progress;
use crate::ssh::Connection;
use crate::store::{self, Store};

/// Twenty megabytes at the two or three a second that TCG's ssh does, on a loaded machine.
const COPY_BOUND: Duration = Duration::from_secs(300);
const TOOL_BOUND: Duration = Duration::from_secs(60);

/// Digests of what a machine has, by place in the node.
type Manifest = BTreeMap<String, String>;

/// Copies the programs and the container images into `machine`.
pub(crate) fn programs(
    store: &Store,
    machine: &Machine,
    programs: &[Executable],
    progress: &Progress,
) -> Result<(), LabError> {
    let scratch = scratch(machine)?;
    let images = oci::write_images(&machine.image.busybox(), scratch.path())?;
    let mut files = Vec::new();
    for program in programs {
        files.push((format!("usr/local/bin/{}", program.name), strip(program, scratch.path())?));
    }
    for image in images {
        let name = image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        files.push((format!("opt/lab/images/{name}"), image));
    }
    files.push((
        "opt/lab/images/phase1.json".into(),
        binaries::workspace().join("fixtures/specs/phase1.json"),
    ));
    copy(store, machine, files, scratch.path(), progress)
}

/// Copies test binaries to `/opt/lab/suites`.
pub(crate) fn suites(
    store: &Store,
    machine: &Machine,
    suites: &[Executable],
    progress: &Progress,
) -> Result<(), LabError> {
    let scratch = scratch(machine)?;
    let mut files = Vec::new();
    for suite in suites {
        files.push((format!("opt/lab/suites/{}", suite.name), strip(suite, scratch.path())?));
    }
    copy(store, machine, files, scratch.path(), progress)
}

fn scratch(machine: &Machine) -> Result<tempfile::TempDir, LabError> {
    let made = tempfile::Builder::new().prefix(&format!("inspect-lab-{}-", machine.name)).tempdir();
    made.map_err(LabError::file("create", std::env::temp_dir()))
}

/// A copy without debug information: a tenth of the size. Without `strip` the file goes as it is.
fn strip(executable: &Executable, scratch: &Path) -> Result<PathBuf, LabError> {
    if child::find_program("strip").is_none() {
        return Ok(executable.path.clone());
    }
    let stripped = scratch.join(&executable.name);
    let mut command = child::bound_to_us("strip");
    command.args(["--strip-debug", "-o"]).arg(&stripped).arg(&executable.path);
    child::run(&mut command, "strip a program", &scratch.join("strip.log"), TOOL_BOUND)?;
    Ok(stripped)
}

/// Sends the files whose content the machine does not have yet.
fn copy(
    store: &Store,
    machine: &Machine,
    files: Vec<(String, PathBuf)>,
    scratch: &Path,
    progress: &Progress,
) -> Result<(), LabError> {
    let record = machine.directory.join("copied.json");
    let mut manifest: Manifest = store::read_json(&record)?.unwrap_or_default();
    let mut changed = Vec::new();
    for (place, path) in files {
        let bytes = fs::read(&path).map_err(LabError::file("read", &path))?;
        let digest = format!("{:x?}", Sha256::digest(&bytes));
        if manifest.insert(place.clone(), digest.clone()).as_ref() != Some(&digest) {
            changed.push((place, bytes));
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    let step = progress.begin(format!("copy of {} files into {}", changed.len(), machine.name));
    let archive = pack(&changed, scratch)?;
    let size = fs::metadata(&archive).map_or(0, |metadata| metadata.len());
    Connection::to(store, machine).unpack(&archive, COPY_BOUND)?;
    store::write_json(&record, &manifest)?;
    step.done(&format!("{:.1} MB", size as f64 / 1e6));
    Ok(())
}

/// One archive; zstd unpacks several times as fast as gzip, which matters where the processor is emulated.
fn pack(files: &[(String, Vec<u8>)], scratch: &Path) -> Result<PathBuf, LabError> {
    let path = scratch.join("copy.tar");
    let file = fs::File::create(&path).map_err(LabError::file("create", &path))?;
    let mut archive = tar::Builder::new(file);
    let written = files.iter().try_for_each(|(place, bytes)| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if place.starts_with("opt/lab/images") { 0o644 } else { 0o755 });
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, place, bytes.as_slice())
    });
    written.and_then(|()| archive.finish()).map_err(LabError::file("write", &path))?;
    let mut command = child::bound_to_us("zstd");
    command.args(["-q", "-3", "-T0", "-f"]).arg(&path);
    child::run(&mut command, "compress", &scratch.join("zstd.log"), TOOL_BOUND)?;
    Ok(path.with_extension("tar.zst"))
}
