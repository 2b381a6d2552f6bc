//! A table of differences and what they mean: left, right, subject and verdict of every listed change.

use serde_json::{Value, json};

use super::*;
use crate::spec::Section;

/// Puts a value at a pointer of an otherwise empty spec.
fn spec(pointer: &str, value: Value) -> Value {
    let nested =
        pointer.rsplit('/').filter(|name| !name.is_empty()).fold(value, |inner, name| json!({ name: inner }));
    let mut spec = json!({"ociVersion": "1.2.0"});
    if let (Value::Object(spec), Value::Object(members)) = (&mut spec, nested) {
        spec.extend(members);
    }
    spec
}

/// `subject: verdict` of what is listed.
fn listed(left: &Value, right: &Value) -> Vec<String> {
    let changes = compare(left, right);
    changes.listed().map(|change| format!("{}: {}", change.subject, change.verdict.as_str())).collect()
}

#[track_caller]
fn check(pointer: &str, left: Value, right: Value, expected: &[&str]) {
    assert_eq!(
        listed(&spec(pointer, left.clone()), &spec(pointer, right.clone())),
        expected,
        "{pointer} {left} {right}"
    );
}

#[test]
fn capabilities_are_counted_together_and_alone() {
    let sets = |names: Value| json!({"bounding": names, "effective": names, "permitted": names});
    let (few, many) = (sets(json!(["CAP_KILL"])), sets(json!(["CAP_CHOWN", "CAP_KILL"])));
    check("/process/capabilities", few.clone(), many.clone(), &["capabilities: more permissive"]);
    check("/process/capabilities", many, few, &["capabilities: less permissive"]);
    let exchanged = (sets(json!(["CAP_KILL"])), sets(json!(["CAP_CHOWN"])));
    let both = ["capabilities: more permissive", "capabilities: less permissive"];
    check("/process/capabilities", exchanged.0, exchanged.1, &both);
    let ambient = json!({"ambient": ["CAP_KILL"]});
    check("/process/capabilities", json!({}), ambient, &["ambient capabilities: more permissive"]);
    check("/process/capabilities", json!({"inheritable": []}), Value::Null, &[]);
}

#[test]
fn namespaces_are_own_joined_or_the_hosts() {
    let at = "/linux/namespaces";
    check(at, json!([{"type": "pid"}]), json!([]), &["pid namespace: more permissive"]);
    check(
        at,
        json!([{"type": "network"}]),
        json!([{"type": "network", "path": "/run/netns/x"}]),
        &["network namespace: more permissive"],
    );
    check(
        at,
        json!([{"type": "ipc", "path": "/proc/7/ns/ipc"}]),
        json!([{"type": "ipc", "path": "/proc/8/ns/ipc"}]),
        &["ipc namespace: changed"],
    );
    check(at, json!([{"type": "pid", "path": "/proc/1/ns/pid"}]), json!([]), &[]);
    check(at, json!([]), json!([{"type": "user"}]), &["user namespace: less permissive"]);
    check(at, json!([{"type": "pid"}, {"type": "uts"}]), json!([{"type": "uts"}, {"type": "pid"}]), &[]);
    let root = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let other = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    check("/linux/uidMappings", other, root, &["uidMappings: more permissive"]);
}

#[test]
fn a_joined_namespace_is_said_to_be_whose_it_is() {
    use crate::process::NamespaceId;
    use crate::spec::{JoinedNamespace, JoinedNamespaces, NamespaceOwner};
    let joins = |path: &str, id: u64, owner: NamespaceOwner| {
        let joined = JoinedNamespace { id: Some(NamespaceId(id)), owner };
        let spec = spec("/linux/namespaces", json!([{"type": "network", "path": path}]));
        (spec, JoinedNamespaces([(path.to_owned(), joined)].into()))
    };
    let compared = |left: &(Value, JoinedNamespaces), right: &(Value, JoinedNamespaces)| {
        let comparison = compare_on_host((&left.0, &left.1), (&right.0, &right.1));
        comparison
            .listed()
            .map(|change| {
                format!("{} / {}: {}", change.left.text, change.right.text, change.verdict.as_str())
            })
            .collect::<Vec<_>>()
    };
    let of =
        |name: &str| NamespaceOwner::Of { name: name.to_owned(), detail: "sandbox k8s.io/4f".to_owned() };
    let own = (spec("/linux/namespaces", json!([{"type": "network"}])), JoinedNamespaces::default());
    let pod = joins("/proc/7/ns/net", 1, of("pod shop"));
    assert_eq!(compared(&own, &pod), ["its own / that of pod shop: more permissive"]);
    // The host's, by whatever path, is the host's; and one namespace by two paths is one.
    let host = joins("/run/netns/host", 2, NamespaceOwner::Host);
    assert_eq!(compared(&pod, &host), ["that of pod shop / the host's: more permissive"]);
    let again = joins("/run/netns/cni-1", 1, of("pod shop"));
    assert_eq!(compared(&pod, &again), Vec::<String>::new());
    let other = joins("/proc/8/ns/net", 3, of("process 8 (x)"));
    assert_eq!(compared(&pod, &other), ["that of pod shop / that of process 8 (x): changed"]);
}

#[test]
fn mounts_are_compared_by_destination_option_and_cover() {
    let mount = |destination: &str, options: Value| json!({"destination": destination, "type": "tmpfs", "source": "x", "options": options});
    let one = |options: Value| json!([mount("/a", options)]);
    let at = "/mounts";
    check(at, one(json!(["ro", "nosuid"])), one(json!(["rw", "suid"])), &["mount /a: more permissive"]);
    check(
        at,
        one(json!(["ro"])),
        one(json!(["nosuid"])),
        &["mount /a: more permissive", "mount /a: less permissive"],
    );
    check(at, one(json!(["rw", "ro"])), one(json!(["ro"])), &[]);
    check(at, one(json!(["size=1k"])), one(json!(["size=1m"])), &["mount /a size: more permissive"]);
    check(at, one(json!(["size=1024k"])), one(json!(["size=1m"])), &[]);
    check(at, one(json!(["private"])), one(json!(["rshared"])), &["mount /a propagation: more permissive"]);
    check(at, json!([mount("/a", json!([]))]), json!([mount("/a/", json!([]))]), &[]);
    let cover = (mount("/a", json!([])), mount("/a/b", json!([])));
    check(at, json!([cover.0, cover.1]), json!([cover.1, cover.0]), &["mount /a/b order: cannot tell"]);
    let bind = json!([{"destination": "/h", "source": "/", "options": ["rbind"]}]);
    check(at, json!([]), bind.clone(), &["mount /h: more permissive"]);
    check(
        at,
        bind,
        json!([{"destination": "/h", "source": "/etc", "options": ["rbind"]}]),
        &["mount /h source: cannot tell"],
    );
}

#[test]
fn limits_are_compared_with_no_limit_as_the_most() {
    let at = |limit: &str| format!("/linux/resources/{limit}");
    check(&at("memory/limit"), json!(1), json!(-1), &["memory limit: more permissive"]);
    check(&at("memory/limit"), json!(0), Value::Null, &[]);
    check(&at("memory/limit"), json!(2), json!(1), &["memory limit: less permissive"]);
    check(&at("pids/limit"), json!(100), json!(0), &["process limit: cannot tell"]);
    check(&at("cpu/shares"), json!(512), Value::Null, &["CPU shares: more permissive"]);
    check(&at("cpu/shares"), json!(1024), Value::Null, &["CPU shares: cannot tell"]);
    check(
        &at("cpu"),
        json!({"quota": 50000}),
        json!({"quota": 100_000, "period": 200_000}),
        &["CPU quota: changed"],
    );
    check(&at("cpu"), json!({"quota": -1}), json!({"quota": 1000}), &["CPU quota: less permissive"]);
    check(&at("cpu/cpus"), json!("0-1"), json!("0,1,2"), &["CPUs: more permissive"]);
    check(&at("cpu/cpus"), json!("0-1"), json!("0,1"), &[]);
    check(
        &at("unified"),
        json!({"memory.max": "max"}),
        json!({"memory.max": "1"}),
        &["unified memory.max: less permissive"],
    );
    let pages = |limit: u64| json!([{"pageSize": "2MB", "limit": limit}]);
    check(&at("hugepageLimits"), pages(0), pages(1), &["huge pages of 2MB: more permissive"]);
    let rate = |rate: u64| json!([{"major": 8, "minor": 0, "rate": rate}]);
    let throttle = "blockIO.throttleReadBpsDevice of device 8:0: more permissive";
    check(&at("blockIO/throttleReadBpsDevice"), rate(1), rate(2), &[throttle]);
}

#[test]
fn amounts_have_their_units() {
    let texts = |pointer: &str, value: Value| {
        let comparison = compare(&spec("/hostname", json!("x")), &{
            let mut right = spec(&format!("/linux/resources/{pointer}"), value);
            right["hostname"] = json!("x");
            right
        });
        comparison.listed().map(|change| change.right.text.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(texts("memory/reservation", json!(1 << 20)), "1048576 (1 MiB)");
    assert_eq!(texts("cpu/burst", json!(1000)), "1000 us");
    let rate = json!([{"major": 8, "minor": 0, "rate": 4096}]);
    assert_eq!(texts("blockIO/throttleReadBpsDevice", rate.clone()), "4096 (4 KiB) a second");
    assert_eq!(texts("blockIO/throttleReadIOPSDevice", rate), "4096 a second");
    assert_eq!(texts("pids/limit", json!(7)), "7");
}

#[test]
fn a_root_path_that_leaves_the_bundle_is_no_name() {
    let at = "/root/path";
    check(at, json!("rootfs"), json!("other"), &[]);
    check(at, json!("rootfs"), json!("/"), &["root path: more permissive"]);
    check(at, json!("/./"), json!("rootfs"), &["root path: less permissive"]);
    check(at, json!("rootfs"), json!("../../../etc"), &["root path: cannot tell"]);
    check(at, json!("rootfs"), json!("/srv/www"), &["root path: cannot tell"]);
}

#[test]
fn device_rules_are_compared_by_what_they_allow() {
    let at = "/linux/resources/devices";
    let deny = json!({"allow": false, "access": "rwm"});
    let fuse = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"});
    let dev_null = json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"});
    check(at, json!([deny]), json!([deny, fuse]), &["device rules: more permissive"]);
    check(at, json!([deny]), json!([deny, dev_null]), &[]);
    check(at, json!([deny, fuse]), json!([fuse, deny]), &["device rules: less permissive"]);
    let unheard = json!({"allow": true, "type": "char", "major": 10, "minor": 229, "access": "rwm"});
    check(at, json!([deny, fuse]), json!([deny, unheard]), &["device rules: cannot tell"]);
    check(at, json!([deny]), json!([]), &["device rules: cannot tell"]);
    let changes = diff(&spec(at, json!([deny])), &spec(at, json!([deny, fuse])));
    assert_eq!(changes[0].details[0].items, ["c 10:229 rw"]);
}

#[test]
fn seccomp_is_compared_by_effect() {
    let at = "/linux/seccomp";
    let profile = |rules: Value| json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules});
    let allow = |names: Value| json!({"names": names, "action": "SCMP_ACT_ALLOW"});
    let together = profile(json!([allow(json!(["read", "write"]))]));
    let apart = profile(json!([allow(json!(["write"])), allow(json!(["read"]))]));
    check(at, together.clone(), apart, &[]);
    check(at, together.clone(), Value::Null, &["seccomp: more permissive"]);
    let more = profile(json!([allow(json!(["read", "write", "mount"]))]));
    let subject = "seccomp: 1 system call allowed by the right only: more permissive";
    check(at, together.clone(), more.clone(), &[subject]);
    let changes = diff(&spec(at, together), &spec(at, more.clone()));
    assert_eq!(changes[0].details[0].items, ["mount"]);
    // The same refusal, named twice: EPERM is the default errno.
    let spelled =
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "syscalls": more["syscalls"]});
    check(at, more.clone(), spelled, &[]);
    let condition = json!([{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]);
    let sometimes = profile(json!([{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": condition}]));
    let always = profile(json!([allow(json!(["mount"]))]));
    check(at, sometimes.clone(), always, &[subject]);
    check(at, profile(json!([])), sometimes.clone(), &[subject]);
    let notify = profile(json!([{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}]));
    check(at, sometimes, notify, &["seccomp: 1 system call under other conditions: cannot tell"]);
    let open = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    check(at, profile(json!([])), open, &[subject]);
    let two =
        json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]});
    let one = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"]});
    check(at, one, two, &["seccomp architectures: more permissive"]);
}

#[test]
fn the_process_is_compared_field_by_field() {
    check("/process/noNewPrivileges", json!(true), json!(false), &["noNewPrivileges: more permissive"]);
    check("/process/terminal", json!(false), Value::Null, &[]);
    check("/process/user", json!({"uid": 1000}), json!({"uid": 0}), &["uid: more permissive"]);
    check("/process/user", json!({"uid": 1}), json!({"uid": 2}), &["uid: changed"]);
    check("/process/user", json!({"uid": 0, "gid": 0}), json!({"additionalGids": [0]}), &[]);
    check(
        "/process/user",
        json!({}),
        json!({"additionalGids": [10]}),
        &["additional groups: more permissive"],
    );
    check("/process/user/umask", json!(18), json!(0), &["umask: more permissive"]);
    check("/process/env", json!(["A=1", "B=1"]), json!(["B=2", "A=1"]), &["B: changed"]);
    let limit = |soft: u64| json!([{"type": "RLIMIT_NOFILE", "soft": soft, "hard": 9}]);
    check("/process/rlimits", limit(1), limit(u64::MAX), &["RLIMIT_NOFILE soft: more permissive"]);
    check("/process/rlimits", limit(1), json!([]), &["RLIMIT_NOFILE: cannot tell"]);
    check("/process/apparmorProfile", json!("a"), json!("unconfined"), &["apparmorProfile: more permissive"]);
    check("/process/apparmorProfile", json!("a"), json!("b"), &["apparmorProfile: cannot tell"]);
    check("/process/oomScoreAdj", json!(1), json!(2), &["oomScoreAdj: changed"]);
    check(
        "/process/scheduler/policy",
        json!("SCHED_OTHER"),
        json!("SCHED_FIFO"),
        &["scheduler.policy: more permissive"],
    );
    check("/process/future", json!(1), json!(2), &["unknown field future: cannot tell"]);
}

#[test]
fn the_rest_is_compared_too() {
    check("/root/readonly", json!(true), json!(false), &["root file system: more permissive"]);
    check("/linux/maskedPaths", json!(["/a", "/b"]), json!(["/b"]), &["masked paths: more permissive"]);
    check("/linux/readonlyPaths", json!(["/a"]), json!(["/a", "/b"]), &["read-only paths: less permissive"]);
    check(
        "/hooks/createRuntime",
        json!([]),
        json!([{"path": "/h"}]),
        &["createRuntime hook /h: more permissive"],
    );
    check("/hooks/startContainer", json!([]), json!([{"path": "/h"}]), &["startContainer hook /h: changed"]);
    check("/annotations", json!({"a": "1"}), json!({"a": "2"}), &["annotations.a: changed"]);
    check(
        "/annotations",
        json!({}),
        json!({"run.oci.handler": "krun"}),
        &["annotations.run.oci.handler: cannot tell"],
    );
    check(
        "/annotations",
        json!({"io.kubernetes.cri.sandbox-id": "a"}),
        json!({"io.kubernetes.cri.sandbox-id": "b"}),
        &[],
    );
    check("/linux/cgroupsPath", json!("/default/a"), json!("/default/b"), &[]);
    check("/linux/cgroupsPath", json!("/default/a"), json!("/other/a"), &["cgroupsPath: changed"]);
    check(
        "/linux/devices",
        json!([]),
        json!([{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]),
        &["device /dev/fuse: more permissive"],
    );
    check("/linux/netDevices", json!({}), json!({"eth1": {}}), &["network device eth1: more permissive"]);
    check(
        "/linux/sysctl",
        json!({}),
        json!({"net.ipv4.ip_forward": "1"}),
        &["sysctl.net.ipv4.ip_forward: changed"],
    );
    check("/linux/intelRdt/closID", json!("a"), json!("b"), &["intelRdt.closID: changed"]);
    check("/windows", json!({"x": 1}), json!({"x": 2}), &["windows.x: changed"]);
}

#[test]
fn the_overall_verdict_is_the_worst_and_noise_has_none() {
    let (left, right) = (spec("/process/noNewPrivileges", json!(true)), spec("/root/readonly", json!(true)));
    assert_eq!(compare(&left, &right).overall, Some(Verdict::MorePermissive));
    let noise = compare(&spec("/hooks", Value::Null), &spec("/annotations", json!({})));
    assert_eq!((noise.overall, noise.folded()), (None, 2));
}

#[test]
fn pointers_lead_to_what_they_name() {
    let left = spec("/linux/namespaces", json!([{"type": "uts"}, {"type": "pid"}]));
    let right = spec("/linux/namespaces", json!([{"type": "uts"}]));
    let change = &diff(&left, &right)[0];
    assert_eq!(
        (change.section, change.left.pointer.as_deref()),
        (Section::Namespaces, Some("/linux/namespaces/1"))
    );
    assert_eq!(change.right.pointer, None);
    assert_eq!(left.pointer("/linux/namespaces/1"), change.left.value.as_ref());
}

#[test]
fn hostile_names_are_escaped_everywhere() {
    let evil = "x\u{1b}[2J";
    let left = json!({"ociVersion": "1", "annotations": {evil: evil}, "process": {"env": [format!("{evil}={evil}")]},
        "mounts": [{"destination": format!("/{evil}"), "type": evil}], "linux": {"sysctl": {evil: evil}, evil: 1}});
    for change in diff(&left, &json!({"ociVersion": "1"})) {
        let text = format!("{}{}{}{}", change.subject, change.left.text, change.right.text, change.reason);
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
