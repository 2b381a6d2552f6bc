//! The limit: the least that a correct `run` of `benches/configs/containerd.json` needs, in plain system calls.
//!
//! `limit prepare BUNDLE` compiles the seccomp profile of the bundle's config into `BUNDLE/seccomp.bpf`; `limit run BUNDLE`
//! runs `/bin/true` in the container. It checks nothing, records nothing and can do nothing else: no runtime can be
//! faster, and the distance to it is what a runtime costs. Used by `benches/compare.rs`.
#![allow(unsafe_code, reason = "the measure is the system calls themselves, without any wrapper's checks")]
#![allow(clippy::disallowed_methods, reason = "a program of its own reads its arguments")]
#![allow(clippy::print_stderr, reason = "a program of its own, for measuring")]

use std::ffi::CStr;
use std::process::ExitCode;
use std::ptr::{null, null_mut};

use inspect_runtime::cgroup::{Cgroup, DeviceProgram, Driver, plan};
use inspect_runtime::sys::FilterInstruction;

const NO: libc::c_ulong = libc::MS_NOSUID | libc::MS_NOEXEC | libc::MS_NODEV;
const RO_BIND: libc::c_ulong = libc::MS_BIND | libc::MS_REMOUNT | libc::MS_RDONLY | NO;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
const CAPABILITIES: u64 = 0xa804_25fb;

fn main() -> ExitCode {
    let arguments: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "prepare", bundle] => prepare(bundle),
        [_, "run", bundle] => run(bundle),
        _ => Err("limit prepare|run BUNDLE".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn prepare(bundle: &str) -> Outcome {
    let spec: oci_spec::runtime::Spec =
        serde_json::from_slice(&std::fs::read(format!("{bundle}/config.json"))?)?;
    let linux = spec.linux().as_ref().ok_or("no linux section")?;
    let profile = linux.seccomp().as_ref().ok_or("no seccomp section")?;
    let mut bytes = Vec::new();
    for FilterInstruction { code, yes, no, constant } in
        inspect_runtime::seccomp::compile(profile)?.instructions()
    {
        bytes.extend(code.to_ne_bytes());
        bytes.extend([*yes, *no]);
        bytes.extend(constant.to_ne_bytes());
    }
    Ok(std::fs::write(format!("{bundle}/seccomp.bpf"), bytes)?)
}

fn run(bundle: &str) -> Outcome {
    let filter = std::fs::read(format!("{bundle}/seccomp.bpf"))?;
    let rootfs = std::ffi::CString::new(format!("{bundle}/rootfs"))?;
    let path = format!("/limit-{}", std::process::id());
    let cgroup = Cgroup::create(&plan(Some(path.as_ref()), "limit", &Driver::Cgroupfs)?)?;
    let devices = DeviceProgram::compile([].iter())?;
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }.into())?;
    let namespaces = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    let arguments = [
        u64::from(namespaces.cast_unsigned()) | CLONE_INTO_CGROUP,
        0,
        0,
        0,
        u64::from(libc::SIGCHLD.cast_unsigned()),
        0,
        0,
        0,
        0,
        0,
        u64::from(std::os::fd::AsRawFd::as_raw_fd(&cgroup.fd()).cast_unsigned()),
    ];
    // SAFETY: the arguments are a whole `struct clone_args`; the child has a copy of the memory and ends in exec or exit.
    let child = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments)) };
    if child == 0 {
        contain(&rootfs, &filter, ends[0]);
    }
    check(child)?;
    devices.attach(&cgroup)?;
    let mut status = 0;
    // SAFETY: one byte of a constant is written; `status` may be written.
    unsafe {
        check(i64::try_from(libc::write(ends[1], c"x".as_ptr().cast(), 1))?)?;
        check(libc::waitpid(i32::try_from(child)?, &raw mut status, 0).into())?;
    }
    cgroup.delete()?;
    if status == 0 { Ok(()) } else { Err(format!("the payload's status is {status:#x}").into()) }
}

fn check(result: libc::c_long) -> Outcome {
    if result < 0 { Err(std::io::Error::last_os_error().into()) } else { Ok(()) }
}

/// The child: never returns. A call that fails ends it with the number of its line.
fn contain(rootfs: &CStr, filter: &[u8], gate: i32) -> ! {
    // SAFETY: every pointer is to a constant or to memory that lives until exec; this process has one thread.
    unsafe {
        mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None);
        mount(Some(rootfs), rootfs, None, libc::MS_BIND | libc::MS_REC, None);
        let files = [c"/etc/hostname", c"/etc/hosts", c"/etc/resolv.conf"].map(|path| {
            libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), 1 | libc::O_CLOEXEC)
        });
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
        must(socket.into());
        let socket = std::os::fd::BorrowedFd::borrow_raw(socket);
        must(i64::from(inspect_runtime::sys::bring_up_loopback(socket).is_ok()) - 1);
        libc::chdir(rootfs.as_ptr());
        must(libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()));
        must(libc::umount2(c".".as_ptr(), libc::MNT_DETACH).into());
        fill();
        for (tree, path) in files.into_iter().zip([c"/etc/hostname", c"/etc/hosts", c"/etc/resolv.conf"]) {
            must(libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), libc::AT_FDCWD, path.as_ptr(), 4));
        }
        hide();
        give_up_rights(filter, gate);
        let arguments = [c"/bin/true".as_ptr(), null()];
        let environment = [c"PATH=/bin".as_ptr(), null()];
        libc::execve(arguments[0], arguments.as_ptr(), environment.as_ptr());
        libc::_exit(127)
    }
}

/// # Safety
/// None beyond that of the calls: the paths are constants.
unsafe fn fill() {
    // SAFETY: as the function's.
    unsafe {
        mount(Some(c"proc"), c"/proc", Some(c"proc"), NO, None);
        mount(
            Some(c"tmpfs"),
            c"/dev",
            Some(c"tmpfs"),
            libc::MS_NOSUID | libc::MS_STRICTATIME,
            Some(c"mode=755,size=65536k"),
        );
        for directory in [c"/dev/pts", c"/dev/shm", c"/dev/mqueue"] {
            must(libc::mkdir(directory.as_ptr(), 0o755).into());
        }
        let terminals = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
        mount(
            Some(c"devpts"),
            c"/dev/pts",
            Some(c"devpts"),
            libc::MS_NOSUID | libc::MS_NOEXEC,
            Some(terminals),
        );
        mount(Some(c"shm"), c"/dev/shm", Some(c"tmpfs"), NO, Some(c"mode=1777,size=65536k"));
        mount(Some(c"mqueue"), c"/dev/mqueue", Some(c"mqueue"), NO, None);
        mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), NO | libc::MS_RDONLY, None);
        mount(
            Some(c"cgroup"),
            c"/sys/fs/cgroup",
            Some(c"cgroup2"),
            NO | libc::MS_RELATIME | libc::MS_RDONLY,
            None,
        );
        mount(
            Some(c"tmpfs"),
            c"/run",
            Some(c"tmpfs"),
            libc::MS_NOSUID | libc::MS_STRICTATIME,
            Some(c"mode=755,size=65536k"),
        );
        nodes();
    }
}

/// # Safety
/// None beyond that of the calls: the paths are constants.
unsafe fn nodes() {
    // SAFETY: as the function's.
    unsafe {
        libc::umask(0);
        let nodes = [
            (c"/dev/null", 1, 3),
            (c"/dev/zero", 1, 5),
            (c"/dev/full", 1, 7),
            (c"/dev/random", 1, 8),
            (c"/dev/urandom", 1, 9),
            (c"/dev/tty", 5, 0),
        ];
        for (path, major, minor) in nodes {
            must(libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(major, minor)).into());
        }
        let links = [
            (c"/proc/self/fd", c"/dev/fd"),
            (c"/proc/self/fd/0", c"/dev/stdin"),
            (c"/proc/self/fd/1", c"/dev/stdout"),
            (c"/proc/self/fd/2", c"/dev/stderr"),
            (c"pts/ptmx", c"/dev/ptmx"),
            (c"/proc/kcore", c"/dev/core"),
        ];
        for (target, path) in links {
            must(libc::symlink(target.as_ptr(), path.as_ptr()).into());
        }
    }
}

/// # Safety
/// None beyond that of the calls: the paths are constants.
unsafe fn hide() {
    // SAFETY: as the function's. What a kernel does not have is skipped.
    unsafe {
        for path in [c"/proc/bus", c"/proc/fs", c"/proc/irq", c"/proc/sys", c"/proc/sysrq-trigger"] {
            if libc::mount(path.as_ptr(), path.as_ptr(), null(), libc::MS_BIND | libc::MS_REC, null()) == 0 {
                mount(None, path, None, RO_BIND, None);
            }
        }
        let masked = [
            c"/proc/acpi",
            c"/proc/asound",
            c"/proc/kcore",
            c"/proc/keys",
            c"/proc/latency_stats",
            c"/proc/timer_list",
            c"/proc/timer_stats",
            c"/proc/sched_debug",
            c"/sys/firmware",
            c"/sys/devices/virtual/powercap",
            c"/proc/scsi",
        ];
        for path in masked {
            if libc::mount(c"/dev/null".as_ptr(), path.as_ptr(), null(), libc::MS_BIND, null()) != 0
                && *libc::__errno_location() == libc::ENOTDIR
            {
                mount(Some(c"tmpfs"), path, Some(c"tmpfs"), libc::MS_RDONLY, Some(c"size=0k,nr_inodes=1"));
            }
        }
    }
}

/// # Safety
/// `filter` must hold whole instructions.
unsafe fn give_up_rights(filter: &[u8], gate: i32) {
    // SAFETY: the structures are as the kernel has them (capability.h, filter.h, resource.h) and live through the calls.
    unsafe {
        for capability in 0..=40 {
            if CAPABILITIES >> capability & 1 == 0 {
                must(libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0).into());
            }
        }
        let limit = libc::rlimit { rlim_cur: 1024, rlim_max: 1024 };
        must(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit).into());
        must(libc::syscall(libc::SYS_setgroups, 1, [0_u32].as_ptr()));
        must(libc::syscall(libc::SYS_setresgid, 0, 0, 0));
        must(libc::syscall(libc::SYS_setresuid, 0, 0, 0));
        let low = u32::try_from(CAPABILITIES & 0xffff_ffff).unwrap_or(0);
        must(libc::syscall(
            libc::SYS_capset,
            [0x2008_0522_u32, 0].as_ptr(),
            [low, low, 0, 0, 0, 0_u32].as_ptr(),
        ));
        must(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0).into());
        let mut byte = 0_u8;
        must(libc::read(gate, (&raw mut byte).cast(), 1).try_into().unwrap_or(-1));
        must(libc::syscall(libc::SYS_close_range, 3, u32::MAX, 4));
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len() / 8).unwrap_or(0),
            filter: filter.as_ptr().cast_mut().cast(),
        };
        must(libc::syscall(libc::SYS_seccomp, 1, 4, &raw const program));
    }
}

/// # Safety
/// None beyond that of the call.
unsafe fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: libc::c_ulong,
    data: Option<&CStr>,
) {
    let pointer = |text: Option<&CStr>| text.map_or(null(), CStr::as_ptr);
    // SAFETY: the strings live through the call; absent ones are null, as mount(2) allows.
    let result = unsafe {
        libc::mount(
            pointer(source),
            target.as_ptr(),
            pointer(kind),
            flags,
            data.map_or(null_mut::<libc::c_void>().cast_const(), |text| text.as_ptr().cast()),
        )
    };
    must(result.into());
}

#[track_caller]
fn must(result: libc::c_long) {
    if result < 0 {
        eprintln!("{}: {}", std::panic::Location::caller(), std::io::Error::last_os_error());
        // SAFETY: ends the process.
        unsafe { libc::_exit(126) }
    }
}
