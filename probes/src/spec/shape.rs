//! The fields of runtime-spec 1.3 and their types, in one table (specs-go/config.go and schema/ at v1.3).
//!
//! The sections of other platforms (`windows`, `solaris`, `vm`, `zos`, `freebsd`) are known by name and not checked
//! inside: no runtime on Linux reads them.

use serde_json::Value;

use crate::escape::{escape, quote};

/// What a JSON value may be.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    Flag,
    Text,
    Integer {
        min: i64,
        max: u64,
    },
    List(&'static Shape),
    Map(&'static Shape),
    Record(&'static [(&'static str, Shape)]),
    /// Another platform's, or an extension point.
    Any,
}

use Shape::{Any, Flag, Integer, List, Map, Record, Text};

const I64: Shape = Integer { min: i64::MIN, max: i64::MAX as u64 };
const I32: Shape = Integer { min: i32::MIN as i64, max: i32::MAX as u64 };
const U64: Shape = Integer { min: 0, max: u64::MAX };
const U32: Shape = Integer { min: 0, max: u32::MAX as u64 };
const U16: Shape = Integer { min: 0, max: u16::MAX as u64 };
const TEXTS: Shape = List(&Text);
const TEXT_MAP: Shape = Map(&Text);

const HOOKS: Shape = List(&Record(&[("path", Text), ("args", TEXTS), ("env", TEXTS), ("timeout", I64)]));
const ID_MAPPINGS: Shape = List(&Record(&[("containerID", U32), ("hostID", U32), ("size", U32)]));
const THROTTLES: Shape = List(&Record(&[("major", I64), ("minor", I64), ("rate", U64)]));
const TIME_OFFSET: Shape = Record(&[("secs", I64), ("nanosecs", U32)]);

const USER: Shape =
    Record(&[("uid", U32), ("gid", U32), ("umask", U32), ("additionalGids", List(&U32)), ("username", Text)]);

const CAPABILITIES: Shape = Record(&[
    ("bounding", TEXTS),
    ("effective", TEXTS),
    ("inheritable", TEXTS),
    ("permitted", TEXTS),
    ("ambient", TEXTS),
]);

const SCHEDULER: Shape = Record(&[
    ("policy", Text),
    ("nice", I32),
    ("priority", I32),
    ("flags", TEXTS),
    ("runtime", U64),
    ("deadline", U64),
    ("period", U64),
]);

const PROCESS: Shape = Record(&[
    ("terminal", Flag),
    ("consoleSize", Record(&[("height", U64), ("width", U64)])),
    ("user", USER),
    ("args", TEXTS),
    ("commandLine", Text),
    ("env", TEXTS),
    ("cwd", Text),
    ("capabilities", CAPABILITIES),
    ("rlimits", List(&Record(&[("type", Text), ("hard", U64), ("soft", U64)]))),
    ("noNewPrivileges", Flag),
    ("apparmorProfile", Text),
    ("oomScoreAdj", I64),
    ("scheduler", SCHEDULER),
    ("selinuxLabel", Text),
    ("ioPriority", Record(&[("class", Text), ("priority", I32)])),
    ("execCPUAffinity", Record(&[("initial", Text), ("final", Text)])),
]);

const MOUNT: Shape = Record(&[
    ("destination", Text),
    ("type", Text),
    ("source", Text),
    ("options", TEXTS),
    ("uidMappings", ID_MAPPINGS),
    ("gidMappings", ID_MAPPINGS),
]);

const MEMORY: Shape = Record(&[
    ("limit", I64),
    ("reservation", I64),
    ("swap", I64),
    ("kernel", I64),
    ("kernelTCP", I64),
    ("swappiness", U64),
    ("disableOOMKiller", Flag),
    ("useHierarchy", Flag),
    ("checkBeforeUpdate", Flag),
]);

const CPU: Shape = Record(&[
    ("shares", U64),
    ("quota", I64),
    ("burst", U64),
    ("period", U64),
    ("realtimeRuntime", I64),
    ("realtimePeriod", U64),
    ("cpus", Text),
    ("mems", Text),
    ("idle", I64),
]);

const BLOCK_IO: Shape = Record(&[
    ("weight", U16),
    ("leafWeight", U16),
    ("weightDevice", List(&Record(&[("major", I64), ("minor", I64), ("weight", U16), ("leafWeight", U16)]))),
    ("throttleReadBpsDevice", THROTTLES),
    ("throttleWriteBpsDevice", THROTTLES),
    ("throttleReadIOPSDevice", THROTTLES),
    ("throttleWriteIOPSDevice", THROTTLES),
]);

const DEVICE_RULE: Shape =
    Record(&[("allow", Flag), ("type", Text), ("major", I64), ("minor", I64), ("access", Text)]);

const RESOURCES: Shape = Record(&[
    ("devices", List(&DEVICE_RULE)),
    ("memory", MEMORY),
    ("cpu", CPU),
    ("pids", Record(&[("limit", I64)])),
    ("blockIO", BLOCK_IO),
    ("hugepageLimits", List(&Record(&[("pageSize", Text), ("limit", U64)]))),
    (
        "network",
        Record(&[("classID", U32), ("priorities", List(&Record(&[("name", Text), ("priority", U32)])))]),
    ),
    ("rdma", Map(&Record(&[("hcaHandles", U32), ("hcaObjects", U32)]))),
    ("unified", TEXT_MAP),
]);

const DEVICE: Shape = Record(&[
    ("path", Text),
    ("type", Text),
    ("major", I64),
    ("minor", I64),
    ("fileMode", U32),
    ("uid", U32),
    ("gid", U32),
]);

const SYSCALL_ARGUMENT: Shape = Record(&[("index", U32), ("value", U64), ("valueTwo", U64), ("op", Text)]);

const SECCOMP: Shape = Record(&[
    ("defaultAction", Text),
    ("defaultErrnoRet", U32),
    ("architectures", TEXTS),
    ("flags", TEXTS),
    ("listenerPath", Text),
    ("listenerMetadata", Text),
    (
        "syscalls",
        List(&Record(&[
            ("names", TEXTS),
            ("action", Text),
            ("errnoRet", U32),
            ("args", List(&SYSCALL_ARGUMENT)),
        ])),
    ),
]);

const LINUX: Shape = Record(&[
    ("uidMappings", ID_MAPPINGS),
    ("gidMappings", ID_MAPPINGS),
    ("sysctl", TEXT_MAP),
    ("resources", RESOURCES),
    ("cgroupsPath", Text),
    ("namespaces", List(&Record(&[("type", Text), ("path", Text)]))),
    ("devices", List(&DEVICE)),
    ("netDevices", Map(&Record(&[("name", Text)]))),
    ("seccomp", SECCOMP),
    ("rootfsPropagation", Text),
    ("maskedPaths", TEXTS),
    ("readonlyPaths", TEXTS),
    ("mountLabel", Text),
    (
        "intelRdt",
        // enableCMT and enableMBM were fields until 1.2.
        Record(&[
            ("closID", Text),
            ("schemata", TEXTS),
            ("l3CacheSchema", Text),
            ("memBwSchema", Text),
            ("enableMonitoring", Flag),
            ("enableCMT", Flag),
            ("enableMBM", Flag),
        ]),
    ),
    ("memoryPolicy", Record(&[("mode", Text), ("nodes", Text), ("flags", TEXTS)])),
    ("personality", Record(&[("domain", Text), ("flags", TEXTS)])),
    ("timeOffsets", Map(&TIME_OFFSET)),
]);

/// The whole document.
pub(super) const SPEC: Shape = Record(&[
    ("ociVersion", Text),
    ("process", PROCESS),
    ("root", Record(&[("path", Text), ("readonly", Flag)])),
    ("hostname", Text),
    ("domainname", Text),
    ("mounts", List(&MOUNT)),
    (
        "hooks",
        Record(&[
            ("prestart", HOOKS),
            ("createRuntime", HOOKS),
            ("createContainer", HOOKS),
            ("startContainer", HOOKS),
            ("poststart", HOOKS),
            ("poststop", HOOKS),
        ]),
    ),
    ("annotations", TEXT_MAP),
    ("linux", LINUX),
    ("solaris", Any),
    ("windows", Any),
    ("vm", Any),
    ("zos", Any),
    ("freebsd", Any),
]);

impl Shape {
    /// The shape of a member of an object; `None` where runtime-spec has no such member.
    pub(super) fn member(&self, name: &str) -> Option<&'static Shape> {
        match self {
            Record(fields) => fields.iter().find(|(field, _)| *field == name).map(|(_, shape)| shape),
            Map(shape) => Some(shape),
            Any => Some(&Any),
            _ => None,
        }
    }

    /// The shape of the items of a list.
    pub(super) fn item(&self) -> Option<&'static Shape> {
        if let List(item) = self { Some(item) } else { None }
    }

    fn expected(&self) -> String {
        match self {
            Flag => "true or false".to_owned(),
            Text => "a string".to_owned(),
            Integer { min, max } => format!("an integer from {min} to {max}"),
            List(_) => "an array".to_owned(),
            Map(_) | Record(_) => "an object".to_owned(),
            Any => "anything".to_owned(),
        }
    }
}

/// A value that is not what its place asks for.
#[derive(Debug)]
pub(super) struct Mismatch {
    pub(super) pointer: String,
    pub(super) expected: String,
    pub(super) found: String,
}

/// Checks a document against [`SPEC`]. `null` is allowed everywhere but for the whole: to a runtime it is an absent field.
pub(super) fn check(document: &Value) -> Result<(), Mismatch> {
    if document.is_null() {
        return Err(mismatch(document, &SPEC, ""));
    }
    check_at(document, &SPEC, "")
}

fn check_at(value: &Value, shape: &Shape, pointer: &str) -> Result<(), Mismatch> {
    match (shape, value) {
        (Any, _) | (_, Value::Null) | (Flag, Value::Bool(_)) | (Text, Value::String(_)) => Ok(()),
        (Integer { min, max }, Value::Number(number)) if in_range(number, *min, *max) => Ok(()),
        (List(item), Value::Array(items)) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| check_at(value, item, &format!("{pointer}/{index}"))),
        (Map(_) | Record(_), Value::Object(members)) => {
            members.iter().try_for_each(|(name, value)| match shape.member(name) {
                Some(member) => check_at(value, member, &child(pointer, name)),
                None => Ok(()),
            })
        }
        _ => Err(mismatch(value, shape, pointer)),
    }
}

fn mismatch(value: &Value, shape: &Shape, pointer: &str) -> Mismatch {
    Mismatch { pointer: escape(pointer).into_owned(), expected: shape.expected(), found: describe(value) }
}

fn in_range(number: &serde_json::Number, min: i64, max: u64) -> bool {
    match (number.as_u64(), number.as_i64()) {
        (Some(value), _) => value <= max,
        (None, Some(value)) => value >= min,
        (None, None) => false,
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quote(text.as_bytes())),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// The JSON pointers of all fields that [`SPEC`] does not have.
pub(super) fn unknown_fields(document: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    find_unknown(document, &SPEC, "", &mut unknown);
    unknown
}

/// The fields below a value of a known shape that runtime-spec does not have, each as `place: value` without the indices of
/// lists: the same for lists in another order.
pub(super) fn unknown_members(value: &Value, shape: &Shape) -> Vec<String> {
    let mut pointers = Vec::new();
    find_unknown(value, shape, "", &mut pointers);
    let is_index = |name: &&str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    let mut members: Vec<String> = pointers
        .iter()
        .filter_map(|pointer| {
            let place: Vec<&str> = pointer.split('/').filter(|name| !is_index(name)).collect();
            Some(format!("{}: {}", place.join("/"), value.pointer(pointer)?))
        })
        .collect();
    members.sort();
    members
}

fn find_unknown(value: &Value, shape: &Shape, pointer: &str, unknown: &mut Vec<String>) {
    match (shape, value) {
        (List(item), Value::Array(items)) => {
            for (index, value) in items.iter().enumerate() {
                find_unknown(value, item, &format!("{pointer}/{index}"), unknown);
            }
        }
        (Map(_) | Record(_), Value::Object(members)) => {
            for (name, value) in members {
                let pointer = child(pointer, name);
                match shape.member(name) {
                    Some(member) => find_unknown(value, member, &pointer, unknown),
                    None => unknown.push(pointer),
                }
            }
        }
        _ => {}
    }
}

/// The pointer of a member (RFC 6901: `~` and `/` of a name are written `~0` and `~1`).
pub(super) fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
