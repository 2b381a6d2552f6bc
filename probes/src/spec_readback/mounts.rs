//! `/proc/PID/mountinfo` against mounts, root, masked and read-only paths.

use serde_json::{Value, json};

use super::edit::{items, set, texts};
use super::rootfs::{Found, Rootfs};
use super::{Reading, Step};
use crate::process::Mount;
use crate::spec::MountOptions;

/// Flags of mounts that can be read back, with what clears them.
const FLAGS: [(&str, &str); 4] = [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")];

pub(super) fn read_mounts(reading: &mut Reading<'_>) -> Step {
    let Some(rootfs) = Rootfs::read(reading.host, reading.pid)? else { return Ok(None) };
    put_root(reading, &rootfs);
    put_mounts(reading, &rootfs);
    for pointer in ["/linux/maskedPaths", "/linux/readonlyPaths"] {
        put_protected(reading, &rootfs, pointer);
    }
    Ok(Some(()))
}

/// Per mount or for the whole file system: either makes it read-only.
fn is_readonly(mount: &Mount) -> bool {
    has(&mount.options, "ro") || has(&mount.super_options, "ro")
}

fn has(options: &str, option: &str) -> bool {
    options.split(',').any(|word| word == option)
}

fn put_root(reading: &mut Reading<'_>, rootfs: &Rootfs) {
    let Some(root) = rootfs.mounts.iter().rev().find(|mount| mount.mount_point == "/") else { return };
    let asked = reading.base.pointer("/root/readonly").and_then(Value::as_bool).unwrap_or(false);
    if asked != is_readonly(root) {
        set(&mut reading.enforced, "/root/readonly", is_readonly(root));
    }
}

fn put_mounts(reading: &mut Reading<'_>, rootfs: &Rootfs) {
    let asked = items(reading.base, "/mounts");
    let mut kept = Vec::new();
    let mut seen = Vec::new();
    for (place, entry) in asked.iter().enumerate() {
        let destination = entry.get("destination").and_then(Value::as_str).unwrap_or_default();
        let later = asked.get(place + 1..).unwrap_or_default();
        match rootfs.find(destination) {
            // What lies below another mount cannot be looked at.
            _ if later.iter().any(|later| is_covered_by(destination, later)) => kept.push(entry.clone()),
            Found::Mounted(mount) => {
                seen.push(mount);
                kept.push(enforce(entry, mount));
            }
            // Unmounted, or never there.
            Found::Within(_) | Found::Missing => {}
            Found::Unknown => kept.push(entry.clone()),
        }
    }
    let strangers = rootfs.mounts.iter().filter(|mount| !is_explained(reading.base, mount, &seen));
    kept.extend(strangers.map(|mount| {
        json!({
            "destination": mount.mount_point,
            "type": mount.file_system,
            "source": mount.source,
            "options": mount.options.split(',').collect::<Vec<_>>(),
        })
    }));
    if kept != asked {
        set(&mut reading.enforced, "/mounts", kept);
    }
}

/// Whether a later mount is made over a destination or a directory above it: containerd 1.6 mounts a sandbox's `/dev/shm`
/// twice.
fn is_covered_by(destination: &str, later: &Value) -> bool {
    let over = later.get("destination").and_then(Value::as_str).unwrap_or_default().trim_end_matches('/');
    let rest = destination.trim_end_matches('/').strip_prefix(over);
    !over.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The spec's entry with what the kernel does not enforce of it taken out. Further restrictions are the runtime's, or
/// those of a bind mount's source.
fn enforce(entry: &Value, mount: &Mount) -> Value {
    let asked = MountOptions::of_mount(entry);
    let mut options: Vec<Value> = items(entry, "/options").to_vec();
    let mut changed = false;
    for (flag, opposite) in FLAGS {
        let wanted = asked.is_set(flag) || asked.is_set(&format!("r{flag}"));
        let actual = if flag == "ro" { is_readonly(mount) } else { has(&mount.options, flag) };
        if wanted && !actual {
            let names = [flag.to_owned(), format!("r{flag}")];
            options.retain(|option| {
                option.as_str().is_none_or(|option| !names.iter().any(|name| name == option))
            });
            options.push(opposite.into());
            changed = true;
        } else if flag == "ro" && actual && !wanted && !asked.is_bind() {
            options.push(flag.into());
            changed = true;
        }
    }
    if let Some(size) = changed_size(&asked, mount) {
        options.retain(|option| option.as_str().is_none_or(|option| !option.starts_with("size=")));
        options.push(format!("size={size}").into());
        changed = true;
    }
    let mut enforced = entry.clone();
    if changed {
        set(&mut enforced, "/options", options);
    }
    if let Some(file_system) = changed_type(entry, &asked, mount) {
        set(&mut enforced, "/type", file_system);
    }
    enforced
}

/// Another file system where the spec has one of the kernel's own: something lies over it.
fn changed_type<'a>(entry: &Value, asked: &MountOptions<'_>, mount: &'a Mount) -> Option<&'a str> {
    let own = ["proc", "sysfs", "tmpfs", "devpts", "mqueue"];
    let wanted = entry.get("type").and_then(Value::as_str).unwrap_or_default();
    let differs = !asked.is_bind() && own.contains(&wanted) && mount.file_system != wanted;
    differs.then_some(mount.file_system.as_str())
}

/// The size of a tmpfs, where it is not what the spec has.
fn changed_size(asked: &MountOptions<'_>, mount: &Mount) -> Option<String> {
    let wanted = asked.size()?;
    let actual = mount.super_options.split(',').find_map(|option| option.strip_prefix("size="))?;
    let bytes = MountOptions::parse_size(actual)?;
    (mount.file_system == "tmpfs" && MountOptions::parse_size(wanted) != Some(bytes))
        .then(|| actual.to_owned())
}

/// Whether the spec, or what every runtime does with it, accounts for a mount.
fn is_explained(base: &Value, mount: &Mount, seen: &[&Mount]) -> bool {
    let point = mount.mount_point.as_str();
    let below = |path: &str| {
        let path = path.trim_end_matches('/');
        point.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let protected = || {
        let paths = texts(base, "/linux/maskedPaths").into_iter().chain(texts(base, "/linux/readonlyPaths"));
        paths.into_iter().any(below)
    };
    let comes_along = |entry: &Value| {
        let destination = entry.get("destination").and_then(Value::as_str).unwrap_or_default();
        let kind = entry.get("type").and_then(Value::as_str).unwrap_or_default();
        let holds_more = MountOptions::of_mount(entry).is_bind() || kind.starts_with("cgroup");
        clean(destination) == point || holds_more && below(destination)
    };
    // Runtimes bind the terminal to /dev/console, and in a user namespace the default devices.
    point == "/"
        || point.starts_with("/dev/")
            && !matches!(mount.file_system.as_str(), "proc" | "sysfs" | "overlay" | "ext4")
        || seen.iter().any(|other| other.id == mount.id)
        || items(base, "/mounts").iter().any(comes_along)
        || protected()
}

fn clean(path: &str) -> &str {
    if path.len() > 1 { path.trim_end_matches('/') } else { path }
}

/// Leaves out the paths that exist in the container and are not masked, or not read-only.
fn put_protected(reading: &mut Reading<'_>, rootfs: &Rootfs, pointer: &str) {
    let paths = texts(reading.base, pointer);
    let masks = pointer.ends_with("maskedPaths");
    let holds = |path: &str| match rootfs.find(path) {
        Found::Mounted(mount) => masks || is_readonly(mount),
        Found::Within(mount) => !masks && is_readonly(mount),
        Found::Missing | Found::Unknown => true,
    };
    let enforced: Vec<&str> = paths.iter().copied().filter(|path| holds(path)).collect();
    if enforced.len() != paths.len() {
        let enforced: Vec<Value> = enforced.into_iter().map(Value::from).collect();
        set(&mut reading.enforced, pointer, enforced);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_mount_covers_its_own_place_and_what_is_below() {
        let covered =
            |destination: &str, later: &str| is_covered_by(destination, &json!({ "destination": later }));
        assert!(
            covered("/dev/shm", "/dev/shm")
                && covered("/dev/shm/", "/dev")
                && covered("/dev/shm", "/dev/shm/")
        );
        assert!(!covered("/dev/shm", "/dev/sh") && !covered("/dev", "/dev/shm") && !covered("/dev", ""));
    }
}
