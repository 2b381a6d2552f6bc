//! What a seccomp profile does with a system call.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::spec::change::Verdict;

/// The errno of SCMP_ACT_ERRNO where none is named.
const EPERM: u64 = 1;

/// What happens to a system call.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Action {
    name: String,
    /// For SCMP_ACT_ERRNO and SCMP_ACT_TRACE alone.
    value: u64,
}

/// Whether the call is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Refused,
    /// Another process decides, or the action is unknown.
    Referred,
    Made,
}

impl Action {
    fn of(name: Option<&Value>, errno: Option<&Value>) -> Self {
        let name = name.and_then(Value::as_str).unwrap_or_default();
        // The older name of the same action.
        let name = if name == "SCMP_ACT_KILL" { "SCMP_ACT_KILL_THREAD" } else { name };
        let value = match name {
            "SCMP_ACT_ERRNO" | "SCMP_ACT_TRACE" => errno.and_then(Value::as_u64).unwrap_or(EPERM),
            _ => 0,
        };
        Self { name: name.to_owned(), value }
    }

    fn outcome(&self) -> Outcome {
        match self.name.as_str() {
            "SCMP_ACT_ALLOW" | "SCMP_ACT_LOG" => Outcome::Made,
            "SCMP_ACT_ERRNO" | "SCMP_ACT_TRAP" | "SCMP_ACT_KILL_THREAD" | "SCMP_ACT_KILL_PROCESS" => {
                Outcome::Refused
            }
            _ => Outcome::Referred,
        }
    }
}

/// One condition on an argument: index, operator, value, second value.
type Condition = (u64, String, u64, u64);

/// What a profile does with one system call: the action without conditions, and those under conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Effect {
    always: BTreeSet<Action>,
    sometimes: BTreeSet<(BTreeSet<Condition>, Action)>,
}

/// A profile by system call. An absent profile is none at all, not an empty one.
#[derive(Debug)]
pub(super) struct Policy {
    default: Action,
    rules: BTreeMap<String, Effect>,
}

impl Policy {
    /// The profile of `linux.seccomp`.
    pub(super) fn of(seccomp: &Value) -> Self {
        let default = Action::of(seccomp.get("defaultAction"), seccomp.get("defaultErrnoRet"));
        let mut rules: BTreeMap<String, Effect> = BTreeMap::new();
        for rule in items(seccomp, "syscalls") {
            let action = Action::of(rule.get("action"), rule.get("errnoRet"));
            let conditions: BTreeSet<Condition> = items(rule, "args").iter().map(condition).collect();
            for name in items(rule, "names").iter().filter_map(Value::as_str) {
                let none = || Effect { always: BTreeSet::new(), sometimes: BTreeSet::new() };
                let effect = rules.entry(name.to_owned()).or_insert_with(none);
                if !conditions.is_empty() {
                    effect.sometimes.insert((conditions.clone(), action.clone()));
                } else {
                    effect.always.insert(action.clone());
                }
            }
        }
        let mut policy = Self { default, rules };
        policy.normalise();
        policy
    }

    /// A rule that says what happens anyway says nothing.
    fn normalise(&mut self) {
        for effect in self.rules.values_mut() {
            if effect.always.is_empty() {
                effect.always.insert(self.default.clone());
            }
            if effect.always.len() == 1 {
                effect.sometimes.retain(|(_, action)| !effect.always.contains(action));
            }
        }
    }

    fn effect(&self, name: &str) -> Effect {
        let default =
            || Effect { always: BTreeSet::from([self.default.clone()]), sometimes: BTreeSet::new() };
        self.rules.get(name).cloned().unwrap_or_else(default)
    }
}

/// System calls by what the right profile means for them; `None` names all that no rule names.
pub(super) type ByVerdict = BTreeMap<Verdict, Vec<Option<String>>>;

/// Compares two profiles call by call; calls that both treat alike are left out.
pub(super) fn compare_policies(left: &Policy, right: &Policy) -> ByVerdict {
    let names: BTreeSet<&String> = left.rules.keys().chain(right.rules.keys()).collect();
    let mut found = ByVerdict::new();
    let mut note = |name: Option<&str>, left: &Effect, right: &Effect| {
        if left != right {
            found.entry(judge(left, right)).or_default().push(name.map(str::to_owned));
        }
    };
    for name in names {
        note(Some(name), &left.effect(name), &right.effect(name));
    }
    let others = |policy: &Policy| Effect {
        always: BTreeSet::from([policy.default.clone()]),
        sometimes: BTreeSet::new(),
    };
    note(None, &others(left), &others(right));
    found
}

fn judge(left: &Effect, right: &Effect) -> Verdict {
    let (left_range, right_range) = (outcomes(left), outcomes(right));
    let all: BTreeSet<Outcome> = left_range.iter().chain(&right_range).copied().collect();
    if all.contains(&Outcome::Referred) {
        return Verdict::CannotTell;
    }
    if all.len() == 1 {
        // Refused in another way, or made and logged.
        return Verdict::Changed;
    }
    let (least, most) =
        (|set: &BTreeSet<Outcome>| set.first().copied(), |set: &BTreeSet<Outcome>| set.last().copied());
    if most(&left_range) <= least(&right_range) {
        return Verdict::MorePermissive;
    }
    if most(&right_range) <= least(&left_range) {
        return Verdict::LessPermissive;
    }
    judge_conditions(left, right)
}

/// Both make the call under conditions: more conditions under which it is made are more calls.
fn judge_conditions(left: &Effect, right: &Effect) -> Verdict {
    let base = |effect: &Effect| effect.always.iter().map(Action::outcome).collect::<BTreeSet<_>>();
    if base(left) != base(right) || base(left).len() != 1 {
        return Verdict::CannotTell;
    }
    // With the same base, every rule is an exception to it, and an exception to "refused" makes the call.
    let exception = if base(left).contains(&Outcome::Refused) {
        Verdict::MorePermissive
    } else {
        Verdict::LessPermissive
    };
    if left.sometimes.is_subset(&right.sometimes) {
        exception
    } else if right.sometimes.is_subset(&left.sometimes) {
        exception.mirrored()
    } else {
        Verdict::CannotTell
    }
}

fn outcomes(effect: &Effect) -> BTreeSet<Outcome> {
    effect
        .always
        .iter()
        .chain(effect.sometimes.iter().map(|(_, action)| action))
        .map(Action::outcome)
        .collect()
}

fn condition(argument: &Value) -> Condition {
    let number = |name: &str| argument.get(name).and_then(Value::as_u64).unwrap_or(0);
    let operator = argument.get("op").and_then(Value::as_str).unwrap_or_default();
    (number("index"), operator.to_owned(), number("value"), number("valueTwo"))
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
