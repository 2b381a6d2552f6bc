//! What holds for the plan of every spec.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Paths with all that a spec may hold, written by somebody who means no good.
fn any_path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(".".to_owned()),
        Just("..".to_owned()),
        Just(String::new()),
        Just("dev".to_owned()),
        Just("proc".to_owned()),
        "[a-c]{1,2}",
    ];
    vec(part, 0..7).prop_map(|parts| format!("/{}", parts.join("/")))
}

/// A path below a root as the kernel would resolve it there, without symlinks.
fn resolved(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[derive(Clone, Debug)]
struct AnyMount {
    destination: String,
    kind: &'static str,
    source: String,
    options: Vec<&'static str>,
}

fn any_mount() -> impl Strategy<Value = AnyMount> {
    let kind = prop_oneof![Just("tmpfs"), Just("proc"), Just("bind"), Just("cgroup"), Just("devpts")];
    let option =
        prop_oneof![Just("ro"), Just("rw"), Just("nosuid"), Just("noexec"), Just("rslave"), Just("size=1k")];
    let source = prop_oneof![any_path(), any_path().prop_map(|path| format!("/b/rootfs{path}"))];
    (any_path(), kind, source, vec(option, 0..4)).prop_map(|(destination, kind, source, mut options)| {
        if kind == "bind" {
            options.push("rbind");
        }
        AnyMount { destination, kind, source, options }
    })
}

/// Every kind of namespace, absent, new or by path.
fn any_namespaces() -> impl Strategy<Value = Vec<(&'static str, bool)>> {
    const KINDS: [&str; 8] = ["mount", "pid", "ipc", "uts", "network", "cgroup", "user", "time"];
    vec(0..3, KINDS.len()).prop_map(|choices| {
        let chosen = KINDS.into_iter().zip(choices).filter(|(_, choice)| *choice > 0);
        chosen.map(|(kind, choice)| (kind, choice == 2)).collect()
    })
}

fn plan_of(mounts: &[AnyMount], namespaces: &[(&str, bool)], masked: &[String]) -> Plan {
    let mounts: Vec<Value> = mounts
        .iter()
        .map(|one| json!({"destination": one.destination, "type": one.kind, "source": one.source, "options": one.options}))
        .collect();
    let namespaces: Vec<Value> = namespaces
        .iter()
        .map(
            |(kind, is_joined)| {
                if *is_joined { json!({"type": kind, "path": "/n"}) } else { json!({"type": kind}) }
            },
        )
        .collect();
    let spec = json!({
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["a"], "user": {"uid": 0, "gid": 0}},
        "mounts": mounts,
        "linux": {"namespaces": namespaces, "maskedPaths": masked, "readonlyPaths": masked},
    });
    let spec: Spec = serde_json::from_value(spec).unwrap();
    plan(&spec, Path::new("/b"), Path::new("/b/rootfs"), PlanOptions::default()).unwrap()
}

proptest! {
    #[test]
    fn a_path_stays_below_the_root_whatever_it_says(path in any_path()) {
        let planned = relative("f", Path::new(&path)).unwrap().into_string().unwrap();
        prop_assert_eq!(&planned, &resolved(&path));
        prop_assert_eq!(relative("f", Path::new(&format!("/{planned}"))).unwrap().into_string().unwrap(), planned);
    }

    #[test]
    fn mounts_keep_their_order_and_their_places(
        mounts in vec(any_mount(), 0..6),
        namespaces in any_namespaces(),
        masked in vec(any_path(), 0..4),
    ) {
        let plan = plan_of(&mounts, &namespaces, &masked);
        let targets: Vec<String> =
            plan.rootfs.mounts.iter().map(|one| one.target.to_str().unwrap().to_owned()).collect();
        let expected: Vec<String> = mounts.iter().map(|one| resolved(&one.destination)).collect();
        prop_assert_eq!(targets, expected);
        let covered: Vec<String> = masked.iter().map(|path| resolved(path)).collect();
        let planned: Vec<String> = plan.rootfs.masked.iter().map(|one| one.to_str().unwrap().to_owned()).collect();
        prop_assert_eq!(&planned, &covered);
        for (mount, planned) in mounts.iter().zip(&plan.rootfs.mounts) {
            if let MountKind::Bind { inner, .. } = &planned.kind {
                // In the container's own tree only what is below it by its parts, not by its letters, and stays there.
                let is_below = Path::new(&mount.source).starts_with("/b/rootfs") && !mount.source.contains("..");
                prop_assert_eq!(inner.is_some(), is_below);
            }
        }
        let is_dev = |one: &&AnyMount| resolved(&one.destination) == "dev";
        let is_bound = mounts.iter().filter(is_dev).any(|one| one.kind == "bind");
        prop_assert_eq!(plan.rootfs.devices.is_none(), is_bound);
    }

    #[test]
    fn a_namespace_is_new_joined_or_shared(namespaces in any_namespaces()) {
        let plan = plan_of(&[], &namespaces, &[]);
        for planned in &plan.namespaces {
            prop_assert_eq!(plan.new_namespaces() & planned.flag != 0, planned.path.is_none());
            prop_assert_eq!(plan.namespace_path(planned.flag).is_some(), planned.path.is_some());
        }
        let has_new_mounts = namespaces.iter().any(|(kind, is_joined)| *kind == "mount" && !is_joined);
        prop_assert_eq!(plan.rootfs.shares_mounts, !has_new_mounts);
    }
}
