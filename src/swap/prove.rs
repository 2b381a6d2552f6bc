//! The proof that a swap is in force: a canary container under the new runtime.

use std::time::Duration;

use inspect_probes::Host;

use super::error::SwapError;
use super::plan::Plan;
use crate::verify::{CanaryReport, Subject, run_canary};

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
