//! What systemd believes a unit's limits are: properties of `org.freedesktop.systemd1.{Scope,Service,Slice}`.
//!
//! systemd writes them to the unit's cgroup when the unit starts, and again at `daemon-reload`: whoever wrote to the file
//! behind its back loses that.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use zbus::wire::{OwnedObjectPath, OwnedVariant};

use crate::name::{CgroupPath, UnitName};

const SERVICE: &str = "org.freedesktop.systemd1";
const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long systemd may take: where it does not run the bus refuses at once, and a node under load answers late.
const LIMIT: Duration = Duration::from_secs(5);

/// The limits of a unit; `u64::MAX` is infinity, and for weights "not set".
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct UnitLimits {
    /// `MemoryMax`, bytes.
    pub memory_max: Option<u64>,
    /// `MemoryHigh`, bytes.
    pub memory_high: Option<u64>,
    /// `MemoryLow`, bytes.
    pub memory_low: Option<u64>,
    /// `MemoryMin`, bytes.
    pub memory_min: Option<u64>,
    /// `MemorySwapMax`, bytes.
    pub memory_swap_max: Option<u64>,
    /// `TasksMax`.
    pub tasks_max: Option<u64>,
    /// `CPUWeight`.
    pub cpu_weight: Option<u64>,
    /// `CPUQuotaPerSecUSec`.
    pub cpu_quota_per_second: Option<u64>,
    /// `CPUQuotaPeriodUSec`.
    pub cpu_quota_period: Option<u64>,
}

impl UnitLimits {
    /// The property behind a file of cgroup v2 and its value as the file would have it; `None` where systemd sets nothing.
    #[must_use]
    pub fn for_file(&self, file: &str) -> Option<(&'static str, String)> {
        let limit = |value: u64| if value == u64::MAX { "max".to_owned() } else { value.to_string() };
        match file {
            "memory.max" => self.memory_max.map(|value| ("MemoryMax", limit(value))),
            "memory.high" => self.memory_high.map(|value| ("MemoryHigh", limit(value))),
            "memory.low" => self.memory_low.map(|value| ("MemoryLow", limit(value))),
            "memory.min" => self.memory_min.map(|value| ("MemoryMin", limit(value))),
            "memory.swap.max" => self.memory_swap_max.map(|value| ("MemorySwapMax", limit(value))),
            "pids.max" => self.tasks_max.map(|value| ("TasksMax", limit(value))),
            // Unset, systemd writes the kernel's default.
            "cpu.weight" => self.cpu_weight.map(|value| {
                ("CPUWeight", if value == u64::MAX { "100".to_owned() } else { value.to_string() })
            }),
            "cpu.max" => self.cpu_max().map(|value| ("CPUQuota", value)),
            _ => None,
        }
    }

    /// systemd has the quota of a second; the file has that of a period (100 ms unless set).
    fn cpu_max(&self) -> Option<String> {
        let per_second = self.cpu_quota_per_second?;
        let period =
            self.cpu_quota_period.filter(|period| *period != u64::MAX && *period > 0).unwrap_or(100_000);
        if per_second == u64::MAX {
            return Some(format!("max {period}"));
        }
        Some(format!("{} {period}", u128::from(per_second) * u128::from(period) / 1_000_000))
    }
}

/// Why a unit's limits are not known.
#[derive(Debug, thiserror::Error)]
pub enum UnitLimitsError {
    /// The system bus.
    #[error("cannot ask systemd for the limits of `{unit}`")]
    Ask {
        /// The unit.
        unit: UnitName,
        /// What D-Bus said.
        #[source]
        source: zbus::Error,
    },
    /// No answer in time.
    #[error("cannot ask systemd for the limits of `{unit}`: no answer within {} s", LIMIT.as_secs())]
    Timeout {
        /// The unit.
        unit: UnitName,
    },
}

/// The unit that a cgroup is of: its path ends in a scope, service or slice. The runtime's own sub-cgroups are no unit's.
#[must_use]
pub fn unit_of_cgroup(cgroup: &CgroupPath) -> Option<UnitName> {
    let name = cgroup.as_str().rsplit('/').next()?;
    let is_unit = [".scope", ".service", ".slice"]
        .iter()
        .any(|suffix| name.len() > suffix.len() && name.ends_with(suffix));
    is_unit.then(|| UnitName::new(name))
}

/// Asks systemd; `None` when it has no such unit, as when a runtime made a cgroup that only looks like one.
///
/// # Errors
/// [`UnitLimitsError`] when the bus cannot be reached or does not answer.
pub async fn read_unit_limits(unit: &UnitName) -> Result<Option<UnitLimits>, UnitLimitsError> {
    match tokio::time::timeout(LIMIT, ask(unit)).await {
        Err(_) => Err(UnitLimitsError::Timeout { unit: unit.clone() }),
        Ok(Ok(limits)) => Ok(Some(limits)),
        Ok(Err(zbus::Error::MethodError(name, ..)))
            if name.as_str() == "org.freedesktop.systemd1.NoSuchUnit" =>
        {
            Ok(None)
        }
        Ok(Err(source)) => Err(UnitLimitsError::Ask { unit: unit.clone(), source }),
    }
}

async fn ask(unit: &UnitName) -> Result<UnitLimits, zbus::Error> {
    let connection = zbus::Connection::system().await?;
    let body = (unit.as_str(),);
    let reply = connection.call_method(Some(SERVICE), MANAGER_PATH, Some(MANAGER), "GetUnit", &body).await?;
    let path: OwnedObjectPath = reply.body().deserialize()?;
    let kind = match unit.as_str().rsplit('.').next() {
        Some("scope") => "Scope",
        Some("slice") => "Slice",
        _ => "Service",
    };
    let body = (format!("{SERVICE}.{kind}"),);
    let reply =
        connection.call_method(Some(SERVICE), path.as_str(), Some(PROPERTIES), "GetAll", &body).await?;
    let mut properties: HashMap<String, OwnedVariant> = reply.body().deserialize()?;
    // A property that this systemd does not have is not set.
    let mut get = |name: &str| u64::try_from(properties.remove(name)?).ok();
    Ok(UnitLimits {
        memory_max: get("MemoryMax"),
        memory_high: get("MemoryHigh"),
        memory_low: get("MemoryLow"),
        memory_min: get("MemoryMin"),
        memory_swap_max: get("MemorySwapMax"),
        tasks_max: get("TasksMax"),
        cpu_weight: get("CPUWeight"),
        cpu_quota_per_second: get("CPUQuotaPerSecUSec"),
        cpu_quota_period: get("CPUQuotaPeriodUSec"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_a_units_by_its_name() {
        let unit = |path: &str| unit_of_cgroup(&CgroupPath::new(path)).map(|unit| unit.as_str().to_owned());
        assert_eq!(unit("/machine.slice/foo-sc1.scope").as_deref(), Some("foo-sc1.scope"));
        assert_eq!(unit("/machine.slice").as_deref(), Some("machine.slice"));
        assert_eq!(unit("/machine.slice/foo-sc1.scope/container"), None);
        assert_eq!(unit("/default/web"), None);
        assert_eq!(unit("/.scope"), None);
    }

    #[test]
    fn properties_are_told_as_the_file_would_have_them() {
        let unit = UnitLimits {
            memory_max: Some(u64::MAX),
            cpu_weight: Some(u64::MAX),
            cpu_quota_per_second: Some(500_000),
            ..UnitLimits::default()
        };
        assert_eq!(unit.for_file("memory.max"), Some(("MemoryMax", "max".to_owned())));
        assert_eq!(unit.for_file("cpu.weight"), Some(("CPUWeight", "100".to_owned())));
        assert_eq!(unit.for_file("cpu.max"), Some(("CPUQuota", "50000 100000".to_owned())));
        assert_eq!(unit.for_file("pids.max"), None);
        assert_eq!(unit.for_file("memory.oom.group"), None);
    }
}
