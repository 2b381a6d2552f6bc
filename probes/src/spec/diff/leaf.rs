//! Places whose values have no structure to compare: they differ, and the place says what that means.

use super::pair::Pair;
use super::report::{Draft, Report};
use super::text::{section_of, subject_of};
use crate::spec::change::{Section, Verdict};

/// Places below these are the container's own names and ids.
const IDENTITY_ANNOTATIONS: [&str; 4] = [
    "/annotations/io.kubernetes.cri.sandbox-",
    "/annotations/io.kubernetes.cri.container-name",
    "/annotations/nerdctl~1",
    "/annotations/io.kubernetes.cri.image-name",
];

/// Annotations by which a runtime itself is told to do something.
const ACTIVE_ANNOTATIONS: [&str; 5] = [
    "/annotations/run.oci.",
    "/annotations/org.systemd.property.",
    "/annotations/io.katacontainers.",
    "/annotations/module.wasm.",
    "/annotations/io.kubernetes.cri-o.",
];

/// Compares a place as it stands. `known` is false for fields that runtime-spec does not have.
pub(super) fn compare_leaf(pair: &Pair<'_>, known: bool, report: &mut Report) {
    if pair.left.is_blank() && pair.right.is_blank() {
        return;
    }
    let pointer = if pair.left.value().is_some() { &pair.left.pointer } else { &pair.right.pointer };
    if !known {
        let draft = Draft::new(section_of(pointer), format!("unknown field {}", subject_of(pointer)), pair);
        report.push(
            draft
                .verdict(Verdict::CannotTell)
                .why("runtime-spec 1.3 has no such field: a runtime ignores it, or does what only it knows"),
        );
        return;
    }
    let draft = Draft::new(section_of(pointer), subject_of(pointer), pair);
    report.push(if is_identity(pointer, pair) {
        draft.identity().why("names this one container")
    } else {
        judge(pointer, pair, draft)
    });
}

fn is_identity(pointer: &str, pair: &Pair<'_>) -> bool {
    pointer == "/linux/cgroupsPath" && same_cgroup_parent(pair)
        || IDENTITY_ANNOTATIONS.iter().any(|prefix| pointer.starts_with(prefix))
        || is_container_path(pair.left.text_or_empty()) && is_container_path(pair.right.text_or_empty())
}

/// Directories in which containerd and the kubelet make files for one container.
const OWN_DIRECTORIES: [&str; 3] = ["/run/containerd/", "/var/lib/containerd/", "/var/lib/kubelet/pods/"];

/// Paths that are made for one container.
pub(super) fn is_container_path(path: &str) -> bool {
    OWN_DIRECTORIES.iter().any(|directory| path.starts_with(directory))
}

/// The last component (after the last `/`, or `:` with the systemd driver) is the container's id, and without a path
/// the runtime makes one of the id.
fn same_cgroup_parent(pair: &Pair<'_>) -> bool {
    let parent = |path: &str| path.rfind(['/', ':']).map(|at| path[..at].to_owned());
    let (left, right) = (pair.left.text_or_empty(), pair.right.text_or_empty());
    left.is_empty() || right.is_empty() || parent(left) == parent(right)
}

/// Verdict and reason of a known field.
fn judge(pointer: &str, pair: &Pair<'_>, draft: Draft) -> Draft {
    let realtime = |names: &[&str], text: &str| names.contains(&text);
    let (left, right) = (pair.left.text_or_empty(), pair.right.text_or_empty());
    match pointer {
        "/process/args" => draft.why("another program, or other arguments").kubernetes("command, args"),
        "/process/cwd" => draft.why("the directory that the program starts in").kubernetes("workingDir"),
        "/process/terminal" => draft.why("whether standard streams are a terminal").kubernetes("tty"),
        "/process/oomScoreAdj" => draft
            .why("who is killed first when the node runs out of memory; a lower score lives longer")
            .kernel("oom_score_adj"),
        "/process/scheduler/policy" => {
            let policies = ["SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE"];
            let verdict = Verdict::of_order(&realtime(&policies, left), &realtime(&policies, right));
            changed_unless(verdict, draft)
                .why("a realtime policy takes the CPU from everything else on the node")
        }
        "/process/ioPriority/class" => {
            let classes = ["IOPRIO_CLASS_RT"];
            let verdict = Verdict::of_order(&realtime(&classes, left), &realtime(&classes, right));
            changed_unless(verdict, draft).why("realtime I/O is served before everything else on the node")
        }
        "/linux/cgroupsPath" => draft.why("another parent cgroup: the limits of other ancestors apply"),
        "/linux/mountLabel" => {
            draft.verdict(Verdict::CannotTell).why("which SELinux label mounts get; only the policy knows")
        }
        "/linux/sysctl/net.ipv4.ip_unprivileged_port_start" => {
            let port = |text: &str| text.trim().parse::<i128>().unwrap_or(1024);
            let verdict = Verdict::of_order(&-port(left), &-port(right));
            changed_unless(verdict, draft)
                .why("below this port number only CAP_NET_BIND_SERVICE may bind")
                .kubernetes("securityContext.sysctls")
        }
        _ => judge_group(pointer, draft),
    }
}

/// Verdict and reason of a field by the part of the spec that it is in.
fn judge_group(pointer: &str, draft: Draft) -> Draft {
    if ACTIVE_ANNOTATIONS.iter().any(|prefix| pointer.starts_with(prefix)) {
        return draft.verdict(Verdict::CannotTell).why("an annotation that a runtime obeys");
    }
    match section_of(pointer) {
        Section::Annotations => draft.why("a label; runtimes pass it on").kubernetes("metadata.annotations"),
        Section::Sysctl => draft
            .why("a kernel parameter of the container's namespaces")
            .kubernetes("securityContext.sysctls"),
        Section::Hostname => draft
            .why("the name that the container's UTS namespace has; without one it keeps the host's")
            .kubernetes("hostname"),
        Section::Scheduling => draft.why("how the kernel schedules the program, not what it may do"),
        Section::Namespaces => draft.why("the clocks that a time namespace shows"),
        Section::Resources => draft.why("a share of the machine, not a permission"),
        Section::Process => draft.why("how the program is started"),
        Section::Other if pointer.starts_with("/linux") => {
            draft.why("a field that this version compares as it stands")
        }
        Section::Other => draft.why("a section for another platform: runtimes on Linux ignore it"),
        _ => draft.why("compared as it stands"),
    }
}

/// Values of the same rank still differ.
pub(super) fn changed_unless(verdict: Verdict, draft: Draft) -> Draft {
    if verdict == Verdict::SameEffect { draft.verdict(Verdict::Changed) } else { draft.verdict(verdict) }
}
