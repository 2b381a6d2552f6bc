//! The values a filter returns (`linux/seccomp.h`).

use oci_spec::runtime::LinuxSeccompAction;

const EPERM: u32 = 1;

/// Kills the thread: what a system call of an architecture that the profile does not list gets, as with libseccomp.
pub(super) const FOREIGN_ARCHITECTURE: u32 = 0;
/// Fails with `ENOSYS`.
pub(super) const ENOSYS: u32 = 0x0005_0000 | 38;

/// The highest errno the kernel lets a filter return; it caps larger ones (`MAX_ERRNO`).
pub(super) const MAX_ERRNO: u32 = 4095;
/// The largest number a tracer can be given: the return value has 16 bits for it.
pub(super) const MAX_TRACE_DATA: u32 = 0xffff;

/// The return value for an action of the spec; `errno` is `EPERM` where the spec leaves it out.
pub(super) fn value(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    let data = errno.unwrap_or(EPERM) & 0xffff;
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0x0000_0000,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => 0x0005_0000 | data,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | data,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
    }
}

/// Whether a default action lets an unknown call through or leaves it to somebody who can tell: then numbers newer than the
/// profile are not answered with `ENOSYS`.
pub(super) fn is_permissive(action: LinuxSeccompAction) -> bool {
    matches!(
        action,
        LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
    )
}
