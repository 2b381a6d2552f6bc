//! A trace as the Trace Event Format that chrome://tracing and Perfetto read: one complete event per process.

use inspect_probes::escape::escape;
use inspect_probes::events::timeline::Step;
use serde_json::{Value, json};

use super::trace::TraceReport;

/// The document: `traceEvents` with complete (`X`), instant (`i`) and metadata (`M`) events, times in microseconds.
pub(crate) fn chrome_trace(report: &TraceReport) -> Value {
    let mut events = Vec::new();
    if !report.command.is_empty() {
        events.push(name_of(1, "command"));
        events.extend(report.command.iter().filter_map(|step| process(step, 1, "command")));
    }
    for (index, container) in report.containers.iter().enumerate() {
        // The viewer's process is the container; its threads are our processes.
        let group = index + 2;
        events.push(name_of(group, &format!("container {}", container.container)));
        events.extend(container.steps.iter().flat_map(|step| process(step, group, step.step.name())));
        events.extend(container.cgroups.iter().map(|cgroup| {
            json!({
                "name": format!("cgroup {}", cgroup.path), "cat": "cgroup", "ph": "i", "s": "p",
                "ts": microseconds(cgroup.created), "pid": group, "tid": 0,
            })
        }));
    }
    json!({
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": { "events_lost": report.loss.events, "buffer_overruns": report.loss.overruns },
    })
}

/// A process that was there before the trace has no start to draw from; one that still runs gets an open begin event.
fn process(step: &Step, group: usize, category: &str) -> Option<Value> {
    let start = step.started?;
    let line = step.command_line.iter().map(|argument| escape(argument)).collect::<Vec<_>>().join(" ");
    let mut event = json!({
        "name": step.step.name(), "cat": category, "ph": "B", "ts": microseconds(start), "pid": group, "tid": step.pid,
        "args": { "pid": step.pid, "command_line": line, "exe": step.exe, "status": step.status },
    });
    if let Some(duration) = step.duration {
        event["ph"] = json!("X");
        event["dur"] = microseconds(duration);
    }
    Some(event)
}

fn name_of(group: usize, name: &str) -> Value {
    json!({ "name": "process_name", "ph": "M", "pid": group, "args": { "name": name } })
}

/// Microseconds with the nanoseconds behind the point, exactly.
fn microseconds(nanoseconds: u64) -> Value {
    let text = format!("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000);
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests {
    use super::super::trace::tests::report;
    use super::*;

    #[test]
    fn every_process_that_was_made_is_a_complete_event() {
        let document = chrome_trace(&report());
        let events = document["traceEvents"].as_array().unwrap();
        assert_eq!(events.len(), 2, "{events:?}");
        assert_eq!(events[0]["ph"], "M");
        assert_eq!((&events[1]["ph"], &events[1]["dur"]), (&json!("X"), &json!(4000.0)));
        assert_eq!(document["otherData"]["events_lost"], 3);
    }
}
