//! From a validated spec to what parent and init will do, with every string laid out as the kernel takes it. Pure.

use std::ffi::CString;
use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType, Mount, Process, Spec};

use crate::capabilities::CapabilityPlan;
use crate::credentials::Credentials;
use crate::hooks::HookPlan;
use crate::net_devices::NetDevice;
use crate::rootfs::devices::{DevicePlan, default_devices};
use crate::rootfs::options::{ATTR_RDONLY, BindAttributes, MountOptions};
use crate::scheduling::{SchedulingPlan, plan_memory_policy, plan_personality};
use crate::seccomp::Program;
use crate::sys::{MountAttributes, StringList};
use crate::validate::{InvalidSpec, check_proc_target, invalid};

/// What a process of the container is to be: the init process, or one that enters later.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) arguments: StringList,
    pub(crate) environment: StringList,
    /// Where the program may be, in the order of `PATH`; one entry if its name has a slash.
    pub(crate) candidates: Vec<CString>,
    /// The program as the spec names it, for messages.
    pub(crate) program: String,
    pub(crate) cwd: CString,
    /// Found out by init: it is the working directory already.
    pub(crate) cwd_is_open_to_root: bool,
    pub(crate) credentials: Credentials,
    pub(crate) capabilities: CapabilityPlan,
    pub(crate) no_new_privileges: bool,
    pub(crate) seccomp: Option<Program>,
    pub(crate) apparmor: Option<Vec<u8>>,
    pub(crate) selinux: Option<Vec<u8>>,
    pub(crate) scheduling: SchedulingPlan,
    /// With a terminal, and its size in rows and columns where the spec gives one.
    pub(crate) terminal: Option<Option<(u16, u16)>>,
    /// Descriptors after 2 that the payload keeps.
    pub(crate) preserve_fds: u32,
    /// `HOME` is to be looked up in the container's `/etc/passwd`.
    pub(crate) needs_home: bool,
}

impl ProcessPlan {
    /// Whether the next execve is to take on a label of a security module.
    pub(crate) fn has_labels(&self) -> bool {
        self.apparmor.is_some() || self.selinux.is_some()
    }
}

/// A namespace of the spec: its clone flag, and where it is if it exists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct NamespacePlan {
    pub(crate) flag: i32,
    pub(crate) path: Option<PathBuf>,
}

/// A mount, as the init process makes it.
#[derive(Debug)]
pub(crate) struct MountPlan {
    /// Below the root, without a leading slash, `.` or `..`.
    pub(crate) target: CString,
    pub(crate) kind: MountKind,
    /// What is to hold for the mounts below as well.
    pub(crate) recursive: MountAttributes,
    pub(crate) propagation: Vec<u64>,
}

/// The kinds of mounts.
#[derive(Debug)]
pub(crate) enum MountKind {
    /// A new instance of a file system.
    Filesystem {
        kind: CString,
        source: CString,
        flags: u64,
        data: CString,
        /// procfs and sysfs go on real directories only, never through a symlink.
        strict: bool,
        /// tmpfs that starts with the content of the directory it covers.
        copy_up: bool,
        /// Has the option `ro`, which waits until everything is made in it.
        is_closed: bool,
    },
    /// Part of the host's tree.
    Bind {
        source: CString,
        /// The source below the container's root, if it is there: an earlier mount of the spec may bring it.
        inner: Option<CString>,
        recursive: bool,
        attributes: BindAttributes,
        idmap: Option<IdmapPlan>,
    },
    /// The container's cgroup.
    Cgroup { flags: u64, attributes: MountAttributes },
}

/// The mapping of an id-mapped mount.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct IdmapPlan {
    pub(crate) recursive: bool,
    /// `uid_map` and `gid_map`; `None` for the container's own user namespace.
    pub(crate) maps: Option<(String, String)>,
}

/// The container's file system.
#[derive(Debug)]
pub(crate) struct RootfsPlan {
    /// On the host.
    pub(crate) path: CString,
    pub(crate) readonly: bool,
    pub(crate) mounts: Vec<MountPlan>,
    /// `None` where `/dev` is the host's, bound.
    pub(crate) devices: Option<Vec<DevicePlan>>,
    pub(crate) masked: Vec<CString>,
    pub(crate) readonly_paths: Vec<CString>,
    /// For `/` before anything is mounted.
    pub(crate) propagation: u64,
    /// `linux.rootfsPropagation`, set at the end.
    pub(crate) root_propagation: Option<u64>,
    pub(crate) no_pivot: bool,
    /// The mount namespace is another's too, the host's or one by path: its root stays what it is.
    pub(crate) shares_mounts: bool,
}

/// Everything `create` and `run` do.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) namespaces: Vec<NamespacePlan>,
    pub(crate) rootfs: RootfsPlan,
    pub(crate) process: ProcessPlan,
    pub(crate) hostname: Option<CString>,
    pub(crate) domainname: Option<CString>,
    /// Paths below `/proc`, and what is written there.
    pub(crate) sysctls: Vec<(CString, Vec<u8>)>,
    pub(crate) hooks: HookPlan,
    /// Devices of the host that move in.
    pub(crate) net_devices: Vec<NetDevice>,
}

impl Plan {
    /// The flags of the namespaces that are new.
    pub(crate) fn new_namespaces(&self) -> i32 {
        self.namespaces.iter().filter(|one| one.path.is_none()).fold(0, |flags, one| flags | one.flag)
    }

    /// Whether something needs the host's procfs after the root has changed.
    pub(crate) fn needs_host_proc_inside(&self) -> bool {
        self.process.has_labels() || !self.hooks.start_container.is_empty()
    }

    /// The user of the container whose its cgroup is to be, if that is not the runtime's own anyway. config-linux.md, "Cgroup
    /// ownership": of one with a new cgroup namespace and a cgroup file system that can be written to.
    pub(crate) fn cgroup_owner(&self) -> Option<u32> {
        let is_writable = |mount: &MountPlan| matches!(mount.kind, MountKind::Cgroup { flags, .. } if flags & libc::MS_RDONLY == 0);
        let uid = self.process.credentials.uid;
        let is_another = uid != 0 || self.has_namespace(libc::CLONE_NEWUSER);
        let has_own = self.new_namespaces() & libc::CLONE_NEWCGROUP != 0;
        (has_own && is_another && self.rootfs.mounts.iter().any(is_writable)).then_some(uid)
    }

    /// Where the namespace of this kind is that the container joins.
    pub(crate) fn namespace_path(&self, flag: i32) -> Option<&Path> {
        self.namespaces.iter().find(|one| one.flag == flag)?.path.as_deref()
    }

    /// Whether the container has its own namespace of this kind, new or by path.
    pub(crate) fn has_namespace(&self, flag: i32) -> bool {
        self.namespaces.iter().any(|one| one.flag == flag)
    }
}

/// Options of the command line that change the plan.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PlanOptions {
    pub(crate) no_pivot: bool,
    /// Those of a listener among them too.
    pub(crate) preserve_fds: u32,
    /// How many of the caller's descriptors, from 3 on, are sockets that it listens on for the program (sd_listen_fds(3)).
    pub(crate) listen_fds: u32,
}

/// Plans a container.
///
/// # Errors
/// [`InvalidSpec`] for what validation alone cannot see.
///
/// `rootfs` is the root's absolute path; relative sources of bind mounts start from `bundle`.
pub(crate) fn plan(
    spec: &Spec,
    bundle: &Path,
    rootfs: &Path,
    options: PlanOptions,
) -> Result<Plan, InvalidSpec> {
    let process = spec.process().as_ref().ok_or_else(|| invalid("process", "it is missing"))?;
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux", "it is missing"))?;
    let namespaces = linux
        .namespaces()
        .iter()
        .flatten()
        .map(|one| NamespacePlan { flag: flag(one.typ()), path: namespace_path(one).map(Path::to_path_buf) })
        .collect();
    let seccomp = match linux.seccomp() {
        Some(profile) => Some(
            crate::seccomp::compile(profile).map_err(|error| invalid("linux.seccomp", &error.to_string()))?,
        ),
        None => None,
    };
    let mut sysctls = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        let path = CString::new(format!("sys/{}", sysctl_path(key)));
        let path = path.map_err(|_| invalid("linux.sysctl", "a key has a zero byte"))?;
        sysctls.push((path, value.clone().into_bytes()));
    }
    Ok(Plan {
        namespaces,
        rootfs: plan_rootfs(spec, bundle, rootfs, options)?,
        process: plan_init(process, linux, seccomp, options)?,
        hostname: optional_string("hostname", spec.hostname().as_deref())?,
        domainname: optional_string("domainname", spec.domainname().as_deref())?,
        sysctls,
        hooks: HookPlan::from_spec(spec.hooks().as_ref())?,
        net_devices: crate::net_devices::plan(linux)?,
    })
}

/// `net.ipv4.ip_forward` or `net/ipv4/ip_forward` to the path below `/proc/sys`.
pub(crate) fn sysctl_path(key: &str) -> String {
    let first = key.find(['.', '/']);
    match first.map(|position| key.as_bytes()[position]) {
        Some(b'/') => key.to_owned(),
        _ => key.replace('/', "\u{0}").replace('.', "/").replace('\u{0}', "."),
    }
}

fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

/// `CLONE_NEWTIME` of `linux/sched.h`.
pub(crate) const CLONE_NEWTIME: i32 = 0x80;

fn plan_rootfs(
    spec: &Spec,
    bundle: &Path,
    path: &Path,
    options: PlanOptions,
) -> Result<RootfsPlan, InvalidSpec> {
    let linux = spec.linux().as_ref().ok_or_else(|| invalid("linux", "it is missing"))?;
    let label = linux.mount_label().as_deref().filter(|label| !label.is_empty());
    let mut mounts = Vec::new();
    let mut is_dev_bound = false;
    for (index, mount) in spec.mounts().iter().flatten().enumerate() {
        let plan = plan_mount(index, mount, (bundle, path), label)?;
        is_dev_bound |= plan.target.to_bytes() == b"dev" && matches!(plan.kind, MountKind::Bind { .. });
        mounts.push(plan);
    }
    let root_propagation = linux.rootfs_propagation().as_deref().filter(|name| !name.is_empty());
    let root_propagation = root_propagation.and_then(crate::rootfs::options::propagation);
    let mut devices = default_devices();
    // The defaults that the spec has not given otherwise stay in front of its own.
    let mut defaults = devices.len();
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let planned = DevicePlan::from_spec(device)?;
        if devices[defaults..].iter().any(|one| one.is_at(device.path()) && *one != planned) {
            let field = format!("linux.devices[{index}].path");
            return Err(invalid(&field, "another device is to be there already"));
        }
        defaults -= devices[..defaults].iter().filter(|one| one.is_at(device.path())).count();
        devices.retain(|one: &DevicePlan| !one.is_at(device.path()));
        // config-linux.md, "Default Devices": that is a link to the container's own terminals, whoever lists the host's devices.
        if !planned.is_at(Path::new("/dev/ptmx")) {
            devices.push(planned);
        }
    }
    let paths = |field: &'static str, list: &Option<Vec<String>>| -> Result<Vec<CString>, InvalidSpec> {
        list.iter().flatten().map(|path| relative(field, Path::new(path))).collect()
    };
    Ok(RootfsPlan {
        path: c_string("root.path", path.as_os_str().as_encoded_bytes())?,
        readonly: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
        mounts,
        devices: (!is_dev_bound).then_some(devices),
        masked: paths("linux.maskedPaths", linux.masked_paths())?,
        readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths())?,
        propagation: match root_propagation {
            // A shared root would send the container's mounts to the host: `shared` is set at the end, on the new root alone.
            Some(flags) if flags & libc::MS_PRIVATE != 0 => libc::MS_PRIVATE | libc::MS_REC,
            _ => libc::MS_SLAVE | libc::MS_REC,
        },
        root_propagation,
        no_pivot: options.no_pivot,
        shares_mounts: shares_mounts(linux),
    })
}

/// The path of a namespace to join. An empty one is none, as runc writes it.
pub(crate) fn namespace_path(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// The flags of all namespaces of the spec, new and by path.
pub(crate) fn namespace_flags(namespaces: &[LinuxNamespace]) -> i32 {
    namespaces.iter().fold(0, |flags, one| flags | flag(one.typ()))
}

/// Whether a container has no mount namespace made for it.
pub(crate) fn shares_mounts(linux: &oci_spec::runtime::Linux) -> bool {
    let is_new = |one: &oci_spec::runtime::LinuxNamespace| {
        one.typ() == LinuxNamespaceType::Mount && namespace_path(one).is_none()
    };
    !linux.namespaces().iter().flatten().any(is_new)
}

fn plan_mount(
    index: usize,
    mount: &Mount,
    (bundle, rootfs): (&Path, &Path),
    label: Option<&str>,
) -> Result<MountPlan, InvalidSpec> {
    let field = |name: &str| format!("mounts[{index}].{name}");
    let options = MountOptions::from_spec(mount);
    let target = plan_target(&field("destination"), mount, &options, rootfs)?;
    let source = mount.source().as_deref().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
    let kind = mount.typ().as_deref().unwrap_or("");
    let kind = if let Some(recursive) = options.bind {
        let source =
            mount.source().as_deref().ok_or_else(|| invalid(&field("source"), "a bind mount needs it"))?;
        let source = bundle.join(source);
        // One that leads out again is the host's.
        let below = source.strip_prefix(rootfs).ok();
        let below = below.filter(|below| !has_parent(below));
        let inner = below.map(|below| relative(&field("source"), below)).transpose()?;
        let source = source.as_os_str().as_encoded_bytes();
        let idmap = plan_idmap(&field("uidMappings"), mount, &options)?;
        if inner.is_some() && idmap.as_ref().is_some_and(|idmap| idmap.maps.is_none()) {
            return Err(invalid(&field("options"), "a source in the container needs a map of its own"));
        }
        let attributes = options.bind_attributes();
        MountKind::Bind { source: c_string(&field("source"), source)?, inner, recursive, attributes, idmap }
    } else if kind == "cgroup" || kind == "cgroup2" {
        MountKind::Cgroup { flags: options.flags, attributes: options.attributes }
    } else {
        let data = match label {
            Some(label) if !matches!(kind, "proc" | "sysfs" | "mqueue") => with_label(&options.data, label),
            _ => options.data.clone(),
        };
        // As with runc and crun: nodes, places of later mounts and what is copied up would find no room otherwise.
        let is_filled =
            target.to_bytes() == b"dev" || kind == "tmpfs" && options.flags & libc::MS_REMOUNT == 0;
        let is_closed = is_filled && options.flags & libc::MS_RDONLY != 0;
        MountKind::Filesystem {
            kind: c_string(&field("type"), kind.as_bytes())?,
            source: c_string(&field("source"), source.as_deref().unwrap_or(kind.as_bytes()))?,
            flags: if is_closed { options.flags & !libc::MS_RDONLY } else { options.flags },
            data: c_string(&field("options"), data.as_bytes())?,
            strict: matches!(kind, "proc" | "sysfs"),
            copy_up: options.copy_up,
            is_closed,
        }
    };
    Ok(MountPlan { target, kind, recursive: options.recursive, propagation: options.propagation })
}

/// The target below the root. As with runc, a destination that starts with the root's own path means what is there.
fn plan_target(
    field: &str,
    mount: &Mount,
    options: &MountOptions,
    rootfs: &Path,
) -> Result<CString, InvalidSpec> {
    let destination = mount.destination();
    let below = destination.strip_prefix(rootfs).ok().filter(|_| rootfs != Path::new("/"));
    match below.filter(|below| !has_parent(below)) {
        Some(below) => {
            // Checked by its long name alone so far.
            check_proc_target(field, below, mount.typ().as_deref(), options.bind.is_some())?;
            relative(field, below)
        }
        None => relative(field, destination),
    }
}

fn has_parent(path: &Path) -> bool {
    path.components().any(|part| part == Component::ParentDir)
}

fn with_label(data: &str, label: &str) -> String {
    let comma = if data.is_empty() { "" } else { "," };
    format!("{data}{comma}context=\"{label}\"")
}

fn plan_idmap(field: &str, mount: &Mount, options: &MountOptions) -> Result<Option<IdmapPlan>, InvalidSpec> {
    let maps = match (mount.uid_mappings(), mount.gid_mappings()) {
        (Some(uids), Some(gids)) if !uids.is_empty() && !gids.is_empty() => {
            Some((crate::user_namespace::format_map(uids), crate::user_namespace::format_map(gids)))
        }
        (None, None) => None,
        _ => return Err(invalid(field, "uidMappings and gidMappings must both be given, or neither")),
    };
    if maps.is_none() && options.idmap.is_none() {
        return Ok(None);
    }
    Ok(Some(IdmapPlan { recursive: options.idmap.unwrap_or(false), maps }))
}

/// Plans the init process, which gets what `linux` says of it as well.
fn plan_init(
    process: &Process,
    linux: &Linux,
    seccomp: Option<Program>,
    options: PlanOptions,
) -> Result<ProcessPlan, InvalidSpec> {
    let mut plan = if options.listen_fds == 0 {
        plan_process(process, seccomp, options.preserve_fds)?
    } else {
        let mut process = process.clone();
        let mut environment = process.env().clone().unwrap_or_default();
        environment.extend([format!("LISTEN_FDS={}", options.listen_fds), "LISTEN_PID=1".to_owned()]);
        process.set_env(Some(environment));
        plan_process(&process, seccomp, options.preserve_fds)?
    };
    plan.scheduling.personality = linux.personality().as_ref().map(plan_personality).transpose()?;
    plan.scheduling.memory_policy = linux.memory_policy().as_ref().map(plan_memory_policy).transpose()?;
    Ok(plan)
}

/// Plans a process, of the spec or of `exec`.
pub(crate) fn plan_process(
    process: &Process,
    seccomp: Option<Program>,
    preserve_fds: u32,
) -> Result<ProcessPlan, InvalidSpec> {
    let list = |field: &'static str, strings: &[String]| -> Result<StringList, InvalidSpec> {
        let strings = strings.iter().map(|one| c_string(field, one.as_bytes()));
        Ok(StringList::new(strings.collect::<Result<_, _>>()?))
    };
    let arguments = process.args().as_deref().unwrap_or_default();
    let program = arguments.first().cloned().ok_or_else(|| invalid("process.args", "it is empty"))?;
    let mut environment = deduplicate(process.env().as_deref().unwrap_or_default());
    // An empty one counts as none: it is looked up.
    environment.retain(|one| one != "HOME=");
    let text = |value: &Option<String>| value.clone().filter(|text| !text.is_empty()).map(String::into_bytes);
    let size =
        |value: u64| u16::try_from(value).map_err(|_| invalid("process.consoleSize", "it is above 65535"));
    let terminal = match (process.terminal().unwrap_or(false), process.console_size()) {
        (false, _) => None,
        (true, None) => Some(None),
        (true, Some(console)) => Some(Some((size(console.height())?, size(console.width())?))),
    };
    Ok(ProcessPlan {
        candidates: candidates(&program, &environment)?,
        needs_home: !environment.iter().any(|one| one.starts_with("HOME=")),
        environment: list("process.env", &environment)?,
        arguments: list("process.args", arguments)?,
        program,
        cwd_is_open_to_root: false,
        cwd: c_string("process.cwd", process.cwd().as_os_str().as_encoded_bytes())?,
        credentials: Credentials::from_spec(process.user()),
        capabilities: CapabilityPlan::from_spec(process.capabilities().as_ref()),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        seccomp,
        apparmor: text(process.apparmor_profile()).map(|profile| [b"exec ".as_slice(), &profile].concat()),
        selinux: text(process.selinux_label()),
        scheduling: SchedulingPlan::from_spec(process)?,
        terminal,
        preserve_fds,
    })
}

/// Of variables given twice the last one counts.
fn deduplicate(environment: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split_once('=').map(|(name, _)| name.to_owned());
    let is_last = |index: usize, variable: &String| {
        let own = name(variable);
        !environment[index + 1..].iter().any(|later| own.is_some() && name(later) == own)
    };
    environment
        .iter()
        .enumerate()
        .filter(|(index, one)| is_last(*index, one))
        .map(|(_, one)| one.clone())
        .collect()
}

fn candidates(program: &str, environment: &[String]) -> Result<Vec<CString>, InvalidSpec> {
    if program.contains('/') {
        return Ok(vec![c_string("process.args", program.as_bytes())?]);
    }
    // Without a search path there is nowhere to look, the working directory neither: as with runc and crun.
    let path = environment.iter().find_map(|one| one.strip_prefix("PATH=")).filter(|path| !path.is_empty());
    path.iter()
        .flat_map(|path| path.split(':'))
        .map(|directory| if directory.is_empty() { "." } else { directory })
        .map(|directory| c_string("process.args", format!("{directory}/{program}").as_bytes()))
        .collect()
}

/// An absolute path of the container as one below its root: `.` and `..` resolved by the text, which is what a container
/// sees of paths above its root, too.
pub(crate) fn relative(field: &str, path: &Path) -> Result<CString, InvalidSpec> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    c_string(field, clean.as_os_str().as_encoded_bytes())
}

fn optional_string(field: &str, text: Option<&str>) -> Result<Option<CString>, InvalidSpec> {
    text.filter(|text| !text.is_empty()).map(|text| c_string(field, text.as_bytes())).transpose()
}

/// A string for the kernel.
pub(crate) fn c_string(field: &str, bytes: &[u8]) -> Result<CString, InvalidSpec> {
    CString::new(bytes).map_err(|_| invalid(field, "it has a zero byte"))
}

/// The read-only attribute alone.
pub(crate) const READ_ONLY: MountAttributes =
    MountAttributes { set: ATTR_RDONLY, clear: 0, propagation: 0, user_namespace: 0 };

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests;
