//! `linux.intelRdt`: cache and memory bandwidth of a container through the kernel's resctrl file system
//! (`Documentation/arch/x86/resctrl.rst`, runtime-spec's config-linux.md).
//!
//! What was made is found again from the spec and the container's ID alone, so that `delete` removes it also where the
//! runtime was killed in between.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxIntelRdt, Spec};

use crate::error::RuntimeError;
use crate::step::{Step, StepError};
use crate::validate::{InvalidSpec, invalid};

/// Where resctrl is mounted.
const RESCTRL: &str = "/sys/fs/resctrl";
/// Its magic number (`RDTGROUP_SUPER_MAGIC` of `linux/magic.h`).
const RESCTRL_MAGIC: i64 = 0x0765_5821;

/// What the spec asks for.
#[derive(Clone, Debug, Eq, PartialEq)]
struct RdtPlan {
    /// The class of service: a directory below resctrl's root, which is the empty name.
    class: String,
    /// `closID` is absent: the class is the container's own, and goes with it.
    is_own: bool,
    /// Lines for `schemata`, in this order.
    schemata: Vec<String>,
    /// The monitoring group's name.
    monitor: Option<String>,
}

/// Plans what `rdt` says for container `id`.
///
/// # Errors
/// [`InvalidSpec`] for an ID that leads elsewhere, and for schemata that are no lines.
fn plan(rdt: &LinuxIntelRdt, id: &str) -> Result<RdtPlan, InvalidSpec> {
    let given = rdt.clos_id().as_deref().filter(|class| !class.is_empty());
    // `/` is the class that everything is in by default.
    let class = given.unwrap_or(id);
    let class = if class == "/" { "" } else { class };
    if class == "." || class == ".." || class.contains(['/', '\n', '\0']) {
        return Err(invalid("linux.intelRdt.closID", "it is no name of a directory"));
    }
    let lines = |text: &Option<String>| -> Vec<String> {
        text.iter().flat_map(|text| text.lines()).map(str::to_owned).filter(|line| !line.is_empty()).collect()
    };
    let (mut schemata, bandwidth) = (lines(rdt.l3_cache_schema()), lines(rdt.mem_bw_schema()));
    if !bandwidth.is_empty() {
        // runtime-spec: then a line for MB among the cache's does not count.
        schemata.retain(|line| !line.trim_start().starts_with("MB:"));
    }
    schemata.extend(bandwidth);
    // The complete list comes last: it overrides the others.
    schemata.extend(rdt.schemata().iter().flatten().cloned());
    if schemata.iter().any(|line| line.contains(['\n', '\0']) || !line.contains(':')) {
        return Err(invalid(
            "linux.intelRdt.schemata",
            "each entry is one line of the form RESOURCE:DOMAIN=VALUE;...",
        ));
    }
    let monitor = rdt.enable_monitoring().unwrap_or(false).then(|| id.to_owned());
    Ok(RdtPlan { class: class.to_owned(), is_own: given.is_none(), schemata, monitor })
}

/// Checks what `rdt` says, whatever the host offers.
///
/// # Errors
/// [`InvalidSpec`] as the plan.
pub(crate) fn check(rdt: &LinuxIntelRdt) -> Result<(), InvalidSpec> {
    plan(rdt, "container").map(|_| ())
}

/// The root of resctrl.
///
/// # Errors
/// [`InvalidSpec`] where it is not mounted: the processor or the kernel has no resource control.
fn locate() -> Result<PathBuf, InvalidSpec> {
    let is_mounted = rustix::fs::statfs(RESCTRL).is_ok_and(|stat| stat.f_type == RESCTRL_MAGIC);
    if is_mounted {
        return Ok(RESCTRL.into());
    }
    Err(invalid(
        "linux.intelRdt",
        "no resctrl file system is at `/sys/fs/resctrl`: it takes a processor with resource control, and \
         `mount -t resctrl resctrl /sys/fs/resctrl`",
    ))
}

/// A plan, and where resctrl is mounted.
#[derive(Debug)]
pub(crate) struct ResourceClass {
    plan: RdtPlan,
    root: PathBuf,
}

impl ResourceClass {
    /// What the spec asks for, if it does.
    ///
    /// # Errors
    /// [`RuntimeError`] where the kernel offers no resource control.
    pub(crate) fn from_spec(spec: &Spec, id: &str) -> Result<Option<Self>, RuntimeError> {
        let Some(rdt) = spec.linux().as_ref().and_then(|linux| linux.intel_rdt().as_ref()) else {
            return Ok(None);
        };
        Ok(Some(ResourceClass { plan: plan(rdt, id)?, root: locate()? }))
    }

    /// [`RdtPlan::apply`].
    pub(crate) fn apply(&self, pid: i32) -> Result<(), StepError> {
        self.plan.apply(&self.root, pid)
    }

    /// [`RdtPlan::remove`].
    pub(crate) fn remove(&self) -> Result<(), StepError> {
        self.plan.remove(&self.root)
    }
}

impl RdtPlan {
    fn directory(&self, root: &Path) -> PathBuf {
        if self.class.is_empty() { root.to_path_buf() } else { root.join(&self.class) }
    }

    fn monitor_directory(&self, root: &Path) -> Option<PathBuf> {
        Some(self.directory(root).join("mon_groups").join(self.monitor.as_deref()?))
    }

    /// Puts process `pid` into its class, made and limited if the spec says how.
    ///
    /// # Errors
    /// [`StepError`], with what the kernel says in `info/last_cmd_status`.
    fn apply(&self, root: &Path, pid: i32) -> Result<(), StepError> {
        let directory = self.directory(root);
        if !self.is_own && self.schemata.is_empty() && !directory.is_dir() {
            let reason = "it has to be there already where no schema is given";
            return Err(StepError::refused("use the class of service", directory.display(), reason));
        }
        make(root, &directory)?;
        if !self.schemata.is_empty() {
            // One write a line: the kernel names the wrong one.
            for line in &self.schemata {
                write(root, &directory.join("schemata"), &format!("{line}\n"))?;
            }
        }
        write(root, &directory.join("tasks"), &pid.to_string())?;
        let Some(monitor) = self.monitor_directory(root) else { return Ok(()) };
        make(root, &monitor)?;
        write(root, &monitor.join("tasks"), &pid.to_string())
    }

    /// Removes what belongs to this container alone; that it is gone is no error.
    ///
    /// # Errors
    /// [`StepError`] if the kernel keeps it.
    fn remove(&self, root: &Path) -> Result<(), StepError> {
        let path = if self.is_own { Some(self.directory(root)) } else { self.monitor_directory(root) };
        let Some(path) = path else { return Ok(()) };
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).step("remove", path.display())
            }
            _ => Ok(()),
        }
    }
}

fn make(root: &Path, directory: &Path) -> Result<(), StepError> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => explain(root, result).step("make", directory.display()),
    }
}

fn write(root: &Path, file: &Path, text: &str) -> Result<(), StepError> {
    let written = fs::OpenOptions::new().write(true).open(file);
    let written = written.and_then(|mut file| io::Write::write_all(&mut file, text.as_bytes()));
    explain(root, written).step("write", format_args!("{} to {}", text.trim_end(), file.display()))
}

/// Adds what the kernel says about its last refusal.
fn explain<T>(root: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match fs::read_to_string(root.join("info/last_cmd_status")) {
        Ok(status) if !matches!(status.trim(), "" | "ok") => {
            io::Error::new(error.kind(), format!("{error}: {}", status.trim()))
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan_of(json: &str) -> Result<RdtPlan, InvalidSpec> {
        plan(&serde_json::from_str(json).unwrap(), "c1")
    }

    /// A directory with the files that the kernel puts into a class.
    fn class(path: &Path) {
        fs::create_dir_all(path.join("mon_groups/c1")).unwrap();
        for file in ["schemata", "tasks", "mon_groups/c1/tasks"] {
            fs::write(path.join(file), "").unwrap();
        }
    }

    #[test]
    fn schemas_are_combined_as_the_spec_says() {
        let both = plan_of(r#"{"l3CacheSchema":"L3:0=f\nMB:0=20","memBwSchema":"MB:0=70"}"#).unwrap();
        assert_eq!(both.schemata, ["L3:0=f", "MB:0=70"]);
        assert!(both.is_own && both.class == "c1" && both.monitor.is_none());
        let list =
            plan_of(r#"{"closID":"gold","schemata":["L3:0=f","MB:0=9"],"enableMonitoring":true}"#).unwrap();
        assert_eq!((list.class.as_str(), list.is_own, list.monitor.as_deref()), ("gold", false, Some("c1")));
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for json in [r#"{"closID":".."}"#, r#"{"closID":"a/b"}"#, r#"{"schemata":["no schema"]}"#] {
            assert!(plan_of(json).is_err(), "{json}");
        }
        assert_eq!(plan_of(r#"{"closID":"/"}"#).unwrap().class, "");
    }

    #[test]
    fn a_process_is_put_into_its_class_and_only_what_is_its_own_goes() {
        let root = tempfile::tempdir().unwrap();
        let json = r#"{"closID":"gold","schemata":["L3:0=f"],"enableMonitoring":true}"#;
        let shared = plan_of(json).unwrap();
        class(&root.path().join("gold"));
        shared.apply(root.path(), 42).unwrap();
        let read = |path: &str| fs::read_to_string(root.path().join(path)).unwrap();
        assert_eq!(read("gold/schemata"), "L3:0=f\n");
        assert_eq!((read("gold/tasks"), read("gold/mon_groups/c1/tasks")), ("42".into(), "42".into()));
        // The kernel removes a group's files with its directory; a plain file system does not.
        fs::remove_file(root.path().join("gold/mon_groups/c1/tasks")).unwrap();
        shared.remove(root.path()).unwrap();
        assert!(root.path().join("gold").exists() && !root.path().join("gold/mon_groups/c1").exists());
        let absent = plan_of(r#"{"closID":"silver"}"#).unwrap();
        assert!(crate::step::chain(&absent.apply(root.path(), 42).unwrap_err()).contains("has to be there"));
        fs::create_dir(root.path().join("c1")).unwrap();
        plan_of("{}").unwrap().remove(root.path()).unwrap();
        assert!(!root.path().join("c1").exists());
    }
}
