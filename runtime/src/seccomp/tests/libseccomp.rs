//! The verdicts of libseccomp's programs, where a C compiler and libseccomp's headers are at hand.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use oci_spec::runtime::LinuxSeccomp;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use super::super::architecture::Architecture;
use super::super::evaluate::{AUDITS, calls, interpret};
use super::super::rules::Newer;
use super::super::{action, compile_for, table};
use super::{Rules, any_call, any_profile, containerd};
use crate::sys::FilterInstruction;

/// The process that asks libseccomp.
struct Libseccomp {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    _directory: tempfile::TempDir,
}

impl Libseccomp {
    /// Compiles and starts it; says why not where that is not possible.
    fn start() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let binary = directory.path().join("reference");
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/libseccomp_reference.c");
        let compiled = Command::new("cc").arg("-o").arg(&binary).arg(source).arg("-lseccomp").output();
        if !compiled.is_ok_and(|output| output.status.success()) {
            println!("skipped: no C compiler or no libseccomp headers");
            return None;
        }
        let mut child = Command::new(binary).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Libseccomp { child, input, output, _directory: directory })
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// The numbers of a name on x86_64, x32, x86, aarch64 and arm; negative where there is none.
    fn resolve(&mut self, name: &str) -> Vec<i32> {
        writeln!(self.input, "resolve {name}").unwrap();
        self.line().split_whitespace().map(|number| number.parse().unwrap()).collect()
    }

    /// The program for a profile, made as runc makes it; libseccomp's message where it refuses.
    fn program(&mut self, profile: &LinuxSeccomp, native: u32) -> Result<Vec<FilterInstruction>, String> {
        let default = action::value(profile.default_action(), profile.default_errno_ret());
        writeln!(self.input, "native {native} default {default}").unwrap();
        for &architecture in profile.architectures().iter().flatten() {
            writeln!(self.input, "arch {}", architecture as u32).unwrap();
        }
        for rule in profile.syscalls().iter().flatten() {
            let action = action::value(rule.action(), rule.errno_ret());
            for name in rule.names().iter().filter(|_| action != default) {
                for conditions in condition_lists(rule.args().as_deref().unwrap_or_default()) {
                    writeln!(self.input, "rule {action} {name} {conditions}").unwrap();
                }
            }
        }
        writeln!(self.input, "end").unwrap();
        let first = self.line();
        let length: usize = first.parse().map_err(|_| first)?;
        Ok((0..length).map(|_| instruction(&self.line())).collect())
    }
}

impl Drop for Libseccomp {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// One list, or one for each condition where an argument appears twice.
fn condition_lists(arguments: &[oci_spec::runtime::LinuxSeccompArg]) -> Vec<String> {
    let one = |argument: &oci_spec::runtime::LinuxSeccompArg| {
        let second = argument.value_two().unwrap_or(0);
        format!("{} {} {} {second}", argument.index(), argument.op() as u32, argument.value())
    };
    let is_ambiguous =
        (0..6).any(|index| arguments.iter().filter(|argument| argument.index() == index).count() > 1);
    if is_ambiguous {
        return arguments.iter().map(|argument| format!("1 {}", one(argument))).collect();
    }
    vec![format!("{} {}", arguments.len(), arguments.iter().map(one).collect::<Vec<_>>().join(" "))]
}

fn instruction(line: &str) -> FilterInstruction {
    let numbers: Vec<u32> = line.split(' ').map(|number| number.parse().unwrap()).collect();
    let byte = |number| u8::try_from(number).unwrap();
    FilterInstruction {
        code: u16::try_from(numbers[0]).unwrap(),
        yes: byte(numbers[1]),
        no: byte(numbers[2]),
        constant: numbers[3],
    }
}

/// Without the names that this libseccomp is too old for on any architecture.
fn known(profile: &LinuxSeccomp, libseccomp: &mut Libseccomp) -> LinuxSeccomp {
    let mut profile = profile.clone();
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    for rule in &mut rules {
        let names = rule.names().iter().filter(|name| numbers_agree(name, libseccomp)).cloned().collect();
        rule.set_names(names);
    }
    profile.set_syscalls(Some(rules));
    profile
}

fn numbers_agree(name: &str, libseccomp: &mut Libseccomp) -> bool {
    let theirs = libseccomp.resolve(name);
    let Some(row) = table::find(name) else { return theirs[0] != -1 };
    let agree = |(column, (ours, theirs)): (usize, (&i32, i32))| match theirs {
        // A pseudo number is none, but for x86, where it stands for a multiplexing call.
        pseudo if pseudo < 0 => *ours == -1 || column == Architecture::X86 as usize,
        number => *ours == number & 0x3fff_ffff,
    };
    row.numbers().iter().zip(theirs).enumerate().all(agree)
}

#[test]
fn the_table_has_libseccomp_s_numbers() {
    let Some(mut libseccomp) = Libseccomp::start() else { return };
    let mut compared = 0;
    for row in &table::SYSCALLS {
        for (ours, theirs) in row.numbers().iter().zip(libseccomp.resolve(&row.name())) {
            // An old libseccomp knows fewer calls; pseudo numbers stand for calls an architecture lacks.
            let theirs_is_known = theirs >= 0;
            let theirs = if theirs >= 0x4000_0000 { theirs - 0x4000_0000 } else { theirs };
            if theirs_is_known {
                assert_eq!(*ours, theirs, "{}", row.name());
                compared += 1;
            }
        }
    }
    assert!(compared > 1500, "{compared}");
}

fn compare(profile: &LinuxSeccomp, native: Architecture, token: u32, libseccomp: &mut Libseccomp) {
    let profile = known(profile, libseccomp);
    let theirs = libseccomp.program(&profile, token).unwrap();
    let ours = compile_for(&profile, native, Newer::Default).unwrap();
    for call in calls(&profile) {
        assert_eq!(interpret(&ours.instructions, &call), interpret(&theirs, &call), "{call:x?}");
    }
}

#[test]
fn containerd_s_profile_gets_libseccomp_s_verdicts() {
    let Some(mut libseccomp) = Libseccomp::start() else { return };
    compare(&containerd(), Architecture::X86_64, 0xc000_003e, &mut libseccomp);
    let mut arm = containerd();
    arm.set_architectures(Some(vec![oci_spec::runtime::Arch::ScmpArchArm]));
    compare(&arm, Architecture::Aarch64, 0xc000_00b7, &mut libseccomp);
    let mut alone = containerd();
    alone.set_architectures(None);
    compare(&alone, Architecture::X86_64, 0xc000_003e, &mut libseccomp);
}

/// Compares with profiles that libseccomp 2.5 translates faithfully: one rule for a name, one condition for an argument, and
/// other comparisons than for equality in the last condition alone. Of several comparisons of one argument its merging
/// loses some (containerd's default profile has a comment about it), and where the high half of an argument decides
/// `!=`, `<` or `>` it forgets the conditions that follow. With x32 beside x86_64 it may leave out the load of the number
/// (2.5.4), so x32 and the calls that x86
/// multiplexes are compared with containerd's profile alone. What it refuses is not compared.
fn compare_generated(rules: Rules) {
    let Some(mut libseccomp) = Libseccomp::start() else { return };
    let mut runner = TestRunner::deterministic();
    let mut compared = 0;
    for _ in 0..300 {
        let profile = any_profile(rules).new_tree(&mut runner).unwrap().current();
        let Ok(theirs) = libseccomp.program(&profile, 0xc000_003e) else { continue };
        let ours = compile_for(&profile, Architecture::X86_64, Newer::Default).unwrap();
        let calls = any_call(&profile);
        for _ in 0..300 {
            let call = calls.new_tree(&mut runner).unwrap().current();
            let is_native = call.audit == AUDITS[0] && call.number < 0x4000_0000;
            if rules == Rules::DistinctWide && !is_native {
                continue;
            }
            let verdicts = (interpret(&ours.instructions, &call), interpret(&theirs, &call));
            assert_eq!(verdicts.0, verdicts.1, "{call:x?} of {}", serde_json::to_string(&profile).unwrap());
        }
        compared += 1;
    }
    assert!(compared > 120, "{compared}");
}

#[test]
fn any_profile_gets_libseccomp_s_verdicts() {
    compare_generated(Rules::Distinct);
}

/// With constants of 64 bits, and at the ends of 32, that a 32-bit ABI has no use for: libseccomp drops such conditions there.
#[test]
fn any_profile_with_wide_constants_gets_libseccomp_s_native_verdicts() {
    compare_generated(Rules::DistinctWide);
}
