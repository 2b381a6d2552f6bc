//! `linux.resources` of a spec as interface files of cgroup v2 and their values. Pure.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDevice,
};

use super::error::CgroupError;
use super::weight::{cpu_weight_from_shares, io_weight_from_blkio, swap_limit};

/// The kernel's default period in microseconds (`cpu.max` in cgroup-v2.rst).
const DEFAULT_CPU_PERIOD: u64 = 100_000;

/// One value for one interface file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Setting {
    /// The file below the cgroup's directory.
    pub(super) file: String,
    /// What to write.
    pub(super) value: String,
    /// What to do where the file is missing.
    pub(super) if_missing: IfMissing,
}

/// What the absence of an interface file means.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum IfMissing {
    /// The controller is not there: the setting cannot be honoured.
    Fail,
    /// Nothing: without the file the limit holds already.
    Nothing,
    /// This other file takes this value.
    Instead { file: &'static str, value: String },
}

/// What to write for `resources`, in the order in which the kernel accepts it: swap before memory, quota around burst,
/// `unified` last because it has the last word. Devices are not among them.
///
/// # Errors
/// [`CgroupError::Resource`] for a value that is out of range and for what only cgroup v1 has.
pub(super) fn settings(resources: &LinuxResources) -> Result<Vec<Setting>, CgroupError> {
    refuse_network(resources)?;
    let mut settings = Settings(Vec::with_capacity(12));
    if let Some(pids) = resources.pids() {
        settings.pids(pids);
    }
    if let Some(memory) = resources.memory() {
        settings.memory(memory)?;
    }
    if let Some(block_io) = resources.block_io() {
        settings.block_io(block_io)?;
    }
    if let Some(cpu) = resources.cpu() {
        settings.cpu(cpu)?;
    }
    settings.hugepages(resources);
    settings.rdma(resources);
    settings.unified(resources)?;
    Ok(settings.0)
}

/// An error about one field.
pub(super) fn refuse(field: &str, reason: impl Into<String>) -> CgroupError {
    CgroupError::Resource { field: field.to_owned(), reason: reason.into() }
}

const ONLY_V1: &str = "cgroup v2 has nothing like it";

fn refuse_network(resources: &LinuxResources) -> Result<(), CgroupError> {
    let Some(network) = resources.network() else { return Ok(()) };
    if network.class_id().is_some_and(|id| id != 0) {
        return Err(refuse("network.classID", ONLY_V1));
    }
    if network.priorities().as_ref().is_some_and(|list| !list.is_empty()) {
        return Err(refuse("network.priorities", ONLY_V1));
    }
    Ok(())
}

struct Settings(Vec<Setting>);

impl Settings {
    fn add(&mut self, file: impl Into<String>, value: impl ToString) {
        self.0.push(Setting { file: file.into(), value: value.to_string(), if_missing: IfMissing::Fail });
    }

    fn add_lenient(&mut self, file: &str, value: String, neutral: bool) {
        let if_missing = if neutral { IfMissing::Nothing } else { IfMissing::Fail };
        self.0.push(Setting { file: file.to_owned(), value, if_missing });
    }

    fn pids(&mut self, pids: &LinuxPids) {
        // 0 becomes 1: systemd knows no TasksMax=0, and the container's first process is there anyway.
        let value = match pids.limit() {
            0 => "1".to_owned(),
            limit if limit > 0 => limit.to_string(),
            _ => "max".to_owned(),
        };
        let neutral = value == "max";
        self.add_lenient("pids.max", value, neutral);
    }

    fn memory(&mut self, memory: &LinuxMemory) -> Result<(), CgroupError> {
        refuse_memory_of_v1(memory)?;
        let limit = memory.limit().unwrap_or(0);
        let both = memory.swap().unwrap_or(0);
        let swap = swap_limit(both, limit).map_err(|reason| refuse("memory.swap", reason))?;
        if let Some(swap) = swap {
            // Without swap accounting "no limit" and "no swap" hold already.
            self.add_lenient("memory.swap.max", limit_text(swap), swap <= 0);
        }
        if limit != 0 {
            self.add("memory.max", limit_text(limit));
        }
        match memory.reservation() {
            None | Some(0) => {}
            Some(reservation) => self.add("memory.low", limit_text(reservation)),
        }
        Ok(())
    }

    fn cpu(&mut self, cpu: &LinuxCpu) -> Result<(), CgroupError> {
        refuse_realtime(cpu)?;
        if let Some(idle) = cpu.idle() {
            self.add("cpu.idle", idle);
        }
        if let Some(weight) = cpu.shares().and_then(cpu_weight_from_shares) {
            self.add("cpu.weight", weight);
        }
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let period = cpu.period().filter(|period| *period != 0);
        if quota.is_some() || period.is_some() {
            let quota =
                quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
            self.add("cpu.max", format!("{quota} {}", period.unwrap_or(DEFAULT_CPU_PERIOD)));
        }
        if let Some(burst) = cpu.burst() {
            self.add("cpu.max.burst", burst);
        }
        for (file, list) in [("cpuset.cpus", cpu.cpus()), ("cpuset.mems", cpu.mems())] {
            if let Some(list) = list.as_ref().filter(|list| !list.is_empty()) {
                self.add(file, list);
            }
        }
        Ok(())
    }

    fn block_io(&mut self, block_io: &LinuxBlockIo) -> Result<(), CgroupError> {
        if block_io.leaf_weight().is_some_and(|weight| weight != 0) {
            return Err(refuse("blockIO.leafWeight", ONLY_V1));
        }
        if let Some(weight) = block_io.weight().filter(|weight| *weight != 0) {
            self.weight("blockIO.weight", "default", weight)?;
        }
        for device in block_io.weight_device().iter().flatten() {
            if device.leaf_weight().is_some_and(|weight| weight != 0) {
                return Err(refuse("blockIO.weightDevice[].leafWeight", ONLY_V1));
            }
            if let Some(weight) = device.weight().filter(|weight| *weight != 0) {
                let device = format!("{}:{}", device.major(), device.minor());
                self.weight("blockIO.weightDevice[].weight", &device, weight)?;
            }
        }
        self.throttle(block_io.throttle_read_bps_device(), "rbps");
        self.throttle(block_io.throttle_write_bps_device(), "wbps");
        self.throttle(block_io.throttle_read_iops_device(), "riops");
        self.throttle(block_io.throttle_write_iops_device(), "wiops");
        Ok(())
    }

    /// BFQ takes the spec's range of weights as it is; the weights of `io.weight` have a range of their own.
    fn weight(&mut self, field: &str, target: &str, weight: u16) -> Result<(), CgroupError> {
        if !(10..=1000).contains(&weight) {
            return Err(refuse(field, format!("weight {weight} is not between 10 and 1000")));
        }
        let value = format!("{target} {}", io_weight_from_blkio(weight));
        self.0.push(Setting {
            file: "io.bfq.weight".to_owned(),
            value: format!("{target} {weight}"),
            if_missing: IfMissing::Instead { file: "io.weight", value },
        });
        Ok(())
    }

    fn throttle(&mut self, devices: &Option<Vec<LinuxThrottleDevice>>, key: &str) {
        for device in devices.iter().flatten() {
            self.add("io.max", format!("{}:{} {key}={}", device.major(), device.minor(), device.rate()));
        }
    }

    fn hugepages(&mut self, resources: &LinuxResources) {
        for page in resources.hugepage_limits().iter().flatten() {
            let value = limit_text(page.limit());
            self.add(format!("hugetlb.{}.max", page.page_size()), &value);
            // Reservations are counted since Linux 5.7.
            self.add_lenient(&format!("hugetlb.{}.rsvd.max", page.page_size()), value, true);
        }
    }

    fn rdma(&mut self, resources: &LinuxResources) {
        let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
        devices.sort_by_key(|(name, _)| name.as_str());
        for (name, limits) in devices {
            let handles = limits.hca_handles().map(|count| format!(" hca_handle={count}"));
            let objects = limits.hca_objects().map(|count| format!(" hca_object={count}"));
            let value = format!("{name}{}{}", handles.unwrap_or_default(), objects.unwrap_or_default());
            self.add("rdma.max", value);
        }
    }

    fn unified(&mut self, resources: &LinuxResources) -> Result<(), CgroupError> {
        let mut entries: Vec<_> = resources.unified().iter().flatten().collect();
        entries.sort();
        for (file, value) in entries {
            let controller = file.split_once('.').map_or("", |(controller, _)| controller);
            if file.contains('/') || controller.is_empty() {
                let field = format!("unified[{file:?}]");
                return Err(refuse(&field, "it must be a file name of the form CONTROLLER.PARAMETER"));
            }
            for line in value.lines() {
                self.add(file, line);
            }
        }
        Ok(())
    }
}

fn refuse_memory_of_v1(memory: &LinuxMemory) -> Result<(), CgroupError> {
    for (field, value) in [("memory.kernel", memory.kernel()), ("memory.kernelTCP", memory.kernel_tcp())] {
        if value.is_some_and(|value| value > 0) {
            return Err(refuse(field, ONLY_V1));
        }
    }
    if memory.swappiness().is_some() {
        return Err(refuse("memory.swappiness", ONLY_V1));
    }
    if memory.disable_oom_killer() == Some(true) {
        return Err(refuse("memory.disableOOMKiller", ONLY_V1));
    }
    if memory.use_hierarchy() == Some(false) {
        return Err(refuse("memory.useHierarchy", "cgroup v2 is always hierarchical"));
    }
    Ok(())
}

fn refuse_realtime(cpu: &LinuxCpu) -> Result<(), CgroupError> {
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0) {
        return Err(refuse("cpu.realtimeRuntime", ONLY_V1));
    }
    if cpu.realtime_period().is_some_and(|period| period != 0) {
        return Err(refuse("cpu.realtimePeriod", ONLY_V1));
    }
    Ok(())
}

/// -1 is the spec's word for no limit.
fn limit_text(limit: i64) -> String {
    if limit < 0 { "max".to_owned() } else { limit.to_string() }
}

/// Whether any controller is asked for that cannot work in a threaded cgroup.
pub(super) fn needs_domain(settings: &[Setting]) -> bool {
    settings.iter().any(|setting| {
        ["memory.", "io.", "hugetlb.", "rdma."].iter().any(|own| setting.file.starts_with(own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(json: &str) -> Vec<(String, String)> {
        let resources = serde_json::from_str(json).unwrap();
        settings(&resources).unwrap().into_iter().map(|setting| (setting.file, setting.value)).collect()
    }

    fn refused(json: &str) -> String {
        settings(&serde_json::from_str(json).unwrap()).unwrap_err().to_string()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(file, value)| ((*file).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn device_rules_and_empty_lists_are_no_limits() {
        let has_limits =
            |json: &str| super::super::Cgroup::has_limits(&serde_json::from_str(json).unwrap()).unwrap();
        assert!(!has_limits(r#"{"devices": [{"allow": false, "access": "rwm"}], "unified": {}}"#));
        assert!(has_limits(r#"{"pids": {"limit": 5}}"#));
    }

    #[test]
    fn memory_is_written_swap_first() {
        let json = r#"{"memory": {"limit": 67108864, "swap": 134217728, "reservation": 33554432}}"#;
        let expected =
            [("memory.swap.max", "67108864"), ("memory.max", "67108864"), ("memory.low", "33554432")];
        assert_eq!(written(json), pairs(&expected));
        assert_eq!(written(r#"{"memory": {"limit": 64, "swap": 64}}"#)[0].1, "0");
        let unlimited = [("memory.swap.max", "max"), ("memory.max", "max")];
        assert_eq!(written(r#"{"memory": {"limit": -1}}"#), pairs(&unlimited));
    }

    #[test]
    fn cpu_is_weighted_limited_and_placed() {
        let json = r#"{"cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 1000, "idle": 0,
            "cpus": "0-1", "mems": "0"}}"#;
        let expected = [
            ("cpu.idle", "0"),
            ("cpu.weight", "59"),
            ("cpu.max", "50000 200000"),
            ("cpu.max.burst", "1000"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
        ];
        assert_eq!(written(json), pairs(&expected));
        assert_eq!(written(r#"{"cpu": {"quota": -1}}"#), pairs(&[("cpu.max", "max 100000")]));
        assert_eq!(written(r#"{"cpu": {"shares": 0, "quota": 0, "period": 0}}"#), []);
    }

    #[test]
    fn block_io_falls_back_to_io_weight() {
        let json = r#"{"blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 1000}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 1048576}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 100}]}}"#;
        let settings = settings(&serde_json::from_str(json).unwrap()).unwrap();
        let instead = |value: &str| IfMissing::Instead { file: "io.weight", value: value.to_owned() };
        assert_eq!(
            (settings[0].value.as_str(), &settings[0].if_missing),
            ("default 500", &instead("default 4950"))
        );
        assert_eq!(
            (settings[1].value.as_str(), &settings[1].if_missing),
            ("8:0 1000", &instead("8:0 10000"))
        );
        assert_eq!(settings[2].value, "8:16 rbps=1048576");
        assert_eq!(settings[3].value, "8:16 wiops=100");
    }

    #[test]
    fn the_rest_is_written_as_it_is() {
        let json = r#"{"pids": {"limit": 0}, "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
            "unified": {"memory.high": "1000", "io.max": "8:0 rbps=1\n8:16 rbps=2"}}"#;
        let expected = [
            ("pids.max", "1"),
            ("hugetlb.2MB.max", "4194304"),
            ("hugetlb.2MB.rsvd.max", "4194304"),
            ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"),
            ("io.max", "8:0 rbps=1"),
            ("io.max", "8:16 rbps=2"),
            ("memory.high", "1000"),
        ];
        assert_eq!(written(json), pairs(&expected));
    }

    #[test]
    fn what_only_v1_has_is_refused_by_name() {
        for (json, field) in [
            (r#"{"memory": {"swappiness": 60}}"#, "memory.swappiness"),
            (r#"{"memory": {"kernel": 1000}}"#, "memory.kernel"),
            (r#"{"memory": {"disableOOMKiller": true}}"#, "memory.disableOOMKiller"),
            (r#"{"cpu": {"realtimeRuntime": 950000}}"#, "cpu.realtimeRuntime"),
            (r#"{"network": {"classID": 1048577}}"#, "network.classID"),
            (r#"{"blockIO": {"weight": 5}}"#, "blockIO.weight"),
            (r#"{"memory": {"swap": 5}}"#, "memory.swap"),
            (r#"{"unified": {"../x.y": "1"}}"#, "unified"),
            (r#"{"unified": {"memory": "1"}}"#, "unified"),
        ] {
            let text = refused(json);
            assert!(text.contains(field), "{text}");
        }
    }

    #[test]
    fn what_means_nothing_is_accepted() {
        let json = r#"{"memory": {"disableOOMKiller": false, "kernel": 0, "useHierarchy": true},
            "blockIO": {"weight": 0}, "network": {}, "devices": []}"#;
        assert_eq!(written(json), []);
    }

    proptest::proptest! {
        #[test]
        fn any_json_is_settled_or_refused(text in ".{0,200}") {
            let json = format!(r#"{{"unified": {{"cpu.max": {text:?}, "x": "y"}}}}"#);
            if let Ok(resources) = serde_json::from_str(&json) {
                let _settled_or_refused = settings(&resources).is_ok();
            }
        }
    }
}
