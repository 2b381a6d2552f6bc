//! Seccomp: compiles a spec's profile into a BPF program and installs it.
//!
//! The program gives every system call the verdict that libseccomp's program for the same profile gives it. It differs in
//! shape: numbers that are handled alike are one range, and the range is found by binary search, so that it is small and
//! that loading it, which the kernel does by running it once for each number, is quick.

mod action;
mod architecture;
mod assembler;
#[cfg(any(test, feature = "evaluate"))]
pub mod evaluate;
mod generate;
mod rules;
mod saved;
mod table;
#[cfg(test)]
mod tests;

use std::io;
use std::os::fd::OwnedFd;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator, LinuxSyscall,
};

use crate::sys::{self, FilterInstruction};
use architecture::Architecture;
use generate::Section;
use rules::{Newer, Scratch};

// Flags of seccomp(2) (`linux/seccomp.h`).
const FLAG_LOG: u32 = 1 << 1;
const FLAG_SPEC_ALLOW: u32 = 1 << 2;
const FLAG_NEW_LISTENER: u32 = 1 << 3;
const FLAG_WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The longest program the kernel takes (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;
const MAX_ARGUMENTS: usize = 6;

/// Why a profile cannot be compiled. Each is found before anything is done.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    /// An architecture without a table of system calls.
    #[error("cannot compile seccomp profile: architecture `{architecture}` is not supported")]
    UnsupportedArchitecture {
        /// The architecture as the spec names it.
        architecture: Arch,
    },
    /// An argument index above 5.
    #[error("cannot compile seccomp rule for system call `{syscall}`: it has no argument {index}")]
    ArgumentIndex {
        /// The first name of the rule.
        syscall: String,
        /// The index given.
        index: usize,
    },
    /// A masked comparison without `valueTwo`, or one with a value of no use elsewhere.
    #[error(
        "cannot compile seccomp rule for system call `{syscall}`: valueTwo {value} has bits outside the mask {mask}"
    )]
    UnreachableMask {
        /// The first name of the rule.
        syscall: String,
        /// The mask, `value` in the spec.
        mask: u64,
        /// What the masked argument should be, `valueTwo` in the spec.
        value: u64,
    },
    /// An errno or a tracer's number that does not fit.
    #[error("cannot compile seccomp profile: errnoRet {value} of action {action} is above {maximum}")]
    ReturnValue {
        /// The action it belongs to.
        action: LinuxSeccompAction,
        /// The value given.
        value: u32,
        /// The largest value the kernel passes on.
        maximum: u32,
    },
    /// An errno where there is none to return.
    #[error("cannot compile seccomp profile: action {action} takes no errnoRet, which is {value}")]
    NoReturnValue {
        /// The action it belongs to.
        action: LinuxSeccompAction,
        /// The value given.
        value: u32,
    },
    /// A rule for nothing.
    #[error("cannot compile seccomp profile: a rule with action {action} names no system call")]
    NoNames {
        /// The rule's action.
        action: LinuxSeccompAction,
    },
    /// Notification where it would stop the runtime itself.
    #[error("SCMP_ACT_NOTIFY cannot be used {place}")]
    Notify {
        /// Where it was used.
        place: &'static str,
    },
    /// A flag that has a meaning for notifications alone.
    #[error("cannot compile seccomp profile: flag {flag} needs a rule with SCMP_ACT_NOTIFY")]
    FlagWithoutNotify {
        /// The flag.
        flag: LinuxSeccompFilterFlag,
    },
    /// More instructions than the kernel takes.
    #[error(
        "cannot compile seccomp profile: {length} instructions are more than the kernel's {MAX_INSTRUCTIONS}"
    )]
    TooLong {
        /// How many there would be.
        length: usize,
    },
}

/// A compiled profile.
#[derive(Clone, Debug)]
pub struct Program {
    instructions: Vec<FilterInstruction>,
    flags: u32,
    unknown_syscalls: Vec<String>,
}

impl Program {
    /// Installs the program for the calling thread. Needs `no_new_privs` or `CAP_SYS_ADMIN` in the thread's user namespace.
    /// Gives the listener if the profile has a rule with `SCMP_ACT_NOTIFY`. Allocates nothing and makes one system call.
    ///
    /// # Errors
    /// What seccomp(2) says: `EINVAL` for a flag or action the kernel does not know, `EACCES` without the privilege,
    /// `EBUSY` where a listener exists already.
    pub fn install(&self) -> io::Result<Option<OwnedFd>> {
        sys::install_filter(&self.instructions, self.flags, self.notifies())
    }

    /// Whether installing gives a listener.
    #[must_use]
    pub fn notifies(&self) -> bool {
        self.flags & FLAG_NEW_LISTENER != 0
    }

    /// The names that no architecture has a number for. Their rules have no effect: the default action answers them.
    #[must_use]
    pub fn unknown_syscalls(&self) -> &[String] {
        &self.unknown_syscalls
    }

    /// The BPF instructions.
    #[must_use]
    pub fn instructions(&self) -> &[FilterInstruction] {
        &self.instructions
    }
}

/// Compiles a profile for this machine's architecture and those the profile lists.
///
/// # Errors
/// [`SeccompError`] for anything in the profile that could not be honoured exactly.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, SeccompError> {
    compile_for(profile, Architecture::NATIVE, newer(profile))
}

fn compile_for(profile: &LinuxSeccomp, native: Architecture, newer: Newer) -> Result<Program, SeccompError> {
    check(profile)?;
    let architectures = architectures(profile, native)?;
    let (rules, unknown_syscalls) = rules::resolve(profile);
    let default = action::value(profile.default_action(), profile.default_errno_ret());
    let mut scratch = Scratch::new(&rules);
    let mut leaves = |architecture| rules::leaves(&rules, architecture, default, newer, &mut scratch);
    let mut sections = Vec::with_capacity(architectures.len());
    for &architecture in architectures.iter().filter(|one| **one != Architecture::X32) {
        let mut section = Section { audit: architecture.audit(), leaves: leaves(architecture) };
        if architecture == Architecture::X86_64 {
            let x32 = architectures.contains(&Architecture::X32).then(|| leaves(Architecture::X32));
            rules::append_x32(&mut section.leaves, x32, default, action::FOREIGN_ARCHITECTURE);
        }
        sections.push(section);
    }
    let instructions = generate::program(&sections, default, action::FOREIGN_ARCHITECTURE);
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong { length: instructions.len() });
    }
    Ok(Program { instructions, flags: flags(profile)?, unknown_syscalls })
}

/// The profile's architectures without doubles, the native one first, always.
fn architectures(profile: &LinuxSeccomp, native: Architecture) -> Result<Vec<Architecture>, SeccompError> {
    let mut found = vec![native];
    for &name in profile.architectures().iter().flatten() {
        let architecture = Architecture::from_spec(name)
            .ok_or(SeccompError::UnsupportedArchitecture { architecture: name })?;
        if !found.contains(&architecture) {
            found.push(architecture);
        }
    }
    Ok(found)
}

fn newer(profile: &LinuxSeccomp) -> Newer {
    let default = profile.default_action();
    if action::is_permissive(default) || action::value(default, profile.default_errno_ret()) == action::ENOSYS
    {
        Newer::Default
    } else {
        Newer::Enosys
    }
}

/// The flags for seccomp(2). `TSYNC` asks for what holds anyway: the process that installs the program has one thread.
/// Without any flags in the spec speculation mitigations are left alone (`SPEC_ALLOW`), which is runc's default.
fn flags(profile: &LinuxSeccomp) -> Result<u32, SeccompError> {
    let notifies =
        profile.syscalls().iter().flatten().any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify);
    let mut flags = if notifies { FLAG_NEW_LISTENER } else { 0 };
    let Some(wanted) = profile.flags() else { return Ok(flags | FLAG_SPEC_ALLOW) };
    for &flag in wanted {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => FLAG_WAIT_KILLABLE_RECV,
            flag @ LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(SeccompError::FlagWithoutNotify { flag });
            }
        };
    }
    Ok(flags)
}

fn check(profile: &LinuxSeccomp) -> Result<(), SeccompError> {
    if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
        return Err(SeccompError::Notify { place: "as default action" });
    }
    check_return_value(profile.default_action(), profile.default_errno_ret())?;
    profile.syscalls().iter().flatten().try_for_each(check_rule)
}

fn check_rule(rule: &LinuxSyscall) -> Result<(), SeccompError> {
    check_return_value(rule.action(), rule.errno_ret())?;
    if rule.names().is_empty() {
        return Err(SeccompError::NoNames { action: rule.action() });
    }
    // The runtime hands the listener on after the program is installed: with `write` waiting for an answer it never could.
    if rule.action() == LinuxSeccompAction::ScmpActNotify && rule.names().iter().any(|name| name == "write") {
        return Err(SeccompError::Notify { place: "for the write syscall" });
    }
    let syscall = || rule.names().first().cloned().unwrap_or_default();
    for argument in rule.args().iter().flatten() {
        if argument.index() >= MAX_ARGUMENTS {
            return Err(SeccompError::ArgumentIndex { syscall: syscall(), index: argument.index() });
        }
        let (mask, value) = (argument.value(), argument.value_two().unwrap_or(0));
        if argument.op() == LinuxSeccompOperator::ScmpCmpMaskedEq && value & !mask != 0 {
            return Err(SeccompError::UnreachableMask { syscall: syscall(), mask, value });
        }
    }
    Ok(())
}

fn check_return_value(action: LinuxSeccompAction, value: Option<u32>) -> Result<(), SeccompError> {
    let Some(value) = value else { return Ok(()) };
    let maximum = match action {
        LinuxSeccompAction::ScmpActErrno => action::MAX_ERRNO,
        LinuxSeccompAction::ScmpActTrace => action::MAX_TRACE_DATA,
        _ => return Err(SeccompError::NoReturnValue { action, value }),
    };
    if value > maximum { Err(SeccompError::ReturnValue { action, value, maximum }) } else { Ok(()) }
}
