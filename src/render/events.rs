//! containerd's events as lines.

use inspect_probes::containerd::DaemonEvent;
use inspect_probes::escape::escape;
use serde::Serialize;

use super::style::Style;

/// An event, and what was found out about it at once.
#[derive(Debug, Serialize)]
pub(crate) struct EventLine {
    #[serde(flatten)]
    pub(crate) event: DaemonEvent,
    /// What killed the container.
    pub(crate) finding: Option<String>,
}

/// `12:00:01.234 default  /tasks/exit  web  pid 9  exit 137 = 128 + 9  …`
pub(crate) fn render_event(line: &EventLine, style: Style) -> String {
    let event = &line.event;
    let day = event.seconds.rem_euclid(86_400);
    let time = format!(
        "{:02}:{:02}:{:02}.{:03}",
        day / 3600,
        day / 60 % 60,
        day % 60,
        event.nanoseconds / 1_000_000
    );
    let mut words = vec![time, event.containerd_namespace.to_string(), style.strong(&escape(&event.topic))];
    words.extend(event.container.as_ref().map(ToString::to_string));
    words.extend(event.exec.as_ref().map(|exec| format!("exec {}", escape(exec))));
    words.extend(event.pid.map(|pid| format!("pid {pid}")));
    words.extend(event.exit_status.map(|status| {
        let text = match status {
            129..=192 => format!("exit {status} = 128 + {}", status - 128),
            _ => format!("exit {status}"),
        };
        if status == 0 { style.good(&text) } else { style.bad(&text) }
    }));
    words.extend(event.detail.as_ref().map(|detail| style.faint(&escape(detail))));
    words.extend(line.finding.as_ref().map(|finding| style.bad(&format!("← {finding}"))));
    format!("{}\n", words.join("  "))
}

#[cfg(test)]
mod tests {
    use inspect_probes::name::{ContainerId, ContainerdNamespace, Pid};

    use super::*;

    #[test]
    fn an_exit_is_one_line_with_its_meaning() {
        let event = DaemonEvent {
            seconds: 86_400 + 3_661,
            nanoseconds: 7_000_000,
            containerd_namespace: ContainerdNamespace::new("default"),
            topic: "/tasks/exit".to_owned(),
            container: Some(ContainerId::new("we\nb")),
            pid: Some(Pid::new(9)),
            exec: None,
            exit_status: Some(137),
            detail: None,
        };
        let line = EventLine { event, finding: Some("oom".to_owned()) };
        let text = render_event(&line, Style::new(false));
        assert_eq!(text, "01:01:01.007  default  /tasks/exit  we\\nb  pid 9  exit 137 = 128 + 9  ← oom\n");
    }
}
