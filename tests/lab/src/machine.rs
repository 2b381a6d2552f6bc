//! Machines: starting one, finding those that are up, ending them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::child;
use crate::error::LabError;
use crate::generation::Recipe;
use crate::image::Image;
use crate::interrupt;
use crate::progress::Step;
use crate::qemu::{self, Hardware};
use crate::snapshot::Snapshot;
use crate::store::{self, Store};
use crate::supervisor::{
    CONSOLE, DISK, HAND_OVER, LOCK, QEMU_LOG, REQUEST, Request, SAVE, SAVED, STATE, State,
};

/// What the guest's `lab-ready.service` writes to the console.
const READY: &str = "inspect-lab: the node is up";

/// A boot takes 20–35 s under TCG on a quiet machine with two cores.
const BOOT_BOUND: Duration = Duration::from_secs(300);

/// QEMU answers on its machine protocol within a second or two.
const QEMU_BOUND: Duration = Duration::from_secs(60);

/// Writing a few hundred megabytes.
const SAVE_BOUND: Duration = Duration::from_secs(90);

/// Ending QEMU and removing its directory.
const END_BOUND: Duration = Duration::from_secs(20);

/// A machine that is up.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    /// Its name, unique per cache.
    pub(crate) name: String,
    /// Its software.
    pub(crate) recipe: Recipe,
    /// What it is made of.
    pub(crate) hardware: Hardware,
    /// Its image's directory.
    pub(crate) image: Image,
    /// Its own directory.
    pub(crate) directory: PathBuf,
    /// How it is reached, and its processes.
    pub(crate) state: State,
}

/// A machine that this lab started and that ends with it, unless it is handed over.
#[derive(Debug)]
pub(crate) struct Owned {
    /// The machine.
    pub(crate) machine: Machine,
    supervisor: Supervisor,
}

/// The supervisor's process; dropping it ends the machine.
#[derive(Debug)]
struct Supervisor {
    child: Child,
    words: Option<ChildStdin>,
    directory: PathBuf,
    handed_over: bool,
}

/// A machine's directory without a machine: its supervisor was killed, or QEMU ended by itself.
#[derive(Debug)]
pub(crate) struct Remains {
    /// The name it had.
    pub(crate) name: String,
    /// What it left.
    pub(crate) directory: PathBuf,
}

/// What is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    /// Where images and machines are.
    pub(crate) store: &'a Store,
    /// A name no running machine has.
    pub(crate) name: &'a str,
    /// Its software.
    pub(crate) recipe: Recipe,
    /// Its image.
    pub(crate) image: &'a Image,
    /// What it is made of.
    pub(crate) hardware: Hardware,
}

/// Boots a machine and waits until its node says on the console that it is up.
pub(crate) fn boot(plan: &Plan<'_>, step: &Step) -> Result<Owned, LabError> {
    let mut owned = start(plan, None, step)?;
    await_boot(&mut owned, step)?;
    Ok(owned)
}

/// Starts a machine from a kept node.
pub(crate) fn restore(plan: &Plan<'_>, snapshot: &Snapshot, step: &Step) -> Result<Owned, LabError> {
    start(plan, Some(snapshot), step)
}

/// Starts a machine and waits until QEMU answers.
fn start(plan: &Plan<'_>, snapshot: Option<&Snapshot>, step: &Step) -> Result<Owned, LabError> {
    check_name(plan.name)?;
    let directory = plan.store.machine(plan.name);
    let lock = claim(&directory, plan.name)?;
    let started = start_supervisor(&directory, plan, snapshot, lock);
    let mut supervisor = match started {
        Ok(supervisor) => supervisor,
        Err(error) => {
            store::remove_directory(&directory)?;
            return Err(error);
        }
    };
    step.update("QEMU");
    let state = await_qemu(&mut supervisor, plan.name)?;
    let machine = Machine {
        name: plan.name.into(),
        recipe: plan.recipe,
        hardware: plan.hardware.clone(),
        image: plan.image.clone(),
        directory,
        state,
    };
    Ok(Owned { machine, supervisor })
}

impl Owned {
    /// Whether QEMU still runs: its supervisor holds the lock as long as it does.
    pub(crate) fn is_up(&self) -> bool {
        matches!(store::try_lock(&self.machine.directory.join(LOCK)), Ok(None))
    }

    /// Waits until QEMU has ended, no longer than `bound`.
    pub(crate) fn await_end(&self, bound: Duration) -> Result<(), LabError> {
        let deadline = Instant::now() + bound;
        while self.is_up() && Instant::now() < deadline {
            interrupt::tick()?;
        }
        Ok(())
    }

    /// Stops the node and keeps its memory and disk in `directory`; the machine is over then.
    pub(crate) fn save(mut self, directory: &Path) -> Result<(), LabError> {
        let memory = directory.join("memory");
        let answer = self.machine.directory.join(SAVED);
        self.tell(&format!("{SAVE}{}", memory.display()))?;
        let deadline = Instant::now() + SAVE_BOUND;
        let trouble: Option<String> = loop {
            if let Some(answer) = store::read_json(&answer)? {
                break answer;
            }
            if Instant::now() >= deadline || !self.is_up() {
                break Some("no answer".into());
            }
            interrupt::tick()?;
        };
        if let Some(reply) = trouble {
            return Err(LabError::Qmp { verb: "save the guest", reply });
        }
        let disk = self.machine.directory.join(DISK);
        fs::rename(&disk, directory.join(DISK)).map_err(LabError::file("move into place", &disk))
    }

    fn tell(&mut self, word: &str) -> Result<(), LabError> {
        let Supervisor { words, directory, .. } = &mut self.supervisor;
        let gone = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let written = words.as_mut().ok_or_else(gone).and_then(|words| writeln!(words, "{word}"));
        written.map_err(LabError::file("speak to the supervisor of", directory.as_path()))
    }

    /// The machine outlives this lab from now on.
    pub(crate) fn hand_over(mut self) -> Result<Machine, LabError> {
        self.tell(HAND_OVER)?;
        self.supervisor.handed_over = true;
        Ok(self.machine.clone())
    }
}

impl Machine {
    /// The end of its serial console.
    pub(crate) fn console_tail(&self) -> String {
        child::tail_of(&self.directory.join(CONSOLE))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if self.handed_over {
            return;
        }
        self.words = None;
        let deadline = Instant::now() + END_BOUND;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Its QEMU dies with it.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(store::remove_directory(&self.directory));
    }
}

/// All machines that are up, and what dead ones left, by name.
pub(crate) fn list(store: &Store) -> Result<(Vec<Machine>, Vec<Remains>), LabError> {
    let machines = store.machines();
    let entries = fs::read_dir(&machines).map_err(LabError::file("list", &machines))?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let mut up = Vec::new();
    let mut remains = Vec::new();
    for name in names {
        let directory = store.machine(&name);
        match store::try_lock(&directory.join(LOCK)) {
            Ok(Some(_)) => remains.push(Remains { name, directory }),
            Ok(None) => up.extend(read_machine(name, directory)?),
            // It was removed meanwhile.
            Err(_) if !directory.exists() => {}
            Err(error) => return Err(error),
        }
    }
    Ok((up, remains))
}

/// The machine of that name, or the only one there is.
pub(crate) fn find(store: &Store, name: Option<&str>) -> Result<Machine, LabError> {
    let (mut up, _) = list(store)?;
    let names = if up.is_empty() {
        "none".to_owned()
    } else {
        up.iter().map(|machine| machine.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    match name {
        Some(name) => up
            .into_iter()
            .find(|machine| machine.name == name)
            .ok_or_else(|| LabError::NoSuchMachine { name: name.into(), up: names }),
        None if up.len() == 1 => Ok(up.remove(0)),
        None => Err(LabError::WhichMachine { up: names }),
    }
}

/// Ends a machine and removes its directory.
pub(crate) fn end(machine: &Machine) -> Result<(), LabError> {
    send(machine.state.supervisor, Signal::SIGTERM);
    let lock = machine.directory.join(LOCK);
    let deadline = Instant::now() + END_BOUND;
    while lock.exists() && store::try_lock(&lock)?.is_none() {
        if Instant::now() >= deadline {
            send(machine.state.supervisor, Signal::SIGKILL);
            break;
        }
        interrupt::tick()?;
    }
    store::remove_directory(&machine.directory)
}

fn send(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        kill(Pid::from_raw(pid), signal).ok();
    }
}

/// `None` while it is still being started.
fn read_machine(name: String, directory: PathBuf) -> Result<Option<Machine>, LabError> {
    let request: Option<Request> = store::read_json(&directory.join(REQUEST))?;
    let state: Option<State> = store::read_json(&directory.join(STATE))?;
    Ok(request.zip(state).map(|(request, state)| Machine {
        name,
        recipe: request.recipe,
        hardware: request.hardware,
        image: Image { directory: request.image },
        directory,
        state,
    }))
}

/// A name becomes a file name, and part of messages.
pub(crate) fn check_name(name: &str) -> Result<(), LabError> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=40).contains(&name.len()) && name.chars().all(good) && !name.starts_with('-') {
        return Ok(());
    }
    Err(LabError::BadName { name: name.escape_debug().take(80).collect() })
}

/// Makes the machine's directory and takes its lock; what a dead machine of that name left is removed.
fn claim(directory: &Path, name: &str) -> Result<File, LabError> {
    let taken = || LabError::NameTaken { name: name.into() };
    store::make_private_directory(directory)?;
    let path = directory.join(LOCK);
    let lock = store::try_lock(&path)?.ok_or_else(taken)?;
    let entries = fs::read_dir(directory).map_err(LabError::file("list", directory))?;
    for entry in entries.flatten().filter(|entry| entry.file_name() != LOCK) {
        fs::remove_file(entry.path()).map_err(LabError::file("remove", entry.path()))?;
    }
    // Somebody may have removed the directory between its making and the lock.
    if path.exists() { Ok(lock) } else { Err(taken()) }
}

fn start_supervisor(
    directory: &Path,
    plan: &Plan<'_>,
    snapshot: Option<&Snapshot>,
    lock: File,
) -> Result<Supervisor, LabError> {
    let (base, format) = snapshot.map_or((plan.image.disk(), "raw"), |kept| (kept.disk(), "qcow2"));
    qemu::create_overlay(&base, format, &directory.join(DISK))?;
    let request = Request {
        name: plan.name.into(),
        recipe: plan.recipe,
        image: plan.image.directory.clone(),
        hardware: plan.hardware.clone(),
        memory: snapshot.map(Snapshot::memory),
    };
    store::write_json(&directory.join(REQUEST), &request)?;
    let log = directory.join("supervisor.log");
    let log_file = File::create(&log).map_err(LabError::file("create", &log))?;
    let program = std::env::current_exe().map_err(LabError::file("find", "/proc/self/exe"))?;
    let mut command = Command::new(&program);
    command.arg("supervise").arg(directory).current_dir("/");
    // The lock goes with the descriptor: it is held as long as the supervisor lives.
    let spawned = command.stdin(Stdio::piped()).stdout(lock).stderr(log_file).spawn();
    let mut child =
        spawned.map_err(|source| LabError::Spawn { program: program.display().to_string(), source })?;
    let words = child.stdin.take();
    Ok(Supervisor { child, words, directory: directory.into(), handed_over: false })
}

/// Waits for the state file that the supervisor writes once QEMU has answered.
fn await_qemu(supervisor: &mut Supervisor, name: &str) -> Result<State, LabError> {
    let directory = supervisor.directory.clone();
    let deadline = Instant::now() + QEMU_BOUND;
    loop {
        if let Some(state) = store::read_json(&directory.join(STATE))? {
            return Ok(state);
        }
        let ended = !matches!(supervisor.child.try_wait(), Ok(None));
        if ended || Instant::now() >= deadline {
            let logs = ["supervisor.log", QEMU_LOG].map(|log| child::tail_of(&directory.join(log)));
            return Err(LabError::NoBoot {
                name: name.into(),
                reason: format!("QEMU did not start: {}", logs.join("\n").trim()),
                console: child::tail_of(&directory.join(CONSOLE)),
            });
        }
        interrupt::tick()?;
    }
}

/// Watches the console for the guest's word that it is up.
fn await_boot(owned: &mut Owned, step: &Step) -> Result<(), LabError> {
    let Owned { machine, supervisor } = owned;
    let console = machine.directory.join(CONSOLE);
    let deadline = Instant::now() + BOOT_BOUND;
    let failed = |reason: String| LabError::NoBoot {
        name: machine.name.clone(),
        reason,
        console: machine.console_tail(),
    };
    loop {
        let said = child::printable(&String::from_utf8_lossy(&fs::read(&console).unwrap_or_default()));
        if said.contains(READY) {
            return Ok(());
        }
        if let Some(line) = said.lines().last() {
            step.update(&line.chars().take(60).collect::<String>());
        }
        if !matches!(supervisor.child.try_wait(), Ok(None)) {
            let log = child::tail_of(&machine.directory.join(QEMU_LOG));
            return Err(failed(format!("QEMU ended by itself {log}")));
        }
        if Instant::now() >= deadline {
            return Err(failed(format!("not up after {} s", BOOT_BOUND.as_secs())));
        }
        interrupt::tick()?;
    }
}
