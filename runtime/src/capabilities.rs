//! Capabilities: from the names of the spec to the sets of the kernel, in the order that drops nothing too early.

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};
use rustix::thread::CapabilitySet;

use crate::step::{Step, StepError};

/// The five sets of a process, one bit a capability.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct CapabilityPlan {
    pub(crate) bounding: u64,
    pub(crate) effective: u64,
    pub(crate) permitted: u64,
    pub(crate) inheritable: u64,
    pub(crate) ambient: u64,
}

impl CapabilityPlan {
    /// The sets of the spec; a set that is absent is empty. `None` (no `capabilities` at all) leaves nothing either.
    pub(crate) fn from_spec(capabilities: Option<&LinuxCapabilities>) -> Self {
        let Some(sets) = capabilities else { return CapabilityPlan::default() };
        let bits =
            |set: &Option<Capabilities>| set.iter().flatten().fold(0, |bits, one| bits | 1 << number(*one));
        CapabilityPlan {
            bounding: bits(sets.bounding()),
            effective: bits(sets.effective()),
            permitted: bits(sets.permitted()),
            inheritable: bits(sets.inheritable()),
            ambient: bits(sets.ambient()),
        }
    }

    /// Drops from the bounding set what is not planned. Comes before the identity changes: it takes `CAP_SETPCAP`.
    pub(crate) fn apply_bounding(&self) -> Result<(), StepError> {
        for number in 0..64_u32 {
            let set = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding & 1 << number != 0 {
                continue;
            }
            match rustix::thread::remove_capability_from_bounding_set(set) {
                Ok(()) => {}
                // The kernel knows no capability of this number, nor of a greater one.
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error).step("drop from the bounding set capability", number),
            }
        }
        Ok(())
    }

    /// What the kernel will not raise: it keeps as ambient only what is permitted and inheritable as well.
    fn unraisable(&self) -> u64 {
        self.ambient & !(self.permitted & self.inheritable)
    }

    /// A warning of each ambient capability that the process will not have.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        let unraisable = self.unraisable();
        (0..64).filter(move |number| unraisable & 1 << number != 0).filter_map(|number| {
            let name = name(number)?;
            Some(format!("can't raise ambient capability {name}: it is not permitted and inheritable, too"))
        })
    }

    /// Sets the other sets; what is ambient must be permitted and inheritable first.
    pub(crate) fn apply(&self) -> Result<(), StepError> {
        let set = |bits| CapabilitySet::from_bits_retain(bits);
        let sets = rustix::thread::CapabilitySets {
            effective: set(self.effective),
            permitted: set(self.permitted),
            inheritable: set(self.inheritable),
        };
        rustix::thread::set_capabilities(None, sets).step("set", "capabilities")?;
        let ambient = self.ambient & !self.unraisable();
        if ambient == 0 {
            return Ok(());
        }
        for number in (0..64_u32).filter(|number| ambient & 1 << number != 0) {
            rustix::thread::configure_capability_in_ambient_set(set(1 << number), true)
                .step("raise ambient capability", number)?;
        }
        Ok(())
    }
}

/// The names of all capabilities, by their numbers.
pub(crate) fn names() -> Vec<String> {
    let mut named: Vec<(u32, String)> = (0..64).filter_map(|number| Some((number, name(number)?))).collect();
    named.sort_unstable();
    named.into_iter().map(|(_, name)| name).collect()
}

fn name(wanted: u32) -> Option<String> {
    let all = ALL.iter().find(|one| number(**one) == wanted)?;
    serde_json::to_value(all).ok()?.as_str().map(str::to_owned)
}

const ALL: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// The kernel's numbers, of `linux/capability.h`.
fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerds_default_set_has_its_known_mask() {
        let names = serde_json::json!([
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FSETID",
            "CAP_FOWNER",
            "CAP_MKNOD",
            "CAP_NET_RAW",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETFCAP",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_KILL",
            "CAP_AUDIT_WRITE"
        ]);
        let sets: LinuxCapabilities =
            serde_json::from_value(serde_json::json!({"permitted": names})).unwrap();
        let plan = CapabilityPlan::from_spec(Some(&sets));
        assert_eq!(plan, CapabilityPlan { permitted: 0xa804_25fb, ..CapabilityPlan::default() });
        assert_eq!(names_by_number(), (0..41).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_ambient_is_warned_of() {
        // `capabilities(7)`: no capability can ever be ambient if it is not both permitted and inheritable.
        let plan = CapabilityPlan {
            permitted: 0b011,
            inheritable: 0b110,
            ambient: 0b111,
            ..CapabilityPlan::default()
        };
        let warnings: Vec<String> = plan.warnings().collect();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(
            warnings[0].contains("CAP_CHOWN") && warnings[1].contains("CAP_DAC_READ_SEARCH"),
            "{warnings:?}"
        );
        assert_eq!(CapabilityPlan { ambient: 0b010, ..plan }.warnings().next(), None);
    }

    fn names_by_number() -> Vec<u32> {
        ALL.iter().map(|one| number(*one)).collect()
    }
}
