//! `inspect spec`: default specs, and the options that change one.

use clap::{Args, ValueEnum};
use inspect_image::spec::{
    IdRange, Like, MountOption, SpecError, SpecOptions, default_spec, make_rootless, parse_cpus, parse_size,
    to_config,
};

use crate::error::CommandError;
use crate::output::{Output, Status};

/// Print a default config.json to start from
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  inspect spec > config.json
  inspect spec --like runc --memory 64M --cap-add NET_ADMIN")]
pub(crate) struct SpecArgs {
    #[command(flatten)]
    like: LikeArgs,
    #[command(flatten)]
    options: SpecOptionArgs,
}

/// Where a spec starts from.
#[derive(Debug, Args)]
pub(crate) struct LikeArgs {
    /// Whose default spec to start from
    #[arg(long, value_enum, default_value_t = LikeArg::Containerd, value_name = "WHOSE")]
    like: LikeArg,
    /// Make it one that a plain user can run: in a user namespace, without cgroup limits
    #[arg(long)]
    pub(crate) rootless: bool,
}

impl LikeArgs {
    pub(crate) fn like(&self) -> Like {
        match self.like {
            LikeArg::Containerd => Like::Containerd,
            LikeArg::Runc => Like::Runc,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LikeArg {
    /// What containerd writes for `ctr run`
    Containerd,
    /// What `runc spec` writes
    Runc,
}

/// Changes to a spec that are asked for.
#[derive(Debug, Args)]
#[command(next_help_heading = "Options of the container")]
pub(crate) struct SpecOptionArgs {
    /// Memory limit; no swap on top (memory.max, memory.swap.max)
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    memory: Option<u64>,
    /// Share of the processors under contention (cpu.weight)
    #[arg(long, value_name = "SHARES", value_parser = clap::value_parser!(u64).range(2..=262_144))]
    cpu_shares: Option<u64>,
    /// Most processors to use, as 1.5 (cpu.max)
    #[arg(long, value_name = "N", value_parser = parse_cpus)]
    cpus: Option<u64>,
    /// Most processes and threads (pids.max)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=4_194_304))]
    pids: Option<u64>,
    /// Give a capability (NET_ADMIN, ALL)
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability away (NET_RAW, ALL); taken before others are given
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// Mount something more: type=bind,src=/host,dst=/inside,ro or type=tmpfs,dst=/t,options=size=1m:nodev
    #[arg(long, value_name = "MOUNT")]
    mount: Vec<MountOption>,
    /// The hostname inside
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Give the process a terminal
    #[arg(long, overrides_with = "no_terminal")]
    terminal: bool,
    /// Give the process no terminal
    #[arg(long)]
    no_terminal: bool,
}

impl SpecOptionArgs {
    pub(crate) fn options(&self) -> SpecOptions {
        SpecOptions {
            memory: self.memory,
            cpu_shares: self.cpu_shares,
            cpu_quota: self.cpus,
            pids: self.pids,
            cap_add: self.cap_add.clone(),
            cap_drop: self.cap_drop.clone(),
            mounts: self.mount.clone(),
            hostname: self.hostname.clone(),
            terminal: (self.terminal || self.no_terminal).then_some(self.terminal),
        }
    }
}

/// Prints the spec.
pub(crate) fn run(args: &SpecArgs, output: &mut Output) -> Result<Status, CommandError> {
    let mut spec = default_spec(args.like.like());
    args.options.options().apply(&mut spec).map_err(spec_refused)?;
    if args.like.rootless {
        let own = |id: u32| [IdRange { container: 0, host: id, size: 1 }];
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        make_rootless(&mut spec, &own(uid), &own(gid)).map_err(spec_refused)?;
    }
    output.print(&to_config(&spec).map_err(spec_refused)?)?;
    Ok(Status::Success)
}

/// What was typed is to blame, unless it is the spec.
pub(crate) fn spec_refused(error: SpecError) -> CommandError {
    match error {
        SpecError::Capability { .. } => CommandError::usage(error).hint("capabilities(7) lists them"),
        SpecError::NoCommand => {
            CommandError::trouble(error).hint("say what to run: put `-- COMMAND ARGUMENTS` at the end")
        }
        error => CommandError::trouble(error),
    }
}
