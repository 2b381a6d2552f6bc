//! What the runtime refuses, all of it before anything is done, naming the field. Pure.

use std::path::Path;

use oci_spec::runtime::{Linux, LinuxNamespaceType, LinuxSeccompAction, Process, Spec};

use crate::plan::namespace_path;
use crate::rootfs::options::{MountOptions, propagation};

/// A spec that cannot be honoured.
#[derive(Debug, thiserror::Error)]
#[error("invalid spec: `{field}`: {reason}")]
pub struct InvalidSpec {
    field: String,
    reason: String,
}

/// Names a field and what is wrong with it.
pub(crate) fn invalid(field: &str, reason: &str) -> InvalidSpec {
    InvalidSpec { field: field.to_owned(), reason: reason.to_owned() }
}

fn ensure(holds: bool, field: &str, reason: &str) -> Result<(), InvalidSpec> {
    if holds { Ok(()) } else { Err(invalid(field, reason)) }
}

/// Checks a spec.
///
/// # Errors
/// [`InvalidSpec`] for the first field that cannot be honoured.
pub fn validate(spec: &Spec) -> Result<(), InvalidSpec> {
    check_version(spec.version())?;
    ensure(spec.windows().is_none(), "windows", "this runtime makes Linux containers")?;
    ensure(spec.solaris().is_none(), "solaris", "this runtime makes Linux containers")?;
    ensure(spec.vm().is_none(), "vm", "this runtime makes Linux containers")?;
    ensure(spec.zos().is_none(), "zos", "this runtime makes Linux containers")?;
    let root = spec.root().as_ref().ok_or_else(|| invalid("root", "it is missing"))?;
    ensure(!root.path().as_os_str().is_empty(), "root.path", "it is empty")?;
    let process = spec.process().as_ref().ok_or_else(|| invalid("process", "it is missing"))?;
    validate_process("process", process)?;
    check_namespaces(spec)?;
    check_user_namespace(spec)?;
    check_names(spec)?;
    check_mounts(spec)?;
    check_sysctls(spec)?;
    check_unsupported(spec)
}

fn check_version(version: &str) -> Result<(), InvalidSpec> {
    let mut numbers = version.split(['.', '-', '+']);
    let is_known = numbers.next() == Some("1")
        && numbers.next().is_some_and(|minor| minor.parse::<u32>().is_ok())
        && numbers.next().is_some_and(|patch| patch.parse::<u32>().is_ok());
    ensure(is_known, "ociVersion", "the runtime knows versions 1.x of runtime-spec")
}

/// Checks a process, of the spec or of `exec`.
///
/// # Errors
/// [`InvalidSpec`] as [`validate`].
pub fn validate_process(at: &str, process: &Process) -> Result<(), InvalidSpec> {
    let field = |name: &str| format!("{at}.{name}");
    ensure(process.args().as_ref().is_some_and(|args| !args.is_empty()), &field("args"), "it is empty")?;
    ensure(process.cwd().is_absolute(), &field("cwd"), "it is not absolute")?;
    ensure(process.command_line().is_none(), &field("commandLine"), "it belongs to Windows")?;
    ensure(process.user().username().is_none(), &field("user.username"), "it belongs to Windows")?;
    let groups = process.user().additional_gids().as_deref().unwrap_or_default();
    // (uid_t) -1 stands for "leave it as it is" in setresuid(2), and is nobody's.
    let is_id = |id: u32| id != u32::MAX;
    ensure(is_id(process.user().uid()), &field("user.uid"), "it is no user's: -1")?;
    let are_groups = is_id(process.user().gid()) && groups.iter().all(|gid| is_id(*gid));
    ensure(are_groups, &field("user"), "one of its groups is none: -1")?;
    ensure(
        process.user().umask().is_none_or(|mask| mask <= 0o777),
        &field("user.umask"),
        "it has bits beyond 0777",
    )?;
    ensure(
        process.oom_score_adj().is_none_or(|value| (-1000..=1000).contains(&value)),
        &field("oomScoreAdj"),
        "it is not between -1000 and 1000",
    )?;
    crate::scheduling::plan_affinity(process.exec_cpu_affinity().as_ref())?;
    for variable in process.env().iter().flatten() {
        let is_named = variable.find('=').is_some_and(|position| position > 0);
        ensure(is_named, &field("env"), &format!("{variable:?} is not of the form NAME=value"))?;
    }
    for limit in process.rlimits().iter().flatten() {
        ensure(limit.soft() <= limit.hard(), &field("rlimits"), "a soft limit is above its hard limit")?;
    }
    Ok(())
}

fn check_namespaces(spec: &Spec) -> Result<(), InvalidSpec> {
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux", "it is missing"))?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    for (index, one) in namespaces.iter().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        let is_double = namespaces[..index].iter().any(|other| other.typ() == one.typ());
        ensure(!is_double, &field, "its type is given twice")?;
        ensure(namespace_path(one).is_none_or(Path::is_absolute), &field, "its path is not absolute")?;
    }
    let find = |kind| namespaces.iter().find(|one| one.typ() == kind);
    let is_in_time = find(LinuxNamespaceType::Time).is_some_and(|one| namespace_path(one).is_none());
    let has_offsets = linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty());
    ensure(!has_offsets || is_in_time, "linux.timeOffsets", "they need a new time namespace")?;
    for clock in linux.time_offsets().iter().flatten().map(|(clock, _)| clock.as_str()) {
        ensure(
            matches!(clock, "monotonic" | "boottime"),
            "linux.timeOffsets",
            "only monotonic and boottime have one",
        )?;
    }
    Ok(())
}

fn check_user_namespace(spec: &Spec) -> Result<(), InvalidSpec> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let user = linux.namespaces().iter().flatten().find(|one| one.typ() == LinuxNamespaceType::User);
    let (uids, gids) = (linux.uid_mappings().iter().flatten(), linux.gid_mappings().iter().flatten());
    let (uid_count, gid_count) = (uids.clone().count(), gids.clone().count());
    match user.map(|one| namespace_path(one).is_some()) {
        None => {
            ensure(uid_count == 0, "linux.uidMappings", "they need a user namespace")?;
            ensure(gid_count == 0, "linux.gidMappings", "they need a user namespace")?;
            return Ok(());
        }
        Some(true) if (uid_count, gid_count) == (0, 0) => return Ok(()),
        // One by path may have them, too, if they are its own: so containerd and CRI-O describe the containers of a pod.
        Some(_) => {
            ensure(uid_count > 0, "linux.uidMappings", "a new user namespace needs them")?;
            ensure(gid_count > 0, "linux.gidMappings", "a new user namespace needs them")?;
        }
    }
    let Some(process) = spec.process() else { return Ok(()) };
    let is_mapped = |mappings: Vec<&oci_spec::runtime::LinuxIdMapping>, id: u32| {
        mappings.iter().any(|one| id >= one.container_id() && id - one.container_id() < one.size())
    };
    let (uids, gids) = (uids.collect::<Vec<_>>(), gids.collect::<Vec<_>>());
    ensure(is_mapped(uids.clone(), 0), "linux.uidMappings", "they map no root, whom the set-up needs")?;
    ensure(is_mapped(gids.clone(), 0), "linux.gidMappings", "they map no root, whom the set-up needs")?;
    ensure(is_mapped(uids, process.user().uid()), "process.user.uid", "the user namespace does not map it")?;
    ensure(
        is_mapped(gids.clone(), process.user().gid()),
        "process.user.gid",
        "the user namespace does not map it",
    )?;
    for gid in process.user().additional_gids().iter().flatten() {
        ensure(
            is_mapped(gids.clone(), *gid),
            "process.user.additionalGids",
            &format!("the user namespace does not map {gid}"),
        )?;
    }
    Ok(())
}

fn check_names(spec: &Spec) -> Result<(), InvalidSpec> {
    let has_uts = |field: &str| {
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
        let has = namespaces.is_some_and(|all| all.iter().any(|one| one.typ() == LinuxNamespaceType::Uts));
        ensure(has, field, "it needs a UTS namespace")
    };
    if spec.hostname().as_ref().is_some_and(|name| !name.is_empty()) {
        has_uts("hostname")?;
    }
    if spec.domainname().as_ref().is_some_and(|name| !name.is_empty()) {
        has_uts("domainname")?;
    }
    Ok(())
}

/// What may be mounted on inside `/proc`, as runc has it: files that LXCFS and the like stand in for.
const PROC_TARGETS: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

fn check_mounts(spec: &Spec) -> Result<(), InvalidSpec> {
    let namespaces = spec.linux().iter().filter_map(|linux| linux.namespaces().as_ref());
    let has_user_namespace = namespaces.flatten().any(|one| one.typ() == LinuxNamespaceType::User);
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let field = |name: &str| format!("mounts[{index}].{name}");
        let options = MountOptions::from_spec(mount);
        let is_bind = options.bind.is_some();
        if let Some(refused) = &options.refused {
            return Err(invalid(
                &field("options"),
                &format!("option {refused:?} makes no sense for a new mount"),
            ));
        }
        ensure(
            is_bind || mount.typ().as_ref().is_some_and(|kind| !kind.is_empty()),
            &field("type"),
            "it is missing",
        )?;
        if is_bind {
            let is_given = mount.source().as_ref().is_some_and(|path| !path.as_os_str().is_empty());
            ensure(is_given, &field("source"), "a bind mount needs it")?;
            ensure(
                options.data.is_empty(),
                &field("options"),
                &format!("a bind mount cannot have {:?}", options.data),
            )?;
        } else {
            let has_maps =
                mount.uid_mappings().is_some() || mount.gid_mappings().is_some() || options.idmap.is_some();
            ensure(!has_maps, &field("uidMappings"), "only a bind mount can be id-mapped")?;
        }
        let is_mapped = has_user_namespace || mount.uid_mappings().is_some() || options.idmap.is_none();
        ensure(is_mapped, &field("options"), "without a user namespace there are no ids to map it by")?;
        let is_tmpfs = mount.typ().as_deref() == Some("tmpfs");
        ensure(!options.copy_up || is_tmpfs, &field("options"), "tmpcopyup is for tmpfs")?;
        check_proc_target(&field("destination"), mount.destination(), mount.typ().as_deref(), is_bind)?;
    }
    Ok(())
}

/// Refuses what must not be mounted on: the root, `/proc` and most of what is in it.
pub(crate) fn check_proc_target(
    field: &str,
    destination: &Path,
    kind: Option<&str>,
    is_bind: bool,
) -> Result<(), InvalidSpec> {
    let clean = crate::plan::relative(field, destination)?;
    let clean = format!("/{}", clean.to_string_lossy());
    ensure(clean != "/", field, "nothing can be mounted over the root")?;
    if clean == "/proc" {
        return ensure(
            kind == Some("proc") || is_bind,
            field,
            "only a procfs or a bind mount can be mounted there",
        );
    }
    let is_inside = clean.starts_with("/proc/") && !PROC_TARGETS.contains(&clean.as_str());
    ensure(!is_inside, field, "it is inside /proc")
}

/// Sysctls that the IPC namespace has its own values of; `net.*` is the network namespace's.
const IPC_SYSCTLS: &[&str] = &[
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

fn check_sysctls(spec: &Spec) -> Result<(), InvalidSpec> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let has = |kind| linux.namespaces().iter().flatten().any(|one| one.typ() == kind);
    for key in linux.sysctl().iter().flatten().map(|(key, _)| key) {
        let field = format!("linux.sysctl.{key}");
        let name = crate::plan::sysctl_path(key).replace('/', ".");
        ensure(!name.contains(".."), &field, "it is no name of a sysctl")?;
        let (is_own, reason) = if IPC_SYSCTLS.contains(&name.as_str()) || name.starts_with("fs.mqueue.") {
            (has(LinuxNamespaceType::Ipc), "it needs an IPC namespace")
        } else if name.starts_with("net.") {
            (has(LinuxNamespaceType::Network), "it needs a network namespace")
        } else if name == "kernel.domainname" || name == "kernel.hostname" {
            (name == "kernel.domainname" && has(LinuxNamespaceType::Uts), "use the fields of the spec")
        } else if name.starts_with("user.") {
            (has(LinuxNamespaceType::User), "it needs a user namespace")
        } else {
            (false, "no namespace has its own value of it: it would change the host")
        };
        ensure(is_own, &field, reason)?;
    }
    Ok(())
}

fn check_unsupported(spec: &Spec) -> Result<(), InvalidSpec> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let name = linux.rootfs_propagation().as_deref().unwrap_or("");
    ensure(
        name.is_empty() || propagation(name).is_some(),
        "linux.rootfsPropagation",
        "it is none of shared, slave, private, unbindable or those with an r in front",
    )?;
    check_listener(linux)?;
    if let Some(rdt) = linux.intel_rdt() {
        crate::intel_rdt::check(rdt)?;
    }
    crate::net_devices::plan(linux)?;
    match linux.resources() {
        Some(resources) => crate::cgroup::Cgroup::validate(resources)
            .map_err(|error| invalid("linux.resources", &crate::step::chain(&error))),
        None => Ok(()),
    }
}

fn check_listener(linux: &Linux) -> Result<(), InvalidSpec> {
    let Some(profile) = linux.seccomp() else { return Ok(()) };
    let field = "linux.seccomp.listenerPath";
    if profile.listener_path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()) {
        return Ok(());
    }
    let metadata = profile.listener_metadata().as_deref().unwrap_or_default();
    ensure(metadata.is_empty(), field, "it is missing, and there is listenerMetadata for it")?;
    let mut rules = profile.syscalls().iter().flatten();
    let notifies = rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    ensure(!notifies, field, "it is missing, and a rule has SCMP_ACT_NOTIFY")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(change: impl FnOnce(&mut serde_json::Value)) -> Result<(), String> {
        let mut value = serde_json::to_value(crate::default_spec::default_spec(None)).unwrap();
        change(&mut value);
        let spec: Spec = serde_json::from_value(value).map_err(|error| error.to_string())?;
        validate(&spec).map_err(|error| error.to_string())
    }

    #[test]
    fn the_spec_that_the_runtime_writes_is_valid() {
        assert_eq!(check(|_| ()), Ok(()));
    }

    #[test]
    fn refusals_name_the_field() {
        type Change = fn(&mut serde_json::Value);
        let cases: &[(&str, Change)] = &[
            ("ociVersion", |spec| spec["ociVersion"] = "2.0.0".into()),
            ("process.args", |spec| spec["process"]["args"] = serde_json::json!([])),
            ("process.cwd", |spec| spec["process"]["cwd"] = "relative".into()),
            ("process.user.uid", |spec| spec["process"]["user"]["uid"] = u32::MAX.into()),
            ("process.user", |spec| spec["process"]["user"]["gid"] = u32::MAX.into()),
            ("process.user", |spec| {
                spec["process"]["user"]["additionalGids"] = serde_json::json!([1, u32::MAX])
            }),
            ("process.env", |spec| spec["process"]["env"] = serde_json::json!(["=x"])),
            ("hostname", |spec| spec["linux"]["namespaces"] = serde_json::json!([])),
            ("linux.namespaces[1]", |spec| {
                spec["linux"]["namespaces"] = serde_json::json!([{"type": "mount"}, {"type": "mount"}]);
            }),
            ("linux.uidMappings", |spec| {
                spec["linux"]["uidMappings"] =
                    serde_json::json!([{"containerID": 0, "hostID": 1, "size": 1}]);
            }),
            ("mounts[0].destination", |spec| spec["mounts"][0]["destination"] = "/proc/self".into()),
            ("mounts[0].destination", |spec| spec["mounts"][0]["destination"] = "/x/..".into()),
            ("linux.sysctl.kernel.panic", |spec| {
                spec["linux"]["sysctl"] = serde_json::json!({"kernel.panic": "1"});
            }),
            ("linux.timeOffsets", |spec| {
                spec["linux"]["timeOffsets"] = serde_json::json!({"monotonic": {"secs": 1}});
            }),
            ("linux.rootfsPropagation", |spec| spec["linux"]["rootfsPropagation"] = "sideways".into()),
            ("linux.seccomp.listenerPath", |spec| {
                spec["linux"]["seccomp"] =
                    serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerMetadata": "x"});
            }),
            ("linux.seccomp.listenerPath", |spec| {
                let rule = serde_json::json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"});
                spec["linux"]["seccomp"] =
                    serde_json::json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
            }),
            ("mounts[1].options", |spec| {
                spec["mounts"][1] = serde_json::json!({
                    "destination": "/x", "type": "bind", "source": "/x", "options": ["remount"]
                });
            }),
            ("mounts[1].options", |spec| {
                spec["mounts"][1] = serde_json::json!({
                    "destination": "/x", "type": "bind", "source": "/x", "options": ["ridmap"]
                });
            }),
            ("windows", |spec| spec["windows"] = serde_json::json!({"layerFolders": ["x"]})),
        ];
        for (field, change) in cases {
            let error = check(change).unwrap_err();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
    }
}
