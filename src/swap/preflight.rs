//! Would this containerd accept and use it? Everything that can be known before anything is written.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use inspect_probes::Host;
use inspect_probes::containerd::config::{
    Document, Effective, arrange_copies, declared_version, ignored_sections,
};
use inspect_probes::containerd::{CriStatus, DaemonChannel};
use inspect_probes::escape::escape;
use serde::Serialize;

use super::error::SwapError;
use super::plan::{Plan, Scope, kubelet_driver};
use super::stand_in::stand_in_path;

/// How long a program that is asked for its version may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// The outcome of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Good,
    Warning,
    Failure,
}

/// One check and what it found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
}

fn good(text: impl Into<String>) -> Check {
    Check { verdict: Verdict::Good, text: text.into() }
}

fn warning(text: impl Into<String>) -> Check {
    Check { verdict: Verdict::Warning, text: text.into() }
}

fn failure(text: impl Into<String>) -> Check {
    Check { verdict: Verdict::Failure, text: text.into() }
}

/// Checks the plan: the binary, the candidate config in this containerd, CRI, the cgroup drivers.
pub(crate) fn check(host: &Host, plan: &Plan) -> Vec<Check> {
    let mut checks = Vec::new();
    check_binary(plan, &mut checks);
    check_config(plan, &mut checks);
    check_cri(plan, &mut checks);
    check_cgroup_driver(host, plan, &mut checks);
    checks
}

/// The failures of checks as an error.
pub(crate) fn require(checks: &[Check]) -> Result<(), SwapError> {
    let failures: Vec<String> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Failure)
        .map(|check| check.text.clone())
        .collect();
    if failures.is_empty() { Ok(()) } else { Err(SwapError::Preflight { failures }) }
}

fn check_binary(plan: &Plan, checks: &mut Vec<Check>) {
    let Some(file) = plan.chosen.install_from.as_deref().or(plan.chosen.file.as_deref()) else {
        let name = plan.before.binary_name(&plan.chosen.handler).unwrap_or_default();
        checks.push(failure(format!(
            "handler `{}` names no binary that exists (`{name}`)",
            plan.chosen.handler
        )));
        return;
    };
    check_file(file, |file| plan.daemon.command(file), checks);
}

/// Whether a file can be run as a runtime; `command` makes the command that runs it as the daemon would.
pub(super) fn check_file(file: &Path, command: impl Fn(&Path) -> Command, checks: &mut Vec<Check>) {
    let shown = file.display();
    let metadata = match fs::metadata(file) {
        Ok(metadata) => metadata,
        Err(error) => return checks.push(failure(format!("`{shown}` cannot be read: {error}"))),
    };
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return checks.push(failure(format!("`{shown}` is not an executable file")));
    }
    if metadata.permissions().mode() & 0o022 != 0 {
        checks.push(warning(format!(
            "`{shown}` can be changed by others than root: containerd runs it as root"
        )));
    }
    let flags = rustix::fs::statvfs(file).map(|stat| stat.f_flag);
    if flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::NOEXEC)) {
        return checks.push(failure(format!("`{shown}` is on a file system that is mounted noexec")));
    }
    if let Some(reason) = wrong_format(file) {
        return checks.push(failure(format!("`{shown}` {reason}")));
    }
    checks.push(ask_version(command(file), file));
}

/// ELF for this machine, or a script.
fn wrong_format(file: &Path) -> Option<String> {
    let read = |file: &Path| -> std::io::Result<Vec<u8>> {
        let mut head = Vec::new();
        fs::File::open(file)?.take(64).read_to_end(&mut head)?;
        Ok(head)
    };
    let head = read(file).ok()?;
    if head.starts_with(b"#!") {
        return None;
    }
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        return Some("is neither an ELF program nor a script".to_owned());
    }
    let own = read(Path::new("/proc/self/exe")).ok()?;
    let machine = |head: &[u8]| (head.get(4).copied(), head.get(18).copied(), head.get(19).copied());
    (machine(&head) != machine(&own)).then(|| "is built for another architecture".to_owned())
}

fn ask_version(mut command: Command, file: &Path) -> Check {
    let shown = file.display();
    command.arg("--version");
    match run_bounded(command) {
        Err(error) => {
            failure(format!("`{shown} --version` cannot be run as containerd would run it: {error}"))
        }
        Ok(output) if !output.status.success() => {
            let said = String::from_utf8_lossy(&output.stderr);
            failure(format!("`{shown} --version` failed: {}", escape(said.trim())))
        }
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            good(format!("`{shown}` answers: {}", escape(said.lines().next().unwrap_or_default())))
        }
    }
}

/// Reads the candidate with this very containerd and looks at what it makes of it.
fn check_config(plan: &Plan, checks: &mut Vec<Check>) {
    for missing in &plan.loaded.missing {
        let text = format!("`{}` is imported and does not exist", missing.display());
        checks.push(if plan.daemon.version.merges_deeply() { warning(text) } else { failure(text) });
    }
    for section in plan.loaded.files.iter().flat_map(|file| {
        let version = declared_version(file.table()).unwrap_or(plan.before.version());
        ignored_sections(version, plan.daemon.version, file.table())
    }) {
        checks.push(warning(format!("containerd {} does not read `{section}`", plan.daemon.version)));
    }
    if plan.before.cri_is_disabled() {
        return;
    }
    match dump_candidate(plan) {
        Err(text) => checks.push(failure(text)),
        Ok((effective, warnings)) => {
            checks.extend(warnings.into_iter().map(warning));
            checks.push(judge(plan, &effective));
        }
    }
}

fn dump_candidate(plan: &Plan) -> Result<(Effective, Vec<String>), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("cannot make a folder for a copy: {error}"))?;
    let copies = arrange_copies(&plan.texts_after(), folder.path())
        .map_err(|error| format!("the config cannot be copied: {error}"))?;
    for (path, text) in &copies {
        fs::write(path, text).map_err(|error| format!("cannot write a copy: {error}"))?;
    }
    let Some((main, _)) = copies.first() else { return Err("there is no config to check".to_owned()) };
    dump(plan, main)
}

/// `containerd config dump` of a config, as the daemon that runs would read it, with its warnings.
pub(crate) fn dump(plan: &Plan, main: &Path) -> Result<(Effective, Vec<String>), String> {
    let mut command = plan.daemon.command(&plan.daemon.exe);
    command.arg("--config").arg(main).args(["config", "dump"]);
    let output =
        run_bounded(command).map_err(|error| format!("cannot run `containerd config dump`: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        let last = said.lines().last().unwrap_or_default();
        return Err(format!("containerd {} refuses the config: {}", plan.daemon.version, escape(last)));
    }
    let document = Document::parse(main, &output.stdout).map_err(|error| error.to_string())?;
    let effective =
        Effective::from_dump(&document, plan.daemon.version).map_err(|error| error.to_string())?;
    let warnings = said.lines().filter(|line| line.contains("unknown key"));
    Ok((effective, warnings.map(|line| format!("containerd ignores a key: {}", escape(line))).collect()))
}

fn judge(plan: &Plan, effective: &Effective) -> Check {
    match in_force(plan, effective) {
        Ok(()) => good(format!(
            "containerd {} reads handler `{}` from the new config, default `{}`",
            plan.daemon.version,
            plan.chosen.handler,
            effective.default_handler()
        )),
        Err(reason) => failure(format!("with the new config {reason}")),
    }
}

/// Whether a config that was read back says what was planned.
pub(crate) fn in_force(plan: &Plan, effective: &Effective) -> Result<(), String> {
    let handler = &plan.chosen.handler;
    let handlers = effective.handlers();
    if !handlers.contains(handler) {
        return Err(format!("containerd {} does not know handler `{handler}`", plan.daemon.version));
    }
    let default = effective.default_handler().to_owned();
    if !handlers.contains(&default) {
        return Err(format!("the default handler `{default}` does not exist: CRI would be down"));
    }
    if plan.make_default && default != *handler {
        return Err(format!("the default handler is `{default}`"));
    }
    let binary = effective.binary_name(handler);
    match &plan.chosen.write {
        Some(path) if binary.as_deref().map(Path::new) != Some(path) => {
            Err(format!("handler `{handler}` has BinaryName `{}`", binary.unwrap_or_default()))
        }
        _ => Ok(()),
    }
}

/// What the daemon that runs now says of its own handlers; only where it does not say, what it would read from its config.
pub(crate) async fn check_running(plan: &Plan, limit: Duration) -> Result<(), SwapError> {
    if plan.before.cri_is_disabled() {
        return Ok(());
    }
    let not_in_force = |reason| SwapError::NotInForce { handler: plan.chosen.handler.clone(), reason };
    let mut channel = DaemonChannel::connect(&plan.daemon.socket, limit).await?;
    match channel.cri_status().await? {
        Some(status) if !status.handlers.is_empty() => judge_running(plan, &status).map_err(not_in_force),
        _ => {
            let (effective, _warnings) = dump(plan, &plan.daemon.config).map_err(not_in_force)?;
            in_force(plan, &effective).map_err(not_in_force)
        }
    }
}

fn judge_running(plan: &Plan, status: &CriStatus) -> Result<(), String> {
    let name = &plan.chosen.handler;
    let Some(handler) = status.handlers.iter().find(|handler| handler.name == *name) else {
        return Err(format!("the CRI plugin does not know handler `{name}`"));
    };
    let default = status.default_handler.as_deref().unwrap_or_default();
    if plan.make_default && default != name {
        return Err(format!("the CRI plugin's default handler is `{default}`"));
    }
    let binary = handler.binary_name.as_deref().unwrap_or_default();
    match &plan.chosen.write {
        Some(path) if Path::new(binary) != path => {
            Err(format!("the CRI plugin has BinaryName `{binary}` for handler `{name}`"))
        }
        _ => Ok(()),
    }
}

fn check_cri(plan: &Plan, checks: &mut Vec<Check>) {
    let node = plan.scope == Scope::Node;
    if plan.before.cri_is_disabled() {
        let text = "`disabled_plugins` turns CRI off: nothing would read these settings";
        checks.push(if node {
            warning(text)
        } else {
            failure(format!("{text} (`--scope node` is for ctr and nerdctl)"))
        });
    }
    if node {
        let path = stand_in_path(&plan.before, &plan.loaded.files);
        checks.push(good(format!("{} will stand in for runc: ctr and nerdctl follow", path.display())));
    } else {
        checks.push(good(
            "ctr, nerdctl and Docker do not read these settings: only the kubelet and crictl (CRI) follow",
        ));
    }
}

fn check_cgroup_driver(host: &Host, plan: &Plan, checks: &mut Vec<Check>) {
    let Some(kubelet) = kubelet_driver(host) else { return };
    let template = plan.before.default_handler();
    let now = plan.before.systemd_cgroup(template);
    if (kubelet == "systemd") != now {
        let containerd = if now { "systemd" } else { "cgroupfs" };
        checks.push(warning(format!(
            "the kubelet uses cgroup driver `{kubelet}`, handler `{template}` uses `{containerd}`"
        )));
    }
}

/// Runs a command to its end, and no longer than the limit.
fn run_bounded(mut command: Command) -> std::io::Result<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let readers = (child.stdout.take(), child.stderr.take());
    let stdout = std::thread::spawn(move || read_all(readers.0));
    let stderr = std::thread::spawn(move || read_all(readers.1));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if start.elapsed() > ANSWER_LIMIT {
            child.kill()?;
            child.wait()?;
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    Ok(Output {
        status,
        stdout: stdout.join().unwrap_or_default(),
        stderr: stderr.join().unwrap_or_default(),
    })
}

fn read_all(stream: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What was read before an error is still the best account that there is.
    match stream.map(|stream| stream.take(16 << 20).read_to_end(&mut bytes)) {
        Some(Ok(_) | Err(_)) | None => bytes,
    }
}
