//! Process events of the kernel that runs the tests: needs root in the first namespaces, and says so when it skips.

#![allow(clippy::print_stderr, reason = "a skip prints its reason, a measurement its figure")]
use std::process::Command;
use std::time::{Duration, Instant};

use inspect_probes::Host;
use inspect_probes::events::{Event, EventKind, ExitStatus, RecordCgroups, Recorder};
use inspect_probes::name::Pid;

fn start() -> Option<Recorder> {
    match Recorder::start(&Host::live(), RecordCgroups::No) {
        Ok(recorder) => Some(recorder),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn was_told(events: &[Event], what: impl Fn(&EventKind) -> bool) -> bool {
    events.iter().any(|event| what(&event.kind))
}

#[test]
fn a_process_is_told_from_fork_to_exit() {
    let Some(recorder) = start() else { return };
    let mut child = Command::new("sh").args(["-c", "sleep 0.05; exit 7"]).spawn().expect("sh runs");
    let pid = Pid::new(child.id());
    child.wait().expect("it is our child");
    let (events, loss) = recorder.finish().expect("the recording runs to its end");
    assert!(loss.is_none(), "{loss:?}");
    assert!(was_told(&events, |kind| matches!(kind, EventKind::Fork { child, .. } if *child == pid)));
    assert!(was_told(&events, |kind| {
        matches!(kind, EventKind::Exec { pid: told, image: Some(image) }
            if *told == pid && image.command_line.first().is_some_and(|name| name == "sh"))
    }));
    assert!(was_told(&events, |kind| *kind == EventKind::Exit { pid, status: ExitStatus::Exited(7) }));
}

/// Every exec of a burst as fast as this machine makes them is told, and nothing is lost; the rate is printed.
#[test]
fn a_burst_of_execs_is_told_whole() {
    const EACH: usize = 1000;
    const WORKERS: usize = 4;
    let Some(recorder) = start() else { return };
    let begin = Instant::now();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            let loop_text = format!("i=0; while [ $i -lt {EACH} ]; do /bin/true; i=$((i+1)); done");
            Command::new("sh").args(["-c", &loop_text]).spawn().expect("sh runs")
        })
        .collect();
    for mut worker in workers {
        worker.wait().expect("it is our child");
    }
    let spent = begin.elapsed();
    let (events, loss) = recorder.finish().expect("the recording runs to its end");
    let execs = events.iter().filter(|event| matches!(&event.kind, EventKind::Exec { .. }));
    let (mut all, mut read) = (0usize, 0usize);
    for event in execs {
        all += 1;
        read += usize::from(matches!(&event.kind, EventKind::Exec { image: Some(_), .. }));
    }
    let rate =
        all * 1000 / usize::try_from(spent.max(Duration::from_millis(1)).as_millis()).expect("a short test");
    eprintln!("{all} execs in {spent:?}: {rate}/s, {read} read, loss {loss:?}");
    assert!(loss.is_none(), "{loss:?}");
    assert!(all >= EACH * WORKERS, "{all} execs of {}", EACH * WORKERS);
}
