//! What will be written, before anything is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use inspect_probes::Host;
use inspect_probes::containerd::DaemonChannel;
use inspect_probes::containerd::config::{
    Document, Edit, EditError, EditRequest, Effective, LoadedConfig, empty_document, find_generator,
    glob_matches, load_config, plan_edit, plan_import,
};

use super::binary::{Chosen, choose};
use super::daemon::{CALL_LIMIT, Daemon};
use super::error::SwapError;

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct SwapRequest {
    pub(crate) runtime: String,
    pub(crate) scope: Scope,
    pub(crate) handler: Option<String>,
    pub(crate) make_default: bool,
    pub(crate) cgroup_driver: CgroupDriver,
    pub(crate) config: Option<PathBuf>,
    pub(crate) daemon: Option<String>,
    pub(crate) drop_in: bool,
    pub(crate) dry_run: bool,
    pub(crate) restart: bool,
    pub(crate) verify: bool,
    pub(crate) yes: bool,
    pub(crate) timeout: Duration,
}

/// `--scope`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Scope {
    /// What the kubelet and crictl make
    Cri,
    /// Also what asks for no runtime: `ctr run`, nerdctl
    Node,
    /// What Docker makes: its daemon.json
    Docker,
}

/// `--systemd-cgroup`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum CgroupDriver {
    /// What the kubelet uses, otherwise what the present default handler has
    Auto,
    /// systemd's cgroup driver
    On,
    /// cgroupfs
    Off,
}

/// A file as it is and as it will be.
#[derive(Debug, Clone)]
pub(crate) struct PlannedFile {
    pub(crate) path: PathBuf,
    pub(crate) existed: bool,
    pub(crate) edit: Edit,
}

/// A swap that can be made.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) daemon: Daemon,
    pub(crate) chosen: Chosen,
    pub(crate) make_default: bool,
    pub(crate) scope: Scope,
    pub(crate) before: Effective,
    pub(crate) loaded: LoadedConfig,
    pub(crate) files: Vec<PlannedFile>,
}

impl Plan {
    /// Whether the config already says what was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// When the newest file of the config was changed, microseconds since 1970.
    pub(crate) fn changed_at(&self) -> u64 {
        let changed = |file: &Document| std::fs::metadata(file.path()).and_then(|file| file.modified()).ok();
        let newest = self.loaded.files.iter().filter_map(changed).max();
        let since = newest.and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok());
        since.and_then(|since| u64::try_from(since.as_micros()).ok()).unwrap_or(0)
    }

    /// Whether the handler will use systemd's cgroup driver.
    pub(crate) fn systemd_cgroup_after(&self) -> bool {
        let parse = |(path, text): &(PathBuf, String)| Document::parse(path, text.as_bytes()).ok();
        let documents: Vec<Document> = self.texts_after().iter().filter_map(parse).collect();
        let after = Effective::merge(&documents, self.daemon.version);
        after.is_ok_and(|after| after.systemd_cgroup(&self.chosen.handler))
    }

    /// Every file of the config as it will be, the main one first.
    pub(crate) fn texts_after(&self) -> Vec<(PathBuf, String)> {
        let mut texts: Vec<(PathBuf, String)> =
            self.loaded.files.iter().map(|file| (file.path().to_owned(), file.text().to_owned())).collect();
        for planned in &self.files {
            match texts.iter_mut().find(|(path, _)| *path == planned.path) {
                Some((_, text)) => text.clone_from(&planned.edit.after),
                None if planned.path == self.loaded.main => {
                    texts.insert(0, (planned.path.clone(), planned.edit.after.clone()));
                }
                None => texts.push((planned.path.clone(), planned.edit.after.clone())),
            }
        }
        texts
    }
}

/// Plans the swap of `request` on `daemon`. Reads; changes nothing.
pub(crate) async fn plan(host: &Host, daemon: Daemon, request: &SwapRequest) -> Result<Plan, SwapError> {
    let loaded = load_config(host, &daemon.config, daemon.version)?;
    refuse_generated(&loaded)?;
    let before = Effective::merge(&loaded.files, daemon.version)?;
    let chosen = choose(&request.runtime, request.handler.as_deref(), &daemon, &before)?;
    let edit = EditRequest {
        handler: chosen.handler.clone(),
        binary: chosen.write.as_ref().map(|path| path.display().to_string()),
        make_default: request.make_default,
        systemd_cgroup: driver(host, request.cgroup_driver),
    };
    let files = if before.cri_is_disabled() && request.scope == Scope::Node {
        Vec::new()
    } else if request.drop_in {
        if !daemon.version.merges_deeply() {
            return Err(SwapError::DropInReplaces { version: daemon.version.to_string() });
        }
        plan_drop_in(&loaded, &before, &edit)?
    } else {
        plan_in_place(&loaded, &before, &edit)?
    };
    let files = files.into_iter().filter(|file| !file.edit.is_empty()).collect();
    Ok(Plan {
        daemon,
        chosen,
        make_default: request.make_default,
        scope: request.scope,
        before,
        loaded,
        files,
    })
}

fn refuse_generated(loaded: &LoadedConfig) -> Result<(), SwapError> {
    let text = loaded.main_file().map_or("", Document::text);
    match find_generator(&loaded.main, text) {
        None => Ok(()),
        Some(generated) => Err(SwapError::Generated {
            path: loaded.main.clone(),
            by: generated.by,
            template: generated.template,
            note: generated.note,
        }),
    }
}

/// The last file that names the section is the one whose word is in force; the main file where none does.
fn plan_in_place(
    loaded: &LoadedConfig,
    before: &Effective,
    request: &EditRequest,
) -> Result<Vec<PlannedFile>, SwapError> {
    let section = ["plugins", before.plugin()];
    let deeper = ["plugins", before.plugin(), "containerd"];
    let deep = before.containerd().merges_deeply();
    let path: &[&str] = if deep { &deeper } else { &section };
    let edit_error = |source| SwapError::Edit { path: loaded.main.clone(), source };
    let empty;
    let (document, existed) = match loaded.last_with(path).or_else(|| loaded.main_file()) {
        Some(document) => (document, true),
        None => {
            empty = empty_document(&loaded.main).map_err(edit_error)?;
            (&empty, false)
        }
    };
    let path = document.path().to_owned();
    let edit = plan_edit(document, before, request)
        .map_err(|source| SwapError::Edit { path: path.clone(), source })?;
    Ok(vec![PlannedFile { path, existed, edit }])
}

/// A file of its own, of the same config version as the main one, and the import that reads it.
fn plan_drop_in(
    loaded: &LoadedConfig,
    before: &Effective,
    request: &EditRequest,
) -> Result<Vec<PlannedFile>, SwapError> {
    let name = format!("50-inspect-{}.toml", request.handler);
    let patterns = loaded.import_patterns();
    let reading = patterns.iter().find(|pattern| reads(pattern, &name));
    let folder = match reading.and_then(|pattern| pattern.parent()) {
        Some(folder) => folder.to_owned(),
        None => loaded.main.parent().unwrap_or(Path::new("/")).join("conf.d"),
    };
    let path = folder.join(&name);
    let edit_error = |path: &Path| {
        let path = path.to_owned();
        move |source: EditError| SwapError::Edit { path, source }
    };
    let existing = loaded.files.iter().find(|file| file.path() == path);
    let version = format!("version = {}\n", before.version());
    let start = existing.map_or(version.as_str(), Document::text);
    let document = Document::parse(&path, start.as_bytes())
        .map_err(|error| SwapError::Edit { path: path.clone(), source: error.into() })?;
    let mut edit = plan_edit(&document, before, request).map_err(edit_error(&path))?;
    if existing.is_none() {
        edit.before.clear();
    }
    let mut files = vec![PlannedFile { path, existed: existing.is_some(), edit }];
    if reading.is_none() {
        let empty = empty_document(&loaded.main).map_err(edit_error(&loaded.main))?;
        let main = loaded.main_file().unwrap_or(&empty);
        let pattern = folder.join("*.toml").display().to_string();
        let edit = plan_import(main, before, &pattern).map_err(edit_error(&loaded.main))?;
        let existed = loaded.main_file().is_some();
        files.push(PlannedFile { path: loaded.main.clone(), existed, edit });
    }
    Ok(files)
}

fn reads(pattern: &Path, name: &str) -> bool {
    let last = pattern.file_name().map(|last| last.to_string_lossy().into_owned()).unwrap_or_default();
    last.contains('*') && glob_matches(last.as_bytes(), name.as_bytes())
}

/// `auto` follows the kubelet, where there is one: a node with two drivers is unstable under pressure.
fn driver(host: &Host, asked: CgroupDriver) -> Option<bool> {
    match asked {
        CgroupDriver::On => Some(true),
        CgroupDriver::Off => Some(false),
        CgroupDriver::Auto => kubelet_driver(host).map(|driver| driver == "systemd"),
    }
}

/// `cgroupDriver` of the kubelet's config file.
pub(crate) fn kubelet_driver(host: &Host) -> Option<String> {
    let config = host.resolve(Path::new("/var/lib/kubelet/config.yaml"));
    let text = std::fs::read_to_string(config).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("cgroupDriver:"))?;
    Some(line.trim().trim_matches(['"', '\'']).to_owned()).filter(|driver| !driver.is_empty())
}

/// The tasks that run in containerd namespace `k8s.io`: pods keep the runtime that they were made with.
pub(crate) async fn count_pod_tasks(daemon: &Daemon) -> Result<usize, SwapError> {
    let mut channel = DaemonChannel::connect(&daemon.socket, CALL_LIMIT).await?;
    let namespace = inspect_probes::name::ContainerdNamespace::new("k8s.io");
    Ok(channel.tasks(&namespace).await?.iter().filter(|task| task.pid.is_some()).count())
}
