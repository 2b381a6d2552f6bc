//! The system calls that no safe wrapper covers: the only unsafe code of the runtime.
#![allow(unsafe_code, reason = "the one home of unsafe code; every block states its obligation")]

mod arena;
mod bpf;
mod program;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

pub use arena::Arena;
pub use bpf::{
    BpfInstruction, attach_device_program, attached_device_programs, detach_device_program,
    load_device_program, open_program,
};
pub(crate) use program::OWN_PROGRAM;
pub use program::{ProgramCopy, remap_program};

// ---- the entry -------------------------------------------------------------------------------------------------------

/// Defines C's `main` for a binary with `#![no_main]`: `$run` gets the arguments, the program's name first, and gives the
/// exit status. What the standard library would do before `main` is not done:
/// [`run`](crate::run) does what matters of it.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[allow(unsafe_code, reason = "the C library calls the one function of this name")]
        #[unsafe(no_mangle)]
        extern "C" fn main(
            count: ::std::ffi::c_int,
            arguments: *const *const ::std::ffi::c_char,
        ) -> ::std::ffi::c_int {
            // SAFETY: the C library passes `count` strings, which live as long as the process.
            let arguments = unsafe { $crate::sys::collect_arguments(count, arguments) };
            ::std::ffi::c_int::from($run(arguments))
        }
    };
}

/// The arguments that the C library gives `main`.
///
/// # Safety
/// `arguments` must point to `count` pointers to strings that end in a null byte.
#[must_use]
pub unsafe fn collect_arguments(
    count: libc::c_int,
    arguments: *const *const libc::c_char,
) -> Vec<std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt as _;
    let argument = |index| {
        // SAFETY: the caller vouches for `count` pointers and the strings behind them.
        let text = unsafe { std::ffi::CStr::from_ptr(*arguments.add(index)) };
        std::ffi::OsString::from_vec(text.to_bytes().to_vec())
    };
    (0..usize::try_from(count).unwrap_or(0)).map(argument).collect()
}

// ---- seccomp(2) ------------------------------------------------------------------------------------------------------

/// One instruction of classic BPF: `struct sock_filter` of `linux/filter.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FilterInstruction {
    /// The operation.
    pub code: u16,
    /// How many instructions a true comparison skips.
    pub yes: u8,
    /// How many instructions a false comparison skips.
    pub no: u8,
    /// The constant of the operation.
    pub constant: u32,
}

/// seccomp(2) with `SECCOMP_SET_MODE_FILTER`: installs `program` for the calling thread. `listener` says whether `flags`
/// ask for a notification descriptor. Allocates nothing.
///
/// # Errors
/// The kernel's errno.
pub fn install_filter(
    program: &[FilterInstruction],
    flags: u32,
    listener: bool,
) -> io::Result<Option<OwnedFd>> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let argument = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `argument` points to `length` instructions laid out as `sock_filter`; the kernel copies and never writes them.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const argument)
    };
    match (result, listener) {
        (-1, _) => Err(io::Error::last_os_error()),
        (0, false) => Ok(None),
        (descriptor, true) => owned(descriptor).map(Some),
        // A thread ID is given when threads could not be synchronised, which is never asked for.
        (_, false) => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

/// Takes a descriptor that a system call has just made.
fn owned(descriptor: libc::c_long) -> io::Result<OwnedFd> {
    let descriptor = RawFd::try_from(descriptor).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just opened it for this call, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn raw(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

// ---- processes ------------------------------------------------------------------------------------------------------

/// What a clone3(2) is to give the child; see its man page for the flags.
#[derive(Clone, Copy, Debug)]
pub struct CloneRequest<'fd> {
    /// `CLONE_NEW*` and others; `CLONE_PIDFD` and `CLONE_INTO_CGROUP` are added here, `CLONE_VM` and `CLONE_FILES` refused.
    pub flags: u64,
    /// The cgroup that the child is born in.
    pub cgroup: Option<BorrowedFd<'fd>>,
}

/// Where a clone returned.
#[derive(Debug)]
pub enum Cloned {
    /// In the child.
    Child,
    /// In the parent: the child's pid as the parent's PID namespace has it, and its pidfd.
    Parent(rustix::process::Pid, OwnedFd),
}

/// `struct clone_args` of `linux/sched.h`, version 2 (Linux 5.7).
#[repr(C)]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 1 << 33;
/// Resets every handled signal to its default in the child (Linux 5.5).
pub const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;

/// clone3(2) as fork(2) does it: the child has a copy of the memory and goes on from here. The runtime has one thread, so
/// that no lock can be held by a thread that the child lacks.
///
/// Filters refuse clone3 with ENOSYS, whose flags they cannot see: then clone(2) does what it can, for a hook that runs under
/// the container's filter.
///
/// # Errors
/// The kernel's errno.
pub fn clone_process(request: CloneRequest<'_>) -> io::Result<Cloned> {
    let shared = (libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_THREAD).cast_unsigned();
    if request.flags & u64::from(shared) != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut pidfd: libc::c_int = -1;
    let is_sibling = request.flags & u64::from(libc::CLONE_PARENT.cast_unsigned()) != 0;
    let mut arguments = CloneArguments {
        flags: request.flags | u64::from(libc::CLONE_PIDFD.cast_unsigned()),
        pidfd: (&raw mut pidfd).addr() as u64,
        exit_signal: if is_sibling { 0 } else { u64::from(libc::SIGCHLD.cast_unsigned()) },
        ..CloneArguments::default()
    };
    if let Some(cgroup) = request.cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = u64::from(raw(cgroup));
    }
    // SAFETY: without CLONE_VM the child runs on its own copy of this stack; `pidfd` outlives the call and is an int.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArguments>()) };
    let mut pid = pid;
    let is_refused = pid == -1 && io::Error::last_os_error().raw_os_error() == Some(libc::ENOSYS);
    if is_refused && request.cgroup.is_none() && request.flags & !CLONE_CLEAR_SIGHAND == 0 {
        let flags = libc::c_long::from(libc::CLONE_PIDFD | libc::SIGCHLD);
        // SAFETY: as above; without a stack the child goes on with its copy of this one, and the pidfd goes where the
        // third argument points.
        pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
    }
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Cloned::Child),
        pid => {
            let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            let pid = pid.ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))?;
            Ok(Cloned::Parent(pid, owned(libc::c_long::from(pidfd))?))
        }
    }
}

/// Strings laid out as execve(2) takes them: pointers ended by a null pointer.
#[derive(Debug)]
pub struct StringList {
    strings: Vec<std::ffi::CString>,
    pointers: Vec<*const libc::c_char>,
}

impl StringList {
    /// Lays the strings out. They are not moved again: each owns its bytes on the heap.
    #[must_use]
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        let mut pointers: Vec<_> = strings.iter().map(|string| string.as_ptr()).collect();
        pointers.push(std::ptr::null());
        StringList { strings, pointers }
    }

    /// Adds one at the end.
    pub fn push(&mut self, string: std::ffi::CString) {
        self.pointers.pop();
        self.pointers.push(string.as_ptr());
        self.pointers.push(std::ptr::null());
        self.strings.push(string);
    }

    /// The strings.
    pub fn iter(&self) -> impl Iterator<Item = &std::ffi::CStr> {
        self.strings.iter().map(std::ffi::CString::as_c_str)
    }
}

/// execve(2). Returns only when it fails. Allocates nothing.
#[must_use]
pub fn execute(path: &std::ffi::CStr, arguments: &StringList, environment: &StringList) -> io::Error {
    // SAFETY: both lists end in a null pointer, and each pointer is to a string owned by its list.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// execveat(2) of the very file behind a descriptor. Returns only when it fails.
#[must_use]
pub fn execute_file(file: BorrowedFd<'_>, arguments: &StringList, environment: &StringList) -> io::Error {
    // SAFETY: as in `execute`; the path is the empty string, which AT_EMPTY_PATH asks for.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            file.as_raw_fd(),
            c"".as_ptr(),
            arguments.pointers.as_ptr(),
            environment.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    io::Error::last_os_error()
}

/// The time since the system was started, in the clock ticks that `/proc/PID/stat` counts start times in: 100 a second on every
/// architecture (`USER_HZ`). No system call: the C library has the kernel's function for it.
pub(crate) fn ticks_since_boot() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure outlives the call. The clock has been there since Linux 2.6.39; without it the time stays 0.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    let (seconds, nanoseconds) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    seconds * 100 + nanoseconds / 10_000_000
}

/// The effective user that the process was started with, which the kernel leaves in its memory: getauxval(3).
#[must_use]
pub fn effective_user() -> u32 {
    // SAFETY: getauxval has no obligations; the kernel always passes this value.
    u32::try_from(unsafe { libc::getauxval(libc::AT_EUID) }).unwrap_or(u32::MAX)
}

/// Ends the process at once, running nothing of what a normal exit runs: for a child after a clone.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: _exit has no obligations.
    unsafe { libc::_exit(status) }
}

/// unshare(2) of namespaces.
///
/// # Errors
/// The kernel's errno.
pub fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: the flags used are CLONE_NEW*, none of which takes memory or descriptors away from the process.
    succeed(unsafe { libc::c_long::from(libc::unshare(flags)) })
}

/// setns(2) with a pidfd or a namespace's descriptor.
///
/// # Errors
/// The kernel's errno.
pub fn set_namespaces(descriptor: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open; the process has one thread.
    succeed(unsafe { libc::c_long::from(libc::setns(descriptor.as_raw_fd(), flags)) })
}

/// Marks every descriptor from `first` on close-on-exec, with close_range(2).
///
/// # Errors
/// The kernel's errno.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 1 << 2;
    // SAFETY: nothing is closed now; at execve nobody is left who owns one.
    succeed(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
}

/// Closes every descriptor from `first` on but those in `kept`, with close_range(2), whoever opened them: for a process that
/// uses none of the others again and ends without running destructors.
///
/// # Errors
/// The kernel's errno.
pub fn close_all_but(first: u32, kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|one| one.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let mut from = first;
    for next in kept.into_iter().filter(|next| *next >= first).chain([u32::MAX]) {
        if from < next {
            let last = if next == u32::MAX { next } else { next - 1 };
            // SAFETY: the caller promises not to use or close these again.
            succeed(unsafe { libc::syscall(libc::SYS_close_range, from, last, 0) })?;
        }
        from = next.saturating_add(1);
    }
    Ok(())
}

/// Blocks every signal, for [`wait_for_signal`]. The end of a child is one even where the caller ignored it.
pub fn block_signals() {
    let all = SignalSet::all();
    // SAFETY: SIG_DFL is a valid disposition; the set is initialised, and no old one is asked for.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all.0, std::ptr::null_mut());
    }
}

/// A set of signals.
#[derive(Clone, Copy)]
pub struct SignalSet(libc::sigset_t);

impl SignalSet {
    /// Every signal.
    #[must_use]
    pub fn all() -> Self {
        // SAFETY: a zeroed sigset_t is valid, and sigfillset only writes to the set given.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&raw mut all);
            SignalSet(all)
        }
    }
}

/// Waits for one of the signals, which must be blocked, and gives its number.
///
/// # Errors
/// `EINTR` alone.
pub fn wait_for_signal(signals: &SignalSet) -> io::Result<i32> {
    // SAFETY: the set is initialised; no siginfo is asked for.
    let signal = unsafe { libc::sigwaitinfo(&raw const signals.0, std::ptr::null_mut()) };
    if signal == -1 { Err(io::Error::last_os_error()) } else { Ok(signal) }
}

/// signalfd(2) over the signals.
///
/// # Errors
/// The kernel's errno.
pub fn signal_descriptor(signals: &SignalSet) -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised; -1 asks for a new descriptor.
    let descriptor = unsafe { libc::signalfd(-1, &raw const signals.0, libc::SFD_CLOEXEC) };
    if descriptor == -1 { Err(io::Error::last_os_error()) } else { owned(libc::c_long::from(descriptor)) }
}

/// Gives the payload what a process starts with: no signal blocked, and `SIGPIPE` not ignored, whatever the caller did.
pub fn reset_signals() {
    // SAFETY: a zeroed sigset_t is the empty set on Linux; SIG_DFL is a valid disposition.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Has the calling process end by the signals that ask for that, also as the first process of a PID namespace, until it
/// executes another program.
pub fn end_on_signals() {
    extern "C" fn end(signal: libc::c_int) {
        exit_now(128 + signal)
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        let handler: extern "C" fn(libc::c_int) = end;
        // SAFETY: the handler does nothing but end the process.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Ignores SIGPIPE: whoever writes to a hook that does not read gets an error, not a signal.
pub fn ignore_broken_pipes() {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// pidfd_send_signal(2) with a signal by number, real-time ones included.
///
/// # Errors
/// `ESRCH` where the process has ended, `EINVAL` for a number that is no signal.
pub fn send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: no siginfo is given.
    succeed(unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, std::ptr::null::<u8>(), 0)
    })
}

// ---- mounts ---------------------------------------------------------------------------------------------------------

/// `struct mount_attr` of `linux/mount.h`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct MountAttributes {
    /// Attributes to set (`MOUNT_ATTR_*`).
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// `MS_SHARED`, `MS_SLAVE`, `MS_PRIVATE` or `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
    /// A user namespace's descriptor, for `MOUNT_ATTR_IDMAP`.
    pub user_namespace: u64,
}

/// mount_setattr(2) (Linux 5.12) on the mount whose root `mount` is; `recursive` takes in those below it.
///
/// # Errors
/// The kernel's errno.
pub fn set_mount_attributes(
    mount: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    recursive: bool,
    attributes: &MountAttributes,
) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends in a null byte, and the size is that of the structure pointed to.
    succeed(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    })
}

// ---- network interfaces ---------------------------------------------------------------------------------------------

/// Brings up the loopback device of the network namespace that a socket of any family was made in: `SIOCSIFFLAGS` of
/// netdevice(7).
///
/// # Errors
/// The kernel's errno.
pub fn bring_up_loopback(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: all bytes of the structure may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(*b"lo") {
        *place = byte.cast_signed();
    }
    // `IFF_UP` of `linux/if.h`; the other flags that a device has are not the caller's to change.
    request.ifr_ifru.ifru_flags = 1;
    // SAFETY: the structure is the one that the request takes, and its name ends in a null byte.
    succeed(unsafe {
        libc::c_long::from(libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request))
    })
}

// ---- the process's own attributes -------------------------------------------------------------------------------------

/// Joins a new session keyring of this name, and lets its owner search it: keyctl(2).
///
/// # Errors
/// The kernel's errno; `ENOSYS` on a kernel without keys.
pub fn join_session_keyring(name: &std::ffi::CStr) -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: the name ends in a null byte.
    succeed(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })
}

/// ioprio_set(2) for the calling process.
///
/// # Errors
/// The kernel's errno.
pub fn set_io_priority(value: i32) -> io::Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: the arguments are integers.
    succeed(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) })
}

/// personality(2).
///
/// # Errors
/// The kernel's errno.
pub fn set_personality(domain: u64) -> io::Result<()> {
    // SAFETY: the argument is an integer.
    succeed(unsafe { libc::syscall(libc::SYS_personality, domain) })
}

/// `struct sched_attr` of `linux/sched/types.h`, version 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SchedulerAttributes {
    /// The structure's size.
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
}

/// sched_setattr(2) for the calling process.
///
/// # Errors
/// The kernel's errno.
pub fn set_scheduler(attributes: &SchedulerAttributes) -> io::Result<()> {
    // SAFETY: the structure's own size field says how much the kernel may read, and it is set from the type.
    succeed(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(attributes), 0) })
}

/// set_mempolicy(2) with a node mask of up to 1024 nodes.
///
/// # Errors
/// The kernel's errno.
pub fn set_memory_policy(mode: i32, nodes: &[u64; 16]) -> io::Result<()> {
    // SAFETY: the mask has the 1024 bits that the last argument says (the kernel counts from one more).
    succeed(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), 1025) })
}

fn succeed(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
