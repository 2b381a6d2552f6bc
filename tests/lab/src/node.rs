//! The subcommands for a single node: up, sync, run, shell, down, list.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus};

use crate::binaries;
use crate::cli::{DownArgs, HardwareArgs, NameArgs, RunArgs, UpArgs};
use crate::error::LabError;
use crate::generation::Recipe;
use crate::machine::{self, Owned, Plan};
use crate::progress::Progress;
use crate::qemu::Hardware;
use crate::ssh::{self, Connection};
use crate::store::{self, Store};
use crate::{accelerator, host, image, snapshot, sync};

/// Boots a node that ends with this lab.
pub(crate) fn boot(
    store: &Store,
    recipe: Recipe,
    name: &str,
    arguments: &HardwareArgs,
    progress: &Progress,
) -> Result<Owned, LabError> {
    host::prepare(store, progress)?;
    let image = image::obtain(store, recipe, progress)?;
    let accelerator = accelerator::choose(store, &image, progress)?;
    let hardware = Hardware { accelerator, cpus: arguments.cpus, memory: arguments.memory };
    let plan = Plan { store, name, recipe, image: &image, hardware };
    let owned =
        if arguments.cold { boot_anew(&plan, progress)? } else { boot_from_snapshot(&plan, progress)? };
    Connection::to(store, &owned.machine).open_shared()?;
    Ok(owned)
}

fn boot_anew(plan: &Plan<'_>, progress: &Progress) -> Result<Owned, LabError> {
    let step = progress.begin(format!("boot of {} ({})", plan.name, plan.recipe.name()));
    let owned = machine::boot(plan, &step)?;
    step.done("");
    Ok(owned)
}

/// Restores the kept node, which is made at first use. One that does not come back is thrown away, and the node boots.
fn boot_from_snapshot(plan: &Plan<'_>, progress: &Progress) -> Result<Owned, LabError> {
    let snapshot = snapshot::obtain(plan, progress)?;
    let step = progress.begin(format!("restore of {} ({})", plan.name, plan.recipe.name()));
    match machine::restore(plan, &snapshot, &step) {
        Ok(owned) => {
            step.done("");
            Ok(owned)
        }
        Err(error @ (LabError::NoBoot { .. } | LabError::Qmp { .. })) => {
            step.done(&format!("in vain, it boots anew: {error}"));
            snapshot.discard()?;
            boot_anew(plan, progress)
        }
        Err(error) => Err(error),
    }
}

pub(crate) fn up(store: &Store, arguments: &UpArgs, progress: &Progress) -> Result<(), LabError> {
    let recipe = Recipe { generation: arguments.generation, engines: arguments.engines };
    let default_name = recipe.name();
    let name = arguments.name.as_deref().unwrap_or(&default_name);
    machine::check_name(name)?;
    let programs = binaries::build_programs(progress)?;
    let owned = boot(store, recipe, name, &arguments.hardware, progress)?;
    sync::programs(store, &owned.machine, &programs, progress)?;
    let machine = owned.hand_over()?;
    progress.line(&format!("lab: {name} is up; try: cargo lab shell --name {name}"));
    progress.line(&format!("lab: end it with: cargo lab down --name {}", machine.name));
    Ok(())
}

pub(crate) fn sync(store: &Store, arguments: &NameArgs, progress: &Progress) -> Result<(), LabError> {
    let machine = machine::find(store, arguments.name.as_deref())?;
    let programs = binaries::build_programs(progress)?;
    sync::programs(store, &machine, &programs, progress)
}

pub(crate) fn run(store: &Store, arguments: &RunArgs) -> Result<(), LabError> {
    let machine = machine::find(store, arguments.name.name.as_deref())?;
    let connection = Connection::to(store, &machine);
    pass_on(&mut connection.shell_command(&ssh::command_line(&arguments.command)))
}

pub(crate) fn shell(store: &Store, arguments: &NameArgs) -> Result<(), LabError> {
    let machine = machine::find(store, arguments.name.as_deref())?;
    pass_on(&mut Connection::to(store, &machine).interactive())
}

pub(crate) fn down(store: &Store, arguments: &DownArgs, progress: &Progress) -> Result<(), LabError> {
    let (up, remains) = machine::list(store)?;
    let wanted = arguments.name.name.as_deref();
    for left in remains.iter().filter(|left| wanted.is_none_or(|name| name == left.name)) {
        store::remove_directory(&left.directory)?;
        progress.line(&format!("lab: removed what {} left", left.name));
        if wanted.is_some() {
            return Ok(());
        }
    }
    let chosen = match wanted {
        None if arguments.all || up.is_empty() => up,
        _ => vec![machine::find(store, wanted)?],
    };
    for machine in &chosen {
        machine::end(machine)?;
        progress.line(&format!("lab: {} is down", machine.name));
    }
    Ok(())
}

pub(crate) fn list(store: &Store, progress: &Progress) -> Result<(), LabError> {
    let (up, remains) = machine::list(store)?;
    for machine in up {
        progress.result(&format!(
            "{}\t{}\tup\t{} cpus, {} MiB, {:?}\t127.0.0.1:{}\tqemu {}",
            machine.name,
            machine.recipe.name(),
            machine.hardware.cpus,
            machine.hardware.memory,
            machine.hardware.accelerator,
            machine.state.port,
            machine.state.qemu
        ));
    }
    for left in remains {
        progress.result(&format!(
            "{}\t-\tdead: `cargo lab down` removes {}",
            left.name,
            left.directory.display()
        ));
    }
    Ok(())
}

/// Runs a command with this terminal and passes its status on.
fn pass_on(command: &mut Command) -> Result<(), LabError> {
    let status = command.status();
    let status = status.map_err(|source| LabError::Spawn { program: "ssh".into(), source })?;
    match shell_status(status) {
        0 => Ok(()),
        status => Err(LabError::GuestStatus { status }),
    }
}

/// A status as a shell gives it: 128 + the signal for a killed program.
fn shell_status(status: ExitStatus) -> u8 {
    let number = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(number).unwrap_or(255)
}
