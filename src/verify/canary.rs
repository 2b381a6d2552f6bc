//! The program inside the canary container: says what the kernel shows it, then waits to be told to end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use clap::{Args, ValueEnum};
use signal_hook::consts::{SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;

use crate::error::CommandError;
use crate::output::{Output, Status};

/// The exit status after SIGTERM: one that nothing else gives.
pub(crate) const TERMINATED_STATUS: u8 = 43;
/// The exit status of the exec'd process.
pub(crate) const EXEC_STATUS: u8 = 44;
/// The line that ends a report: all of it has been written.
pub(crate) const END_OF_REPORT: &str = "canary: end";

/// Paths of proc(5) that a container must not read through, when its spec masks them.
const MASKED: [&str; 4] = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/acpi"];
/// Files that a container must not write to, when its spec makes them read-only.
const READONLY: [&str; 2] = ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger"];

/// What `inspect verify` runs inside its canary container; of no use elsewhere
#[derive(Debug, Args)]
pub(crate) struct CanaryArgs {
    #[arg(value_enum)]
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Report what is seen, then wait for SIGTERM
    Observe,
    /// Report once and end: the process of an exec
    Exec,
    /// Use memory until the kernel ends it
    Eat,
}

/// Runs inside the container.
pub(crate) fn run(args: &CanaryArgs, output: &mut Output) -> Result<Status, CommandError> {
    match args.role {
        Role::Observe => observe_and_wait(output),
        Role::Exec => {
            output.print(&report(&observe()))?;
            Ok(Status::Code(EXEC_STATUS))
        }
        Role::Eat => eat(),
    }
}

/// As PID 1 a signal without a handler is ignored by the kernel (pid_namespaces(7)): the handlers come before the report, so
/// that whoever has read it may signal.
fn observe_and_wait(output: &mut Output) -> Result<Status, CommandError> {
    let mut signals = Signals::new([SIGTERM, SIGUSR1])
        .map_err(|error| CommandError::trouble(format!("cannot handle signals: {error}")))?;
    output.print(&report(&observe()))?;
    for signal in signals.forever() {
        if signal == SIGTERM {
            return Ok(Status::Code(TERMINATED_STATUS));
        }
        output.print("canary: SIGUSR1\n")?;
    }
    Ok(Status::Negative)
}

/// Touches a page of every 4 KiB, a MiB at a time, for ever: the memory limit ends it.
fn eat() -> ! {
    let mut eaten: Vec<Vec<u8>> = Vec::new();
    loop {
        let mut bite = vec![0_u8; 1 << 20];
        for page in bite.chunks_mut(4096) {
            page[0] = 1;
        }
        eaten.push(std::hint::black_box(bite));
    }
}

fn report(facts: &BTreeMap<String, String>) -> String {
    let json = serde_json::to_string(facts).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
    format!("{json}\n{END_OF_REPORT}\n")
}

/// What the kernel shows this process, as named facts.
fn observe() -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    observe_status(&mut facts);
    observe_limits(&mut facts);
    observe_mounts(&mut facts);
    observe_paths(&mut facts);
    let mut fact = |name: &str, value: String| facts.insert(name.to_owned(), value);
    fact("pid", std::process::id().to_string());
    fact("arguments", format!("{:?}", std::env::args().skip(1).collect::<Vec<_>>()));
    fact("environment", format!("{:?}", std::env::vars().collect::<Vec<_>>()));
    fact("cwd", std::env::current_dir().map_or_else(describe, |path| path.display().to_string()));
    fact("hostname", read("/proc/sys/kernel/hostname"));
    fact("domainname", read("/proc/sys/kernel/domainname"));
    fact("oom_score_adj", read("/proc/self/oom_score_adj"));
    fact("cgroup", read("/proc/self/cgroup"));
    fact("descriptors", descriptors());
    facts
}

fn observe_status(facts: &mut BTreeMap<String, String>) {
    let status = read("/proc/self/status");
    for line in status.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if matches!(
            name,
            "Uid"
                | "Gid"
                | "Groups"
                | "NoNewPrivs"
                | "Seccomp"
                | "CapInh"
                | "CapPrm"
                | "CapEff"
                | "CapBnd"
                | "CapAmb"
                | "Umask"
        ) {
            let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
            facts.insert(format!("status {name}"), value);
        }
    }
}

/// proc_pid_limits(5): name in 26 columns, soft, hard, unit.
fn observe_limits(facts: &mut BTreeMap<String, String>) {
    for line in read("/proc/self/limits").lines().skip(1) {
        let Some((name, values)) = line.split_at_checked(26) else { continue };
        let values: Vec<&str> = values.split_whitespace().take(2).collect();
        facts.insert(format!("limit {}", name.trim().to_lowercase()), values.join("/"));
    }
}

/// One fact per mount point: type and options as the kernel has them.
fn observe_mounts(facts: &mut BTreeMap<String, String>) {
    for line in read("/proc/self/mountinfo").lines() {
        let Some((mount, system)) = line.split_once(" - ") else { continue };
        let mut mount = mount.split(' ').skip(4);
        let (Some(point), Some(options)) = (mount.next(), mount.next()) else { continue };
        let kind = system.split(' ').next().unwrap_or_default();
        facts.insert(format!("mount {point}"), format!("{kind} {options}"));
    }
}

fn observe_paths(facts: &mut BTreeMap<String, String>) {
    for path in MASKED {
        facts.insert(format!("read {path}"), try_read(Path::new(path)));
    }
    for path in READONLY {
        let opened = fs::OpenOptions::new().write(true).open(path);
        facts.insert(format!("write {path}"), opened.map_or_else(describe, |_| "allowed".to_owned()));
    }
    let written = fs::write("/canary-write", "x").map_or_else(describe, |()| "allowed".to_owned());
    facts.insert("write /".to_owned(), written);
    for device in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "kmsg", "mem", "fuse"] {
        let path = Path::new("/dev").join(device);
        let seen = fs::metadata(&path).map_or_else(describe, |metadata| {
            let kind = if metadata.file_type().is_char_device() { "character device" } else { "no device" };
            kind.to_owned()
        });
        facts.insert(format!("device {}", path.display()), seen);
    }
    facts.insert("mknod of a disk".to_owned(), try_mknod_and_open());
}

/// Makes a node of 8:0 (a SCSI disk) where it can write, and opens it: capability and device rules both have a say.
fn try_mknod_and_open() -> String {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let path = "/dev/canary-disk";
    match mknodat(CWD, path, FileType::BlockDevice, Mode::RUSR, makedev(8, 0)) {
        Err(errno) => format!("mknod: {}", describe(errno.into())),
        Ok(()) => {
            let opened = fs::File::open(path).map_or_else(describe, |_| "allowed".to_owned());
            match fs::remove_file(path) {
                Ok(()) => format!("mknod: allowed, open: {opened}"),
                Err(error) => format!("mknod: allowed, open: {opened}, remove: {}", describe(error)),
            }
        }
    }
}

fn try_read(path: &Path) -> String {
    if path.is_dir() {
        return fs::read_dir(path).map_or_else(describe, |entries| format!("{} entries", entries.count()));
    }
    let mut byte = [0_u8; 1];
    match fs::File::open(path).and_then(|mut file| file.read(&mut byte)) {
        Ok(0) => "empty".to_owned(),
        Ok(_) => "readable".to_owned(),
        Err(error) => describe(error),
    }
}

/// The open descriptors: what is above 2 was inherited by accident. The one that lists them is left out.
fn descriptors() -> String {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return "unknown".to_owned() };
    let inherited =
        |entry: &fs::DirEntry| fs::read_link(entry.path()).is_ok_and(|file| !file.ends_with("fd"));
    let mut numbers: Vec<u32> = entries
        .flatten()
        .filter(inherited)
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).map_or_else(describe, |text| text.trim_end().to_owned())
}

/// An error by its name in errno(3): the same word on every libc.
fn describe(error: std::io::Error) -> String {
    let code = error.raw_os_error().map(nix::errno::Errno::from_raw);
    code.map_or_else(|| error.to_string(), |errno| format!("{errno:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_observe_itself() {
        let facts = observe();
        assert_eq!(facts["pid"], std::process::id().to_string());
        assert_eq!(facts["status CapEff"].len(), 16);
        assert!(facts.contains_key("limit max open files"), "{facts:?}");
        assert!(facts["mount /proc"].starts_with("proc rw"), "{}", facts["mount /proc"]);
        assert_eq!(facts["device /dev/null"], "character device");
    }

    #[test]
    fn a_report_is_a_line_of_json_and_an_end() {
        let text = report(&BTreeMap::from([("a".to_owned(), "b\n".to_owned())]));
        assert_eq!(text, "{\"a\":\"b\\n\"}\ncanary: end\n");
    }
}
