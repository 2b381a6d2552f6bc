//! `inspect run`: does by hand, in the foreground, what containerd and its shim do: create, take the terminal, start,
//! wait, say why it ended, delete.

mod console;
mod ending;
mod engine;
mod foreground;
mod watch;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use inspect_image::spec::{get, parse_config, put, to_config};
use inspect_probes::Host;
use inspect_probes::name::{ContainerId, Pid};
use serde_json::{Value, json};

use self::engine::Engine;
use super::spec::{SpecOptionArgs, spec_refused};
use crate::error::CommandError;
use crate::output::{Output, Status};

/// The most bytes of a config.json that are read.
const CONFIG_LIMIT: u64 = 8 << 20;

/// Run a bundle in the foreground, and say why it ended
#[derive(Debug, Args)]
#[command(after_help = "\
The options change a copy of the bundle's config.json; the bundle stays as it is.
The exit status is the container's; 128 + N when signal N killed it.

Examples:
  inspect run mycontainer
  inspect run mycontainer --runtime crun --watch
  inspect run mycontainer --memory 64M -- sh -c 'tail /dev/zero'     (ends with 137, and says why)")]
pub(crate) struct RunArgs {
    /// The bundle: a directory with config.json and rootfs
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// The container's id (default: the bundle's name)
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// The OCI runtime: builtin, runc, crun, or the path of one
    #[arg(long, value_name = "RUNTIME", default_value = "builtin")]
    runtime: String,
    /// Where the runtime keeps its state
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Let systemd make the cgroup
    #[arg(long)]
    systemd_cgroup: bool,
    /// Show the container's cgroup and processes beside it, on standard error
    #[arg(long)]
    watch: bool,
    /// Run this in place of the spec's own arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    options: SpecOptionArgs,
}

/// Runs the bundle until its process ends.
pub(crate) fn run(args: &RunArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let bundle = args.bundle.canonicalize().map_err(|error| {
        CommandError::trouble(format!("cannot find the bundle `{}`: {error}", args.bundle.display()))
            .hint("make one with `inspect unpack IMAGE.tar BUNDLE`")
    })?;
    let id = container_id(args, &bundle)?;
    let spec = make_spec(args, &bundle, &id)?;
    // Signals are taken as messages from here on, before anything is started that they could miss.
    let signals = foreground::Signals::take()?;
    let state =
        tempfile::Builder::new().prefix("run-").tempdir_in(state_directory(host)?).map_err(|error| {
            CommandError::trouble(format!("cannot make a directory for the container's console: {error}"))
        })?;
    let prepared = state.path().join("bundle");
    std::fs::create_dir(&prepared).map_err(CommandError::trouble)?;
    std::fs::write(prepared.join("config.json"), to_config(&spec).map_err(spec_refused)?)
        .map_err(CommandError::trouble)?;
    let engine = Engine::find(args, host, state.path(), &id)?;
    let terminal = get(&spec, &["process", "terminal"]) == Some(&json!(true));
    let console = if terminal { Some(console::Listener::bind(state.path())?) } else { None };
    // What the runtime leaves behind becomes our child, as it becomes the shim's.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(CommandError::trouble)?;
    let pid = engine.create(&prepared, console.as_ref().map(console::Listener::path))?;
    let ending = follow(args, host, &engine, pid, console, &signals, output);
    let deleted = engine.delete();
    let ending = ending?;
    deleted?;
    for line in ending.explain(&ContainerId::new(&id)) {
        output.note(&line);
    }
    Ok(Status::Code(ending.status()))
}

/// From `created` to the end of the process.
fn follow(
    args: &RunArgs,
    host: &Host,
    engine: &Engine,
    pid: Pid,
    console: Option<console::Listener>,
    signals: &foreground::Signals,
    output: &mut Output,
) -> Result<ending::Ending, CommandError> {
    let console = match console {
        Some(listener) => Some(listener.accept(output)?),
        None => None,
    };
    let mut watch = watch::Watch::new(host, pid, args.watch);
    watch.show(output);
    let process = foreground::Process::open(pid)?;
    engine.start()?;
    let status = foreground::follow(&process, engine, console, signals, &mut watch, output)?;
    Ok(ending::Ending::new(status, watch.location()))
}

fn container_id(args: &RunArgs, bundle: &Path) -> Result<String, CommandError> {
    let name = args.id.clone().or_else(|| bundle.file_name()?.to_str().map(str::to_owned));
    let fits = |id: &String| {
        !id.is_empty()
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-+.".contains(&byte))
            && !matches!(id.as_str(), "." | "..")
    };
    name.filter(fits).ok_or_else(|| {
        CommandError::usage("the container's id may have letters, digits and `_`, `-`, `+`, `.`")
            .hint("give one: `inspect run BUNDLE ID`")
    })
}

/// The bundle's spec with what was asked for, and with its paths absolute: it is run from another directory.
fn make_spec(args: &RunArgs, bundle: &Path, id: &str) -> Result<Value, CommandError> {
    use std::io::Read as _;
    let path = bundle.join("config.json");
    let unreadable = |error: std::io::Error| {
        CommandError::trouble(format!("cannot read `{}`: {error}", path.display()))
            .hint("a bundle is a directory with config.json and rootfs: `inspect unpack` makes one")
    };
    let mut text = Vec::new();
    let file = std::fs::File::open(&path).map_err(unreadable)?;
    file.take(CONFIG_LIMIT).read_to_end(&mut text).map_err(unreadable)?;
    let mut spec = parse_config(&text).map_err(spec_refused)?;
    args.options.options().apply(&mut spec).map_err(spec_refused)?;
    if !args.command.is_empty() {
        put(&mut spec, &["process", "args"], json!(args.command)).map_err(spec_refused)?;
    }
    make_absolute(&mut spec, bundle)?;
    let rootless = !rustix::process::geteuid().is_root();
    if get(&spec, &["linux", "cgroupsPath"]).is_none() && !args.systemd_cgroup && !rootless {
        put(&mut spec, &["linux", "cgroupsPath"], json!(format!("/inspect/{id}"))).map_err(spec_refused)?;
    }
    Ok(spec)
}

fn make_absolute(spec: &mut Value, bundle: &Path) -> Result<(), CommandError> {
    let absolute = |path: &str| bundle.join(path).to_string_lossy().into_owned();
    let root = get(spec, &["root", "path"]).and_then(Value::as_str).unwrap_or("rootfs");
    let root = absolute(root);
    put(spec, &["root", "path"], json!(root)).map_err(spec_refused)?;
    for mount in spec.get_mut("mounts").and_then(Value::as_array_mut).into_iter().flatten() {
        let is_bind = |mount: &Value| {
            let options = mount["options"].as_array();
            mount["type"] == "bind"
                || options.is_some_and(|all| all.iter().any(|one| one == "bind" || one == "rbind"))
        };
        if is_bind(mount)
            && let Some(source) = mount["source"].as_str().map(absolute)
        {
            mount["source"] = json!(source);
        }
    }
    Ok(())
}

/// Where runtimes' state and consoles are: root's `/run/inspect`, a plain user's own runtime directory, or one in the
/// directory for temporary files where nobody gave the user any.
fn state_directory(host: &Host) -> Result<PathBuf, CommandError> {
    let user = rustix::process::geteuid();
    let directory = match std::env::var_os("XDG_RUNTIME_DIR") {
        _ if user.is_root() => host.run().join("inspect"),
        Some(given) => PathBuf::from(given).join("inspect"),
        None => std::env::temp_dir().join(format!("inspect-{}", user.as_raw())),
    };
    let make = || {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        directory.symlink_metadata()
    };
    let found = make()
        .map_err(|error| CommandError::trouble(format!("cannot make `{}`: {error}", directory.display())))?;
    // Anybody can make a directory of that name among the temporary files before us.
    if !found.is_dir() || found.uid() != user.as_raw() || found.mode() & 0o022 != 0 {
        let text = format!("will not use `{}`: others can write to it", directory.display());
        return Err(CommandError::trouble(text).hint("set XDG_RUNTIME_DIR to a directory of your own"));
    }
    Ok(directory)
}
