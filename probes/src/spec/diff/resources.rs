//! linux.resources: cgroup limits. A limit that is absent, or negative, is no limit.

use super::pair::{Node, Pair, text_member};
use super::report::{Draft, Report};
use super::text::{bytes, subject_of};
use super::{leaf, walk_members, walk_unknown};
use crate::escape::escape;
use crate::spec::change::{Section, Verdict};
use crate::spec::shape::{SPEC, Shape};

/// How a limit's values stand to each other.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// More allows more; absent, negative and 0 are no limit.
    BytesOrNone,
    /// More allows more; absent and negative are no limit, and 0 is read in two ways.
    Count,
    /// More allows more, absent is none of it.
    Grant,
    /// No value allows more than another.
    Neutral,
}

/// What a number counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Something without a unit: weights, processes.
    Bare,
    Bytes,
    Microseconds,
    BytesPerSecond,
    OperationsPerSecond,
}

struct Limit {
    pointer: &'static str,
    subject: &'static str,
    scale: Scale,
    unit: Unit,
    kernel: &'static str,
    kubernetes: Option<&'static str>,
    reason: &'static str,
}

const fn limit(
    pointer: &'static str,
    subject: &'static str,
    scale: Scale,
    kernel: &'static str,
    reason: &'static str,
) -> Limit {
    let unit = if matches!(scale, Scale::BytesOrNone) { Unit::Bytes } else { Unit::Bare };
    Limit { pointer, subject, scale, unit, kernel, kubernetes: None, reason }
}

/// A limit of CPU time.
const fn time(limit: Limit) -> Limit {
    Limit { unit: Unit::Microseconds, ..limit }
}

const LIMITS: [Limit; 10] = [
    Limit {
        kubernetes: Some("resources.limits.memory"),
        ..limit(
            "/linux/resources/memory/limit",
            "memory limit",
            Scale::BytesOrNone,
            "memory.max",
            "beyond it the kernel kills a process of the container (OOMKilled, exit 137); without one it can take the node's memory",
        )
    },
    Limit {
        kubernetes: Some("resources.limits.memory (memorySwap.swapBehavior)"),
        ..limit(
            "/linux/resources/memory/swap",
            "memory and swap limit",
            Scale::BytesOrNone,
            "memory.swap.max = swap - limit",
            "memory and swap together; without one the container can fill the node's swap",
        )
    },
    Limit {
        kubernetes: Some("resources.requests.memory (memory QoS)"),
        unit: Unit::Bytes,
        ..limit(
            "/linux/resources/memory/reservation",
            "memory reservation",
            Scale::Neutral,
            "memory.low",
            "memory that the kernel takes back last",
        )
    },
    limit(
        "/linux/resources/memory/kernel",
        "kernel memory limit",
        Scale::BytesOrNone,
        "-",
        "cgroup v1 only; cgroup v2 counts it in memory.max",
    ),
    limit(
        "/linux/resources/memory/kernelTCP",
        "TCP memory limit",
        Scale::BytesOrNone,
        "-",
        "cgroup v1 only; cgroup v2 counts it in memory.max",
    ),
    limit(
        "/linux/resources/memory/swappiness",
        "swappiness",
        Scale::Neutral,
        "-",
        "cgroup v1 only: how eagerly memory is swapped out",
    ),
    Limit {
        kubernetes: Some("--pod-max-pids of the kubelet"),
        ..limit(
            "/linux/resources/pids/limit",
            "process limit",
            Scale::Count,
            "pids.max",
            "how many processes and threads the container may have; without one a fork bomb takes the node's",
        )
    },
    limit(
        "/linux/resources/blockIO/weight",
        "I/O weight",
        Scale::Neutral,
        "io.weight",
        "the share of the disk when several want it",
    ),
    limit("/linux/resources/blockIO/leafWeight", "I/O leaf weight", Scale::Neutral, "-", "cgroup v1 only"),
    limit(
        "/linux/resources/network/classID",
        "network class",
        Scale::Neutral,
        "-",
        "cgroup v1 only: marks packets for traffic control",
    ),
];

const CPU_LIMITS: [Limit; 4] = [
    time(limit(
        "/linux/resources/cpu/burst",
        "CPU burst",
        Scale::Grant,
        "cpu.max.burst",
        "CPU time beyond the quota that is saved up for later",
    )),
    time(limit(
        "/linux/resources/cpu/realtimeRuntime",
        "realtime runtime",
        Scale::Grant,
        "-",
        "cgroup v1 only: CPU time of realtime tasks, before all others",
    )),
    time(limit(
        "/linux/resources/cpu/realtimePeriod",
        "realtime period",
        Scale::Neutral,
        "-",
        "cgroup v1 only",
    )),
    limit(
        "/linux/resources/cpu/idle",
        "CPU idle class",
        Scale::Neutral,
        "cpu.idle",
        "1 runs only when nothing else wants the CPU",
    ),
];

fn find_limit(pointer: &str) -> Option<&'static Limit> {
    LIMITS.iter().chain(&CPU_LIMITS).find(|limit| limit.pointer == pointer)
}

/// Whether a place is a plain number with a scale.
pub(super) fn is_limit(pointer: &str) -> bool {
    find_limit(pointer).is_some()
}

pub(super) fn is_throttle(pointer: &str) -> bool {
    pointer.starts_with("/linux/resources/blockIO/") && pointer.ends_with("Device")
}

pub(super) fn compare_limit(pair: &Pair<'_>, report: &mut Report) {
    if let Some(limit) = find_limit(&pair.left.pointer) {
        compare_scaled(limit, limit.subject.to_owned(), pair, report);
    }
}

fn compare_scaled(limit: &Limit, subject: String, pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (amount(limit.scale, &pair.left), amount(limit.scale, &pair.right));
    if left == right {
        return;
    }
    let zero = |node: &Node<'_>| limit.scale == Scale::Count && node.integer() == Some(0);
    let verdict = match limit.scale {
        Scale::Neutral => Verdict::Changed,
        _ if zero(&pair.left) || zero(&pair.right) => Verdict::CannotTell,
        _ => Verdict::of_order(&left, &right),
    };
    let draft = Draft::new(Section::Resources, subject, pair)
        .texts(shown(limit.unit, left), shown(limit.unit, right))
        .verdict(verdict)
        .why(limit.reason)
        .kernel(limit.kernel);
    report.push(match limit.kubernetes {
        Some(field) => draft.kubernetes(field),
        None => draft,
    });
}

/// The number to compare; `i128::MAX` is no limit.
fn amount(scale: Scale, node: &Node<'_>) -> i128 {
    match (scale, node.integer()) {
        (Scale::BytesOrNone, None | Some(..=0)) => i128::MAX,
        (Scale::Count, None | Some(..=-1)) => i128::MAX,
        (Scale::Neutral | Scale::Grant, None) => i128::MIN,
        (_, Some(number)) => number,
    }
}

fn shown(unit: Unit, amount: i128) -> String {
    match (amount, unit) {
        (i128::MAX, _) => "no limit".to_owned(),
        (i128::MIN, _) => "-".to_owned(),
        (number, Unit::Bytes) => bytes(number),
        (number, Unit::Microseconds) => format!("{number} us"),
        (number, Unit::BytesPerSecond) => format!("{} a second", bytes(number)),
        (number, Unit::OperationsPerSecond) => format!("{number} a second"),
        (number, Unit::Bare) => number.to_string(),
    }
}

/// linux.resources.cpu: quota and period are one limit, shares become a weight.
pub(super) fn compare_cpu(pair: &Pair<'_>, report: &mut Report) {
    compare_quota(pair, report);
    compare_shares(&pair.member("shares"), report);
    for name in ["cpus", "mems"] {
        compare_cpu_set(name, &pair.member(name), report);
    }
    let done = ["quota", "period", "shares", "cpus", "mems"];
    let shape =
        ["linux", "resources", "cpu"].iter().try_fold(&SPEC, |shape: &Shape, name| shape.member(name));
    walk_members(pair, shape, &done, report);
}

/// The kernel's default period in microseconds.
const DEFAULT_PERIOD: i128 = 100_000;

fn compare_quota(pair: &Pair<'_>, report: &mut Report) {
    let read = |node: &Node<'_>| {
        let quota = node.member("quota").integer().filter(|quota| *quota > 0);
        let period = node.member("period").integer().filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD);
        (quota, period)
    };
    let (left, right) = (read(&pair.left), read(&pair.right));
    if left == right {
        return;
    }
    // quota / period compared without division.
    let verdict = match (left.0, right.0) {
        (Some(quota), Some(other)) => Verdict::of_order(&(quota * right.1), &(other * left.1)),
        (left, right) => Verdict::of_order(&left.is_none(), &right.is_none()),
    };
    let shown = |(quota, period): (Option<i128>, i128)| match quota {
        None => "no limit".to_owned(),
        Some(quota) => format!("{quota} of {period} us ({} CPU)", ratio(quota, period)),
    };
    let draft = Draft::new(Section::Resources, "CPU quota", pair).texts(shown(left), shown(right));
    report.push(
        leaf::changed_unless(verdict, draft)
            .why("beyond its quota the container waits for the next period (throttling)")
            .kubernetes("resources.limits.cpu")
            .kernel("cpu.max"),
    );
}

/// `0.5`, with at most three decimals.
fn ratio(quota: i128, period: i128) -> String {
    let thousandths = quota.saturating_mul(1000) / period;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Shares against no shares: the kernel's default weight is 100, and which weight shares become depends on the
/// runtime's version: 1024 are 39 before runc 1.3 and crun 1.23, and 100 since.
fn compare_shares(pair: &Pair<'_>, report: &mut Report) {
    let shares = |node: &Node<'_>| node.integer().filter(|shares| *shares > 0);
    let (left, right) = (shares(&pair.left), shares(&pair.right));
    if left == right {
        return;
    }
    /// Between these shares the older and the newer conversion fall on different sides of weight 100.
    const UNSURE: std::ops::RangeInclusive<i128> = 1024..=2597;
    let verdict = match (left, right) {
        (Some(left), Some(right)) => Verdict::of_order(&left, &right),
        (Some(shares), None) | (None, Some(shares)) if UNSURE.contains(&shares) => Verdict::CannotTell,
        (left, right) => {
            Verdict::of_order(&left.unwrap_or(*UNSURE.start()), &right.unwrap_or(*UNSURE.start()))
        }
    };
    let shown = |shares: Option<i128>| {
        shares.map_or("weight 100 (default)".to_owned(), |shares| format!("{shares} shares"))
    };
    report.push(
        Draft::new(Section::Resources, "CPU shares", pair)
            .texts(shown(left), shown(right))
            .verdict(verdict)
            .why("the share of the CPU when the node is busy; runtimes before runc 1.3 and crun 1.23 make 39 of 1024, later ones 100")
            .kubernetes("resources.requests.cpu")
            .kernel("cpu.weight"),
    );
}

/// A CPU or memory node list (cpuset(7)); absent or empty is all of them.
fn compare_cpu_set(name: &'static str, pair: &Pair<'_>, report: &mut Report) {
    let (left, right) = (pair.left.text_or_empty(), pair.right.text_or_empty());
    if left == right {
        return;
    }
    let verdict = match (parse_ranges(left), parse_ranges(right)) {
        (Some(left), Some(right)) if left == right => Verdict::SameEffect,
        (Some(left), Some(right)) if covers(&right, &left) => Verdict::MorePermissive,
        (Some(left), Some(right)) if covers(&left, &right) => Verdict::LessPermissive,
        (Some(_), Some(_)) => Verdict::Changed,
        _ => Verdict::CannotTell,
    };
    let shown = |text: &str| if text.is_empty() { "all".to_owned() } else { escape(text).into_owned() };
    let (subject, kernel) =
        if name == "cpus" { ("CPUs", "cpuset.cpus") } else { ("memory nodes", "cpuset.mems") };
    let draft = Draft::new(Section::Resources, subject, pair).texts(shown(left), shown(right)).kernel(kernel);
    report.push(draft.verdict(verdict).why("which of the node's the container may use"));
}

/// Merged ranges; the empty text is everything. `None` for what is no list.
fn parse_ranges(text: &str) -> Option<Vec<(u64, u64)>> {
    if text.trim().is_empty() {
        return Some(vec![(0, u64::MAX)]);
    }
    let parse = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    let mut ranges: Vec<(u64, u64)> =
        text.split(',').map(|part| parse(part.trim())).collect::<Option<_>>()?;
    ranges.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match merged.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => merged.push((first, last)),
        }
    }
    Some(merged)
}

fn covers(outer: &[(u64, u64)], inner: &[(u64, u64)]) -> bool {
    inner.iter().all(|(first, last)| outer.iter().any(|(from, to)| from <= first && last <= to))
}

pub(super) fn compare_hugepage_limits(pair: &Pair<'_>, report: &mut Report) {
    for item in pair.items_by_key(|item| text_member(item, "pageSize")) {
        let limit = item.pair.member("limit");
        // Here 0 is a limit: none of these pages.
        let amount = |node: &Node<'_>| node.integer().unwrap_or(i128::MAX);
        let (left, right) = (amount(&limit.left), amount(&limit.right));
        if left != right {
            let subject = format!("huge pages of {}", escape(&item.key));
            let draft = Draft::new(Section::Resources, subject, &limit);
            report.push(
                draft
                    .texts(shown(Unit::Bytes, left), shown(Unit::Bytes, right))
                    .verdict(Verdict::of_order(&left, &right))
                    .why("how many bytes of huge pages the container may take")
                    .kubernetes("resources.limits.hugepages-*")
                    .kernel("hugetlb.*.max"),
            );
        }
        walk_unknown(&item.pair, &["pageSize", "limit"], report);
    }
}

/// blockIO.*Device: a rate (a limit) or a weight by device number.
pub(super) fn compare_throttles(pair: &Pair<'_>, report: &mut Report) {
    let number =
        |item: &serde_json::Value, name: &str| item.get(name).map_or("0".to_owned(), ToString::to_string);
    let key = |item: &serde_json::Value| format!("{}:{}", number(item, "major"), number(item, "minor"));
    let is_bytes = pair.left.pointer.ends_with("BpsDevice");
    let unit = if is_bytes { Unit::BytesPerSecond } else { Unit::OperationsPerSecond };
    for item in pair.items_by_key(key) {
        let subject = format!("{} of device {}", subject_of(&pair.left.pointer), item.key);
        let rate = item.pair.member("rate");
        let amount = |node: &Node<'_>| node.integer().filter(|rate| *rate > 0).unwrap_or(i128::MAX);
        let (left, right) = (amount(&rate.left), amount(&rate.right));
        if left != right {
            let draft = Draft::new(Section::Resources, &subject, &rate).kernel("io.max");
            report.push(
                draft
                    .texts(shown(unit, left), shown(unit, right))
                    .verdict(Verdict::of_order(&left, &right))
                    .why("how many bytes or operations a second the device serves the container"),
            );
        }
        for name in ["weight", "leafWeight"] {
            let weight = item.pair.member(name);
            if weight.left.integer() != weight.right.integer() {
                let draft = Draft::new(Section::Resources, format!("{subject} {name}"), &weight);
                report.push(draft.why("the share of the disk when several want it").kernel("io.weight"));
            }
        }
        walk_unknown(&item.pair, &["major", "minor", "rate", "weight", "leafWeight"], report);
    }
}

/// linux.resources.unified: what is written to files of cgroup v2, word for word.
pub(super) fn compare_unified(pair: &Pair<'_>, report: &mut Report) {
    for name in pair.member_names() {
        let file = pair.member(name);
        let (left, right) = (file.left.text_or_empty().trim(), file.right.text_or_empty().trim());
        if left == right {
            continue;
        }
        let amount = |text: &str| match text {
            "" | "max" => Some(i128::MAX),
            text => text.parse().ok(),
        };
        let limits = ["memory.max", "memory.high", "memory.swap.max", "pids.max"];
        let verdict = match (limits.contains(&name), amount(left), amount(right)) {
            (true, Some(left), Some(right)) => Verdict::of_order(&left, &right),
            _ => Verdict::CannotTell,
        };
        let shown = |text: &str| if text.is_empty() { "-".to_owned() } else { escape(text).into_owned() };
        let draft = Draft::new(Section::Resources, format!("unified {}", escape(name)), &file);
        report.push(
            draft
                .texts(shown(left), shown(right))
                .verdict(verdict)
                .why("written to the cgroup's file as it is, after everything else"),
        );
    }
}
