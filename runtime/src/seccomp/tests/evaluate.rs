//! What a profile means, said without a program; and what a program does, said without a kernel.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::super::architecture::{Architecture, X86_MULTIPLEXED};
use super::super::rules::Newer;
use super::super::{action, table};
use crate::sys::FilterInstruction;

/// What the kernel shows to a filter.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) audit: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            _ => {
                let bytes = self.arguments[(offset as usize - 16) / 8].to_ne_bytes();
                let start = offset as usize % 8;
                u32::from_ne_bytes(bytes[start..start + 4].try_into().unwrap())
            }
        }
    }
}

/// Runs a classic BPF program as net/core/filter.c describes it, with no step that the kernel would refuse.
pub(crate) fn interpret(program: &[FilterInstruction], call: &Call) -> u32 {
    let mut accumulator = 0;
    let mut place = 0;
    loop {
        let FilterInstruction { code, yes, no, constant } = program[place];
        place += 1;
        let jump = |taken| usize::from(if taken { yes } else { no });
        match code {
            0x20 => accumulator = call.word(constant),
            0x54 => accumulator &= constant,
            0x05 => place += constant as usize,
            0x15 => place += jump(accumulator == constant),
            0x25 => place += jump(accumulator > constant),
            0x35 => place += jump(accumulator >= constant),
            0x45 => place += jump(accumulator & constant != 0),
            0x06 => return constant,
            _ => panic!("instruction {code:#x}"),
        }
    }
}

/// A profile as a list of rules with the numbers they are about, to be gone through one after the other.
pub(crate) struct Meaning<'a> {
    default: u32,
    newer: Newer,
    architectures: Vec<(Architecture, Vec<Rule<'a>>, Option<u32>)>,
}

struct Rule<'a> {
    arguments: &'a [LinuxSeccompArg],
    action: u32,
    numbers: Vec<u32>,
    /// Calls of `socketcall` and `ipc`: the number and the first argument.
    multiplexed: Vec<(u32, u32)>,
}

impl<'a> Meaning<'a> {
    pub(crate) fn new(profile: &'a LinuxSeccomp, native: Architecture, newer: Newer) -> Self {
        let default = action::value(profile.default_action(), profile.default_errno_ret());
        let mut all = vec![native];
        all.extend(
            profile.architectures().iter().flatten().map(|&name| Architecture::from_spec(name).unwrap()),
        );
        let rules = profile.syscalls().as_deref().unwrap_or_default();
        let architectures = all.into_iter().map(|architecture| {
            let highest = rules
                .iter()
                .flat_map(|rule| rule.names())
                .filter_map(|name| number_of(name, architecture))
                .max();
            let rules = rules.iter().map(|rule| Rule::new(rule, architecture));
            (architecture, rules.filter(|rule| rule.action != default).collect(), highest)
        });
        Meaning { default, newer, architectures: architectures.collect() }
    }

    pub(crate) fn verdict(&self, call: &Call) -> u32 {
        let is_x32 = call.audit == 0xc000_003e && call.number >= 0x4000_0000;
        let mut same = self.architectures.iter().filter(|(one, _, _)| one.audit() == call.audit);
        let skipped_by_tracer = same.clone().count() > 0 && call.number == u32::MAX;
        let Some((architecture, rules, highest)) =
            same.find(|(one, _, _)| (*one == Architecture::X32) == is_x32)
        else {
            return if skipped_by_tracer { self.default } else { 0 };
        };
        let number = if is_x32 { call.number - 0x4000_0000 } else { call.number };
        if self.newer == Newer::Enosys && highest.is_some_and(|highest| number > highest) {
            return action::ENOSYS;
        }
        let unconditional =
            || rules.iter().find(|rule| rule.numbers.contains(&number) && rule.arguments.is_empty());
        let conditional = rules.iter().find(|rule| rule.matches(*architecture, number, call));
        conditional.map_or(self.default, |rule| unconditional().unwrap_or(rule).action)
    }
}

impl<'a> Rule<'a> {
    fn new(rule: &'a LinuxSyscall, architecture: Architecture) -> Self {
        let names = rule.names();
        let is_x86 = architecture == Architecture::X86;
        let multiplexed =
            X86_MULTIPLEXED.iter().filter(|(name, _, _)| is_x86 && names.iter().any(|own| own == name));
        Rule {
            arguments: rule.args().as_deref().unwrap_or_default(),
            action: action::value(rule.action(), rule.errno_ret()),
            numbers: names.iter().filter_map(|name| number_of(name, architecture)).collect(),
            multiplexed: multiplexed.map(|(_, number, selector)| (*number, *selector)).collect(),
        }
    }

    fn matches(&self, architecture: Architecture, number: u32, call: &Call) -> bool {
        self.numbers.contains(&number)
            && matches_as(self.arguments, is_ambiguous(self.arguments), architecture, call)
            || self.matches_multiplexed(architecture, number, call)
    }

    /// The first argument of `socketcall` and `ipc` says which call it is: a condition on it means nothing.
    fn matches_multiplexed(&self, architecture: Architecture, number: u32, call: &Call) -> bool {
        let selector = u32::try_from(call.arguments[0] & 0xffff_ffff).unwrap();
        let any = is_ambiguous(self.arguments);
        let rest: Vec<_> = self.arguments.iter().filter(|argument| argument.index() != 0).copied().collect();
        let has_first = rest.len() < self.arguments.len();
        self.multiplexed.contains(&(number, selector))
            && (any && has_first || rest.is_empty() || matches_as(&rest, any, architecture, call))
    }
}

fn number_of(name: &str, architecture: Architecture) -> Option<u32> {
    let row = table::SYSCALLS.iter().find(|row| row.name() == name)?;
    u32::try_from(row.numbers()[architecture as usize]).ok()
}

fn is_ambiguous(arguments: &[LinuxSeccompArg]) -> bool {
    (0..6).any(|index| arguments.iter().filter(|argument| argument.index() == index).count() > 1)
}

fn matches_as(arguments: &[LinuxSeccompArg], any: bool, architecture: Architecture, call: &Call) -> bool {
    let mut verdicts = arguments.iter().map(|argument| holds(argument, architecture, call));
    if any { verdicts.any(|holds| holds) } else { verdicts.all(|holds| holds) }
}

fn holds(argument: &LinuxSeccompArg, architecture: Architecture, call: &Call) -> bool {
    let bits = if architecture.wide_arguments() { u64::MAX } else { 0xffff_ffff };
    let actual = call.arguments[argument.index()] & bits;
    let value = argument.value() & bits;
    match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => actual != value,
        LinuxSeccompOperator::ScmpCmpLt => actual < value,
        LinuxSeccompOperator::ScmpCmpLe => actual <= value,
        LinuxSeccompOperator::ScmpCmpEq => actual == value,
        LinuxSeccompOperator::ScmpCmpGe => actual >= value,
        LinuxSeccompOperator::ScmpCmpGt => actual > value,
        LinuxSeccompOperator::ScmpCmpMaskedEq => actual & value == argument.value_two().unwrap_or(0) & bits,
    }
}
