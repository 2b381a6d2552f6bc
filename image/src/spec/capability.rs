//! Capabilities as people type them.

use super::SpecError;

/// capabilities(7), as of Linux 5.9 and since.
const ALL: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE \
    AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF \
    CHECKPOINT_RESTORE";

/// `net_admin`, `CAP_NET_ADMIN` → `CAP_NET_ADMIN`; `ALL` → all that the kernel has.
pub(super) fn capability_names(given: &[String]) -> Result<Vec<String>, SpecError> {
    let mut names = Vec::new();
    for text in given {
        let upper = text.to_ascii_uppercase();
        let wanted = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let known: Vec<_> =
            ALL.split_whitespace().filter(|name| wanted == "ALL" || *name == wanted).collect();
        if known.is_empty() {
            return Err(SpecError::Capability { name: text.clone() });
        }
        names.extend(known.iter().map(|name| format!("CAP_{name}")));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::Capability;

    use super::*;

    #[test]
    fn names_are_those_of_the_runtime_spec() {
        let all = capability_names(&["all".to_owned()]).unwrap();
        assert_eq!(all.len(), 41);
        assert!(all.iter().all(|name| serde_json::from_value::<Capability>(name.as_str().into()).is_ok()));
        assert_eq!(capability_names(&["net_admin".to_owned()]).unwrap(), ["CAP_NET_ADMIN"]);
        assert!(matches!(capability_names(&["FLY".to_owned()]), Err(SpecError::Capability { .. })));
    }
}
