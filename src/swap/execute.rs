//! From the journal to the commit, or back to the very bytes that were there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use inspect_probes::Host;
use inspect_probes::name::Pid;
use inspect_probes::systemd::Systemd;

use super::apply::{read_file, remove_file, remove_leftovers, replace_file, restore_file, sha256};
use super::binary::{BUILTIN, install_builtin};
use super::census::Census;
use super::error::SwapError;
use super::journal::{Entry, FOLDER, FileRecord, Journal, Stage, now};
use super::plan::{Plan, Scope, SwapRequest};
use super::preflight;
use super::progress::Progress;
use super::prove::{prove, prove_pod, prove_stand_in};
use super::restart::{self, compare_plugins, cri_plugins, journal_lines};
use super::stand_in::{StandIn, stand_in_path};
use super::transaction::{SwapReport, SwapState};
use super::undo::take_out_lines;

/// A daemon that its new config kills does not always die at once: it is watched this long before the swap is committed.
const WATCH: Duration = Duration::from_secs(12);

/// A swap that was planned, checked and agreed to.
pub(super) struct Swapping<'a, 'o> {
    pub(super) host: &'a Host,
    pub(super) request: &'a SwapRequest,
    pub(super) plan: &'a Plan,
    pub(super) systemd: &'a Systemd,
    pub(super) journal: &'a mut Journal,
    pub(super) progress: &'a mut Progress<'o>,
    pub(super) report: &'a mut SwapReport,
}

/// What came of putting things back.
struct WentBack {
    /// Files that somebody else changed meanwhile: only the swap's own lines were taken out of them.
    edited: Vec<PathBuf>,
    /// Whether the journal could be told.
    told: Result<(), SwapError>,
}

impl Swapping<'_, '_> {
    /// Makes the swap: in force and proven, or everything as it was.
    pub(super) async fn execute(&mut self) -> Result<(), SwapError> {
        let plan = self.plan;
        let stand_in = self.plan_stand_in()?;
        let signal = catch_signals()?;
        if let Some(source) = &plan.chosen.install_from
            && install_builtin(source)?
        {
            self.progress.note(&format!("  installed {BUILTIN}"));
        }
        if plan.is_empty() && stand_in.as_ref().is_none_or(StandIn::is_in_place) {
            return self.prove_what_is_there().await;
        }
        self.progress.step(format!("journal and backup in {FOLDER}"));
        let entry = open_entry(plan, self.request, stand_in.as_ref(), self.journal)?;
        match self.go_forward(&entry, stand_in.as_ref(), &signal).await {
            Ok(()) => Ok(()),
            Err(source) => Err(self.fail(&entry, stand_in.as_ref(), source).await),
        }
    }

    fn plan_stand_in(&self) -> Result<Option<StandIn>, SwapError> {
        if self.request.scope != Scope::Node {
            return Ok(None);
        }
        let plan = self.plan;
        let path = stand_in_path(&plan.before, &plan.loaded.files);
        StandIn::plan(&plan.daemon, &plan.chosen, &path).map(Some)
    }

    async fn go_forward(
        &mut self,
        entry: &Entry,
        stand_in: Option<&StandIn>,
        signal: &AtomicBool,
    ) -> Result<(), SwapError> {
        let unless_signalled =
            || if signal.load(Ordering::Relaxed) { Err(SwapError::Signal) } else { Ok(()) };
        for file in &self.plan.files {
            self.progress.step(format!("write {}", file.path.display()));
            let before = Some(file.edit.before.as_bytes()).filter(|_| file.existed);
            replace_file(&file.path, before, file.edit.after.as_bytes())?;
        }
        self.journal.advance(entry.id, Stage::Applied)?;
        unless_signalled()?;
        if let Some(stand_in) = stand_in {
            self.progress.step(format!("stand-in for runc at {}", stand_in.link().display()));
            stand_in.put_in_place()?;
            self.report.stand_in = Some(stand_in.link().display().to_string());
        }
        let restarts = self.request.restart && !self.plan.is_empty();
        let watch = if restarts { Some(self.restart_and_check(entry.id).await?) } else { None };
        unless_signalled()?;
        // What stands in for runc needs no restart; what is in the config does.
        self.report.state =
            if restarts || self.plan.is_empty() { SwapState::InForce } else { SwapState::Written };
        if self.report.state == SwapState::InForce && self.request.verify {
            self.prove_all().await?;
        }
        if let Some((daemon, served)) = watch {
            self.progress.step("watch that containerd stays up");
            restart::watch(self.systemd, &self.plan.daemon.unit, daemon, served + WATCH).await?;
        }
        unless_signalled()?;
        self.journal.advance(entry.id, Stage::Committed)
    }

    /// Restarts, then looks at the plugins, the tasks and the config that is in force now; gives the new daemon's process and
    /// since when it serves.
    async fn restart_and_check(&mut self, id: u32) -> Result<(Pid, Instant), SwapError> {
        let (plan, limit) = (self.plan, self.request.timeout);
        let daemon = &plan.daemon;
        self.progress.step("census of the running tasks");
        let (tasks, plugins) = (Census::take(&daemon.socket).await?, cri_plugins(&daemon.socket).await?);
        self.journal.advance(id, Stage::Restarting)?;
        self.progress.step(format!("restart {} and wait until it serves", daemon.unit));
        let new =
            restart::restart(self.systemd, &daemon.unit, &daemon.socket, Some(daemon.pid), limit).await?;
        let served = Instant::now();
        self.journal.advance(id, Stage::Verifying)?;
        self.progress.step("plugins, config in force, census");
        compare_plugins(&plugins, &cri_plugins(&daemon.socket).await?)?;
        preflight::check_running(plan, limit).await?;
        let census = tasks.compare(&Census::take(&daemon.socket).await?);
        let lost = census.lost.clone();
        self.report.census = Some(census);
        if lost.is_empty() { Ok((new, served)) } else { Err(SwapError::Lost { lost }) }
    }

    /// The config says so already: nothing is written. A daemon that is older than its config is restarted.
    async fn prove_what_is_there(&mut self) -> Result<(), SwapError> {
        self.progress.note("the config says so already: nothing is written");
        let daemon = &self.plan.daemon;
        let started = self.systemd.service(&daemon.unit).await?.started;
        self.report.state = SwapState::InForce;
        if self.plan.changed_at() > started {
            if !self.request.restart {
                self.report.state = SwapState::Written;
                return Ok(());
            }
            self.progress.step(format!("restart {}, which is older than its config", daemon.unit));
            let limit = self.request.timeout;
            restart::restart(self.systemd, &daemon.unit, &daemon.socket, Some(daemon.pid), limit).await?;
        }
        if self.request.verify { self.prove_all().await } else { Ok(()) }
    }

    /// The runtime through containerd's own API, and the handler through CRI where that runs.
    async fn prove_all(&mut self) -> Result<(), SwapError> {
        let (plan, limit) = (self.plan, self.request.timeout);
        if self.request.scope == Scope::Node {
            self.progress.step("canary that asks for no runtime, as `ctr run` does");
            self.report.stand_in_canary = Some(prove_stand_in(self.host, plan, limit).await?);
        } else {
            self.progress.step(format!("canary under `{}`", plan.chosen.handler));
            self.report.canary = Some(prove(self.host, plan, limit).await?);
        }
        if !plan.before.cri_is_disabled() {
            self.progress.step("canary pod through CRI");
            self.report.pod_canary = Some(prove_pod(self.host, plan, limit).await?);
        }
        self.report.state = SwapState::Proven;
        Ok(())
    }

    /// Puts everything back and says what happened.
    async fn fail(&mut self, entry: &Entry, stand_in: Option<&StandIn>, source: SwapError) -> SwapError {
        let runtime = self.request.runtime.clone();
        let journal_lines = journal_lines(&self.plan.daemon.unit, 4);
        self.progress.note(&format!("failed: {source}"));
        self.progress.step("put back what was there");
        // The one error that says that a file was left alone: what stands there is somebody else's.
        let untouched = match &source {
            SwapError::ChangedMeanwhile { path } => Some(path.clone()),
            _ => None,
        };
        let source = Box::new(source);
        match self.go_back(entry, stand_in, untouched.as_deref()).await {
            Err(restore) => SwapError::RollbackFailed { runtime, restore: Box::new(restore), source },
            Ok(WentBack { told: Err(journal), .. }) => {
                SwapError::RolledBackUntold { runtime, journal: Box::new(journal), source }
            }
            Ok(WentBack { edited, told: Ok(()) }) if edited.is_empty() => {
                SwapError::RolledBack { runtime, source, journal_lines }
            }
            Ok(WentBack { edited, .. }) => {
                SwapError::RolledBackLines { runtime, edited, source, journal_lines }
            }
        }
    }

    /// Puts the bytes back and restarts where the daemon may have read the new ones.
    async fn go_back(
        &mut self,
        entry: &Entry,
        stand_in: Option<&StandIn>,
        untouched: Option<&Path>,
    ) -> Result<WentBack, SwapError> {
        let known = self.journal.entries.iter().find(|known| known.id == entry.id);
        let stage = known.map_or(entry.stage, |known| known.stage);
        // A full disk must not keep the old bytes from coming back: the journal is only told.
        let told = self.journal.advance(entry.id, Stage::RollingBack);
        let mut edited = Vec::new();
        for (record, file) in entry.files.iter().zip(&self.plan.files) {
            if untouched == Some(&record.path) {
                remove_leftovers(&record.path);
                continue;
            }
            match restore(record, file.edit.before.as_bytes(), file.edit.after.as_bytes()) {
                Err(SwapError::ChangedMeanwhile { path }) => {
                    take_out_lines(record)?;
                    edited.push(path);
                }
                outcome => outcome?,
            }
        }
        if let Some(stand_in) = stand_in {
            stand_in.take_back()?;
        }
        if stage.may_have_restarted() {
            let daemon = &self.plan.daemon;
            let limit = self.request.timeout;
            restart::restart_for_rollback(self.systemd, &daemon.unit, &daemon.socket, limit).await?;
        }
        let told = told.and_then(|()| self.journal.advance(entry.id, Stage::RolledBack));
        if told.is_ok() {
            self.journal.forget_backups();
        }
        Ok(WentBack { edited, told })
    }
}

/// A signal ends the swap between two steps, with everything put back, and never in the middle of one.
fn catch_signals() -> Result<Arc<AtomicBool>, SwapError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag))
            .map_err(SwapError::file("catch signals of", "/proc/self"))?;
    }
    Ok(flag)
}

fn open_entry(
    plan: &Plan,
    request: &SwapRequest,
    stand_in: Option<&StandIn>,
    journal: &mut Journal,
) -> Result<Entry, SwapError> {
    let id = journal.next_id();
    let mut files = Vec::new();
    for (index, file) in plan.files.iter().enumerate() {
        files.push(FileRecord {
            path: file.path.clone(),
            existed: file.existed,
            backup: journal.keep(id, index, file.edit.before.as_bytes())?,
            after_sha256: sha256(file.edit.after.as_bytes()),
            between_sha256: None,
            hunks: file.edit.hunks.clone(),
        });
    }
    let entry = Entry {
        id,
        began: now(),
        runtime: request.runtime.clone(),
        handler: plan.chosen.handler.clone(),
        binary: plan.chosen.file.clone(),
        is_default: plan.make_default,
        unit: plan.daemon.unit.as_str().to_owned(),
        socket: plan.daemon.socket.clone(),
        restarted: false,
        applied: false,
        files,
        stand_in: stand_in.map(|stand_in| stand_in.link().to_owned()),
        stage: Stage::Planned,
    };
    journal.entries.push(entry.clone());
    journal.save()?;
    Ok(entry)
}

/// Puts one file back to the bytes that were there, unless somebody else changed it meanwhile.
pub(super) fn restore(record: &FileRecord, before: &[u8], after: &[u8]) -> Result<(), SwapError> {
    remove_leftovers(&record.path);
    let current = read_file(&record.path)?;
    if current.as_deref() == Some(after) {
        return if record.existed {
            restore_file(&record.path, after, before)
        } else {
            remove_file(&record.path, after)
        };
    }
    let untouched = if record.existed { current.as_deref() == Some(before) } else { current.is_none() };
    if untouched { Ok(()) } else { Err(SwapError::ChangedMeanwhile { path: record.path.clone() }) }
}
