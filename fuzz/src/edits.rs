//! JSON documents out of bytes: either the bytes themselves, or a known document changed as the bytes say.
//!
//! Mutated text is seldom JSON any more, and JSON is seldom a spec. A list of edits stays both, so that what comes after
//! the parser is reached as well.

use serde_json::{Map, Value, json};

/// Gives bytes one by one; zeros when there are no more.
pub struct Choices<'a>(pub &'a [u8]);

impl Choices<'_> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`, which is at least 1.
    pub fn below(&mut self, bound: usize) -> usize {
        let high = if bound > 256 { usize::from(self.byte()) << 8 } else { 0 };
        (high | usize::from(self.byte())) % bound
    }

    /// Whether there is nothing left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A document of the bytes: themselves where they begin as an object, else one of `documents` after edits.
pub fn document(data: &[u8], documents: &[&str]) -> Vec<u8> {
    if data.first() == Some(&b'{') {
        return data.to_vec();
    }
    let mut choices = Choices(data);
    edited(&mut choices, documents, usize::MAX).to_string().into_bytes()
}

/// One of `documents` after at most `limit` edits.
pub fn edited(choices: &mut Choices<'_>, documents: &[&str], limit: usize) -> Value {
    let chosen = documents[choices.below(documents.len())];
    let mut document: Value = serde_json::from_str(chosen).expect("a seed document is JSON");
    // Documents double when they are copied into themselves: some edits are enough, and they stay small.
    for _ in 0..limit.min(24) {
        if choices.is_empty() || document.to_string().len() > 64 << 10 {
            break;
        }
        edit(&mut document, choices);
    }
    document
}

fn edit(document: &mut Value, choices: &mut Choices<'_>) {
    let mut pointers = Vec::new();
    list_pointers(document, &mut String::new(), &mut pointers);
    let place = pointers[choices.below(pointers.len())].clone();
    let other = pointers[choices.below(pointers.len())].clone();
    let other = document.pointer(&other).cloned().unwrap_or_default();
    let kind = choices.below(7);
    if kind == 0 {
        remove(document, &place);
        return;
    }
    let Some(target) = document.pointer_mut(&place) else { return };
    match kind {
        1 => *target = other,
        2 => *target = value(choices),
        3 => match target {
            Value::Array(items) => items.push(other),
            Value::Object(members) => drop(members.insert(name(choices), other)),
            _ => *target = other,
        },
        4 => match target {
            Value::Array(items) => items.push(value(choices)),
            Value::Object(members) => drop(members.insert(name(choices), value(choices))),
            _ => *target = value(choices),
        },
        5 => match target {
            Value::Array(items) => items.reverse(),
            Value::Object(members) => *members = members.clone().into_iter().rev().collect::<Map<_, _>>(),
            Value::String(text) => text.push_str(&word(choices)),
            Value::Number(number) => {
                *target = number.as_i64().map_or(json!(1.5), |n| json!(n.wrapping_add(1)))
            }
            Value::Bool(flag) => *flag = !*flag,
            Value::Null => {}
        },
        _ => match target {
            Value::Array(items) => items.extend(items.clone()),
            _ => *target = json!([target.clone()]),
        },
    }
}

fn list_pointers(value: &Value, pointer: &mut String, pointers: &mut Vec<String>) {
    pointers.push(pointer.clone());
    let mut descend = |token: &str, value: &Value| {
        let length = pointer.len();
        pointer.push('/');
        pointer.push_str(&token.replace('~', "~0").replace('/', "~1"));
        list_pointers(value, pointer, pointers);
        pointer.truncate(length);
    };
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| descend(&i.to_string(), item)),
        Value::Object(members) => members.iter().for_each(|(name, member)| descend(name, member)),
        _ => {}
    }
}

fn remove(document: &mut Value, pointer: &str) {
    let Some((parent, token)) = pointer.rsplit_once('/') else { return };
    let token = token.replace("~1", "/").replace("~0", "~");
    match document.pointer_mut(parent) {
        Some(Value::Array(items)) => {
            if let Some(index) = token.parse().ok().filter(|index| *index < items.len()) {
                items.remove(index);
            }
        }
        Some(Value::Object(members)) => drop(members.shift_remove(&token)),
        _ => {}
    }
}

/// Names of members that the seeds do not have, and some of nobody's.
const NAMES: [&str; 40] = [
    "path",
    "type",
    "options",
    "uidMappings",
    "gidMappings",
    "devices",
    "rlimits",
    "seccomp",
    "hooks",
    "sysctl",
    "prestart",
    "createRuntime",
    "startContainer",
    "poststop",
    "annotations",
    "domainname",
    "memory",
    "cpu",
    "swap",
    "quota",
    "period",
    "burst",
    "idle",
    "cpus",
    "pids",
    "blockIO",
    "hugepageLimits",
    "unified",
    "netDevices",
    "timeOffsets",
    "personality",
    "memoryPolicy",
    "scheduler",
    "ioPriority",
    "execCPUAffinity",
    "consoleSize",
    "user",
    "intelRdt",
    "a/b~c",
    "",
];

fn name(choices: &mut Choices<'_>) -> String {
    NAMES[choices.below(NAMES.len())].to_owned()
}

fn value(choices: &mut Choices<'_>) -> Value {
    match choices.below(20) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(false),
        3 => json!(0),
        4 => json!(1),
        5 => json!(-1),
        6 => json!(i64::MIN),
        7 => json!(i64::MAX),
        8 => json!(u64::MAX),
        9 => json!(u32::MAX),
        10 => json!(1_i64 << 31),
        11 => json!(1.5),
        12 => json!(1e300),
        13 => json!({}),
        14 => json!([]),
        15 => json!(choices.byte()),
        _ => Value::String(word(choices)),
    }
}

/// Words with a meaning somewhere in a spec, and such as no parser should meet unprepared.
const WORDS: [&str; 48] = [
    "",
    "/",
    ".",
    "..",
    "/proc",
    "/proc/self",
    "/../..",
    "/dev/shm",
    "/a\u{0}b",
    "\u{1b}[2J",
    "\u{202e}x",
    "ä",
    "ro",
    "rw",
    "bind",
    "rbind",
    "rro",
    "idmap",
    "ridmap",
    "rshared",
    "tmpcopyup",
    "size=1k",
    "size=99999999999999999999g",
    "mode=",
    "nosuid",
    "CAP_SYS_ADMIN",
    "CAP_",
    "pid",
    "user",
    "time",
    "A=1",
    "=",
    "A",
    "0-3",
    "3-0",
    "0-4294967295",
    "rwm",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_NOTIFY",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_CMP_MASKED_EQ",
    "socketcall",
    "RLIMIT_NOFILE",
    "RLIMIT_",
    "memory.max",
    "machine.slice:cri:x",
];

fn word(choices: &mut Choices<'_>) -> String {
    WORDS[choices.below(WORDS.len())].to_owned()
}
