//! What a profile means, said without a program; and what a program does, said without a kernel.
//!
//! For tests and fuzzing (feature `evaluate`): the compiler is right where both say the same of every call.

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};

use super::architecture::{Architecture, X32_BIT, X86_MULTIPLEXED};
use super::rules::Newer;
use super::{action, table};
use crate::sys::FilterInstruction;

/// What the kernel shows to a filter: `struct seccomp_data` without the instruction pointer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Call {
    /// `AUDIT_ARCH_*` of `linux/audit.h`.
    pub audit: u32,
    /// The system call's number in that architecture.
    pub number: u32,
    /// The registers that hold its arguments.
    pub arguments: [u64; 6],
}

impl Call {
    /// The 32 bits at `offset` of `struct seccomp_data`.
    fn word(&self, offset: u32) -> Option<u32> {
        match offset {
            0 => Some(self.number),
            4 => Some(self.audit),
            _ => {
                let argument = self.arguments.get((offset.checked_sub(16)? / 8) as usize)?;
                let (low, high) = (argument & 0xffff_ffff, argument >> 32);
                let is_second = offset % 8 == 4;
                u32::try_from(if is_second == cfg!(target_endian = "little") { high } else { low }).ok()
            }
        }
    }
}

/// Runs a classic BPF program as net/core/filter.c describes it: the value it returns, or `None` for a step that the
/// kernel would refuse.
#[must_use]
pub fn interpret(program: &[FilterInstruction], call: &Call) -> Option<u32> {
    let mut accumulator = 0;
    let mut place = 0;
    loop {
        let FilterInstruction { code, yes, no, constant } = *program.get(place)?;
        place += 1;
        let jump = |taken| usize::from(if taken { yes } else { no });
        match code {
            0x20 => accumulator = call.word(constant)?,
            0x54 => accumulator &= constant,
            0x05 => place += constant as usize,
            0x15 => place += jump(accumulator == constant),
            0x25 => place += jump(accumulator > constant),
            0x35 => place += jump(accumulator >= constant),
            0x45 => place += jump(accumulator & constant != 0),
            0x06 => return Some(constant),
            _ => return None,
        }
    }
}

/// A profile as a list of rules with the numbers they are about, to be gone through one after the other.
#[derive(Debug)]
pub struct Meaning<'a> {
    default: u32,
    newer: Newer,
    architectures: Vec<(Architecture, Vec<Rule<'a>>, Option<u32>)>,
}

#[derive(Debug)]
struct Rule<'a> {
    arguments: &'a [LinuxSeccompArg],
    action: u32,
    numbers: Vec<u32>,
    /// Calls of `socketcall` and `ipc`: the number and the first argument.
    multiplexed: Vec<(u32, u32)>,
}

impl<'a> Meaning<'a> {
    /// What [`compile`](super::compile) makes of a profile that it takes.
    #[must_use]
    pub fn of(profile: &'a LinuxSeccomp) -> Self {
        Self::new(profile, Architecture::NATIVE, super::newer(profile))
    }

    pub(super) fn new(profile: &'a LinuxSeccomp, native: Architecture, newer: Newer) -> Self {
        let default = action::value(profile.default_action(), profile.default_errno_ret());
        let mut all = vec![native];
        all.extend(
            profile.architectures().iter().flatten().filter_map(|&name| Architecture::from_spec(name)),
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

    /// The value that the program has to return for a call: `SECCOMP_RET_*` of `linux/seccomp.h` with its data.
    #[must_use]
    pub fn verdict(&self, call: &Call) -> u32 {
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
            multiplexed: multiplexed.map(|(_, number, selector)| (*number, u32::from(*selector))).collect(),
        }
    }

    fn matches(&self, architecture: Architecture, number: u32, call: &Call) -> bool {
        self.numbers.contains(&number)
            && matches_as(self.arguments, is_ambiguous(self.arguments), architecture, call)
            || self.matches_multiplexed(architecture, number, call)
    }

    /// The first argument of `socketcall` and `ipc` says which call it is: a condition on it means nothing.
    fn matches_multiplexed(&self, architecture: Architecture, number: u32, call: &Call) -> bool {
        let selector = u32::try_from(call.arguments[0] & 0xffff_ffff).unwrap_or_default();
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

/// The `AUDIT_ARCH_*` values that calls are tried with: x86_64, x86, AArch64, ARM, RISC-V.
pub(super) const AUDITS: [u32; 5] = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 0xc000_00f3];

/// Numbers at which something begins or ends whatever the profile says.
const BORDERS: [u32; 5] = [0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];

/// Every number that an architecture could be called with near those that exist, and the borders of the ranges.
fn numbers() -> impl Iterator<Item = u32> {
    let private_of_arm = 0x0f_0000..0x0f_0010;
    (0..700).chain(0x4000_0000..0x4000_0300).chain(private_of_arm).chain(BORDERS)
}

/// Argument values on both sides of every constant of the profile, in both halves.
pub(super) fn interesting(profile: &LinuxSeccomp) -> Vec<u64> {
    let mut values = vec![0, 1, u64::from(u32::MAX), 1 << 32, u64::MAX];
    for argument in profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten()) {
        for value in [argument.value(), argument.value_two().unwrap_or(0)] {
            values.extend([
                value,
                value.wrapping_sub(1),
                value.wrapping_add(1),
                value ^ (1 << 32),
                value & 0xffff_ffff,
            ]);
        }
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// Every call worth comparing: each number with two values, and with all of `interesting` where a rule looks at them.
#[must_use]
pub fn calls(profile: &LinuxSeccomp) -> Vec<Call> {
    let all = interesting(profile);
    let conditional = profile.syscalls().iter().flatten().filter(|rule| rule.args().is_some());
    let rows: Vec<_> =
        conditional.flat_map(|rule| rule.names()).filter_map(|name| table::find(name)).collect();
    let looked_at = |number: u32| {
        let plain = (number & 0x3fff_ffff).cast_signed();
        matches!(plain, 102 | 117) || rows.iter().any(|row| row.numbers().contains(&plain))
    };
    let values = |number| if looked_at(number) { &all[..] } else { &all[..2] };
    let with_values = |number| values(number).iter().map(move |&value| (number, value)).collect::<Vec<_>>();
    let pairs: Vec<_> = numbers().flat_map(with_values).collect();
    let with_audit =
        |audit| pairs.iter().map(move |&(number, value)| Call { audit, number, arguments: [value; 6] });
    AUDITS.into_iter().flat_map(with_audit).collect()
}

/// As many calls as a profile has names and constants, so that a small profile is judged quickly: the numbers that it
/// names and their neighbours, each with different values in the six registers. At most `limit` of them.
#[must_use]
pub fn nearby_calls(profile: &LinuxSeccomp, limit: usize) -> Vec<Call> {
    let values = interesting(profile);
    let names = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
    let named = names.filter_map(|name| table::find(name)).flat_map(|row| *row.numbers());
    let mut numbers: Vec<u32> = named
        .filter_map(|number| u32::try_from(number).ok())
        .flat_map(|number| [number.saturating_sub(1), number, number + 1])
        .flat_map(|number| [number, number | X32_BIT])
        .chain([102, 117])
        .chain(BORDERS)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    let register = |first: usize, index: usize| values[(first + index * first) % values.len()];
    let calls = numbers.into_iter().flat_map(|number| {
        let audits = AUDITS.into_iter().map(move |audit| (audit, number));
        audits.flat_map(|(audit, number)| (0..values.len()).map(move |first| (audit, number, first)))
    });
    calls
        .take(limit)
        .map(|(audit, number, first)| Call {
            audit,
            number,
            arguments: std::array::from_fn(|index| register(first, index)),
        })
        .collect()
}
