//! The architectures a filter can tell apart, and what differs between them.

use std::num::NonZeroU16;

use oci_spec::runtime::Arch;

/// How many columns the table of system calls has.
pub(super) const COLUMNS: usize = 8;

/// Bit 30 of a system call number marks the x32 ABI (`__X32_SYSCALL_BIT` of `asm/unistd.h`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// An ABI with its own system call numbers. The discriminant is its column in the table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Architecture {
    X86_64 = 0,
    X32 = 1,
    X86 = 2,
    Aarch64 = 3,
    Arm = 4,
    Riscv64 = 5,
    Loongarch64 = 6,
    Ppc64Le = 7,
}

impl Architecture {
    /// The architecture this binary was built for.
    pub(super) const NATIVE: Architecture = if cfg!(target_arch = "x86_64") {
        Architecture::X86_64
    } else if cfg!(target_arch = "aarch64") {
        Architecture::Aarch64
    } else if cfg!(target_arch = "riscv64") {
        Architecture::Riscv64
    } else if cfg!(target_arch = "loongarch64") {
        Architecture::Loongarch64
    } else if cfg!(all(target_arch = "powerpc64", target_endian = "little")) {
        Architecture::Ppc64Le
    } else if cfg!(target_arch = "arm") {
        Architecture::Arm
    } else {
        Architecture::X86
    };

    /// The architecture a spec names; `None` for one this compiler has no table for.
    pub(super) fn from_spec(name: Arch) -> Option<Self> {
        Some(match name {
            Arch::ScmpArchNative => Self::NATIVE,
            Arch::ScmpArchX86_64 => Self::X86_64,
            Arch::ScmpArchX32 => Self::X32,
            Arch::ScmpArchX86 => Self::X86,
            Arch::ScmpArchAarch64 => Self::Aarch64,
            Arch::ScmpArchArm => Self::Arm,
            Arch::ScmpArchRiscv64 => Self::Riscv64,
            Arch::ScmpArchLoongarch64 => Self::Loongarch64,
            Arch::ScmpArchPpc64le => Self::Ppc64Le,
            _ => return None,
        })
    }

    /// The `AUDIT_ARCH_*` value the kernel puts into `seccomp_data.arch` (`linux/audit.h`). x32 shares x86_64's.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
            Self::Loongarch64 => 0xc000_0102,
            Self::Ppc64Le => 0xc000_0015,
        }
    }

    /// Whether arguments are compared as 64 bits. The 32-bit ABIs compare the low half alone, as libseccomp does.
    pub(super) fn wide_arguments(self) -> bool {
        !matches!(self, Self::X32 | Self::X86 | Self::Arm)
    }

    /// The bits to add to a number of the table to get the number the kernel shows to a filter.
    pub(super) fn number_bits(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }
}

/// The call numbers that x86 also reaches through `socketcall` and `ipc` (`linux/net.h`, `linux/ipc.h`): the name, the
/// multiplexing system call's number, and the value of its first argument.
pub(super) const X86_MULTIPLEXED: [(&str, u32, u16); 32] = [
    ("accept", SOCKETCALL, 5),
    ("accept4", SOCKETCALL, 18),
    ("bind", SOCKETCALL, 2),
    ("connect", SOCKETCALL, 3),
    ("getpeername", SOCKETCALL, 7),
    ("getsockname", SOCKETCALL, 6),
    ("getsockopt", SOCKETCALL, 15),
    ("listen", SOCKETCALL, 4),
    ("msgctl", IPC, 14),
    ("msgget", IPC, 13),
    ("msgrcv", IPC, 12),
    ("msgsnd", IPC, 11),
    ("recv", SOCKETCALL, 10),
    ("recvfrom", SOCKETCALL, 12),
    ("recvmmsg", SOCKETCALL, 19),
    ("recvmsg", SOCKETCALL, 17),
    ("semctl", IPC, 3),
    ("semget", IPC, 2),
    ("semop", IPC, 1),
    ("semtimedop", IPC, 4),
    ("send", SOCKETCALL, 9),
    ("sendmmsg", SOCKETCALL, 20),
    ("sendmsg", SOCKETCALL, 16),
    ("sendto", SOCKETCALL, 11),
    ("setsockopt", SOCKETCALL, 14),
    ("shmat", IPC, 21),
    ("shmctl", IPC, 24),
    ("shmdt", IPC, 22),
    ("shmget", IPC, 23),
    ("shutdown", SOCKETCALL, 13),
    ("socket", SOCKETCALL, 1),
    ("socketpair", SOCKETCALL, 8),
];

const SOCKETCALL: u32 = 102;
const IPC: u32 = 117;

/// The multiplexing system call's number on x86 and the value of its first argument, for a call that is reached so. `numbers`
/// is the call's row of the table.
pub(super) fn multiplexed(name: &str, numbers: &[i32; COLUMNS]) -> Option<(u32, NonZeroU16)> {
    // Numbers of their own: recvmmsg, sendmmsg, the socket calls of Linux 4.3, the IPC calls of 5.1.
    if !matches!(numbers[Architecture::X86 as usize], -1 | 337 | 345 | 359..=373 | 393..=402) {
        return None;
    }
    let index = X86_MULTIPLEXED.binary_search_by_key(&name, |entry| entry.0).ok()?;
    let (_, number, call) = X86_MULTIPLEXED[index];
    Some((number, NonZeroU16::new(call)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::table;

    #[test]
    fn the_multiplexing_calls_have_the_numbers_of_the_table() {
        let number = |name| table::find(name).unwrap().numbers()[Architecture::X86 as usize];
        assert_eq!((number("socketcall"), number("ipc")), (102, 117));
    }

    #[test]
    fn every_multiplexed_name_is_found_by_search() {
        assert!(X86_MULTIPLEXED.is_sorted_by_key(|entry| entry.0));
        for (name, number, call) in X86_MULTIPLEXED {
            let row = table::find(name).unwrap();
            assert_eq!(
                multiplexed(name, row.numbers()),
                NonZeroU16::new(call).map(|call| (number, call)),
                "{name}"
            );
        }
    }
}
