//! `--scope node`: the name `runc`, as shims find it, leads to the new runtime for new containers.
//!
//! The first directory in every shim's PATH is the `bin` of containerd's opt plugin (measured on 1.6, 1.7, 2.1): a
//! stand-in there needs no restart and leaves the distribution's runc where it is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use inspect_probes::containerd::config::{Document, Effective, Setting};
use inspect_probes::runtime_state::{RuntimeFamily, read_runtime_state};
use inspect_probes::{Host, Node};
use serde::Serialize;

use super::apply::{read_file, remove_file, replace_file};
use super::binary::{Chosen, find_in_path, install_builtin};
use super::daemon::Daemon;
use super::dispatch::{NAME, RULES, Rules};
use super::error::SwapError;
use super::progress::Progress;
use crate::verify::{CanaryReport, Subject, run_canary};

/// containerd's opt plugin and the built-in default of its `path`.
const OPT_PLUGIN: &str = "io.containerd.internal.v1.opt";
const DEFAULT_OPT: &str = "/opt/containerd";

/// What was there before the stand-in was put in place or changed.
#[derive(Debug)]
pub(crate) struct Before {
    rules: Option<Vec<u8>>,
    link: PathBuf,
    program: Option<Vec<u8>>,
}

/// The stand-in of a node.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StandInStatus {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What makes new containers.
    pub(crate) create: PathBuf,
    /// The distribution's runc.
    pub(crate) original: PathBuf,
}

/// Reads which runtime the stand-in makes containers with; `None` where there is no stand-in.
pub(crate) fn read_stand_in() -> Result<Option<StandInStatus>, SwapError> {
    Ok(load_rules()?.map(|rules| StandInStatus {
        path: rules.link,
        create: rules.create,
        original: rules.original,
    }))
}

fn load_rules() -> Result<Option<Rules>, SwapError> {
    let Some(bytes) = read_file(Path::new(RULES))? else { return Ok(None) };
    let rules = serde_json::from_slice(&bytes);
    rules.map(Some).map_err(|source| SwapError::Journal { path: PathBuf::from(RULES), source })
}

/// Where the stand-in goes: the opt plugin's `bin`.
pub(crate) fn stand_in_path(effective: &Effective, files: &[Document]) -> PathBuf {
    let plugin = ["plugins", OPT_PLUGIN, "path"];
    let text = |table: &inspect_probes::containerd::config::Table| {
        table.get_path(&plugin).and_then(Setting::as_text).map(str::to_owned)
    };
    let path = files.iter().rev().find_map(|file| text(file.table())).or_else(|| text(effective.table()));
    Path::new(path.as_deref().unwrap_or(DEFAULT_OPT)).join("bin").join(NAME)
}

/// Puts the stand-in in place, or lets the one that is there make containers with another runtime.
pub(crate) fn put_in_place(daemon: &Daemon, chosen: &Chosen, link: &Path) -> Result<Before, SwapError> {
    if let Some(source) = &chosen.install_from {
        install_builtin(source)?;
    }
    let rules_before = read_file(Path::new(RULES))?;
    let known = load_rules()?;
    let program = read_file(link)?;
    let own = std::env::current_exe().map_err(SwapError::file("find", "/proc/self/exe"))?;
    let ours = read_file(&own)?.unwrap_or_default();
    if program.is_some() && known.is_none() {
        return Err(SwapError::NotOurStandIn { path: link.to_owned() });
    }
    let missing = |name: &str| SwapError::UnknownRuntime {
        name: name.to_owned(),
        search: daemon.variable("PATH").unwrap_or_default(),
        handlers: Vec::new(),
    };
    let original = match &known {
        Some(rules) => rules.original.clone(),
        None => find_in_path(daemon, NAME).ok_or_else(|| missing(NAME))?,
    };
    let create = chosen.file.clone().ok_or_else(|| missing(&chosen.handler))?;
    let families = known.map(|rules| rules.families).unwrap_or_default();
    let link_path = link.to_owned();
    let rules = Rules {
        link: link_path,
        families: all_families(families, daemon, chosen, &original),
        create,
        original,
    };
    write_rules(&rules, rules_before.as_deref())?;
    if program.as_deref() != Some(&ours) {
        replace_file(link, program.as_deref(), &ours)?;
        let mode = fs::set_permissions(link, fs::Permissions::from_mode(0o755));
        mode.map_err(SwapError::file("set the mode of", link))?;
    }
    Ok(Before { rules: rules_before, link: link.to_owned(), program })
}

fn write_rules(rules: &Rules, before: Option<&[u8]>) -> Result<(), SwapError> {
    let path = Path::new(RULES);
    let json = serde_json::to_vec_pretty(rules)
        .map_err(|source| SwapError::Journal { path: path.to_owned(), source })?;
    replace_file(path, before, &json)
}

/// Who understands which state: every runtime that this node has.
fn all_families(
    mut families: BTreeMap<String, PathBuf>,
    daemon: &Daemon,
    chosen: &Chosen,
    original: &Path,
) -> BTreeMap<String, PathBuf> {
    for family in [RuntimeFamily::Crun, RuntimeFamily::Youki] {
        if let Some(path) = find_in_path(daemon, family.as_str()) {
            families.entry(family.as_str().to_owned()).or_insert(path);
        }
    }
    if let Some((family, file)) = chosen.family.zip(chosen.file.clone()) {
        families.insert(family.as_str().to_owned(), file);
    }
    families.insert(RuntimeFamily::Runc.as_str().to_owned(), original.to_owned());
    families
}

/// Puts back what was there before: for a swap that failed.
pub(crate) fn take_back(before: &Before) -> Result<(), SwapError> {
    let now = read_file(&before.link)?;
    match (&before.program, &now) {
        (Some(program), _) if now.as_ref() != Some(program) => {
            replace_file(&before.link, now.as_deref(), program)?;
        }
        (None, Some(now)) => remove_file(&before.link, now)?,
        _ => {}
    }
    let rules = read_file(Path::new(RULES))?;
    match (&before.rules, &rules) {
        (Some(old), _) => replace_file(Path::new(RULES), rules.as_deref(), old),
        (None, Some(rules)) => remove_file(Path::new(RULES), rules),
        (None, None) => Ok(()),
    }
}

/// New containers are made by `remaining` (the swap that stays in force), or by the distribution's runc again. The stand-in itself goes once no container needs it: those
/// that another runtime made under the name `runc`.
pub(crate) fn retire(
    host: &Host,
    remaining: Option<&Path>,
    progress: &mut Progress<'_>,
) -> Result<(), SwapError> {
    let Some(mut rules) = load_rules()? else { return Ok(()) };
    let link = rules.link.clone();
    if let Some(runtime) = remaining {
        rules.create = runtime.to_owned();
        progress.note(&format!(
            "the stand-in {} makes containers with {}",
            link.display(),
            runtime.display()
        ));
        return write_rules(&rules, read_file(Path::new(RULES))?.as_deref());
    }
    let needed = dependents(host)?;
    if needed.is_empty() {
        if let Some(program) = read_file(&link)? {
            remove_file(&link, &program)?;
        }
        let bytes = read_file(Path::new(RULES))?.unwrap_or_default();
        remove_file(Path::new(RULES), &bytes)?;
        progress.note(&format!("removed the stand-in {}", link.display()));
        return Ok(());
    }
    rules.create.clone_from(&rules.original);
    write_rules(&rules, read_file(Path::new(RULES))?.as_deref())?;
    progress.note(&format!(
        "the stand-in {} makes containers with {} again and stays for {}: undo once more when they are gone",
        link.display(),
        rules.original.display(),
        needed.join(", ")
    ));
    Ok(())
}

/// The containers that ask for `runc` by name and were made by another runtime.
fn dependents(host: &Host) -> Result<Vec<String>, SwapError> {
    let node = Node::read(host)?;
    let by_name = node.bundles.iter().filter(|bundle| {
        bundle
            .options
            .as_ref()
            .is_none_or(|options| options.binary_name.is_empty() || options.binary_name == NAME)
    });
    let by_another = by_name.filter(|bundle| {
        // A state that cannot be read keeps the stand-in: to be able to kill a container matters more than tidiness.
        !matches!(
            read_runtime_state(host, bundle),
            Ok(None | Some(inspect_probes::runtime_state::RuntimeState { family: RuntimeFamily::Runc, .. }))
        )
    });
    Ok(by_another.map(|bundle| format!("{}/{}", bundle.containerd_namespace, bundle.id)).collect())
}

/// Runs a canary that asks for nothing, as `ctr run` does: the new runtime must have made it.
pub(crate) async fn prove(
    host: &Host,
    daemon: &Daemon,
    chosen: &Chosen,
    limit: Duration,
) -> Result<CanaryReport, SwapError> {
    let subject = Subject {
        name: "the shim's default".to_owned(),
        binary: None,
        expected: chosen.family,
        systemd_cgroup: false,
    };
    let report = run_canary(host, &daemon.socket, &subject, limit).await?;
    if report.is_verified() { Ok(report) } else { Err(SwapError::NotProven { failures: report.failures }) }
}
