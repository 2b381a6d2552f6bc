//! What a swap, an undo and the status say.

use crate::render::style::Style;
use crate::swap::{DOCKER_UNIT, StatusReport, SwapReport, SwapState, UndoReport};

/// The result of a swap, or the plan of one.
pub(crate) fn render_swap(report: &SwapReport, style: Style) -> String {
    let mut text = String::new();
    if report.state == SwapState::Planned {
        for diff in &report.diffs {
            text.push_str(&diff.diff);
        }
        if report.diffs.is_empty() {
            text.push_str("the config already says so: nothing to write\n");
        }
        for check in &report.checks {
            let verdict = match check.verdict {
                crate::swap::Verdict::Good => style.good("good"),
                crate::swap::Verdict::Warning => style.warning("warning"),
                crate::swap::Verdict::Failure => style.bad("failure"),
            };
            text.push_str(&format!("{verdict}: {}\n", check.text));
        }
        text.push_str("nothing was written (--dry-run)\n");
        return text;
    }
    let noun = if report.unit == DOCKER_UNIT { "runtime" } else { "handler" };
    let role = if report.is_default { format!("the default {noun}") } else { format!("a {noun}") };
    let state = match report.state {
        SwapState::Planned | SwapState::Written => style.warning("written, in force after the next restart"),
        SwapState::InForce => style.warning("in force, not proven"),
        SwapState::Proven => style.good("in force and proven"),
    };
    text.push_str(&format!(
        "{} is {role} of {}: {state}\n",
        style.strong(&report.handler),
        if report.containerd.is_empty() {
            report.unit.clone()
        } else {
            format!("containerd {} ({})", report.containerd, report.unit)
        },
    ));
    if let Some(census) = &report.census {
        text.push_str(&format!(
            "{} of {} running tasks survived the restart\n",
            census.survived, census.before
        ));
    }
    if let Some(path) = &report.stand_in {
        text.push_str(&format!("{path} stands in for runc: `ctr run` and nerdctl follow\n"));
    }
    if let Some(canary) = &report.canary {
        let family = canary.family.map_or("an unknown runtime", |family| family.as_str());
        text.push_str(&format!("the canary was made by {family}\n"));
    }
    if let Some(canary) = &report.stand_in_canary {
        let family = canary.family.map_or("an unknown runtime", |family| family.as_str());
        text.push_str(&format!("the canary that asked for no runtime was made by {family}\n"));
    }
    if let Some(pod) = &report.pod_canary {
        let family = pod.family.map_or("an unknown runtime", |family| family.as_str());
        text.push_str(&format!("the canary pod was made by {family}, through CRI\n"));
    }
    text
}

/// What an undo did.
pub(crate) fn render_undo(report: &UndoReport, style: Style) -> String {
    if report.undone.is_empty() {
        return "no swap was in force any more: only the stand-in for runc was looked at\n".to_owned();
    }
    let bytes = if report.original_bytes {
        style.good("the very bytes from before are back")
    } else if report.diffs.is_empty() {
        style.warning("there was nothing left of its lines: somebody else changed the files since")
    } else {
        style.warning("only the swap's own lines were taken out: the rest was changed since")
    };
    let mut text = format!("undone: {}; {bytes}\n", report.undone.join(", "));
    if let Some(census) = &report.census {
        text.push_str(&format!(
            "{} of {} running tasks survived the restart\n",
            census.survived, census.before
        ));
    }
    match (report.restarted, report.reloaded_docker) {
        (_, true) => text.push_str("dockerd has read its config again, without a restart\n"),
        (false, false) => {
            text.push_str("containerd was not restarted: it needed none, or `--no-restart` was given\n")
        }
        (true, false) => {}
    }
    text
}

/// The swaps of a node.
pub(crate) fn render_status(report: &StatusReport, style: Style) -> String {
    let mut text = String::new();
    if report.busy {
        text.push_str(&format!("{}\n", style.warning("another inspect is at work")));
    }
    if let Some(stand_in) = &report.stand_in {
        text.push_str(&format!(
            "{} stands in for runc ({}): new containers are made by {}\n",
            stand_in.path.display(),
            stand_in.original.display(),
            stand_in.create.display()
        ));
    }
    if report.swaps.is_empty() {
        text.push_str("no swap is in force\n");
    }
    for swap in &report.swaps {
        let state = if swap.interrupted && !report.busy {
            style.bad("interrupted: `inspect swap-runtime --undo` restores what was there")
        } else if swap.interrupted {
            style.warning("being made")
        } else if swap.awaits_restart {
            style.warning("written, in force after the next restart")
        } else {
            style.good("in force")
        };
        let role = if swap.is_default { ", default" } else { "" };
        text.push_str(&format!(
            "{}  {} (handler {}{role}) in {}: {state}\n",
            swap.id,
            style.strong(&swap.runtime),
            swap.handler,
            swap.unit
        ));
        for file in &swap.files {
            let state = serde_json::to_string(&file.state).unwrap_or_default();
            text.push_str(&format!("   {}: {}\n", file.path, state.trim_matches('"').replace('-', " ")));
        }
        if let Some(path) = &swap.stand_in {
            text.push_str(&format!("   {}: stands in for runc\n", path.display()));
        }
    }
    text
}
