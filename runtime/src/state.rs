//! What the runtime remembers of a container between its calls: `<root>/<id>/state.json`, a copy of the spec, and, between
//! `create` and `start`, the socket that the init process waits on.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Scope};
use crate::file;
use crate::seccomp::Program;

/// The name in every state file, by which others see whose it is.
pub const RUNTIME_NAME: &str = "inspect-runtime";
const STATE: &str = "state.json";
const NEW_STATE: &str = ".state.json.new";
const SPEC: &str = "config.json";
const NEW_SPEC: &str = ".config.json.new";
const START_SOCKET: &str = "start.sock";
const FILTER: &str = "seccomp.bpf";

/// The content of `state.json`. Fields that a later version adds have defaults, so that it reads files of an earlier one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Always [`RUNTIME_NAME`].
    pub runtime: String,
    /// The version of the runtime that wrote the file.
    pub version: String,
    /// The spec's version.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// The container's ID.
    pub id: String,
    /// The init process in the host's PID namespace; 0 until there is one.
    #[serde(default)]
    pub init_process_pid: i32,
    /// Its start time: field 22 of `/proc/PID/stat`, in clock ticks since boot. Tells it from a later process of that pid.
    #[serde(default)]
    pub init_process_start: u64,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// The root file system's directory on the host.
    pub rootfs: PathBuf,
    /// When it was created, RFC 3339.
    pub created: String,
    /// The cgroup's directory; empty until it is made.
    #[serde(default)]
    pub cgroup_path: PathBuf,
    /// The systemd scope around the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_scope: Option<ScopeRecord>,
    /// The cgroup is systemd's to make.
    #[serde(default)]
    pub systemd_cgroup: bool,
    /// The mount of the container's root, for a container without a mount namespace of its own: it is to be taken away
    /// there afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_mount: Option<u64>,
    /// The mount namespace that it joined; none with `root_mount` is the runtime's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_namespace: Option<PathBuf>,
    /// It has no PID namespace of its own: its processes do not end with its init process.
    #[serde(default)]
    pub shares_pids: bool,
    /// The spec's annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// `start` is to wait until the program runs: hooks come after that, a listener has to be handed on, or execve may fail.
    /// Always so in the states of versions that did not write it.
    #[serde(default = "always")]
    pub waits_for_payload: bool,
    /// `delete` has to look into the spec: it has `poststop` hooks or a resource class. Always so in the states of versions that
    /// did not write it.
    #[serde(default = "always")]
    pub needs_spec_to_delete: bool,
    /// The compiled seccomp filter is kept beside the state.
    #[serde(default)]
    pub has_filter: bool,
    /// The uid of who created it.
    #[serde(default)]
    pub owner: u32,
    /// The runtime's process that is creating it; 0 afterwards.
    #[serde(default)]
    pub creator_pid: i32,
    /// When creation began, in clock ticks since boot, as start times are. A younger process is not the creator, and an older one
    /// none of the container's. 0 in the states of versions that did not write it.
    #[serde(default)]
    pub creation_began: u64,
}

fn always() -> bool {
    true
}

/// [`Scope`] as the state file has it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ScopeRecord {
    unit: String,
    slice: String,
    #[serde(default)]
    user_bus: Option<String>,
    /// None in the states of versions that did not write it.
    #[serde(default)]
    description: Option<String>,
}

/// The states of runtime-spec's runtime.md, and runc's `paused`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Status {
    /// `create` has not returned.
    Creating,
    /// The process waits for `start`.
    Created,
    /// The process runs.
    Running,
    /// It stands, frozen.
    Paused,
    /// It has ended.
    Stopped,
}

impl Status {
    /// The word of the spec.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// What goes wrong with a container's state directory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An ID that is no file name of the safe kind. The text is runc's.
    #[error("invalid container ID format: {id:?}")]
    Id {
        /// The ID.
        id: String,
    },
    /// runc's text, which its callers look for.
    #[error("container with given ID already exists: `{id}`")]
    Exists {
        /// The ID.
        id: String,
    },
    /// runc's text, which its callers look for.
    #[error("container does not exist: `{id}` is not in `{root}`")]
    Missing {
        /// The ID.
        id: String,
        /// Where it was looked for.
        root: PathBuf,
    },
    /// Another runtime's container.
    #[error(
        "cannot use container `{id}`: {owner} made it, as `{directory}` shows; use {owner} with the same root"
    )]
    Foreign {
        /// The ID.
        id: String,
        /// The runtime.
        owner: &'static str,
        /// Its state directory.
        directory: PathBuf,
    },
    /// A file operation failed.
    #[error("cannot {operation} `{path}`")]
    File {
        /// The verb.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A state file that is no JSON of ours.
    #[error("cannot read `{path}`")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// The directory that holds one container's state.
#[derive(Clone, Debug)]
pub struct StateDirectory {
    path: PathBuf,
    id: String,
}

impl StateDirectory {
    /// The place of container `id` below `root`. Touches nothing.
    ///
    /// # Errors
    /// [`StateError::Id`] for an ID that could lead elsewhere.
    pub fn locate(root: &Path, id: &str) -> Result<Self, StateError> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        if id.is_empty() || id == "." || id == ".." || id.len() > 255 || !id.bytes().all(is_allowed) {
            return Err(StateError::Id { id: id.to_owned() });
        }
        Ok(StateDirectory { path: root.join(id), id: id.to_owned() })
    }

    /// Makes the directory: of two who create the same container, one fails here.
    ///
    /// # Errors
    /// [`StateError::Exists`].
    pub fn create(&self) -> Result<(), StateError> {
        // Nobody else's: the mode of the socket that starts the container is what the caller's file creation mask leaves.
        let make = || DirBuilder::new().mode(0o700).create(&self.path);
        let result = match make() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let root = self.path.parent().unwrap_or(Path::new("/"));
                let made = DirBuilder::new().recursive(true).mode(0o711).create(root);
                made.map_err(|source| file_error("make", root, source))?;
                make()
            }
            result => result,
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(StateError::Exists { id: self.id.clone() })
            }
            result => result.map_err(|source| file_error("make", &self.path, source)),
        }
    }

    /// Reads the state.
    ///
    /// # Errors
    /// [`StateError::Missing`], or [`StateError::Foreign`] for another runtime's container.
    pub fn load(&self) -> Result<State, StateError> {
        let path = self.path.join(STATE);
        let text = match file::read(&path) {
            Ok(text) if text.is_empty() => return Err(self.explain_absence()),
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(self.explain_absence()),
            Err(source) => return Err(file_error("read", &path, source)),
        };
        match serde_json::from_slice::<State>(&text) {
            Ok(state) if state.runtime == RUNTIME_NAME => Ok(state),
            Ok(_) => Err(self.foreign("another runtime")),
            Err(source) => match foreign_owner(&text) {
                Some(owner) => Err(self.foreign(owner)),
                None => Err(StateError::Parse { path, source }),
            },
        }
    }

    fn explain_absence(&self) -> StateError {
        if self.path.join("status").exists() {
            return self.foreign("crun");
        }
        if self.path.join("youki_config.json").exists() {
            return self.foreign("youki");
        }
        let root = self.path.parent().unwrap_or(Path::new("/")).to_path_buf();
        StateError::Missing { id: self.id.clone(), root }
    }

    fn foreign(&self, owner: &'static str) -> StateError {
        StateError::Foreign { id: self.id.clone(), owner, directory: self.path.clone() }
    }

    /// Writes the state file whole or not at all.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save(&self, state: &State) -> Result<(), StateError> {
        self.write_new(state)?;
        self.replace_with_new()
    }

    /// Writes the first state of a container whose directory was just made. Whoever reads the file before there is anything
    /// in it takes it as absent.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save_first(&self, state: &State) -> Result<(), StateError> {
        self.write_to(STATE, state)
    }

    /// The first half of [`Self::save`]: nobody sees the state yet.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write_new(&self, state: &State) -> Result<(), StateError> {
        self.write_to(NEW_STATE, state)
    }

    fn write_to(&self, name: &str, state: &State) -> Result<(), StateError> {
        let path = self.path.join(name);
        let text =
            serde_json::to_vec(state).map_err(|source| StateError::Parse { path: path.clone(), source })?;
        file::write_private(&path, &text).map_err(|source| file_error("write", &path, source))
    }

    /// The second half: now everybody does.
    ///
    /// # Errors
    /// What the file system says.
    pub fn replace_with_new(&self) -> Result<(), StateError> {
        let path = self.path.join(STATE);
        rustix::fs::rename(self.path.join(NEW_STATE), &path)
            .map_err(|errno| file_error("replace", &path, errno.into()))
    }

    /// Keeps the spec the container was made from: a bundle that changes later changes nothing.
    ///
    /// # Errors
    /// What the file system says.
    pub fn save_spec(&self, text: &[u8]) -> Result<(), StateError> {
        let path = self.path.join(SPEC);
        file::write_private(&path, text).map_err(|source| file_error("write", &path, source))
    }

    /// Replaces the spec's copy whole or not at all: whoever is killed in between leaves the old one.
    ///
    /// # Errors
    /// What the file system says.
    pub fn replace_spec(&self, text: &[u8]) -> Result<(), StateError> {
        let (new, path) = (self.path.join(NEW_SPEC), self.spec_path());
        file::write_private(&new, text).map_err(|source| file_error("write", &new, source))?;
        fs::rename(&new, &path).map_err(|source| file_error("replace", &path, source))
    }

    /// The spec's copy.
    #[must_use]
    pub fn spec_path(&self) -> PathBuf {
        self.path.join(SPEC)
    }

    /// Keeps the compiled seccomp filter for `exec`.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn save_filter(&self, program: &Program) -> Result<(), StateError> {
        let path = self.path.join(FILTER);
        file::write_private(&path, &program.to_bytes()).map_err(|source| file_error("write", &path, source))
    }

    /// The compiled filter, if this version of the runtime has kept it.
    pub(crate) fn load_filter(&self) -> Option<Program> {
        Program::from_bytes(&file::read(&self.path.join(FILTER)).ok()?)
    }

    /// The socket the init process waits on between `create` and `start`.
    #[must_use]
    pub fn start_socket(&self) -> PathBuf {
        self.path.join(START_SOCKET)
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory; that it is gone is no error. The usual names go first: a walk costs more. `has_filter` as in
    /// the state.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, has_filter: bool) -> Result<(), StateError> {
        for name in [SPEC, STATE].into_iter().chain(has_filter.then_some(FILTER)) {
            match fs::remove_file(self.path.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(file_error("remove", &self.path.join(name), error));
                }
                _ => {}
            }
        }
        let result = match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => self.remove_rest(),
            result => result,
        };
        match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("remove", &self.path, error))
            }
            _ => Ok(()),
        }
    }

    /// What a container has for a while only. By name, since a walk takes a descriptor, of which there may be none left.
    fn remove_rest(&self) -> io::Result<()> {
        for name in [START_SOCKET, NEW_STATE, NEW_SPEC, FILTER] {
            fs::remove_file(self.path.join(name)).ok();
        }
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.path),
            result => result,
        }
    }

    /// Whether anything is there at all.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }
}

impl State {
    /// A state for a container that is being created by the calling process.
    #[must_use]
    pub fn new(id: &str, oci_version: &str, bundle: &Path, rootfs: &Path) -> Self {
        State {
            runtime: RUNTIME_NAME.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            oci_version: oci_version.to_owned(),
            id: id.to_owned(),
            bundle: bundle.to_path_buf(),
            rootfs: rootfs.to_path_buf(),
            created: crate::time::now(),
            creator_pid: rustix::process::getpid().as_raw_nonzero().get(),
            creation_began: crate::sys::ticks_since_boot(),
            ..State::default()
        }
    }

    /// Whether the init process is alive: there, the same one, and no zombie.
    #[must_use]
    pub fn is_init_alive(&self) -> bool {
        self.init_process_pid > 0 && is_alive(self.init_process_pid, self.init_process_start)
    }

    /// The container's status now. `Paused` is not told from `Running` here: that takes the cgroup.
    #[must_use]
    pub fn status(&self, directory: &StateDirectory) -> Status {
        if self.init_process_pid == 0 {
            // One that is younger has the pid of a creator that is gone.
            let may_be = |start| self.creation_began == 0 || start <= self.creation_began;
            let is_creating = self.creator_pid > 0 && process_start(self.creator_pid).is_some_and(may_be);
            return if is_creating { Status::Creating } else { Status::Stopped };
        }
        match (self.is_init_alive(), directory.start_socket().exists()) {
            (false, _) => Status::Stopped,
            (true, true) => Status::Created,
            (true, false) => Status::Running,
        }
    }

    /// The state as runtime-spec's runtime.md has it: what hooks get on their stdin.
    #[must_use]
    pub fn to_spec_json(&self, pid: i32, status: &str) -> Vec<u8> {
        let state = serde_json::json!({
            "ociVersion": self.oci_version,
            "id": self.id,
            "status": status,
            "pid": pid,
            "bundle": self.bundle,
            "annotations": self.annotations,
        });
        state.to_string().into_bytes()
    }

    /// The scope, for the cgroup module.
    #[must_use]
    pub fn scope(&self) -> Option<Scope> {
        let record = self.cgroup_scope.clone()?;
        let description = record.description.unwrap_or_else(|| cgroup::describe(&self.id));
        Some(Scope { unit: record.unit, slice: record.slice, user_bus: record.user_bus, description })
    }

    /// Remembers the scope.
    pub fn set_scope(&mut self, scope: Option<&Scope>) {
        self.cgroup_scope = scope.map(|scope| ScopeRecord {
            unit: scope.unit.clone(),
            slice: scope.slice.clone(),
            user_bus: scope.user_bus.clone(),
            description: Some(scope.description.clone()),
        });
    }
}

fn is_alive(pid: i32, start: u64) -> bool {
    process_start(pid) == Some(start)
}

/// The start time of a process that is there and no zombie: fields 3 and 22 of `/proc/PID/stat`.
pub(crate) fn process_start(pid: i32) -> Option<u64> {
    read_start(&open_stat(pid)?)
}

/// As [`process_start`], and leaves it to the end of the process to close the file: for what is asked once.
pub(crate) fn process_start_once(pid: i32) -> Option<u64> {
    read_start(&std::mem::ManuallyDrop::new(open_stat(pid)?))
}

fn open_stat(pid: i32) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::open(format!("/proc/{pid}/stat"), flags, Mode::empty()).ok()
}

fn read_start(file: &OwnedFd) -> Option<u64> {
    // One line of at most 52 numbers and a name of 16 bytes, given whole.
    let mut text = [0_u8; 2048];
    let length = rustix::io::read(file, &mut text).ok()?;
    // The command's name may hold anything, parentheses too: the fields start after the last one.
    let end = text[..length].windows(2).rposition(|pair| pair == b") ")?;
    let fields = std::str::from_utf8(&text[end + 2..length]).ok()?;
    let mut fields = fields.split(' ');
    let is_dead = matches!(fields.next()?, "Z" | "X");
    let start = fields.nth(18)?.parse().ok()?;
    (!is_dead).then_some(start)
}

fn foreign_owner(text: &[u8]) -> Option<&'static str> {
    let keys: BTreeMap<String, serde::de::IgnoredAny> = serde_json::from_slice(text).ok()?;
    if keys.contains_key("init_process_pid") && !keys.contains_key("runtime") {
        return Some("runc");
    }
    (keys.contains_key("status") && keys.contains_key("pid")).then_some("youki")
}

fn file_error(operation: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::File { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_lead_elsewhere_are_refused() {
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\0b"] {
            assert!(StateDirectory::locate(Path::new("/r"), id).is_err(), "{id:?}");
        }
        assert!(StateDirectory::locate(Path::new("/r"), "a_1+b-c.d").is_ok());
    }

    #[test]
    fn a_state_comes_back_and_other_runtimes_are_named() {
        let root = tempfile::tempdir().unwrap();
        let directory = StateDirectory::locate(root.path(), "c").unwrap();
        assert!(directory.load().unwrap_err().to_string().contains("container does not exist"));
        directory.create().unwrap();
        assert!(matches!(directory.create(), Err(StateError::Exists { .. })));
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(directory.path()).unwrap().permissions());
        assert_eq!(mode & 0o7777, 0o700);
        let state = State::new("c", "1.3.0", Path::new("/b"), Path::new("/b/rootfs"));
        directory.save(&state).unwrap();
        assert_eq!(directory.load().unwrap().bundle, Path::new("/b"));
        fs::write(directory.path().join(STATE), r#"{"id":"c","init_process_pid":1,"config":{}}"#).unwrap();
        assert!(directory.load().unwrap_err().to_string().contains("runc made it"));
        fs::remove_file(directory.path().join(STATE)).unwrap();
        fs::write(directory.path().join("status"), "{}").unwrap();
        assert!(directory.load().unwrap_err().to_string().contains("crun made it"));
    }

    #[test]
    fn an_older_state_is_read() {
        let text = r#"{"runtime":"inspect-runtime","version":"0.0.1","ociVersion":"1.2.0","id":"c","bundle":"/b","rootfs":"/r","created":"T","a_later_field":1}"#;
        let state: State = serde_json::from_str(text).unwrap();
        assert_eq!((state.init_process_pid, state.id.as_str()), (0, "c"));
    }

    #[test]
    fn the_calling_process_has_a_start_and_a_pid_that_is_free_has_none() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(process_start(own).unwrap() > 0);
        assert_eq!(process_start(i32::MAX), None);
    }

    #[test]
    fn a_process_that_got_the_pid_of_the_creator_is_not_creating() {
        let directory = StateDirectory::locate(Path::new("/r"), "c").unwrap();
        let mut state = State::new("c", "1.3.0", Path::new("/b"), Path::new("/b/rootfs"));
        assert!(process_start(state.creator_pid).unwrap() <= state.creation_began);
        assert_eq!(state.status(&directory), Status::Creating);
        state.creation_began = 1;
        assert_eq!(state.status(&directory), Status::Stopped);
        // As earlier versions wrote it.
        state.creation_began = 0;
        assert_eq!(state.status(&directory), Status::Creating);
    }
}
