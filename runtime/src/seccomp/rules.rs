//! What a profile says about each system call number of one architecture.

use std::num::NonZeroU16;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::action;
use super::architecture::{self, Architecture, X32_BIT};
use super::table::{Finder, Row, SYSCALLS};

/// What happens to a system call.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Handler {
    /// The same action whatever the arguments are.
    Always(u32),
    /// The action of the first alternative that matches, else the default action.
    Choice(Box<[Alternative]>),
}

/// Conditions that must all hold, and the action if they do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Alternative {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// One comparison of one argument; comparisons are unsigned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Condition {
    pub(super) argument: usize,
    pub(super) comparison: Comparison,
    pub(super) value: u64,
    /// Whether all 64 bits are compared, not the low 32 alone.
    pub(super) wide: bool,
}

/// How an argument is compared with the value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    /// `argument & mask == value`.
    MaskedEqual(u64),
}

/// A stretch of numbers from `start` to the next leaf's start that are handled alike.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) start: u32,
    pub(super) handler: Handler,
}

/// A rule of the profile with its names looked up.
pub(super) struct ResolvedRule<'a> {
    rule: &'a LinuxSyscall,
    /// The places of the names that are known, among the rule's and in the table.
    rows: Vec<(u32, u16)>,
    action: u32,
}

impl ResolvedRule<'_> {
    fn rows(&self) -> impl Iterator<Item = (&str, &'static Row)> {
        let names = self.rule.names();
        self.rows.iter().map(|(name, row)| (names[*name as usize].as_str(), &SYSCALLS[usize::from(*row)]))
    }
}

/// Looks up every name once for all architectures; gives the names that no architecture knows beside.
pub(super) fn resolve(profile: &LinuxSeccomp) -> (Vec<ResolvedRule<'_>>, Vec<String>) {
    let mut unknown = Vec::new();
    let mut finder = Finder::default();
    let rules = profile.syscalls().iter().flatten().map(|rule| {
        let mut rows = Vec::with_capacity(rule.names().len());
        for (place, name) in (0_u32..).zip(rule.names()) {
            match finder.find(name) {
                Some(row) => rows.push((place, row)),
                None => unknown.push(name.clone()),
            }
        }
        ResolvedRule { rule, rows, action: action::value(rule.action(), rule.errno_ret()) }
    });
    let rules = rules.collect();
    (rules, unknown)
}

/// How numbers above the last one that the profile names are answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Newer {
    /// `ENOSYS`, so that a C library falls back to an older call, as runc does: the profile was written before these calls existed.
    Enosys,
    /// The default action.
    Default,
}

/// The leaves of one architecture in the order of their numbers, the first at `architecture.number_bits()`.
pub(super) fn leaves(
    rules: &[ResolvedRule<'_>],
    architecture: Architecture,
    default: u32,
    newer: Newer,
    scratch: &mut Scratch,
) -> Vec<Leaf> {
    let Scratch { entries, sorted } = scratch;
    collect(rules, architecture, default, entries);
    sort(entries, sorted, architecture.number_bits());
    let mut leaves = Leaves { rules, leaves: Vec::with_capacity(128), wide: architecture.wide_arguments() };
    leaves.add(architecture.number_bits(), Handler::Always(default));
    let mut rest = sorted.as_slice();
    while let Some(first) = rest.first() {
        let alike = rest.iter().take_while(|entry| entry.number == first.number).count();
        let (group, later) = rest.split_at(alike);
        let handler = leaves.handler(group);
        leaves.add(first.number, handler);
        let next = first.number + 1;
        if later.first().is_none_or(|entry| entry.number != next) {
            leaves.add(next, Handler::Always(default));
        }
        rest = later;
    }
    if let (Newer::Enosys, Some(last)) = (newer, last_named(rules, architecture)) {
        leaves.add(last + 1, Handler::Always(action::ENOSYS));
    }
    leaves.leaves
}

#[derive(Clone, Copy)]
struct Entry {
    number: u32,
    /// The place of the rule.
    rule: u32,
    /// For a call reached through `socketcall` or `ipc`: what the first argument must be.
    multiplexed: Option<NonZeroU16>,
}

/// What is needed for one architecture after the other: the memory is used again.
pub(super) struct Scratch {
    entries: Vec<Entry>,
    sorted: Vec<Entry>,
}

impl Scratch {
    /// With room for the entries of any architecture.
    pub(super) fn new(rules: &[ResolvedRule<'_>]) -> Self {
        let names: usize = rules.iter().map(|rule| rule.rows.len()).sum();
        let room = names + architecture::X86_MULTIPLEXED.len();
        Scratch { entries: Vec::with_capacity(room), sorted: Vec::with_capacity(room) }
    }
}

/// Every rule that says something else than the default, with its numbers, in the profile's order.
fn collect(rules: &[ResolvedRule<'_>], architecture: Architecture, default: u32, entries: &mut Vec<Entry>) {
    entries.clear();
    for (rule, resolved) in (0_u32..).zip(rules).filter(|(_, rule)| rule.action != default) {
        for (name, row) in resolved.rows() {
            if let Some(number) = number_in(row, architecture) {
                entries.push(Entry { number, rule, multiplexed: None });
            }
            if architecture == Architecture::X86
                && let Some((number, call)) = architecture::multiplexed(name, row.numbers())
            {
                entries.push(Entry { number, rule, multiplexed: Some(call) });
            }
        }
    }
}

/// Sorts by number, alike ones in the order they came: by counting, where the numbers are as small as they are on all
/// architectures but one.
fn sort(entries: &[Entry], sorted: &mut Vec<Entry>, base: u32) {
    const SMALL: usize = 640;
    let place = |entry: &Entry| (entry.number ^ base) as usize;
    sorted.clear();
    sorted.extend_from_slice(entries);
    let mut ends = [0_u32; SMALL + 1];
    for entry in entries {
        match ends.get_mut(place(entry) + 1) {
            Some(count) => *count += 1,
            None => return sorted.sort_by_key(|entry| entry.number),
        }
    }
    for index in 1..ends.len() {
        ends[index] += ends[index - 1];
    }
    for entry in entries {
        let next = &mut ends[place(entry)];
        sorted[*next as usize] = *entry;
        *next += 1;
    }
}

fn number_in(row: &Row, architecture: Architecture) -> Option<u32> {
    let number = row.numbers()[architecture as usize];
    u32::try_from(number).ok().map(|number| number | architecture.number_bits())
}

/// The highest number of this architecture that any rule names.
fn last_named(rules: &[ResolvedRule<'_>], architecture: Architecture) -> Option<u32> {
    let rows = rules.iter().flat_map(ResolvedRule::rows);
    rows.filter_map(|(_, row)| number_in(row, architecture)).max()
}

struct Leaves<'a> {
    rules: &'a [ResolvedRule<'a>],
    leaves: Vec<Leaf>,
    wide: bool,
}

impl Leaves<'_> {
    /// Starts a leaf at `start`, in place of one that starts there; joins it with the one before if both do the same.
    fn add(&mut self, start: u32, handler: Handler) {
        if self.leaves.last().is_some_and(|last| last.start == start) {
            self.leaves.pop();
        }
        if self.leaves.last().is_none_or(|last| last.handler != handler) {
            self.leaves.push(Leaf { start, handler });
        }
    }

    /// An unconditional rule replaces the conditional ones; of several unconditional ones the first holds.
    fn handler(&self, group: &[Entry]) -> Handler {
        let always =
            group.iter().find(|entry| entry.multiplexed.is_none() && arguments(self.rule(entry)).is_empty());
        match always {
            Some(entry) => Handler::Always(self.rule(entry).action),
            None => Handler::Choice(group.iter().flat_map(|entry| self.alternatives(entry)).collect()),
        }
    }

    fn rule(&self, entry: &Entry) -> &ResolvedRule<'_> {
        &self.rules[entry.rule as usize]
    }

    fn alternatives(&self, entry: &Entry) -> Vec<Alternative> {
        let rule = self.rule(entry);
        let action = rule.action;
        let mut sets = condition_sets(arguments(rule), self.wide);
        if let Some(call) = entry.multiplexed {
            // The arguments proper are behind a pointer: only the call can be told, and what is in the registers after it.
            let is_call = Condition {
                argument: 0,
                comparison: Comparison::Equal,
                value: u64::from(call.get()),
                wide: self.wide,
            };
            for set in &mut sets {
                set.retain(|condition| condition.argument != 0);
                set.insert(0, is_call);
            }
        }
        sets.into_iter().map(|conditions| Alternative { conditions, action }).collect()
    }
}

fn arguments<'a>(rule: &'a ResolvedRule<'_>) -> &'a [LinuxSeccompArg] {
    rule.rule.args().as_deref().unwrap_or_default()
}

/// The conditions of a rule: all must hold, but where one argument appears twice any of them suffices, each on its own.
/// That is what runc and crun make of such a rule, since libseccomp takes an argument once only.
fn condition_sets(arguments: &[LinuxSeccompArg], wide: bool) -> Vec<Vec<Condition>> {
    let conditions = arguments.iter().map(|argument| condition(argument, wide));
    if has_repeated_index(arguments) {
        conditions.map(|condition| vec![condition]).collect()
    } else {
        vec![conditions.collect()]
    }
}

fn has_repeated_index(arguments: &[LinuxSeccompArg]) -> bool {
    arguments
        .iter()
        .enumerate()
        .any(|(place, one)| arguments[..place].iter().any(|other| other.index() == one.index()))
}

fn condition(argument: &LinuxSeccompArg, wide: bool) -> Condition {
    let narrow = |value: u64| if wide { value } else { value & u64::from(u32::MAX) };
    let value = narrow(argument.value());
    let second = narrow(argument.value_two().unwrap_or(0));
    let (comparison, value) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (Comparison::NotEqual, value),
        LinuxSeccompOperator::ScmpCmpLt => (Comparison::Less, value),
        LinuxSeccompOperator::ScmpCmpLe => (Comparison::LessOrEqual, value),
        LinuxSeccompOperator::ScmpCmpEq => (Comparison::Equal, value),
        LinuxSeccompOperator::ScmpCmpGe => (Comparison::GreaterOrEqual, value),
        LinuxSeccompOperator::ScmpCmpGt => (Comparison::Greater, value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (Comparison::MaskedEqual(value), second),
    };
    Condition { argument: argument.index(), comparison, value, wide }
}

/// Puts the numbers of x86_64 and x32 into one row: the kernel tells them apart by a bit of the number alone. Without x32
/// in the profile its numbers are those of a foreign architecture, save -1, which a tracer writes to skip a call.
pub(super) fn append_x32(native: &mut Vec<Leaf>, x32: Option<Vec<Leaf>>, default: u32, foreign: u32) {
    match x32 {
        Some(leaves) => native.extend(leaves),
        None => {
            native.push(Leaf { start: X32_BIT, handler: Handler::Always(foreign) });
            native.push(Leaf { start: u32::MAX, handler: Handler::Always(default) });
        }
    }
}
