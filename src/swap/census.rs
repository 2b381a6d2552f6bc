//! Which tasks run: counted before and after a restart, so that every loss is told.

use std::collections::BTreeMap;
use std::path::Path;

use inspect_probes::containerd::{DaemonChannel, TaskStatus};
use inspect_probes::name::{ContainerId, ContainerdNamespace, Pid};
use serde::Serialize;

use super::daemon::CALL_LIMIT;
use super::error::SwapError;

/// The tasks that run, by containerd namespace and id, with their init processes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Census(BTreeMap<(ContainerdNamespace, ContainerId), Pid>);

/// What a restart did to the tasks.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CensusReport {
    pub(crate) before: usize,
    pub(crate) survived: usize,
    /// `NAMESPACE/ID` of each task that ran before and does not after.
    pub(crate) lost: Vec<String>,
}

impl Census {
    /// Asks the daemon for every containerd namespace's tasks.
    pub(crate) async fn take(socket: &Path) -> Result<Self, SwapError> {
        let mut channel = DaemonChannel::connect(socket, CALL_LIMIT).await?;
        let mut tasks = BTreeMap::new();
        for namespace in channel.namespaces().await? {
            for task in channel.tasks(&namespace).await? {
                let running = matches!(task.status, TaskStatus::Running | TaskStatus::Paused);
                if let (true, Some(pid)) = (running, task.pid) {
                    tasks.insert((namespace.clone(), task.id), pid);
                }
            }
        }
        Ok(Self(tasks))
    }

    /// Compares with a census taken later. A task with another init process is lost too: it is not the same one.
    pub(crate) fn compare(&self, later: &Self) -> CensusReport {
        let lost: Vec<String> = self
            .0
            .iter()
            .filter(|(key, pid)| later.0.get(key) != Some(pid))
            .map(|((namespace, id), _)| format!("{namespace}/{id}"))
            .collect();
        CensusReport { before: self.0.len(), survived: self.0.len() - lost.len(), lost }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn census(tasks: &[(&str, u32)]) -> Census {
        let key = |id: &str| (ContainerdNamespace::new("default"), ContainerId::new(id));
        Census(tasks.iter().map(|(id, pid)| (key(id), Pid::new(*pid))).collect())
    }

    #[test]
    fn a_task_that_is_gone_or_another_is_lost_and_a_new_one_is_not() {
        let report =
            census(&[("a", 1), ("b", 2), ("c", 3)]).compare(&census(&[("a", 1), ("b", 9), ("d", 4)]));
        assert_eq!((report.before, report.survived), (3, 1));
        assert_eq!(report.lost, ["default/b", "default/c"]);
    }
}
