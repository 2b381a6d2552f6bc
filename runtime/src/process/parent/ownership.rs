//! Whose the container's cgroup is.

use super::Creation;
use crate::error::RuntimeError;
use crate::user_namespace;

impl Creation<'_> {
    /// Gives the cgroup to `owner`, as the container numbers its users: without that a container with a user namespace could make
    /// no cgroups below its own. Who is not root can give nothing away.
    pub(super) fn give_cgroup(&self, owner: Option<u32>) -> Result<(), RuntimeError> {
        let (Some(owner), Some(cgroup), Some((pid, _))) = (owner, &self.cgroup, &self.child) else {
            return Ok(());
        };
        let outside = user_namespace::user_outside(*pid, owner)?;
        match outside.filter(|outside| *outside != self.context.uid).map(|outside| cgroup.delegate(outside)) {
            Some(Err(error)) if error.is_permission() && user_namespace::is_unprivileged() => Ok(()),
            given => Ok(given.unwrap_or(Ok(()))?),
        }
    }
}
