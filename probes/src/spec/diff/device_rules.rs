//! linux.resources.devices: an ordered list in which the last rule that matches decides; nothing matched is denied.
//!
//! Compared by effect: both lists are asked about every device that either of them names, and about all others.
//! Some devices runc (specconv.AllowedDevices) and crun (default_devices) allow whatever a list says.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::pair::{Node, Pair};
use super::report::{Draft, Report};
use super::text::count;
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};

/// Lists longer than this are compared as they stand: the work grows with the cube.
const MOST_RULES: usize = 128;

pub(super) fn compare_device_rules(pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (Rules::of(&pair.left), Rules::of(&pair.right));
    let draft = || {
        Draft::new(Section::Devices, "device rules", pair)
            .texts(left.counted(), right.counted())
            .kubernetes("securityContext.privileged, device plugins")
            .kernel("BPF_PROG_TYPE_CGROUP_DEVICE")
    };
    if left.0.len() > MOST_RULES || right.0.len() > MOST_RULES {
        let reason = format!("more than {MOST_RULES} rules: not evaluated one by one");
        report.push(draft().verdict(Verdict::CannotTell).why(reason));
        return;
    }
    if left.0.is_empty() != right.0.is_empty() {
        let reason = "without rules it is the runtime that decides: runc denies all but its own defaults, crun sets no filter";
        report.push(draft().verdict(Verdict::CannotTell).why(reason));
        return;
    }
    let (refused, other) = (left.refused(), right.refused());
    if refused != other {
        let reason = "a rule of a type or access that runtime-spec does not have: runtimes refuse it";
        report.push(draft().verdict(Verdict::CannotTell).why(reason));
        return;
    }
    for (allowed, denied, label, verdict) in [
        (&right, &left, "allowed by the right only", Verdict::MorePermissive),
        (&left, &right, "allowed by the left only", Verdict::LessPermissive),
    ] {
        let devices = allowed.allowed_beyond(denied);
        if !devices.is_empty() {
            let reason = "which devices root in the container may open or make, whatever nodes there are";
            report.push(draft().verdict(verdict).why(reason).detail(label, devices));
        }
    }
}

/// A device type, major and minor; `None` is every number that no rule names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Device {
    kind: char,
    major: Option<i64>,
    minor: Option<i64>,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<i64>| number.map_or("*".to_owned(), |number| number.to_string());
        write!(f, "{} {}:{}", self.kind, number(self.major), number(self.minor))
    }
}

#[derive(Debug, Clone)]
struct Rule {
    allow: bool,
    /// The type's first letter; `a` is every type.
    kind: char,
    /// As it is written; empty where it is not.
    type_name: String,
    major: Option<i64>,
    minor: Option<i64>,
    access: String,
}

impl Rule {
    fn of(item: &Value) -> Self {
        let text = |name: &str| item.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        // -1 is how Go programs write "every number".
        let number = |name: &str| item.get(name).and_then(Value::as_i64).filter(|number| *number >= 0);
        Self {
            allow: item.get("allow").and_then(Value::as_bool).unwrap_or(false),
            kind: text("type").and_then(|text| text.chars().next()).unwrap_or('a'),
            type_name: text("type").unwrap_or_default().to_owned(),
            major: number("major"),
            minor: number("minor"),
            access: text("access").unwrap_or("rwm").to_owned(),
        }
    }

    fn matches(&self, device: Device, access: char) -> bool {
        (self.kind == 'a' || self.kind == device.kind)
            && (self.major.is_none() || self.major == device.major)
            && (self.minor.is_none() || self.minor == device.minor)
            && self.access.contains(access)
    }
}

struct Rules(Vec<Rule>);

impl Rules {
    fn of(node: &Node<'_>) -> Self {
        Self(node.items().iter().map(Rule::of).collect())
    }

    /// Types and accesses that mean nothing.
    fn refused(&self) -> Vec<(&str, &str)> {
        let is_sound = |rule: &Rule| {
            matches!(rule.type_name.as_str(), "" | "a" | "b" | "c")
                && rule.access.chars().all(|letter| "rwm".contains(letter))
        };
        self.0
            .iter()
            .filter(|rule| !is_sound(rule))
            .map(|rule| (rule.type_name.as_str(), rule.access.as_str()))
            .collect()
    }

    fn counted(&self) -> String {
        count(self.0.len(), "rule", "rules")
    }

    fn allows(&self, device: Device, access: char) -> bool {
        is_default(device, access)
            || self.0.iter().rev().find(|rule| rule.matches(device, access)).is_some_and(|rule| rule.allow)
    }

    /// `c 5:1 rwm` for what these rules allow and the others do not.
    fn allowed_beyond(&self, other: &Self) -> Vec<String> {
        let devices = devices_of(self, other);
        let beyond = |device: Device| {
            let more = |access: &char| self.allows(device, *access) && !other.allows(device, *access);
            ['r', 'w', 'm'].into_iter().filter(more).collect::<String>()
        };
        let named = devices.into_iter().map(|device| (device, beyond(device)));
        named
            .filter(|(_, access)| !access.is_empty())
            .map(|(device, access)| escape(&format!("{device} {access}")).into_owned())
            .collect()
    }
}

/// Every device that the rules can tell apart.
fn devices_of(left: &Rules, right: &Rules) -> BTreeSet<Device> {
    let rules = || left.0.iter().chain(&right.0);
    let majors: BTreeSet<Option<i64>> = rules().map(|rule| rule.major).chain([None]).collect();
    let mut devices = BTreeSet::new();
    for &major in &majors {
        let concerns = |rule: &&Rule| rule.major.is_none() || rule.major == major;
        let minors: BTreeSet<Option<i64>> =
            rules().filter(concerns).map(|rule| rule.minor).chain([None]).collect();
        for minor in minors {
            devices.extend(['b', 'c'].map(|kind| Device { kind, major, minor }));
        }
    }
    devices
}

/// What runc and crun both allow in every container: making any node, and the devices of every container.
fn is_default(device: Device, access: char) -> bool {
    access == 'm'
        || device.kind == 'c'
            && matches!(
                (device.major, device.minor),
                (Some(1), Some(3 | 5 | 7 | 8 | 9)) | (Some(5), Some(0 | 2)) | (Some(136), _)
            )
}
