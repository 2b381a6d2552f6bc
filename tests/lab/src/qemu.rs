//! QEMU's command line for a node under test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child;
use crate::error::LabError;
use crate::image::Image;
use crate::ssh;

/// How the guest's instructions are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By translation.
    Tcg,
}

/// What a machine is made of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hardware {
    /// How its instructions are run.
    pub(crate) accelerator: Accelerator,
    /// Virtual processors.
    pub(crate) cpus: u32,
    /// Memory, MiB.
    pub(crate) memory: u32,
}

/// Where the files of one run of QEMU are.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    /// The qcow2 overlay that takes all writes.
    pub(crate) disk: PathBuf,
    /// Takes what the guest writes to its serial console.
    pub(crate) console: PathBuf,
    /// The kept memory of a node that has booted, if this run starts from one.
    pub(crate) memory: Option<PathBuf>,
}

/// Processors by default: as many as the smallest machine that builds this has.
pub(crate) const DEFAULT_CPUS: u32 = 2;
/// Memory by default, MiB.
pub(crate) const DEFAULT_MEMORY: u32 = 2048;

const OVERLAY_BOUND: Duration = Duration::from_secs(30);

/// The guest's kernel command line. `panic=-1` with QEMU's `-no-reboot` ends QEMU when the kernel panics.
const KERNEL_ARGUMENTS: &str = "root=/dev/vda rw rootfstype=ext4 fastboot console=ttyS0 net.ifnames=0 panic=-1 \
                                mitigations=off systemd.show_status=false loglevel=4";

impl Hardware {
    /// Arguments that say what the machine is, without disk and network.
    fn arguments(&self) -> Vec<String> {
        let accelerated: &[&str] = match self.accelerator {
            Accelerator::Kvm => &["-accel", "kvm", "-cpu", "host"],
            Accelerator::Tcg => &["-accel", "tcg,thread=multi", "-cpu", "max"],
        };
        let machine = ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", "q35"];
        let mut arguments: Vec<String> = machine.iter().chain(accelerated).map(|&text| text.into()).collect();
        arguments.extend(["-smp".into(), self.cpus.to_string(), "-m".into(), format!("{}M", self.memory)]);
        arguments
    }
}

/// The command that runs a node, its machine protocol on standard input and output. It dies with the process that
/// starts it.
pub(crate) fn node(image: &Image, hardware: &Hardware, files: &Files) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]);
    command.args(hardware.arguments());
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    command.args(["-append", KERNEL_ARGUMENTS]);
    command.args(["-blockdev", &disk_option(&files.disk), "-device", "virtio-blk-pci,drive=disk"]);
    // `restrict`: the node reaches nothing, not even services on the host's loopback; the host reaches its sshd.
    command.args(["-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"]);
    command.args(["-device", "virtio-net-pci,netdev=net", "-device", "virtio-rng-pci"]);
    command.args(["-serial", &format!("file:{}", escape_commas(&files.console))]);
    if let Some(memory) = &files.memory {
        command.args(["-incoming", &format!("exec:cat {}", ssh::quote(&memory.display().to_string()))]);
    }
    command.args(["-qmp", "stdio"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// What of the command line a kept node depends on beyond its hardware.
pub(crate) fn describe_machine() -> String {
    let anything = Image { directory: PathBuf::new() };
    let hardware = Hardware { accelerator: Accelerator::Tcg, cpus: 1, memory: 1 };
    let files = Files { disk: PathBuf::new(), console: PathBuf::new(), memory: None };
    format!("{:?}", node(&anything, &hardware, &files))
}

/// The command of the accelerator trial: kernel and initramfs alone, with the console on standard output.
pub(crate) fn trial(image: &Image, hardware: &Hardware) -> Command {
    let mut command = child::bound_to_us("qemu-system-x86_64");
    command.args(hardware.arguments());
    command.arg("-kernel").arg(image.kernel()).arg("-initrd").arg(image.initrd());
    command.args(["-append", "console=ttyS0 panic=-1 break=top", "-serial", "stdio"]);
    command
}

/// Makes the qcow2 file that takes a machine's writes and leaves `base` as it is.
pub(crate) fn create_overlay(base: &Path, base_format: &str, overlay: &Path) -> Result<(), LabError> {
    let mut command = child::bound_to_us("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", base_format, "-b"]).arg(base).arg(overlay);
    child::run(&mut command, "make a disk overlay", &overlay.with_extension("log"), OVERLAY_BOUND)
}

/// The disk may lose everything when the host crashes: nothing on it is meant to last.
fn disk_option(disk: &Path) -> String {
    let file = escape_commas(disk);
    format!("qcow2,node-name=disk,discard=unmap,cache.no-flush=on,file.driver=file,file.filename={file}")
}

/// QEMU separates options by commas; a doubled one is literal.
fn escape_commas(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_forwarded_on_loopback_alone() {
        let image = Image { directory: "/i".into() };
        let hardware = Hardware { accelerator: Accelerator::Tcg, cpus: 2, memory: 2048 };
        let files = Files { disk: "/m/a,b.qcow2".into(), console: "/m/console".into(), memory: None };
        let command = node(&image, &hardware, &files);
        let arguments: Vec<String> =
            command.get_args().map(|text| text.to_string_lossy().into_owned()).collect();
        assert!(arguments.iter().any(|text| text.contains("hostfwd=tcp:127.0.0.1:0-:22")), "{arguments:?}");
        assert!(arguments.iter().any(|text| text.ends_with("file.filename=/m/a,,b.qcow2")), "{arguments:?}");
    }
}
