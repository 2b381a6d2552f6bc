//! The answer to `inspect why killed`.

use inspect_probes::cgroup::Limit;
use inspect_probes::escape::escape;
use inspect_probes::killed::{DeathReport, Verdict, Victim};
use signal_hook::low_level::signal_name as name_of_signal;

use super::style::Style;
use super::units::bytes;
use super::wrap::wrap;

/// The width of the labels before each paragraph.
const LABEL: usize = 12;
/// Victims that are told one by one.
const VICTIMS: usize = 5;

/// Verdict, status, victim, memory, Kubernetes' word, what was seen, and what cannot be known.
pub(crate) fn render_death(report: &DeathReport, style: Style, width: Option<usize>) -> String {
    let mut text = String::new();
    let mut paragraph = |label: &str, value: &str| {
        for (index, line) in
            wrap(value, width.map(|columns| columns.saturating_sub(LABEL).max(20))).iter().enumerate()
        {
            let label = if index == 0 { label } else { "" };
            text.push_str(&format!("{}{line}\n", style.strong(&format!("{label:<LABEL$}"))));
        }
    };
    let name = report.container.as_ref().map_or_else(
        || format!("{} (deleted)", escape(&report.query)),
        |container| format!("{}/{}", container.containerd_namespace, container.id),
    );
    paragraph("container", &name);
    paragraph("verdict", &verdict(report, style));
    if let Some(status) = report.exit_status {
        paragraph("exit", &exit(status));
    }
    for victim in report.victims.iter().take(VICTIMS) {
        paragraph("victim", &victim_line(victim));
    }
    if report.victims.len() > VICTIMS {
        paragraph("", &format!("and {} earlier ones", report.victims.len() - VICTIMS));
    }
    let limit = match report.limit {
        Some(Limit::Value(limit)) => Some(format!("limit {limit} ({})", bytes(limit))),
        Some(Limit::Max) => Some("no limit".to_owned()),
        None => None,
    };
    let peak = report.peak.map(|peak| format!("peak {peak} ({})", bytes(peak)));
    let memory: Vec<String> = limit.into_iter().chain(peak).collect();
    if !memory.is_empty() {
        paragraph("memory", &memory.join(", "));
    }
    if let Some(word) = report.kubernetes {
        paragraph("Kubernetes", &format!("would call it {word}"));
    }
    for (index, evidence) in report.evidence.iter().enumerate() {
        paragraph(if index == 0 { "seen" } else { "" }, &format!("{}: {}", evidence.source, evidence.text));
    }
    for (index, cause) in report.other_causes.iter().enumerate() {
        paragraph(if index == 0 { "who sends it" } else { "" }, &format!("- {cause}"));
    }
    for (index, gap) in report.not_known.iter().enumerate() {
        paragraph(if index == 0 { "not known" } else { "" }, &format!("- {}", escape(gap)));
    }
    text
}

/// The verdict alone, when something killed the container.
pub(crate) fn sentence(report: &DeathReport) -> Option<String> {
    let killed = !matches!(report.verdict, Verdict::Running | Verdict::Exited { .. } | Verdict::Unknown);
    killed.then(|| verdict(report, Style::new(false)))
}

fn verdict(report: &DeathReport, style: Style) -> String {
    let oom = |whose: &str| style.bad(&format!("killed by the kernel's OOM killer: {whose}"));
    match &report.verdict {
        Verdict::OomOwnLimit => oom("the container reached its own memory limit"),
        Verdict::OomAncestorLimit { cgroup: Some(cgroup) } => {
            oom(&format!("the limit of {cgroup}, above the container, was reached"))
        }
        Verdict::OomAncestorLimit { cgroup: None } => {
            oom("a limit above the container was reached; several did so")
        }
        Verdict::OomHost => oom("the host was out of memory, no limit of the container's"),
        Verdict::OomSomewhere => oom("for whose limit cannot be told"),
        Verdict::SystemdOomd => style.bad("killed by systemd-oomd, for memory pressure or swap"),
        Verdict::Signal { signal } => {
            style.bad(&format!("killed by signal {signal}{}, not by the OOM killer", signal_name(*signal)))
        }
        Verdict::Exited { code } => {
            format!("not killed: it ended by itself with status {code}{}", of_its_processes(report))
        }
        Verdict::Running => format!("not killed: it runs{}", of_its_processes(report)),
        Verdict::Unknown => style.warning("cannot be told: nothing that would know is left"),
    }
}

/// The OOM killer may have come for others than the init process.
fn of_its_processes(report: &DeathReport) -> String {
    match report.oom_kills {
        Some(1) => "; the OOM killer killed 1 process in it".to_owned(),
        Some(count) if count > 1 => format!("; the OOM killer killed {count} processes in it"),
        _ => String::new(),
    }
}

fn exit(status: u32) -> String {
    let signal = (129..=192).contains(&status).then(|| u8::try_from(status - 128).ok()).flatten();
    match signal {
        Some(signal) => format!("{status} = 128 + {signal}{}", signal_name(signal)),
        None => status.to_string(),
    }
}

fn signal_name(signal: u8) -> String {
    name_of_signal(i32::from(signal)).map_or_else(String::new, |name| format!(" ({name})"))
}

fn victim_line(victim: &Victim) -> String {
    let uid = victim.uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
    let role = match victim.is_init {
        Some(true) => ", the container's init process",
        Some(false) => ", not the container's init process",
        None => "",
    };
    let memory = victim.anon_rss.map_or_else(String::new, |rss| format!(", {} anonymous memory", bytes(rss)));
    let at = victim.at.map_or_else(String::new, |at| format!(", {at} s after boot"));
    format!("`{}` (pid {}{uid}){role}{memory}{at}", escape(&victim.name), victim.pid)
}

#[cfg(test)]
mod tests {
    use inspect_probes::killed::{Known, explain_death, parse_kernel_log};

    use super::*;

    #[test]
    fn a_deleted_containers_death_is_told_from_the_log() {
        let log = parse_kernel_log(
            "6,0,9000000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,mems_allowed=0,oom_memcg=/pod,task_memcg=/pod/web,task=s\x1bh,pid=812,uid=0\n",
        );
        let report = explain_death(Known { query: "web", log: Some(&log), ..Known::default() });
        let text = render_death(&report, Style::new(false), Some(60));
        let start = "container   web (deleted)
verdict     killed by the kernel's OOM killer: the limit of
            /pod, above the container, was reached
victim      `s\\x1bh` (pid 812, uid 0), 9 s after boot
Kubernetes  would call it OOMKilled
";
        assert!(text.starts_with(start), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
        assert_eq!(exit(137), "137 = 128 + 9 (SIGKILL)");
        assert_eq!(exit(1), "1");
    }
}
