//! From what the user called the runtime to the file that containerd is to run.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use inspect_probes::containerd::config::Effective;
use inspect_probes::runtime_state::RuntimeFamily;

use super::apply::{read_file, replace_program};
use super::daemon::Daemon;
use super::error::SwapError;

/// Where the built-in runtime is kept: a config never points into a build folder.
pub(crate) const BUILTIN: &str = "/usr/local/libexec/inspect/inspect-runtime";
/// The PATH that systemd gives to services, where the daemon's own cannot be read.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The runtime that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Chosen {
    /// The handler's name.
    pub(crate) handler: String,
    /// The `BinaryName` to write; `None` leaves the handler's own.
    pub(crate) write: Option<PathBuf>,
    /// The file that will run, where it is known before.
    pub(crate) file: Option<PathBuf>,
    /// The family that it must turn out to be, where its name says so.
    pub(crate) family: Option<RuntimeFamily>,
    /// The built-in runtime is still to be installed, from here.
    pub(crate) install_from: Option<PathBuf>,
}

/// Finds what `runtime` names: `builtin`, a path, a known runtime in the daemon's PATH, or a configured handler.
pub(crate) fn choose(
    runtime: &str,
    handler: Option<&str>,
    daemon: &Daemon,
    effective: &Effective,
) -> Result<Chosen, SwapError> {
    let named = |default: &str| handler.unwrap_or(default).to_owned();
    if runtime == "builtin" {
        let handler = named("builtin");
        return Ok(Chosen {
            handler,
            write: Some(PathBuf::from(BUILTIN)),
            file: Some(PathBuf::from(BUILTIN)),
            family: Some(RuntimeFamily::InspectRuntime),
            install_from: Some(builtin_source()?),
        });
    }
    if runtime.contains('/') {
        let path = std::path::absolute(runtime).map_err(SwapError::file("find", runtime))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Ok(of_file(named(&name), path));
    }
    let configured = effective.handlers().iter().any(|name| name == runtime);
    if configured && handler.is_none_or(|handler| handler == runtime) {
        return of_handler(runtime, daemon, effective);
    }
    match find_in_path(daemon, runtime) {
        Some(path) => Ok(of_file(named(runtime), path)),
        None => Err(SwapError::UnknownRuntime {
            name: runtime.to_owned(),
            search: search_path(daemon),
            handlers: effective.handlers(),
        }),
    }
}

fn of_file(handler: String, path: PathBuf) -> Chosen {
    let family = family_of(&path);
    Chosen { handler, write: Some(path.clone()), file: Some(path), family, install_from: None }
}

/// A handler that is configured keeps its binary where that is there; a known runtime's handler without one gets it.
fn of_handler(handler: &str, daemon: &Daemon, effective: &Effective) -> Result<Chosen, SwapError> {
    let now = effective.binary_name(handler).and_then(|name| find_in_path(daemon, &name));
    if now.is_some() || handler == "runc" {
        let file = now.or_else(|| find_in_path(daemon, "runc"));
        let family = file.as_deref().and_then(family_of);
        return Ok(Chosen { handler: handler.to_owned(), write: None, file, family, install_from: None });
    }
    match find_in_path(daemon, handler) {
        Some(path) => Ok(of_file(handler.to_owned(), path)),
        None => {
            let handler = handler.to_owned();
            Ok(Chosen { handler, write: None, file: None, family: None, install_from: None })
        }
    }
}

/// The family that a binary's name speaks of, through links.
pub(super) fn family_of(path: &Path) -> Option<RuntimeFamily> {
    let real = fs::canonicalize(path).ok()?;
    let name = real.file_name()?.to_string_lossy().into_owned();
    [RuntimeFamily::InspectRuntime, RuntimeFamily::Youki, RuntimeFamily::Crun, RuntimeFamily::Runc]
        .into_iter()
        .find(|family| name.starts_with(family.as_str()))
}

fn search_path(daemon: &Daemon) -> String {
    daemon.variable("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

/// The first executable file of that name in the daemon's PATH; a path stands for itself.
pub(crate) fn find_in_path(daemon: &Daemon, name: &str) -> Option<PathBuf> {
    let is_executable = |path: &PathBuf| {
        fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(is_executable);
    }
    search_path(daemon).split(':').map(|folder| Path::new(folder).join(name)).find(is_executable)
}

/// The file that `runtime` names where no containerd is asked: a path, or a program in the services' PATH.
pub(crate) fn standalone_file(runtime: &str) -> Result<PathBuf, SwapError> {
    let is_file = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.is_file());
    let found = if runtime.contains('/') {
        std::path::absolute(runtime).ok().filter(is_file)
    } else {
        DEFAULT_PATH.split(':').map(|folder| Path::new(folder).join(runtime)).find(is_file)
    };
    let unknown = || SwapError::UnknownRuntime {
        name: runtime.to_owned(),
        search: DEFAULT_PATH.to_owned(),
        handlers: Vec::new(),
    };
    found.ok_or_else(unknown)
}

/// The built-in runtime's binary as it was built or installed: beside our own, or in its stable place already.
pub(crate) fn builtin_source() -> Result<PathBuf, SwapError> {
    let inspect = std::env::current_exe().map_err(SwapError::file("find", "/proc/self/exe"))?;
    let beside = inspect.with_file_name("inspect-runtime");
    if beside.is_file() {
        return Ok(beside);
    }
    let installed = PathBuf::from(BUILTIN);
    if installed.is_file() { Ok(installed) } else { Err(SwapError::NoBuiltin { inspect }) }
}

/// Copies the built-in runtime to its stable place, unless the same bytes are there. The rename leaves a runtime that
/// is being executed alone.
pub(crate) fn install_builtin(source: &Path) -> Result<bool, SwapError> {
    let target = Path::new(BUILTIN);
    let bytes = read_file(source)?.unwrap_or_default();
    let before = read_file(target)?;
    let is_executable =
        fs::metadata(target).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0o111);
    if before.as_deref() == Some(&bytes) && is_executable {
        return Ok(false);
    }
    replace_program(target, before.as_deref(), &bytes)?;
    Ok(true)
}
