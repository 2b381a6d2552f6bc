//! The thread that receives process events, reads `/proc` at once, and hands both on.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::cgroup_watch::CgroupWatch;
use super::invocation::{Invocation, RuntimeOperation, parse_invocation};
use super::loss::Loss;
use super::proc_event::{ExitStatus, ProcEvent, ProcEventKind, Timestamp};
use super::process_image::{Depth, ImageReader, ProcessImage};
use super::{EventError, ProcConnector};
use crate::host::Host;
use crate::name::{CgroupPath, ContainerId, Pid};

/// Datagrams taken in one go before the next process is read: the queue is always emptied first, so that reading `/proc`
/// never makes the kernel drop events, but a flood must not keep `/proc` from being read for ever.
const DRAIN: usize = 4096;

/// Clock ticks a second of `/proc/PID/stat` (`USER_HZ`, 100 on every architecture that Linux runs containers on).
const TICK_NANOSECONDS: u64 = 10_000_000;

/// A process that began this much after its event is another one with the same pid.
const REUSE_MARGIN: u64 = 50_000_000;

/// Events of so much time are handed over together: whoever takes them is not woken for each.
const TOGETHER: Duration = Duration::from_millis(10);

/// Whether to tell of cgroups as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordCgroups {
    /// Watch every cgroup directory.
    Yes,
    /// Processes only.
    No,
}

/// Something that happened on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When: the kernel's stamp, or for cgroups and files the moment that they were read.
    pub time: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventKind {
    /// A process that was there before, told because it forked.
    Present {
        /// The process.
        pid: Pid,
        /// What it is.
        image: Box<ProcessImage>,
    },
    /// A process was made.
    Fork {
        /// The parent.
        parent: Pid,
        /// The child.
        child: Pid,
    },
    /// A process runs another program.
    Exec {
        /// The process.
        pid: Pid,
        /// What it runs; `None` when it was gone before it could be read.
        image: Option<Box<ProcessImage>>,
    },
    /// A process named itself.
    Comm {
        /// The process.
        pid: Pid,
        /// The name; hostile.
        comm: String,
    },
    /// A process ended.
    Exit {
        /// The process.
        pid: Pid,
        /// How.
        status: ExitStatus,
    },
    /// What a bundle says, read when a runtime was called to create it.
    Bundle {
        /// The runtime's process.
        pid: Pid,
        /// `linux.cgroupsPath`.
        cgroups_path: Option<String>,
        /// `linux.namespaces` that name a path: they are joined, not made.
        joined_namespaces: Vec<String>,
        /// `process.args`: what the init process will run.
        arguments: Vec<String>,
    },
    /// The pid that the runtime wrote to its `--pid-file`.
    InitPid {
        /// The container.
        container: ContainerId,
        /// Its init process.
        pid: Pid,
    },
    /// A cgroup came.
    CgroupCreated {
        /// `None` in the unified hierarchy, else the legacy controller.
        hierarchy: Option<&'static str>,
        /// The cgroup.
        path: CgroupPath,
    },
    /// A cgroup went.
    CgroupRemoved {
        /// `None` in the unified hierarchy, else the legacy controller.
        hierarchy: Option<&'static str>,
        /// The cgroup.
        path: CgroupPath,
    },
    /// The kernel could not deliver everything: the counts so far.
    Lost(Loss),
}

/// A running recording; dropping it ends it.
#[derive(Debug)]
pub struct Recorder {
    events: Receiver<Vec<Event>>,
    received: VecDeque<Event>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<Result<Loss, EventError>>>,
}

impl Recorder {
    /// Subscribes, and returns when everything that happens from now on will be told.
    ///
    /// # Errors
    /// When the host is a captured one or the kernel refuses.
    pub fn start(host: &Host, cgroups: RecordCgroups) -> Result<Self, EventError> {
        if !host.is_live() {
            return Err(EventError::NotLive);
        }
        let cgroups = match cgroups {
            RecordCgroups::Yes => Some(CgroupWatch::open(host)?),
            RecordCgroups::No => None,
        };
        let connector = ProcConnector::open()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map(Arc::new)
            .map_err(|source| EventError::Open { source })?;
        let (sender, events) = mpsc::channel();
        let images = ImageReader::open(host).map_err(|source| EventError::Open { source })?;
        let reader = Reader::new(host.clone(), connector, images, cgroups, sender);
        let reader_stop = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || reader.run(&reader_stop))
            .map_err(|source| EventError::Thread { source })?;
        Ok(Self { events, received: VecDeque::new(), stop, thread: Some(thread) })
    }

    /// The next event; `None` when none came in time or the recording ended.
    #[must_use]
    pub fn receive(&mut self, timeout: Duration) -> Option<Event> {
        if self.received.is_empty() {
            self.received = self.events.recv_timeout(timeout).ok()?.into();
        }
        self.received.pop_front()
    }

    /// The next event of those that were handed over together: asks the thread for nothing.
    #[must_use]
    pub fn next_received(&mut self) -> Option<Event> {
        self.received.pop_front()
    }

    /// Whether the recording still runs: it ends by itself only when the kernel's socket fails.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends the recording: what the kernel told until now is handed out, with what it could not tell.
    ///
    /// # Errors
    /// When the recording had ended by itself, and why.
    pub fn finish(mut self) -> Result<(Vec<Event>, Loss), EventError> {
        let loss = self.join()?;
        let received = std::mem::take(&mut self.received);
        Ok((received.into_iter().chain(self.events.try_iter().flatten()).collect(), loss))
    }

    fn join(&mut self) -> Result<Loss, EventError> {
        match rustix::io::write(&*self.stop, &1u64.to_ne_bytes()) {
            Ok(_) | Err(_) => {}
        }
        let Some(thread) = self.thread.take() else { return Ok(Loss::default()) };
        thread.join().unwrap_or_else(|_| {
            Err(EventError::Thread { source: std::io::Error::other("the thread that reads events panicked") })
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Who wants to know calls `finish`.
        match self.join() {
            Ok(_) | Err(_) => {}
        }
    }
}

/// The thread's side.
struct Reader {
    host: Host,
    connector: ProcConnector,
    images: ImageReader,
    cgroups: Option<CgroupWatch>,
    sender: Sender<Vec<Event>>,
    /// Told and not handed over yet, and since when.
    told: Vec<Event>,
    told_since: Instant,
    pending: VecDeque<ProcEvent>,
    /// Processes whose end is among [`Reader::pending`], each as often as it is: they have nothing to show any more.
    ending: HashMap<Pid, usize>,
    known: HashSet<Pid>,
    /// Processes that have a part in what is traced; of others the command line alone is read.
    parts: HashMap<Pid, Part>,
    creating: HashMap<Pid, (ContainerId, PathBuf)>,
    told_loss: Loss,
    /// `CLOCK_BOOTTIME`, which `/proc` counts in, minus `CLOCK_MONOTONIC`, which events are stamped with.
    suspended: u64,
}

impl Reader {
    fn new(
        host: Host,
        connector: ProcConnector,
        images: ImageReader,
        cgroups: Option<CgroupWatch>,
        sender: Sender<Vec<Event>>,
    ) -> Self {
        let suspended = now(ClockId::Boottime).saturating_sub(now(ClockId::Monotonic));
        Self {
            host,
            connector,
            images,
            cgroups,
            sender,
            told: Vec::new(),
            told_since: Instant::now(),
            pending: VecDeque::new(),
            ending: HashMap::new(),
            known: HashSet::new(),
            // What this process starts is the command that is traced.
            parts: HashMap::from([(Pid::new(std::process::id()), Part::Inside)]),
            creating: HashMap::new(),
            told_loss: Loss::default(),
            suspended,
        }
    }

    fn run(mut self, stop: &OwnedFd) -> Result<Loss, EventError> {
        // Ahead of the load that is being watched, where that is allowed: the nicer we are, the more is gone unread.
        match rustix::process::setpriority_process(None, -10) {
            Ok(()) | Err(_) => {}
        }
        loop {
            let woken = self.wait(stop)?;
            self.drain()?;
            while !self.pending.is_empty() {
                self.tell_until_one_is_read();
                self.drain()?;
            }
            if woken.cgroups || woken.stop {
                self.tell_cgroups()?;
            }
            self.tell_loss();
            if woken.stop {
                self.hand_over();
                return Ok(self.loss());
            }
            if self.told_since.elapsed() >= TOGETHER {
                self.hand_over();
            }
        }
    }

    /// Sleeps until there is something, or until what was told is to be handed over.
    fn wait(&self, stop: &OwnedFd) -> Result<Woken, EventError> {
        let mut fds = vec![PollFd::new(&self.connector, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        fds.extend(self.cgroups.as_ref().map(|cgroups| PollFd::new(cgroups, PollFlags::IN)));
        let left = || Timespec::try_from(TOGETHER.saturating_sub(self.told_since.elapsed())).ok();
        let timeout = if self.told.is_empty() { None } else { left() };
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {
                let is_ready = |place: usize| fds.get(place).is_some_and(|fd| !fd.revents().is_empty());
                Ok(Woken { stop: is_ready(1), cgroups: is_ready(2) })
            }
            Err(Errno::INTR) => Ok(Woken { stop: false, cgroups: false }),
            Err(source) => Err(EventError::Receive { source }),
        }
    }

    fn drain(&mut self) -> Result<(), EventError> {
        let mut events = Vec::new();
        for _ in 0..DRAIN {
            if !self.connector.receive(&mut events)? {
                break;
            }
        }
        for event in &events {
            if let ProcEventKind::Exit { pid, .. } = event.kind {
                *self.ending.entry(pid).or_default() += 1;
            }
        }
        self.pending.extend(events);
        Ok(())
    }

    /// Hands events on up to and including the first that `/proc` had to be read for.
    fn tell_until_one_is_read(&mut self) {
        while let Some(event) = self.pending.pop_front() {
            let time = event.time;
            match event.kind {
                ProcEventKind::Fork { parent, child } => {
                    let unknown = self.known.insert(parent);
                    self.known.insert(child);
                    if unknown && let Some(image) = self.read(parent, time, Depth::CommandLine) {
                        self.tell(time, EventKind::Present { pid: parent, image: Box::new(image) });
                    }
                    if let Some(part) = self.parts.get(&parent) {
                        self.parts.insert(child, part.of_child());
                    }
                    self.tell(time, EventKind::Fork { parent, child });
                    if unknown {
                        return;
                    }
                }
                ProcEventKind::Exec { pid } => {
                    self.tell_exec(time, pid);
                    return;
                }
                ProcEventKind::Comm { pid, comm } => {
                    let comm = String::from_utf8_lossy(&comm).into_owned();
                    self.tell(time, EventKind::Comm { pid, comm });
                }
                ProcEventKind::Exit { pid, status } => {
                    self.forget(pid);
                    self.tell(time, EventKind::Exit { pid, status });
                    self.tell_init_pid(time, pid);
                }
                ProcEventKind::Answer { .. }
                | ProcEventKind::Uid { .. }
                | ProcEventKind::Thread
                | ProcEventKind::Other(_) => {}
            }
        }
    }

    fn forget(&mut self, pid: Pid) {
        self.known.remove(&pid);
        self.parts.remove(&pid);
        match self.ending.get_mut(&pid) {
            Some(ends) if *ends > 1 => *ends -= 1,
            _ => drop(self.ending.remove(&pid)),
        }
    }

    fn tell_exec(&mut self, time: Timestamp, pid: Pid) {
        // A process whose making was not seen: only /proc names its parent.
        let least = if self.known.insert(pid) { Depth::Program } else { Depth::CommandLine };
        let image = self.read(pid, time, least);
        let call = image.as_ref().and_then(|image| parse_invocation(&image.command_line));
        self.tell(time, EventKind::Exec { pid, image: image.map(Box::new) });
        let Some(Invocation::Runtime(call)) = call else { return };
        if !matches!(call.operation, RuntimeOperation::Create | RuntimeOperation::Run) {
            return;
        }
        if let Some(bundle) = &call.bundle
            && let Some(kind) = read_bundle(&self.host.resolve(bundle), pid)
        {
            self.tell(time, kind);
        }
        if let (Some(id), Some(file)) = (call.id, call.pid_file) {
            self.creating.insert(pid, (id, file));
        }
    }

    /// When a runtime's `create` ends, its pid file says which process is the container's init.
    fn tell_init_pid(&mut self, time: Timestamp, runtime: Pid) {
        let Some((container, file)) = self.creating.remove(&runtime) else { return };
        let text = fs::read_to_string(self.host.resolve(&file)).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            self.tell(time, EventKind::InitPid { container, pid: Pid::new(pid) });
        }
    }

    /// The process that an event is of; `None` when it is gone, also when another has its pid.
    ///
    /// Most of a host's processes have no part in a container's making: their arguments say so, and no more is read. One
    /// whose end was told has no arguments, program or namespaces any more (`do_exit` of kernel/exit.c gives them up
    /// before it tells), and is not asked.
    fn read(&mut self, pid: Pid, time: Timestamp, least: Depth) -> Option<ProcessImage> {
        if self.ending.contains_key(&pid) {
            return None;
        }
        let command_line = self.images.read_command_line(pid)?;
        let invocation = parse_invocation(&command_line);
        let part = match (invocation.as_ref(), self.parts.get(&pid).copied()) {
            (Some(Invocation::Shim(_) | Invocation::Runtime(_)), _) => Some(Part::Maker),
            (Some(Invocation::Daemon) | None, Some(Part::Maker)) => Some(Part::Entrant),
            (_, part) => part,
        };
        self.parts.extend(part.map(|part| (pid, part)));
        let depth = match invocation {
            Some(_) => Depth::Whole,
            None => part.map_or(least, |part| part.depth().max(least)),
        };
        let image = self.images.read_image(pid, command_line, depth)?;
        let began = image.start_ticks.saturating_mul(TICK_NANOSECONDS);
        (began <= time.0.saturating_add(self.suspended).saturating_add(REUSE_MARGIN)).then_some(image)
    }

    fn tell_cgroups(&mut self) -> Result<(), EventError> {
        let Some(cgroups) = &mut self.cgroups else { return Ok(()) };
        let time = Timestamp(now(ClockId::Monotonic));
        let changes = cgroups.drain()?;
        for change in changes {
            let (hierarchy, path) = (change.hierarchy, change.path);
            let kind = if change.created {
                EventKind::CgroupCreated { hierarchy, path }
            } else {
                EventKind::CgroupRemoved { hierarchy, path }
            };
            self.tell(time, kind);
        }
        Ok(())
    }

    fn loss(&self) -> Loss {
        let overflows = self.cgroups.as_ref().map_or(0, CgroupWatch::overflows);
        Loss { cgroup_overflows: overflows, ..self.connector.loss() }
    }

    fn tell_loss(&mut self) {
        let loss = self.loss();
        if loss != self.told_loss {
            self.told_loss = loss;
            self.tell(Timestamp(now(ClockId::Monotonic)), EventKind::Lost(loss));
        }
    }

    fn tell(&mut self, time: Timestamp, kind: EventKind) {
        if self.told.is_empty() {
            self.told_since = Instant::now();
        }
        self.told.push(Event { time, kind });
    }

    /// A receiver that is gone has dropped the recorder: the stop follows at once.
    fn hand_over(&mut self) {
        if self.told.is_empty() {
            return;
        }
        match self.sender.send(std::mem::take(&mut self.told)) {
            Ok(()) | Err(_) => {}
        }
    }
}

/// What a process has to do with what is traced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// A shim, a runtime, and what they start until it runs a program of its own.
    Maker,
    /// What a maker starts: the container's init process, an exec's, a hook, a helper.
    Entrant,
    /// What that starts, and the command that the trace is made for with all below it.
    Inside,
}

impl Part {
    fn of_child(self) -> Self {
        match self {
            Self::Maker => Self::Maker,
            Self::Entrant | Self::Inside => Self::Inside,
        }
    }

    /// How much is read of it.
    fn depth(self) -> Depth {
        match self {
            Self::Maker | Self::Entrant => Depth::Whole,
            Self::Inside => Depth::Program,
        }
    }
}

/// Why [`Reader::wait`] returned, besides for process events.
struct Woken {
    stop: bool,
    cgroups: bool,
}

/// A clock in nanoseconds.
fn now(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1_000_000_000).saturating_add(nanoseconds.unwrap_or_default())
}

/// What a bundle's `config.json` says of the container that `runtime` makes of it.
fn read_bundle(bundle: &Path, runtime: Pid) -> Option<EventKind> {
    let text = fs::read(bundle.join("config.json")).ok()?;
    let spec: serde_json::Value = serde_json::from_slice(&text).ok()?;
    let text_of = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let list_of = |path: &str| spec.pointer(path).and_then(|list| list.as_array()).into_iter().flatten();
    let is_joined = |entry: &&serde_json::Value| entry["path"].as_str().is_some_and(|path| !path.is_empty());
    Some(EventKind::Bundle {
        pid: runtime,
        cgroups_path: spec.pointer("/linux/cgroupsPath").and_then(text_of),
        joined_namespaces: list_of("/linux/namespaces")
            .filter(is_joined)
            .filter_map(|entry| text_of(&entry["type"]))
            .collect(),
        arguments: list_of("/process/args").filter_map(text_of).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_host_has_no_events() {
        assert!(matches!(
            Recorder::start(&Host::at("/nowhere"), RecordCgroups::No),
            Err(EventError::NotLive)
        ));
    }

    #[test]
    fn a_bundle_names_what_it_joins() {
        let bundle = tempfile::tempdir().unwrap();
        let spec = r#"{"process":{"args":["sh"]},"linux":{"cgroupsPath":"/k8s.io/x","namespaces":[{"type":"pid"},{"type":"network","path":"/proc/1/ns/net"}]}}"#;
        fs::write(bundle.path().join("config.json"), spec).unwrap();
        let expected = EventKind::Bundle {
            pid: Pid::new(7),
            cgroups_path: Some("/k8s.io/x".into()),
            joined_namespaces: vec!["network".into()],
            arguments: vec!["sh".into()],
        };
        assert_eq!(read_bundle(bundle.path(), Pid::new(7)), Some(expected));
        fs::write(bundle.path().join("config.json"), "{").unwrap();
        assert_eq!(read_bundle(bundle.path(), Pid::new(7)), None);
    }
}
