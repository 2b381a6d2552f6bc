//! Control groups: which one a process is in, and what the kernel's cgroup files say (Documentation/admin-guide/cgroup-v2.rst).

mod file;
mod membership;

pub use file::{
    CgroupFileError, Limit, parse_flat_keyed, parse_limit, read_cgroup_value, read_flat_keyed, read_limit,
};
pub use membership::{
    CgroupMode, Membership, cgroup_directory, child_cgroups, parse_memberships, read_cgroup_mode,
    read_cgroup_path, read_cgroup_procs, read_memberships, read_populated,
};
