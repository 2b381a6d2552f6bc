//! What can go wrong with a cgroup.

use std::io;
use std::path::PathBuf;

/// Why a cgroup could not be planned, made, limited, read or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// `/sys/fs/cgroup` is not a cgroup2 file system.
    #[error(
        "cannot use `{path}`: it is not a cgroup v2 hierarchy (this runtime supports neither cgroup v1 nor hybrid hosts)"
    )]
    NotUnified {
        /// The mount point.
        path: PathBuf,
    },
    /// A `cgroupsPath` the systemd driver cannot use. The text is runc's, which callers look for.
    #[error(
        "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got {path:?} instead"
    )]
    SystemdPath {
        /// The path of the spec.
        path: String,
    },
    /// A slice whose name systemd would refuse.
    #[error("invalid slice name: {slice}")]
    SliceName {
        /// The first part of `cgroupsPath`.
        slice: String,
    },
    /// A container that should be a slice: slices hold no processes.
    #[error("cannot run a container as systemd unit `{unit}`: a slice holds no processes")]
    SliceUnit {
        /// The unit's name.
        unit: String,
    },
    /// A `cgroupsPath` with a byte that no path of a cgroup can hold.
    #[error("cannot use cgroupsPath {path:?}: it is empty, leads outside or is not UTF-8")]
    Path {
        /// The path of the spec.
        path: PathBuf,
    },
    /// The runtime's own cgroup is not to be found.
    #[error("cannot find the runtime's own cgroup in `/proc/self/cgroup`")]
    OwnCgroup,
    /// A file or directory of the hierarchy could not be dealt with.
    #[error("cannot {operation} `{path}`")]
    File {
        /// The verb: open, read, write …
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A limit could not be written.
    #[error("cannot write {value:?} to `{path}`")]
    Write {
        /// What was written.
        value: String,
        /// The file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// A resource whose controller the cgroup lacks.
    #[error("cannot set `{file}` of cgroup `{cgroup}`: controller \"{controller}\" is not available there")]
    NoController {
        /// The interface file.
        file: String,
        /// The cgroup's directory.
        cgroup: PathBuf,
        /// The controller in front of the file name's dot.
        controller: String,
    },
    /// A resource of the spec that cgroup v2 has no equal for, or a value out of range.
    #[error("cannot honour `linux.resources.{field}`: {reason}")]
    Resource {
        /// The field below `linux.resources`.
        field: String,
        /// Why not.
        reason: String,
    },
    /// The limit would kill what is running. The text is runc's.
    #[error("rejecting {what} {limit} <= usage {usage}")]
    MemoryInUse {
        /// `memory limit` or `memory+swap limit`.
        what: &'static str,
        /// The limit in bytes.
        limit: i64,
        /// The usage in bytes.
        usage: u64,
    },
    /// Somebody else's processes are in the container's cgroup.
    #[error("container's cgroup is not empty: `{path}` has processes")]
    NotEmpty {
        /// The cgroup's directory.
        path: PathBuf,
    },
    /// A cgroup in which nothing could start.
    #[error("container's cgroup unexpectedly frozen: `{path}`")]
    Frozen {
        /// The cgroup's directory.
        path: PathBuf,
    },
    /// A cgroup that domain controllers cannot be used in.
    #[error("cannot enter cgroup v2 `{path}` with domain controllers: its type is {kind:?}")]
    Type {
        /// The cgroup's directory.
        path: PathBuf,
        /// What `cgroup.type` says.
        kind: String,
    },
    /// The kernel did not reach the wanted state in time.
    #[error("cannot {operation} cgroup `{path}` within {seconds} s")]
    Timeout {
        /// The verb: freeze, thaw, empty …
        operation: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The device rules could not be loaded or attached.
    #[error("cannot {operation} the device rules of cgroup `{path}`")]
    Devices {
        /// The verb: load, attach, replace …
        operation: &'static str,
        /// The cgroup's directory.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// systemd's bus is out of reach.
    #[error("cannot connect to systemd over {bus}")]
    Bus {
        /// Which bus.
        bus: String,
        /// What D-Bus says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// systemd refused a call.
    #[error("cannot {operation} systemd unit `{unit}`")]
    Unit {
        /// The verb: start, stop …
        operation: &'static str,
        /// The unit.
        unit: String,
        /// What systemd says.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A job of systemd ended otherwise than well.
    #[error("cannot {operation} systemd unit `{unit}`: its job ended with result `{result}`")]
    Job {
        /// The verb: start, stop …
        operation: &'static str,
        /// The unit.
        unit: String,
        /// systemd's word.
        result: String,
    },
    /// An annotation `org.systemd.property.*` that is no property.
    #[error("cannot use annotation `{annotation}`: {value:?} is not a value in GVariant text format")]
    Property {
        /// The annotation's key.
        annotation: String,
        /// Its value.
        value: String,
    },
}

impl CgroupError {
    /// Whether the cause is a lack of permission: rootless callers without limits go on without a cgroup then, and without
    /// device rules.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        let (CgroupError::File { source, .. }
        | CgroupError::Write { source, .. }
        | CgroupError::Devices { source, .. }) = self
        else {
            return false;
        };
        matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
    }
}
