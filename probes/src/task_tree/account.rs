//! What a daemon says, beside what the host shows.

use std::collections::HashMap;
use std::path::Path;

use super::model::{ApiSummary, Finding, FindingKind};
use crate::containerd::{ContainerRecord, DaemonAccount, TaskRecord, TaskStatus};
use crate::name::{ContainerId, ContainerdNamespace};

/// What a daemon says of one container.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct TaskAccount<'a> {
    pub(super) record: Option<&'a ContainerRecord>,
    pub(super) task: Option<&'a TaskRecord>,
}

/// One daemon's account, by containerd namespace and id.
#[derive(Debug, Default)]
pub(super) struct AccountIndex<'a> {
    account: Option<&'a DaemonAccount>,
    tasks: HashMap<(&'a str, &'a str), TaskAccount<'a>>,
}

impl<'a> AccountIndex<'a> {
    pub(super) fn new(accounts: &'a [DaemonAccount], address: Option<&Path>) -> Self {
        let account = accounts.iter().find(|account| Some(account.address.as_path()) == address);
        let mut tasks: HashMap<(&str, &str), TaskAccount<'a>> = HashMap::new();
        for namespace in account.iter().flat_map(|account| &account.namespaces) {
            for record in &namespace.containers {
                tasks.entry((namespace.name.as_str(), record.id.as_str())).or_default().record = Some(record);
            }
            for task in &namespace.tasks {
                tasks.entry((namespace.name.as_str(), task.id.as_str())).or_default().task = Some(task);
            }
        }
        Self { account, tasks }
    }

    pub(super) fn get(&self, namespace: &ContainerdNamespace, id: &ContainerId) -> TaskAccount<'a> {
        self.tasks.get(&(namespace.as_str(), id.as_str())).copied().unwrap_or_default()
    }

    pub(super) fn summary(&self) -> ApiSummary {
        match self.account {
            None => ApiSummary::NotAsked,
            Some(account) => match (&account.version, &account.failure) {
                (Some(version), missing) => {
                    ApiSummary::Answered { version: version.version.clone(), missing: missing.clone() }
                }
                (None, reason) => ApiSummary::Silent { reason: reason.clone().unwrap_or_default() },
            },
        }
    }

    /// The containerd namespaces that the daemon has.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &'a ContainerdNamespace> {
        self.account.into_iter().flat_map(|account| &account.namespaces).map(|namespace| &namespace.name)
    }

    /// Records in `namespace` of which neither the host nor the daemon shows a task.
    pub(super) fn records_without_task(
        &self,
        namespace: &ContainerdNamespace,
        on_host: &dyn Fn(&ContainerId) -> bool,
    ) -> Vec<ContainerId> {
        let accounts = self.account.into_iter().flat_map(|account| &account.namespaces);
        let records =
            accounts.filter(|account| account.name == *namespace).flat_map(|account| &account.containers);
        let without =
            records.filter(|record| self.get(namespace, &record.id).task.is_none() && !on_host(&record.id));
        without.map(|record| record.id.clone()).collect()
    }

    /// Tasks that the daemon has and of which the host shows nothing.
    pub(super) fn unseen_tasks(
        &self,
        on_host: &dyn Fn(&ContainerdNamespace, &ContainerId) -> bool,
    ) -> Vec<Finding> {
        let namespaces = self.account.into_iter().flat_map(|account| &account.namespaces);
        let tasks =
            namespaces.flat_map(|account| account.tasks.iter().map(move |task| (&account.name, task)));
        let unseen =
            tasks.filter(|(name, task)| !on_host(name, &task.id) && task.status != TaskStatus::Unknown);
        unseen
            .map(|(name, task)| Finding {
                kind: FindingKind::TaskNotFound,
                message: format!(
                    "the daemon has a task `{name}/{}` of which the host shows nothing",
                    task.id
                ),
            })
            .collect()
    }
}
