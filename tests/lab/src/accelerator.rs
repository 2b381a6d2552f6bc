//! Whether KVM really works here: /dev/kvm that opens proves little, so a kernel is booted, once, within a bound.

use std::fs::{self, OpenOptions};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::child;
use crate::error::LabError;
use crate::image::Image;
use crate::progress::Progress;
use crate::qemu::{self, Accelerator, Hardware};
use crate::store::{self, Store};

/// A kernel under a KVM that works is in its initramfs within two seconds.
const TRIAL_BOUND: Duration = Duration::from_secs(12);

/// What the initramfs prints when the guest's first process runs (`break=top` of initramfs-tools).
const SIGN_OF_LIFE: &str = "Spawning shell within the initramfs";

/// The remembered answer, and the host it is true of.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    host: String,
    accelerator: Accelerator,
    reason: String,
}

/// The accelerator to use on this host: the remembered answer, or a trial's.
pub(crate) fn choose(store: &Store, image: &Image, progress: &Progress) -> Result<Accelerator, LabError> {
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        progress
            .line(&format!("lab: no KVM (/dev/kvm: {error}); the node's instructions are translated (TCG)"));
        return Ok(Accelerator::Tcg);
    }
    let _lock = store.lock("accelerator", progress)?;
    let host = describe_host();
    let remembered: Option<Answer> = store::read_json(&store.accelerator()).unwrap_or_default();
    if let Some(answer) = remembered.filter(|answer| answer.host == host) {
        return Ok(answer.accelerator);
    }
    let step = progress.begin("trial of KVM");
    let (accelerator, reason) = try_kvm(store, image)?;
    step.done(&reason);
    store::write_json(&store.accelerator(), &Answer { host, accelerator, reason })?;
    Ok(accelerator)
}

/// Boots the kernel to its initramfs under KVM.
fn try_kvm(store: &Store, image: &Image) -> Result<(Accelerator, String), LabError> {
    let hardware = Hardware { accelerator: Accelerator::Kvm, cpus: 1, memory: 512 };
    let log = store.accelerator().with_extension("log");
    let ended = child::run_for_status(&mut qemu::trial(image, &hardware), "boot a kernel", &log, TRIAL_BOUND);
    let said = fs::read(&log).map_err(LabError::file("read", &log))?;
    if String::from_utf8_lossy(&said).contains(SIGN_OF_LIFE) {
        return Ok((Accelerator::Kvm, "it works".into()));
    }
    let last = child::tail_of(&log).lines().last().unwrap_or_default().to_owned();
    match ended {
        Ok(status) => Ok((Accelerator::Tcg, format!("QEMU ended ({status}: {last}); TCG from now on"))),
        Err(LabError::TimedOut { seconds, .. }) => {
            Ok((Accelerator::Tcg, format!("the guest hung for {seconds} s; TCG from now on")))
        }
        Err(error) => Err(error),
    }
}

/// What the answer may change with, and what a kept node fits: the host's kernel, its processor and QEMU.
pub(crate) fn describe_host() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find(|line| line.starts_with("model name")).unwrap_or_default();
    let version = Command::new("qemu-system-x86_64").arg("--version").output();
    let version =
        version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    format!("{} | {model} | {}", release.trim(), version.lines().next().unwrap_or_default())
}
