//! `--scope node`: the name `runc`, as shims find it, leads to the new runtime for new containers.
//!
//! The first directory in every shim's PATH is the `bin` of containerd's opt plugin (measured on 1.6, 1.7, 2.1): a
//! stand-in there needs no restart and leaves the distribution's runc where it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use inspect_probes::containerd::config::{Document, Effective, Setting};
use inspect_probes::runtime_state::{RuntimeFamily, read_runtime_state};
use inspect_probes::{Host, Node};
use serde::Serialize;

use super::apply::{read_file, remove_file, remove_leftovers, replace_file, replace_program, restore_file};
use super::binary::{Chosen, find_in_path};
use super::daemon::Daemon;
use super::dispatch::{NAME, RULES, Rules};
use super::error::SwapError;
use super::progress::Progress;

/// containerd's opt plugin and the built-in default of its `path`.
const OPT_PLUGIN: &str = "io.containerd.internal.v1.opt";
const DEFAULT_OPT: &str = "/opt/containerd";

/// A stand-in as it will be, and what is there now.
#[derive(Debug)]
pub(crate) struct StandIn {
    rules: Rules,
    program: Vec<u8>,
    rules_before: Option<Vec<u8>>,
    program_before: Option<Vec<u8>>,
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

impl StandIn {
    /// Plans a stand-in at `link` that makes containers with the chosen runtime, or the change of the one that is there.
    pub(crate) fn plan(daemon: &Daemon, chosen: &Chosen, link: &Path) -> Result<Self, SwapError> {
        let (rules_before, known) = (read_file(Path::new(RULES))?, load_rules()?);
        let program_before = read_file(link)?;
        if program_before.is_some() && known.is_none() {
            return Err(SwapError::NotOurStandIn { path: link.to_owned() });
        }
        let own = std::env::current_exe().map_err(SwapError::file("find", "/proc/self/exe"))?;
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
        let families = all_families(families, daemon, chosen, &original);
        let rules = Rules { link: link.to_owned(), families, create, original };
        Ok(Self { rules, program: read_file(&own)?.unwrap_or_default(), rules_before, program_before })
    }

    /// Where it is or will be.
    pub(crate) fn link(&self) -> &Path {
        &self.rules.link
    }

    /// Whether everything is so already.
    pub(crate) fn is_in_place(&self) -> bool {
        let rules = self.rules_before.as_deref().and_then(|bytes| serde_json::from_slice(bytes).ok());
        rules.as_ref() == Some(&self.rules) && self.program_before.as_ref() == Some(&self.program)
    }

    /// The rules first: a stand-in without rules could do nothing.
    pub(crate) fn put_in_place(&self) -> Result<(), SwapError> {
        write_rules(&self.rules, self.rules_before.as_deref())?;
        if self.program_before.as_ref() == Some(&self.program) {
            return Ok(());
        }
        replace_program(self.link(), self.program_before.as_deref(), &self.program)
    }

    /// Puts back what was there before: for a swap that failed, however far it came.
    pub(crate) fn take_back(&self) -> Result<(), SwapError> {
        let now = read_file(self.link())?;
        match (&self.program_before, &now) {
            (Some(program), _) if now.as_ref() != Some(program) => {
                replace_program(self.link(), now.as_deref(), program)?;
            }
            (None, Some(now)) => remove_file(self.link(), now)?,
            _ => {}
        }
        let rules = read_file(Path::new(RULES))?;
        match (&self.rules_before, &rules) {
            (Some(before), Some(now)) if before != now => restore_file(Path::new(RULES), now, before),
            (None, Some(rules)) => remove_file(Path::new(RULES), rules),
            _ => Ok(()),
        }
    }
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

/// New containers are made by `remaining` (the swap that stays in force), or by the distribution's runc again. The stand-in
/// itself goes once no container needs it: those that another runtime made under the name `runc`.
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
    remove_leftovers(&link);
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
