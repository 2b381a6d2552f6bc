//! What a comparison says: changes, each with its verdict and why it matters.

use serde::Serialize;
use serde_json::Value;

/// What the right side is, seen from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Written differently, enforced alike.
    SameEffect,
    /// The right side allows less.
    LessPermissive,
    /// Different, and neither side allows more.
    Changed,
    /// The two specs alone do not say which side allows more.
    CannotTell,
    /// The right side allows more.
    MorePermissive,
}

impl Verdict {
    /// The verdict with the sides exchanged.
    #[must_use]
    pub fn mirrored(self) -> Self {
        match self {
            Self::MorePermissive => Self::LessPermissive,
            Self::LessPermissive => Self::MorePermissive,
            other => other,
        }
    }

    /// As it is said to people.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SameEffect => "same effect",
            Self::LessPermissive => "less permissive",
            Self::Changed => "changed",
            Self::CannotTell => "cannot tell",
            Self::MorePermissive => "more permissive",
        }
    }

    /// The verdict where the larger value allows more.
    pub(super) fn of_order<T: Ord>(left: &T, right: &T) -> Self {
        match left.cmp(right) {
            std::cmp::Ordering::Less => Self::MorePermissive,
            std::cmp::Ordering::Greater => Self::LessPermissive,
            std::cmp::Ordering::Equal => Self::SameEffect,
        }
    }
}

/// The concern that a change belongs to, in the order of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// ociVersion.
    Version,
    /// args, cwd, terminal and what else starts the process.
    Process,
    /// uid, gid, groups, umask.
    User,
    /// The five capability sets.
    Capabilities,
    /// noNewPrivileges, AppArmor, SELinux.
    Privileges,
    /// System call filter.
    Seccomp,
    /// Linux namespaces and id mappings.
    Namespaces,
    /// The root file system.
    Root,
    /// Mounts.
    Mounts,
    /// Masked and read-only paths.
    Paths,
    /// Device nodes and device rules.
    Devices,
    /// cgroup limits.
    Resources,
    /// POSIX resource limits.
    Rlimits,
    /// Scheduling: OOM score, scheduler, I/O priority, CPU affinity, memory policy.
    Scheduling,
    /// Kernel parameters.
    Sysctl,
    /// Programs that run around the container's.
    Hooks,
    /// Environment.
    Env,
    /// hostname, domainname.
    Hostname,
    /// Annotations.
    Annotations,
    /// Other platforms and fields that runtime-spec does not know.
    Other,
}

impl Section {
    /// Every section, in the order of a report.
    pub const ALL: [Self; 20] = [
        Self::Version,
        Self::Process,
        Self::User,
        Self::Capabilities,
        Self::Privileges,
        Self::Seccomp,
        Self::Namespaces,
        Self::Root,
        Self::Mounts,
        Self::Paths,
        Self::Devices,
        Self::Resources,
        Self::Rlimits,
        Self::Scheduling,
        Self::Sysctl,
        Self::Hooks,
        Self::Env,
        Self::Hostname,
        Self::Annotations,
        Self::Other,
    ];

    /// Its name, as `--section` takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Process => "process",
            Self::User => "user",
            Self::Capabilities => "capabilities",
            Self::Privileges => "privileges",
            Self::Seccomp => "seccomp",
            Self::Namespaces => "namespaces",
            Self::Root => "root",
            Self::Mounts => "mounts",
            Self::Paths => "paths",
            Self::Devices => "devices",
            Self::Resources => "resources",
            Self::Rlimits => "rlimits",
            Self::Scheduling => "scheduling",
            Self::Sysctl => "sysctl",
            Self::Hooks => "hooks",
            Self::Env => "env",
            Self::Hostname => "hostname",
            Self::Annotations => "annotations",
            Self::Other => "other",
        }
    }

    /// The section with that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.as_str() == name)
    }
}

/// Why a change is noise that a report counts and does not list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fold {
    /// Ids and names of this one container.
    Identity,
    /// The order of what has no order, null or an empty value in place of an absent one, a default written out.
    Spelling,
    /// Different text, enforced alike.
    NoEffect,
}

/// One side of a change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Side {
    /// JSON pointer (RFC 6901) into that side's document; `None` where the side does not have it.
    pub pointer: Option<String>,
    /// What is there; `None` where the side does not have it, and for a seccomp filter, whose difference is in the details.
    pub value: Option<Value>,
    /// The same for people, escaped: `3 capabilities`, `64 MiB`, `the host's`.
    pub text: String,
}

/// A list that a change is about: `right only: CAP_CHOWN, …`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// What the items have in common: `right only`.
    pub label: String,
    /// The items, escaped.
    pub items: Vec<String>,
}

/// A difference with its meaning.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// The concern.
    pub section: Section,
    /// What differs, escaped: `memory limit`, `mount /run`.
    pub subject: String,
    /// The left side.
    pub left: Side,
    /// The right side.
    pub right: Side,
    /// What the right is, seen from the left.
    pub verdict: Verdict,
    /// Why it matters, one line, true whichever side has more.
    pub reason: String,
    /// What exactly differs, where the sides' texts are only a summary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<Detail>,
    /// The field of a Kubernetes container that it corresponds to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<&'static str>,
    /// The kernel's file or interface that enforces it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<&'static str>,
    /// Why it is noise; `None` for what a report lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fold: Option<Fold>,
}

impl Change {
    /// Whether the change is listed without being asked for.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.fold.is_none()
    }
}

/// All changes from one spec to another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The worst verdict of the listed changes; `None` when there is none: the same in effect.
    pub overall: Option<Verdict>,
    /// Every change, noise too, in the order of the sections.
    pub changes: Vec<Change>,
}

impl Comparison {
    /// Of some changes: their worst verdict.
    #[must_use]
    pub fn of(changes: Vec<Change>) -> Self {
        let overall = changes.iter().filter(|change| change.is_listed()).map(|change| change.verdict).max();
        Self { overall, changes }
    }

    /// The changes that are no noise.
    pub fn listed(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.is_listed())
    }

    /// How many changes are noise.
    #[must_use]
    pub fn folded(&self) -> usize {
        self.changes.iter().filter(|change| !change.is_listed()).count()
    }
}
