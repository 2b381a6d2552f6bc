//! Values and places as people read them.

use serde_json::Value;

use crate::escape::escape;
use crate::spec::change::Section;

/// A value on one line, escaped.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => escape(text).into_owned(),
        other => escape(&other.to_string()).into_owned(),
    }
}

/// `1 capability`, `3 capabilities`.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Bytes with the nearest binary unit where that is exact: `67108864 (64 MiB)`.
pub(super) fn bytes(number: i128) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let size = 1_i128 << shift;
        if number >= size && number % size == 0 {
            return format!("{number} ({} {unit})", number / size);
        }
    }
    number.to_string()
}

/// The section of a place that has no comparator of its own.
pub(super) fn section_of(pointer: &str) -> Section {
    const PLACES: [(&str, Section); 31] = [
        ("/ociVersion", Section::Version),
        ("/process/user", Section::User),
        ("/process/capabilities", Section::Capabilities),
        ("/process/noNewPrivileges", Section::Privileges),
        ("/process/apparmorProfile", Section::Privileges),
        ("/process/selinuxLabel", Section::Privileges),
        ("/linux/mountLabel", Section::Privileges),
        ("/process/rlimits", Section::Rlimits),
        ("/process/env", Section::Env),
        ("/process/oomScoreAdj", Section::Scheduling),
        ("/process/scheduler", Section::Scheduling),
        ("/process/ioPriority", Section::Scheduling),
        ("/process/execCPUAffinity", Section::Scheduling),
        ("/linux/memoryPolicy", Section::Scheduling),
        ("/process", Section::Process),
        ("/linux/personality", Section::Process),
        ("/root", Section::Root),
        ("/linux/rootfsPropagation", Section::Root),
        ("/mounts", Section::Mounts),
        ("/hooks", Section::Hooks),
        ("/annotations", Section::Annotations),
        ("/hostname", Section::Hostname),
        ("/domainname", Section::Hostname),
        ("/linux/namespaces", Section::Namespaces),
        ("/linux/uidMappings", Section::Namespaces),
        ("/linux/gidMappings", Section::Namespaces),
        ("/linux/timeOffsets", Section::Namespaces),
        ("/linux/sysctl", Section::Sysctl),
        ("/linux/seccomp", Section::Seccomp),
        ("/linux/resources/devices", Section::Devices),
        ("/linux/resources", Section::Resources),
    ];
    const MORE_PLACES: [(&str, Section); 6] = [
        ("/linux/cgroupsPath", Section::Resources),
        ("/linux/intelRdt", Section::Resources),
        ("/linux/devices", Section::Devices),
        ("/linux/netDevices", Section::Devices),
        ("/linux/maskedPaths", Section::Paths),
        ("/linux/readonlyPaths", Section::Paths),
    ];
    let below = |place: &str| {
        pointer.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    PLACES
        .iter()
        .chain(&MORE_PLACES)
        .find(|(place, _)| below(place))
        .map_or(Section::Other, |(_, section)| *section)
}

/// A place as a subject: its pointer without the parts that every reader knows.
pub(super) fn subject_of(pointer: &str) -> String {
    let short = ["/process/", "/linux/resources/", "/linux/", "/"]
        .iter()
        .find_map(|prefix| pointer.strip_prefix(prefix))
        .unwrap_or(pointer);
    // The index of a list's item is not the same on both sides.
    let named = matches!(section_of(pointer), Section::Annotations | Section::Sysctl);
    let names: Vec<&str> =
        short.split('/').filter(|name| named || name.parse::<usize>().is_err() && *name != "-").collect();
    escape(&names.join(".").replace("~1", "/").replace("~0", "~")).into_owned()
}
