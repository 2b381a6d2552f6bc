//! What daemons say of their containers and tasks, all asked at once, each within a bound.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinSet;

use super::api::{ContainerRecord, TaskRecord, Version};
use super::channel::{ApiError, DaemonChannel};
use crate::Host;
use crate::name::ContainerdNamespace;

/// How tonic calls every trouble with a connection: it adds nothing to the cause below it.
const TRANSPORT: &str = "transport error";

/// One daemon's account of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DaemonAccount {
    /// The socket that was asked.
    pub address: PathBuf,
    /// Its version; `None` when it did not answer at all.
    pub version: Option<Version>,
    /// Its containerd namespaces.
    pub namespaces: Vec<NamespaceAccount>,
    /// The first call that failed and why.
    pub failure: Option<String>,
}

/// A daemon's records in one containerd namespace.
#[derive(Debug, Clone, PartialEq)]
pub struct NamespaceAccount {
    /// Its name.
    pub name: ContainerdNamespace,
    /// Every container's record.
    pub containers: Vec<ContainerRecord>,
    /// Every task.
    pub tasks: Vec<TaskRecord>,
}

/// Asks the daemons behind `addresses`, each call at most `limit`. An account that breaks off keeps what it had.
///
/// Only the live host has sockets to ask: elsewhere there are no accounts.
#[must_use]
pub fn read_accounts(host: &Host, addresses: &[PathBuf], limit: Duration) -> Vec<DaemonAccount> {
    if !host.is_live() || addresses.is_empty() {
        return Vec::new();
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return addresses.iter().map(|address| unasked(address, &error)).collect(),
    };
    let mut accounts = runtime.block_on(async {
        let mut asked: JoinSet<DaemonAccount> =
            addresses.iter().map(|address| read_account(address.clone(), limit)).collect();
        let mut accounts = Vec::new();
        while let Some(account) = asked.join_next().await {
            accounts.extend(account.ok());
        }
        accounts
    });
    accounts.sort_by(|one, other| one.address.cmp(&other.address));
    accounts
}

fn unasked(address: &Path, error: &dyn Error) -> DaemonAccount {
    DaemonAccount { address: address.to_path_buf(), failure: Some(reason(error)), ..DaemonAccount::default() }
}

async fn read_account(address: PathBuf, limit: Duration) -> DaemonAccount {
    let mut account = DaemonAccount { address, ..DaemonAccount::default() };
    if let Err(error) = fill(&mut account, limit).await {
        account.failure = Some(reason(&error));
    }
    account
}

async fn fill(account: &mut DaemonAccount, limit: Duration) -> Result<(), ApiError> {
    let mut channel = DaemonChannel::connect(&account.address, limit).await?;
    account.version = Some(channel.version().await?);
    for name in channel.namespaces().await? {
        let containers = channel.containers(&name).await?;
        // The daemon asks the shims for this; one that hangs must not cost the records that are already here.
        let tasks = channel.tasks(&name).await;
        let (tasks, failure) = match tasks {
            Ok(tasks) => (tasks, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        account.namespaces.push(NamespaceAccount { name, containers, tasks });
        if let Some(error) = failure {
            return Err(error);
        }
    }
    Ok(())
}

/// The error and its causes in one line; a cause that only repeats what stands there already is left out.
fn reason(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) && next != TRANSPORT {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    crate::escape::escape(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_that_is_not_there_says_why() {
        let address = PathBuf::from("/nonexistent/containerd.sock");
        let accounts = read_accounts(&Host::live(), std::slice::from_ref(&address), Duration::from_secs(2));
        assert_eq!(accounts.len(), 1);
        let failure = accounts[0].failure.as_deref().unwrap_or_default();
        assert!(failure.contains("No such file or directory"), "{failure}");
        assert!(read_accounts(&Host::at("/"), &[address], Duration::from_secs(2)).is_empty());
    }
}
