//! Which container a user means.

use inspect_probes::bundle::{Bundle, read_spec_excerpt};
use inspect_probes::node::NodeError;
use inspect_probes::{Host, Node};
use thiserror::Error;

use crate::error::CommandError;

/// Why there is no one container to speak of.
#[derive(Debug, Error)]
enum ContainerError {
    #[error("cannot find a running container")]
    NoneRunning,
    #[error("cannot choose between {} running containers: {}", names.len(), names.join(", "))]
    SeveralRunning { names: Vec<String> },
}

/// `default/web`, escaped.
pub(super) fn name_of(bundle: &Bundle) -> String {
    format!("{}/{}", bundle.containerd_namespace, bundle.id)
}

fn read_node(host: &Host) -> Result<Node, CommandError> {
    Node::read(host).map_err(CommandError::trouble)
}

/// The container that an id, a unique prefix, NAMESPACE/ID or a name means.
pub(super) fn find_container(host: &Host, query: &str) -> Result<Bundle, CommandError> {
    read_node(host)?.locate(host, query).map_err(refuse)
}

fn refuse(error: NodeError) -> CommandError {
    let hint = match &error {
        NodeError::Locate(_) => "run `inspect tree` to list every container on this node",
        NodeError::Unreadable { .. } => "containerd's state is root's: run it with sudo",
    };
    CommandError::trouble(error).hint(hint)
}

/// The one container whose init runs. Pods' sandboxes are nobody's "the container".
pub(super) fn find_live(host: &Host) -> Result<Bundle, CommandError> {
    let mut node = read_node(host)?;
    if node.bundles.is_empty() && !node.unreadable.is_empty() {
        return Err(refuse(NodeError::Unreadable { source: node.unreadable.swap_remove(0) }));
    }
    let runs = |bundle: &&Bundle| {
        let init = bundle.init_pid.and_then(|pid| node.processes.get(pid));
        let sandbox = || read_spec_excerpt(host, bundle).ok().flatten().is_some_and(|spec| spec.is_sandbox());
        init.is_some_and(|stat| !stat.state.has_ended()) && !sandbox()
    };
    let running: Vec<&Bundle> = node.bundles.iter().filter(runs).collect();
    match running.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(CommandError::trouble(ContainerError::NoneRunning)
            .hint("start one, or name a stopped one by its id: `inspect tree --all` lists them")),
        several => {
            let names: Vec<String> = several.iter().map(|bundle| format!("`{}`", name_of(bundle))).collect();
            let hint = format!("name one, such as {}", name_of(several[0]));
            Err(CommandError::trouble(ContainerError::SeveralRunning { names }).hint(hint))
        }
    }
}
