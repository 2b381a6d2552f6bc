//! The known error texts. To add one: a pattern, a real sample, the cause, what to look at, what to do, and where it is known from.

use std::path::PathBuf;

use super::Check;
use super::pattern::Captures;

/// One known error text.
pub(super) struct Entry {
    pub(super) id: &'static str,
    pub(super) reported_by: &'static str,
    /// Alternatives; `{name}` stands for what varies.
    pub(super) patterns: &'static [&'static str],
    /// Real texts that the entry must recognise, first: its tests.
    #[cfg_attr(not(test), expect(dead_code, reason = "the samples are the entry's tests"))]
    pub(super) samples: &'static [&'static str],
    pub(super) cause: &'static str,
    pub(super) checks: fn(&Captures) -> Vec<Check>,
    pub(super) fixes: &'static [&'static str],
    pub(super) known_from: &'static str,
}

const SEEN: &str = "seen with containerd 1.6.20, 1.7.24 and 2.1.9";

/// Only a unified (v2) hierarchy has this file at its root (cgroups(7)).
const UNIFIED_HIERARCHY: &str = "/sys/fs/cgroup/cgroup.controllers";

fn nothing(_: &Captures) -> Vec<Check> {
    Vec::new()
}

fn captured(captures: &Captures, name: &str) -> String {
    captures.get(name).unwrap_or_default().to_owned()
}

fn binary(captures: &Captures) -> Vec<Check> {
    vec![Check::Binary(PathBuf::from(captured(captures, "path")))]
}

pub(super) const ENTRIES: &[Entry] = &[
    Entry {
        id: "cri-not-served",
        reported_by: "kubelet, crictl",
        patterns: &[
            "unknown service runtime.v1.RuntimeService",
            "unknown service runtime.v1alpha2.RuntimeService",
        ],
        samples: &[
            "rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService",
            "validate service connection: CRI v1 runtime API is not implemented for endpoint \"unix:///run/containerd/containerd.sock\": rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService",
        ],
        cause: "containerd runs, but its CRI plugin does not: it is disabled in the config, or it failed to load (a default_runtime_name that names no configured handler is the usual reason). The unit stays active and `ctr` keeps working, so nothing else looks wrong.",
        checks: |_| vec![Check::CriDisabled, Check::DefaultHandler],
        fixes: &[
            "`ctr plugins ls` shows the CRI plugin's status; `journalctl -u containerd.service -g cri` its reason",
            "remove the CRI plugin from `disabled_plugins`, or make `default_runtime_name` name a configured handler, then `systemctl restart containerd.service`",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "default-handler-not-configured",
        reported_by: "containerd's CRI plugin",
        patterns: &[
            "no corresponding runtime configured in `containerd.runtimes` for `containerd` `default_runtime_name = \"{handler}\"",
        ],
        samples: &[
            "invalid plugin config: no corresponding runtime configured in `containerd.runtimes` for `containerd` `default_runtime_name = \"runc\"`",
        ],
        cause: "`default_runtime_name` is `{handler}`, but the effective config has no handler of that name. In containerd 1.x a `runtimes` table in the file, or a drop-in that names the CRI section, replaces the built-in one: a file that adds only crun deletes runc.",
        checks: |captures| vec![Check::DefaultHandler, Check::Handler(captured(captures, "handler"))],
        fixes: &[
            "add a `runtimes.{handler}` table beside the others, or set `default_runtime_name` to one that is there, then `systemctl restart containerd.service`",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "handler-not-configured",
        reported_by: "containerd's CRI plugin",
        patterns: &["no runtime for \"{handler}\" is configured"],
        samples: &[
            "failed to get sandbox runtime: no runtime for \"nosuch\" is configured",
            "unable to get OCI runtime for sandbox \"0c1d\": no runtime for \"nosuch\" is configured",
        ],
        cause: "the pod asks for the runtime handler `{handler}` (its RuntimeClass's `handler`), and containerd's CRI plugin has no `runtimes.{handler}` table.",
        checks: |captures| vec![Check::Handler(captured(captures, "handler"))],
        fixes: &[
            "`inspect swap-runtime PATH --name {handler} --no-default` registers it",
            "correct `handler` in the RuntimeClass: `kubectl get runtimeclass -o custom-columns=NAME:.metadata.name,HANDLER:.handler`",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "runtime-binary-missing",
        reported_by: "containerd's shim",
        patterns: &[
            "unable to retrieve OCI runtime error (open {log}): fork/exec {path}: no such file or directory",
        ],
        samples: &[
            "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/io.containerd.runtime.v2.task/default/x/log.json: no such file or directory): fork/exec /nonexistent/runc: no such file or directory",
        ],
        cause: "the shim was told to run the OCI runtime `{path}` (BinaryName in the handler's options, or --runc-binary) and there is no such file. containerd does not look at it before the first container is created. A dynamic binary whose loader is missing says the same.",
        checks: binary,
        fixes: &[
            "install the runtime at `{path}`, or correct `BinaryName`: `inspect swap-runtime` checks it before it writes",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "runtime-binary-denied",
        reported_by: "containerd's shim",
        patterns: &["unable to retrieve OCI runtime error (open {log}): fork/exec {path}: permission denied"],
        samples: &[
            "failed to create shim task: OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/io.containerd.runtime.v2.task/default/bad/log.json: no such file or directory): fork/exec /etc/passwd: permission denied: unknown",
        ],
        cause: "the shim was told to run `{path}` as the OCI runtime, and the kernel does not let it: the file has no execute bit, or its file system is mounted noexec.",
        checks: binary,
        fixes: &[
            "`chmod 755 {path}` if it is the runtime, or correct `BinaryName`; `findmnt -T {path}` shows how its file system is mounted",
        ],
        known_from: "seen with containerd 1.7.24; execve(2)",
    },
    Entry {
        id: "runtime-binary-not-in-path",
        reported_by: "containerd's shim",
        patterns: &[
            "unable to retrieve OCI runtime error (open {log}): exec: \"{name}\": executable file not found in $PATH",
        ],
        samples: &[
            "OCI runtime create failed: unable to retrieve OCI runtime error (open /run/containerd/io.containerd.runtime.v2.task/default/x/log.json: no such file or directory): exec: \"nosuchrt\": executable file not found in $PATH",
        ],
        cause: "the shim looks for an OCI runtime called `{name}` in the PATH that it inherited from containerd, and finds none. Without a BinaryName the name is `runc`: that default is go-runc's, inside the shim, and no setting of the CRI plugin changes it for `ctr`, nerdctl or Docker.",
        checks: |captures| vec![Check::BinaryInPath(captured(captures, "name"))],
        fixes: &[
            "install `{name}`, or give its absolute path as `BinaryName` (CRI) or `--runc-binary` (ctr)",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "exec-format",
        reported_by: "the kernel (ENOEXEC), through the shim or the OCI runtime",
        patterns: &[
            "fork/exec {path}: exec format error",
            "exec {path}: exec format error",
            "exec format error",
        ],
        samples: &[
            "OCI runtime create failed: unable to retrieve OCI runtime error (open /x/log.json: no such file or directory): fork/exec /opt/rt: exec format error",
            "exec /usr/local/bin/app: exec format error",
            "standard_init_linux.go:228: exec user process caused: exec format error",
        ],
        cause: "the file is no program for this machine: built for another architecture, empty, cut off, or a script without a `#!` line. After `fork/exec` it is the OCI runtime's binary; otherwise it is the container's own program, and then the image is for another platform.",
        checks: |captures| {
            captures.get("path").map(|path| Check::Binary(PathBuf::from(path))).into_iter().collect()
        },
        fixes: &[
            "compare `uname -m` with the platform of the image (`ctr images ls`) or of the binary (`file`)",
            "pull the image for this platform: `ctr images pull --platform linux/amd64 …`",
        ],
        known_from: "seen with containerd 1.7.24; execve(2)",
    },
    Entry {
        id: "cgroups-path-not-systemd",
        reported_by: "runc, crun",
        patterns: &[
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"{path}\" instead",
        ],
        samples: &[
            "OCI runtime create failed: runc create failed: expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/k8s.io/368492d2\" instead: unknown",
        ],
        cause: "two cgroup drivers meet: the handler has SystemdCgroup = true, so the runtime wants a systemd path, but the caller (the kubelet with cgroupDriver: cgroupfs, or a client without --runc-systemd-cgroup) gave the plain path `{path}`.",
        checks: |_| vec![Check::CgroupDriver],
        fixes: &[
            "set the kubelet's `cgroupDriver: systemd` (/var/lib/kubelet/config.yaml), the right choice where systemd is PID 1, and restart it",
            "set `SystemdCgroup = false` in the handler's options and restart containerd",
        ],
        known_from: "read in runc's source; seen in containerd's issue tracker",
    },
    Entry {
        id: "runtime-flag-names-a-shim",
        reported_by: "containerd",
        patterns: &["failed to start shim: start failed: {path}: invalid option -- 'n'"],
        samples: &["failed to start shim: start failed: /usr/bin/crun: invalid option -- 'n'"],
        cause: "`--runtime` names a shim, and `{path}` is an OCI runtime: containerd ran it with a shim's arguments (-namespace …).",
        checks: nothing,
        fixes: &["`ctr run --runc-binary {path} …` keeps the shim and swaps the OCI runtime under it"],
        known_from: SEEN,
    },
    Entry {
        id: "runtime-name-format",
        reported_by: "containerd",
        patterns: &["invalid runtime name {name}, correct runtime name should be either format like"],
        samples: &[
            "invalid runtime name crun, correct runtime name should be either format like `io.containerd.runc.v1` or a full path to the binary",
        ],
        cause: "`--runtime` (or runtime_type) takes the name of a shim such as io.containerd.runc.v2, or a shim's path; `{name}` is neither. A handler of the CRI config is not known to `ctr`.",
        checks: nothing,
        fixes: &["for another OCI runtime under the usual shim: `ctr run --runc-binary {name} …`"],
        known_from: SEEN,
    },
    Entry {
        id: "shim-not-installed",
        reported_by: "containerd",
        patterns: &["runtime \"{runtime}\" binary not installed \"{shim}\": file does not exist"],
        samples: &[
            "runtime \"io.containerd.crun.v2\" binary not installed \"containerd-shim-crun-v2\": file does not exist",
        ],
        cause: "containerd turns the runtime type `{runtime}` into the shim binary `{shim}` and finds it neither in its PATH nor beside its own binary. There is no such shim for crun or other OCI runtimes: they run under containerd-shim-runc-v2.",
        checks: |captures| vec![Check::BinaryInPath(captured(captures, "shim"))],
        fixes: &[
            "use runtime_type io.containerd.runc.v2 and name the OCI runtime in `BinaryName` (or `ctr run --runc-binary`)",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "runtime-options-type",
        reported_by: "containerd's shim",
        patterns: &["type with url runtimeoptions.v1.Options: not found"],
        samples: &["failed to create shim task: type with url runtimeoptions.v1.Options: not found: unknown"],
        cause: "the runc shim was named by its path together with --runtime-config-path: it then gets generic options, and it understands only containerd.runc.v1.Options.",
        checks: nothing,
        fixes: &[
            "name it `io.containerd.runc.v2` and pass options with --runc-binary, --runc-root, --runc-systemd-cgroup",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "config-version",
        reported_by: "containerd",
        patterns: &[
            "unsupported config version `{version}`",
            "expected containerd config version equal to or less than `{most}`, got `{version}`",
        ],
        samples: &[
            "unsupported config version `3`",
            "expected containerd config version equal to or less than `3`, got `4`",
        ],
        cause: "the config says version {version}, and this containerd is older than that: 1.7 reads up to 2, 2.0 to 2.2 up to 3.",
        checks: |_| vec![Check::ConfigVersion],
        fixes: &[
            "write the file for the version that this containerd reads: `containerd config default | head -1` shows it",
        ],
        known_from: "seen through `containerd config dump` of 1.7.24 and 2.1.9",
    },
    Entry {
        id: "disabled-plugin-uri",
        reported_by: "containerd",
        patterns: &["invalid disabled plugin URI \"{uri}\" expect io.containerd.x.vx"],
        samples: &["containerd: invalid disabled plugin URI \"cri\" expect io.containerd.x.vx"],
        cause: "since config version 2 `disabled_plugins` takes full plugin names, and `{uri}` is none: the daemon refuses to start, and systemd starts it again every few seconds.",
        checks: |_| vec![Check::CriDisabled, Check::ConfigVersion],
        fixes: &[
            "write `io.containerd.grpc.v1.cri` in place of `cri`, or remove it where Kubernetes needs it",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "config-not-toml",
        reported_by: "containerd",
        patterns: &[
            "failed to load TOML: {file}: ({line}, {column}): ",
            "failed to unmarshal TOML at row {line} column {column}: ",
        ],
        samples: &[
            "containerd: failed to load TOML: /etc/containerd/config.toml: (2, 2): unexpected token unclosed table key, was expecting a table key",
            "containerd: failed to unmarshal TOML at row 2 column 9: toml: expected ']' to close table name",
        ],
        cause: "the config is not TOML at line {line}, column {column}; the daemon does not start until it is mended.",
        checks: |captures| {
            captures
                .get("line")
                .and_then(|line| line.parse().ok())
                .map(Check::ConfigLine)
                .into_iter()
                .collect()
        },
        fixes: &[
            "mend that line, check with `containerd config dump >/dev/null`, then `systemctl restart containerd.service`",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "config-wrong-type",
        reported_by: "containerd",
        patterns: &[
            "cannot decode TOML {found} into struct field {field} of type {wanted}",
            "({line}, {column}): Can't convert {found} to {wanted}",
        ],
        samples: &[
            "toml: cannot decode TOML integer into struct field config.ContainerdConfig.DefaultRuntimeName of type string",
            "(11, 2): Can't convert 7(int64) to string",
        ],
        cause: "a setting has the wrong type: {found} where {wanted} is wanted.",
        checks: |captures| {
            captures
                .get("line")
                .and_then(|line| line.parse().ok())
                .map(Check::ConfigLine)
                .into_iter()
                .collect()
        },
        fixes: &[
            "correct the value, check with `containerd config dump >/dev/null`, then restart containerd",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "config-key-ignored",
        reported_by: "containerd",
        patterns: &["Ignoring unknown key in TOML for plugin"],
        samples: &[
            "level=warning msg=\"Ignoring unknown key in TOML for plugin\" error=\"strict mode: fields in the document are missing in the target struct\" key=containerd plugin=io.containerd.grpc.v1.cri",
        ],
        cause: "the setting stands where this containerd does not read it, most often the CRI runtimes of a version 2 file under a version 3 header, or the other way round: it has no effect, and nothing else says so. containerd 1.x does not even warn.",
        checks: |_| vec![Check::ConfigVersion, Check::DefaultHandler],
        fixes: &[
            "`containerd config dump` shows what really holds; `inspect swap-runtime NAME --dry-run` shows where the setting belongs",
        ],
        known_from: "seen with containerd 2.1.9",
    },
    Entry {
        id: "runtime-v1-on-cgroup-v2",
        reported_by: "containerd's v1 shim",
        patterns: &["cgroups: cgroup mountpoint does not exist"],
        samples: &["cgroups: cgroup mountpoint does not exist: unknown"],
        cause: "a component that knows only cgroup v1 (io.containerd.runtime.v1.linux, an old Docker) runs on a cgroup v2 host.",
        checks: |_| vec![Check::File(PathBuf::from(UNIFIED_HIERARCHY))],
        fixes: &["use runtime_type `io.containerd.runc.v2`"],
        known_from: "seen with containerd 1.6.20 and 1.7.24",
    },
    Entry {
        id: "sandbox-image",
        reported_by: "containerd's CRI plugin",
        patterns: &["failed to get sandbox image \"{image}\": "],
        samples: &["failed to get sandbox image \"registry.k8s.io/pause:3.10\": failed to pull image"],
        cause: "no pod starts without the pause image `{image}`: it is not on the node under exactly that name, and could not be pulled.",
        checks: nothing,
        fixes: &[
            "`ctr -n k8s.io images ls name=={image}` shows whether it is there; `ctr -n k8s.io images import FILE` brings it without a registry",
            "set the image that the node has: `sandbox_image` (config version 2), `pinned_images.sandbox` (version 3)",
        ],
        known_from: "seen with containerd 2.1.9",
    },
    Entry {
        id: "no-etc-hosts",
        reported_by: "containerd's CRI plugin",
        patterns: &[
            "failed to generate sandbox hosts file {file}: open /etc/hosts: no such file or directory",
        ],
        samples: &[
            "failed to generate sandbox hosts file \"/var/lib/containerd/x/hosts\": open /etc/hosts: no such file or directory",
        ],
        cause: "a pod with the host's network gets a copy of the host's /etc/hosts, and the host has none.",
        checks: |_| vec![Check::File(PathBuf::from("/etc/hosts"))],
        fixes: &["`printf '127.0.0.1 localhost\\n' > /etc/hosts`"],
        known_from: SEEN,
    },
    Entry {
        id: "cni-not-ready",
        reported_by: "containerd's CRI plugin",
        patterns: &["cni plugin not initialized"],
        samples: &[
            "NetworkReady=false reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not initialized",
        ],
        cause: "there is no CNI configuration that containerd could load; pods with the host's network still start.",
        checks: |_| vec![Check::File(PathBuf::from("/etc/cni/net.d"))],
        fixes: &["install the cluster's network add-on; it writes /etc/cni/net.d/*.conflist"],
        known_from: SEEN,
    },
    Entry {
        id: "container-program-missing",
        reported_by: "runc",
        patterns: &[
            "unable to start container process: error during container init: exec: \"{program}\": ",
            "unable to start container process: exec: \"{program}\": ",
            "starting container process caused: exec: \"{program}\": ",
        ],
        samples: &[
            "OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: \"nope\": executable file not found in $PATH: unknown",
            "OCI runtime exec failed: exec failed: unable to start container process: exec: \"curl\": executable file not found in $PATH",
        ],
        cause: "the OCI runtime is fine: it is the container's own program `{program}` that is not in the image's PATH, not there, or not executable.",
        checks: nothing,
        fixes: &[
            "look into the image (`inspect image FILE`, `ctr images mount`), and correct args, PATH or the image",
        ],
        known_from: "seen with runc 1.1.15 and 1.3.6",
    },
    Entry {
        id: "container-program-missing-crun",
        reported_by: "crun",
        patterns: &["executable file `{program}` not found"],
        samples: &[
            "OCI runtime create failed: executable file `nope` not found in $PATH: No such file or directory: unknown",
        ],
        cause: "the OCI runtime is fine: it is the container's own program `{program}` that is not in the image's PATH, or not there.",
        checks: nothing,
        fixes: &[
            "look into the image (`inspect image FILE`, `ctr images mount`), and correct args, PATH or the image",
        ],
        known_from: "seen with crun 1.21",
    },
    Entry {
        id: "daemon-socket",
        reported_by: "ctr, crictl, nerdctl",
        patterns: &["dial unix {socket}: connect: "],
        samples: &[
            "ctr: failed to dial \"/run/containerd/containerd.sock\": connection error: desc = \"transport: error while dialing: dial unix /run/containerd/containerd.sock: connect: connection refused\"",
        ],
        cause: "no daemon answers on `{socket}`. `permission denied` means that root is needed; `no such file` or `connection refused` that this daemon is not running, or listens elsewhere.",
        checks: |captures| vec![Check::File(PathBuf::from(captured(captures, "socket")))],
        fixes: &[
            "`inspect tree` shows every daemon on the node with its socket",
            "`systemctl status containerd.service`; `journalctl -u containerd.service -n 50`",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "other-containerd-namespace",
        reported_by: "containerd",
        patterns: &["container \"{id}\" in namespace \"{namespace}\": not found"],
        samples: &["ctr: container \"web\" in namespace \"default\": not found"],
        cause: "containerd keeps containers apart by containerd namespace, and `{namespace}` has no `{id}`. Kubernetes uses k8s.io, Docker moby, ctr and nerdctl default.",
        checks: nothing,
        fixes: &["`inspect tree --container {id}` looks in all of them; then `ctr -n NAMESPACE …`"],
        known_from: SEEN,
    },
    Entry {
        id: "already-exists",
        reported_by: "containerd",
        patterns: &["snapshot \"{id}\": already exists", "container \"{id}\": already exists"],
        samples: &["ctr: snapshot \"web\": already exists", "ctr: container \"web\": already exists"],
        cause: "`{id}` is still recorded. A `ctr run` that failed in the runtime leaves the container's record and snapshot behind.",
        checks: nothing,
        fixes: &[
            "`ctr tasks ls` shows whether it runs; `ctr containers rm {id}` removes record and snapshot",
        ],
        known_from: SEEN,
    },
];

/// What containerd and the shim put around a reason that another one gave: told of only where that reason is not known.
pub(super) const WRAPPERS: &[Entry] = &[
    Entry {
        id: "exec-refused",
        reported_by: "containerd's shim, for the OCI runtime",
        patterns: &["OCI runtime exec failed"],
        samples: &["OCI runtime exec failed: exec failed: cannot exec in a paused container: unknown"],
        cause: "the container runs; its OCI runtime was told to start another process in it and refused. What follows these words is the runtime's own error, the last line of level `error` that it logged.",
        checks: nothing,
        fixes: &[
            "`inspect why ID` says which runtime that is; `inspect tree --container ID` whether the container is paused",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "create-refused",
        reported_by: "containerd's shim, for the OCI runtime",
        patterns: &["OCI runtime create failed"],
        samples: &[
            "failed to create shim task: OCI runtime create failed: runc create failed: something new: unknown",
            "OCI runtime create failed",
        ],
        cause: "containerd and its shim are fine: the OCI runtime was run and refused to make the container. What follows these words is the runtime's own error, the last line of level `error` in the bundle's log.json; the bundle itself is removed again.",
        checks: nothing,
        fixes: &[
            "`inspect verify runc crun builtin` tells whether the runtimes of this node make containers at all",
            "`inspect trace -- ctr run …` shows every call of the OCI runtime, with times",
        ],
        known_from: SEEN,
    },
    Entry {
        id: "shim-task-refused",
        reported_by: "containerd",
        patterns: &["failed to create shim task", "failed to create task for container"],
        samples: &["ctr: failed to create shim task: something new"],
        cause: "the shim runs, and could not create the task: what follows these words is its reason. With `OCI runtime create failed` it is the OCI runtime's; otherwise the rootfs could not be mounted, or the options are of a kind that this shim does not know.",
        checks: nothing,
        fixes: &[
            "`journalctl -u containerd.service -n 20` has the shim's own lines",
            "a failed `ctr run` leaves its record behind: `ctr containers rm ID`",
        ],
        known_from: SEEN,
    },
];
