//! The proof that a swap is in force: a canary container under the new runtime.

use std::time::Duration;

use inspect_probes::Host;

use super::error::SwapError;
use super::plan::Plan;
use crate::verify::{CanaryReport, Subject, run_canary, run_cri_canary};

/// Runs a canary pod through CRI, as the kubelet would: with no handler where the plan makes its own the default.
pub(crate) async fn prove_pod(host: &Host, plan: &Plan, limit: Duration) -> Result<CanaryReport, SwapError> {
    let handler = if plan.make_default { "" } else { &plan.chosen.handler };
    let report = run_cri_canary(host, &plan.daemon.socket, handler, plan.chosen.family, limit).await?;
    if report.is_verified() { Ok(report) } else { Err(SwapError::NotProven { failures: report.failures }) }
}

/// Runs a canary under the plan's runtime through containerd's own API; fails unless it proves that runtime.
pub(crate) async fn prove(host: &Host, plan: &Plan, limit: Duration) -> Result<CanaryReport, SwapError> {
    let binary =
        plan.chosen.file.clone().filter(|_| plan.chosen.handler != "runc" || plan.chosen.write.is_some());
    let subject = Subject {
        name: plan.chosen.handler.clone(),
        binary,
        expected: plan.chosen.family,
        systemd_cgroup: plan.systemd_cgroup_after(),
    };
    let report = run_canary(host, &plan.daemon.socket, &subject, limit).await?;
    if report.is_verified() { Ok(report) } else { Err(SwapError::NotProven { failures: report.failures }) }
}

/// Runs a canary that asks for no runtime, as `ctr run` does: what stands in for runc must have made it with the plan's.
pub(crate) async fn prove_stand_in(
    host: &Host,
    plan: &Plan,
    limit: Duration,
) -> Result<CanaryReport, SwapError> {
    let subject = Subject {
        name: "the shim's default".to_owned(),
        binary: None,
        expected: plan.chosen.family,
        systemd_cgroup: false,
    };
    let report = run_canary(host, &plan.daemon.socket, &subject, limit).await?;
    if report.is_verified() { Ok(report) } else { Err(SwapError::NotProven { failures: report.failures }) }
}
