//! The process between a lab and its QEMU: QEMU dies with it, and it ends QEMU when its lab dies before the machine was
//! handed over. The machine's lock is open as its standard output, so the lock tells whether a machine is up.

use std::fs::File;
use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::unistd;
use serde::{Deserialize, Serialize};

use crate::error::LabError;
use crate::generation::Recipe;
use crate::image::Image;
use crate::qemu::{self, Files, Hardware};
use crate::qmp::Qmp;
use crate::store;

/// What the lab asks for: written as `request.json` before the supervisor starts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) recipe: Recipe,
    pub(crate) image: PathBuf,
    pub(crate) hardware: Hardware,
    /// The kept memory to start from.
    pub(crate) memory: Option<PathBuf>,
}

/// What the supervisor answers with, as `state.json`, once QEMU runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) supervisor: u32,
    pub(crate) qemu: u32,
    pub(crate) port: u16,
}

/// The lab's word that the node shall be stopped and its memory written to the path that follows.
pub(crate) const SAVE: &str = "save ";

/// The lab's word on the supervisor's standard input that the machine shall outlive it.
pub(crate) const HAND_OVER: &str = "hand over";

/// The file names in a machine's directory.
pub(crate) const REQUEST: &str = "request.json";
pub(crate) const STATE: &str = "state.json";
pub(crate) const LOCK: &str = "lock";
pub(crate) const CONSOLE: &str = "console.log";
pub(crate) const QEMU_LOG: &str = "qemu.log";
pub(crate) const DISK: &str = "disk.qcow2";
pub(crate) const SAVED: &str = "saved.json";

/// What the lab did.
enum Word {
    HandOver,
    Save(PathBuf),
    Gone,
}

/// Runs QEMU for the machine in `directory` until it ends, is asked to end (SIGTERM), or loses its lab.
pub(crate) fn supervise(directory: &Path) -> Result<(), LabError> {
    // Its own session: Ctrl-C at the lab's terminal and the terminal's end are not for it.
    unistd::setsid().map_err(io::Error::from).map_err(LabError::file("leave the session of", directory))?;
    let asked_to_end = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        let flag = signal_hook::flag::register(signal, Arc::clone(&asked_to_end));
        flag.map_err(LabError::file("handle signals for", directory))?;
    }
    let words = listen();
    // QEMU's machine protocol stays connected as long as the machine is watched.
    let (mut child, mut qmp) = start_qemu(directory)?;
    let ended = watch(&mut child, &mut qmp, directory, &words, &asked_to_end);
    drop(child.kill());
    drop(child.wait());
    match ended {
        // The console and QEMU's last words stay for whoever asks; `down` and the next `up` remove them.
        Ended::ByItself => Ok(()),
        Ended::OnRequest => store::remove_directory(directory),
    }
}

/// Why a machine is over.
enum Ended {
    ByItself,
    OnRequest,
}

fn watch(
    child: &mut Child,
    qmp: &mut Qmp,
    directory: &Path,
    words: &Receiver<Word>,
    asked_to_end: &AtomicBool,
) -> Ended {
    let mut handed_over = false;
    loop {
        if asked_to_end.load(Ordering::Relaxed) {
            return Ended::OnRequest;
        }
        if !matches!(child.try_wait(), Ok(None)) {
            return Ended::ByItself;
        }
        match words.recv_timeout(Duration::from_millis(200)) {
            Ok(Word::HandOver) => handed_over = true,
            Ok(Word::Save(memory)) => {
                let trouble = qmp.save(&memory).err().map(|error| error.to_string());
                drop(store::write_json(&directory.join(SAVED), &trouble));
            }
            Ok(Word::Gone) | Err(RecvTimeoutError::Disconnected) if !handed_over => return Ended::OnRequest,
            Err(RecvTimeoutError::Disconnected) => thread::sleep(Duration::from_millis(200)),
            Ok(Word::Gone) | Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

/// Reads the lab's words; the end of input is the lab's end.
fn listen() -> Receiver<Word> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let word = match line.strip_prefix(SAVE) {
                Some(memory) => Word::Save(memory.into()),
                None if line == HAND_OVER => Word::HandOver,
                None => continue,
            };
            drop(sender.send(word));
        }
        drop(sender.send(Word::Gone));
    });
    receiver
}

fn start_qemu(directory: &Path) -> Result<(Child, Qmp), LabError> {
    let path = directory.join(REQUEST);
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let request: Request =
        store::read_json(&path)?.ok_or_else(|| LabError::file("read", &path)(missing()))?;
    let restored = request.memory.is_some();
    let files =
        Files { disk: directory.join(DISK), console: directory.join(CONSOLE), memory: request.memory };
    let log = directory.join(QEMU_LOG);
    let log_file = File::create(&log).map_err(LabError::file("create", &log))?;
    let mut command = qemu::node(&Image { directory: request.image }, &request.hardware, &files);
    let spawned = command.stderr(log_file).spawn();
    let mut child =
        spawned.map_err(|source| LabError::Spawn { program: "qemu-system-x86_64".into(), source })?;
    match introduce(&mut child, restored, directory) {
        Ok(qmp) => Ok((child, qmp)),
        Err(error) => {
            drop(child.kill());
            drop(child.wait());
            Err(error)
        }
    }
}

/// Asks QEMU for its port and writes down how to reach the machine.
fn introduce(child: &mut Child, restored: bool, directory: &Path) -> Result<Qmp, LabError> {
    let silent = || LabError::Qmp { verb: "speak", reply: "QEMU has no pipes".into() };
    let (to, from) = child.stdin.take().zip(child.stdout.take()).ok_or_else(silent)?;
    let mut qmp = Qmp::connect(to, from)?;
    let port = qmp.forwarded_port()?;
    if restored {
        qmp.resume()?;
    }
    let state = State { supervisor: std::process::id(), qemu: child.id(), port };
    store::write_json(&directory.join(STATE), &state)?;
    Ok(qmp)
}
