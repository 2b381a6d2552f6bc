//! What the node gets from this checkout: the two programs and the VM suites, linked statically, without debug
//! information.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::child;
use crate::error::LabError;
use crate::progress::Progress;

/// The target that runs on every generation whatever its libc.
const MUSL: &str = "x86_64-unknown-linux-musl";

/// A cold build on two cores takes a few minutes; many builds at once take their time.
const BUILD_BOUND: Duration = Duration::from_secs(30 * 60);

/// A built executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Executable {
    /// The target's name: `inspect`, `vm_tree`.
    pub(crate) name: String,
    /// Where cargo put it.
    pub(crate) path: PathBuf,
}

/// This checkout.
pub(crate) fn workspace() -> PathBuf {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR"));
    lab.ancestors().nth(2).unwrap_or(lab).to_owned()
}

/// The programs `inspect` and `inspect-runtime`.
pub(crate) fn build_programs(progress: &Progress) -> Result<Vec<Executable>, LabError> {
    let step = progress.begin("build of inspect and inspect-runtime");
    let built = cargo_build(&["build", "--bins"])?;
    step.done("");
    Ok(built.into_iter().filter(|executable| executable.name.starts_with("inspect")).collect())
}

/// The test binaries `vm_*`: all of them, or those named.
pub(crate) fn build_suites(names: &[String], progress: &Progress) -> Result<Vec<Executable>, LabError> {
    let step = progress.begin("build of the VM suites");
    let chosen: Vec<String> = names.iter().flat_map(|name| ["--test".to_owned(), name.clone()]).collect();
    let mut arguments = vec!["test", "--no-run", "--features", "vm"];
    arguments.extend(chosen.iter().map(String::as_str));
    let built = cargo_build(&arguments)?;
    step.done("");
    Ok(built.into_iter().filter(|executable| executable.name.starts_with("vm_")).collect())
}

/// The names of the VM suites: the test targets `vm_*` of the package `inspect`.
pub(crate) fn list_suites() -> Result<Vec<String>, LabError> {
    let path = workspace().join("tests");
    let entries = fs::read_dir(&path).map_err(LabError::file("list", &path))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut suites: Vec<String> = names
        .filter(|name| name.starts_with("vm_"))
        .filter_map(|name| name.strip_suffix(".rs").map(str::to_owned))
        .collect();
    suites.sort();
    Ok(suites)
}

/// `cargo ARGUMENTS` of the package `inspect` for a static target; the executables it made.
fn cargo_build(arguments: &[&str]) -> Result<Vec<Executable>, LabError> {
    let mut command = cargo();
    command.args(arguments).args(["--package", "inspect", "--message-format", "json-render-diagnostics"]);
    if musl_is_installed() {
        command.args(["--target", MUSL]);
    } else {
        // A static glibc program: larger, and as independent of the node's libc.
        command
            .args(["--target", "x86_64-unknown-linux-gnu"])
            .env("RUSTFLAGS", "-C target-feature=+crt-static");
    }
    let log = tempfile::NamedTempFile::new().map_err(LabError::file("create", std::env::temp_dir()))?;
    child::run(&mut command, "build what the node gets", log.path(), BUILD_BOUND)?;
    let text = fs::read(log.path()).map_err(LabError::file("read", log.path()))?;
    Ok(parse_executables(&String::from_utf8_lossy(&text)))
}

/// cargo as the one that runs this lab, in this checkout.
pub(crate) fn cargo() -> Command {
    let mut command = child::bound_to_us(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

/// Whether the musl target can be built for; where rustup manages the toolchain it is asked to add it.
fn musl_is_installed() -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).current_dir(workspace()).output();
    let Ok(sysroot) = sysroot else { return false };
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    let library = Path::new(&sysroot).join("lib/rustlib").join(MUSL).join("lib");
    if library.is_dir() {
        return true;
    }
    let mut command = child::bound_to_us("rustup");
    command.args(["target", "add", MUSL]).current_dir(workspace());
    let log = std::env::temp_dir().join(format!("inspect-lab-rustup-{}.log", std::process::id()));
    let added = child::run(&mut command, "add the musl target", &log, Duration::from_secs(180));
    drop(fs::remove_file(&log));
    added.is_ok() && library.is_dir()
}

/// Reads cargo's messages: one JSON object per line, among compiler diagnostics in plain text.
fn parse_executables(text: &str) -> Vec<Executable> {
    let messages = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let artifacts = messages.filter(|message| message["reason"] == "compiler-artifact");
    artifacts
        .filter_map(|artifact| {
            let path = artifact["executable"].as_str()?.into();
            let name = artifact["target"]["name"].as_str()?.to_owned();
            Some(Executable { name, path })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_executables_among_other_messages() {
        let text = "warning: something\n\
                    {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"lib\"},\"executable\":null}\n\
                    {\"reason\":\"compiler-artifact\",\"target\":{\"name\":\"vm_node\"},\"executable\":\"/t/vm_node-1\"}\n\
                    {\"reason\":\"build-finished\",\"success\":true}\n";
        let expected = Executable { name: "vm_node".into(), path: "/t/vm_node-1".into() };
        assert_eq!(parse_executables(text), [expected]);
    }
}
