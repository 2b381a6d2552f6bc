//! Control groups: which one a process is in, and what the kernel's cgroup files say (Documentation/admin-guide/cgroup-v2.rst).

mod conversion;
mod effective;
mod expectation;
mod file;
mod location;
mod membership;
mod pressure;
mod reading;
mod table;
mod unit;

pub use conversion::{SharesConversion, SwapError, conversions_matching, io_weight, swap_max};
pub use effective::{EffectiveLimit, read_effective_limits};
pub use expectation::{Accepted, Expectation, legacy_expectations, unified_expectations};
pub(crate) use file::read_present_text;
pub use file::{
    CgroupFileError, Limit, parse_flat_keyed, parse_limit, read_cgroup_value, read_flat_keyed, read_limit,
};
pub use location::{CgroupLocation, Hierarchy};
pub use membership::{
    CgroupMode, Membership, cgroup_directory, child_cgroups, parse_memberships, read_cgroup_mode,
    read_cgroup_path, read_cgroup_procs, read_memberships, read_populated,
};
pub use pressure::{Pressure, PressureLine, parse_pressure};
pub use reading::{
    CgroupReading, CpuReading, MemoryReading, MemoryUsed, PidsReading, parse_io_stat, read_cgroup,
};
pub use table::{Agreement, Row, UnitDrift, read_table};
pub use unit::{UnitLimits, UnitLimitsError, read_unit_limits, unit_of_cgroup};
