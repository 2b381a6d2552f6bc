//! containerd's events: `containerd.services.events.v1.Events/Subscribe`, and the messages of `api/events/*.proto`.
//!
//! containerd keeps no history: a subscriber is told what happens from then on.

use std::time::Duration;

use prost::Message as _;
use prost_types::{Any, Timestamp};
use serde::Serialize;
use tokio::time::timeout;
use tonic::Streaming;

use super::channel::{ApiError, DaemonChannel, PendingStream};
use crate::name::{ContainerId, ContainerdNamespace, Pid};

const SUBSCRIBE: &str = "/containerd.services.events.v1.Events/Subscribe";

#[derive(Clone, PartialEq, prost::Message)]
struct SubscribeRequest {
    #[prost(string, repeated, tag = "1")]
    filters: Vec<String>,
}

/// `containerd.services.events.v1.Envelope`, in 2.x `containerd.types.Envelope`: the same fields.
#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(message, optional, tag = "1")]
    timestamp: Option<Timestamp>,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(string, tag = "3")]
    topic: String,
    #[prost(message, optional, tag = "4")]
    event: Option<Any>,
}

/// `TaskCreate`.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskCreate {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    bundle: String,
    #[prost(uint32, tag = "6")]
    pid: u32,
}

/// `TaskStart`; `TaskOOM`, `TaskPaused` and `TaskResumed` are its first field alone.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskStart {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(uint32, tag = "2")]
    pid: u32,
}

/// `TaskDelete`.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskDelete {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(uint32, tag = "2")]
    pid: u32,
    #[prost(uint32, tag = "3")]
    exit_status: u32,
    #[prost(string, tag = "5")]
    id: String,
}

/// `TaskExit`: `id` is the container's, or an exec's.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskExit {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
    #[prost(uint32, tag = "4")]
    exit_status: u32,
}

/// `TaskExecAdded` and `TaskExecStarted`.
#[derive(Clone, PartialEq, prost::Message)]
struct TaskExec {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(string, tag = "2")]
    exec_id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
}

/// `ContainerCreate`; update and delete begin with the id as well.
#[derive(Clone, PartialEq, prost::Message)]
struct ContainerCreate {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    image: String,
    #[prost(message, optional, tag = "3")]
    runtime: Option<EventRuntime>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EventRuntime {
    #[prost(string, tag = "1")]
    name: String,
}

/// An event of containerd's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DaemonEvent {
    /// Seconds since 1970.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanoseconds: i32,
    /// The containerd namespace.
    pub containerd_namespace: ContainerdNamespace,
    /// `/tasks/exit`
    pub topic: String,
    /// The container that it is about; images and snapshots have none.
    pub container: Option<ContainerId>,
    /// The process.
    pub pid: Option<Pid>,
    /// The exec process's id, when it is about one.
    pub exec: Option<String>,
    /// The exit status of an exit or a delete.
    pub exit_status: Option<u32>,
    /// More of it in words: image, runtime, bundle; hostile.
    pub detail: Option<String>,
}

/// A subscription.
pub struct DaemonEvents {
    stream: Subscription,
    daemon: DaemonChannel,
}

/// The daemon answers with its first event.
enum Subscription {
    Pending(PendingStream<Envelope>),
    Begun(Box<Streaming<Envelope>>),
}

impl DaemonChannel {
    /// Subscribes. `filters` are containerd's (`topic~="^/tasks/"`); an event that one of them matches is told, and all
    /// are without filters. The daemon answers with its first event only: a refusal that does not come within `limit` is
    /// told by [`DaemonEvents::next`].
    ///
    /// # Errors
    /// [`ApiError`] when the daemon refuses at once.
    pub async fn subscribe(
        &mut self,
        filters: Vec<String>,
        limit: Duration,
    ) -> Result<DaemonEvents, ApiError> {
        let mut pending = self.begin_stream(SUBSCRIBE, SubscribeRequest { filters });
        let stream = match timeout(limit, &mut pending).await {
            Ok(Ok(stream)) => Subscription::Begun(Box::new(stream)),
            Ok(Err(status)) => return Err(self.failed(SUBSCRIBE, status)),
            Err(_) => Subscription::Pending(pending),
        };
        Ok(DaemonEvents { stream, daemon: self.clone() })
    }
}

impl DaemonEvents {
    /// The next event: waits for it, and may be dropped while it waits. `None` when the daemon ended the stream.
    ///
    /// # Errors
    /// [`ApiError`] when the connection breaks, as when the daemon is restarted.
    pub async fn next(&mut self) -> Result<Option<DaemonEvent>, ApiError> {
        loop {
            let begun = match &mut self.stream {
                Subscription::Pending(pending) => pending.await,
                Subscription::Begun(stream) => {
                    let next =
                        stream.message().await.map_err(|status| self.daemon.failed(SUBSCRIBE, status))?;
                    return Ok(next.map(DaemonEvent::from));
                }
            };
            let begun = begun.map_err(|status| self.daemon.failed(SUBSCRIBE, status))?;
            self.stream = Subscription::Begun(Box::new(begun));
        }
    }
}

impl From<Envelope> for DaemonEvent {
    fn from(envelope: Envelope) -> Self {
        let time = envelope.timestamp.unwrap_or_default();
        let mut event = Self {
            seconds: time.seconds,
            nanoseconds: time.nanos,
            containerd_namespace: ContainerdNamespace::new(envelope.namespace),
            topic: envelope.topic,
            container: None,
            pid: None,
            exec: None,
            exit_status: None,
            detail: None,
        };
        // A payload that does not decode leaves what the envelope says.
        if let Some(any) = envelope.event {
            match fill(&mut event, &any) {
                Ok(()) | Err(_) => {}
            }
        }
        event
    }
}

fn fill(event: &mut DaemonEvent, any: &Any) -> Result<(), prost::DecodeError> {
    let bytes = any.value.as_slice();
    let pid = |pid: u32| Some(pid).filter(|pid| *pid != 0).map(Pid::new);
    let id = |id: String| Some(id).filter(|id| !id.is_empty()).map(ContainerId::new);
    match any.type_url.rsplit(['.', '/']).next().unwrap_or_default() {
        "TaskCreate" => {
            let payload = TaskCreate::decode(bytes)?;
            event.container = id(payload.container_id);
            event.pid = pid(payload.pid);
            event.detail = Some(payload.bundle);
        }
        "TaskStart" | "TaskOOM" | "TaskPaused" | "TaskResumed" | "TaskCheckpointed" => {
            let payload = TaskStart::decode(bytes)?;
            event.container = id(payload.container_id);
            event.pid = pid(payload.pid);
        }
        "TaskDelete" => {
            let payload = TaskDelete::decode(bytes)?;
            event.exec = Some(payload.id).filter(|id| !id.is_empty() && *id != payload.container_id);
            event.container = id(payload.container_id);
            event.pid = pid(payload.pid);
            event.exit_status = Some(payload.exit_status);
        }
        "TaskExit" => {
            let payload = TaskExit::decode(bytes)?;
            event.exec = Some(payload.id).filter(|id| *id != payload.container_id);
            event.container = id(payload.container_id);
            event.pid = pid(payload.pid);
            event.exit_status = Some(payload.exit_status);
        }
        "TaskExecAdded" | "TaskExecStarted" => {
            let payload = TaskExec::decode(bytes)?;
            event.container = id(payload.container_id);
            event.exec = Some(payload.exec_id);
            event.pid = pid(payload.pid);
        }
        "ContainerCreate" | "ContainerUpdate" | "ContainerDelete" => {
            let payload = ContainerCreate::decode(bytes)?;
            event.container = id(payload.id);
            let runtime = payload.runtime.map(|runtime| runtime.name).unwrap_or_default();
            let words: Vec<String> =
                [payload.image, runtime].into_iter().filter(|word| !word.is_empty()).collect();
            event.detail = Some(words.join(" ")).filter(|text| !text.is_empty());
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(topic: &str, kind: &str, value: Vec<u8>) -> DaemonEvent {
        let any = Any { type_url: format!("containerd.events.{kind}"), value };
        let timestamp = Some(Timestamp { seconds: 7, nanos: 8 });
        DaemonEvent::from(Envelope {
            timestamp,
            namespace: "default".into(),
            topic: topic.into(),
            event: Some(any),
        })
    }

    #[test]
    fn an_exit_has_a_status_and_an_execs_exit_its_id() {
        let exit = TaskExit { container_id: "web".into(), id: "web".into(), pid: 9, exit_status: 137 };
        let told = event("/tasks/exit", "TaskExit", exit.encode_to_vec());
        assert_eq!((told.exit_status, told.exec, told.pid), (Some(137), None, Some(Pid::new(9))));
        let exit = TaskExit { container_id: "web".into(), id: "e1".into(), pid: 9, exit_status: 0 };
        let told = event("/tasks/exit", "TaskExit", exit.encode_to_vec());
        assert_eq!((told.exec.as_deref(), told.exit_status, told.seconds), (Some("e1"), Some(0), 7));
    }

    #[test]
    fn an_oom_is_its_container_and_junk_leaves_the_envelope() {
        let oom = event("/tasks/oom", "TaskOOM", b"\x0a\x03web".to_vec());
        assert_eq!(oom.container, Some(ContainerId::new("web")));
        let junk = event("/tasks/exit", "TaskExit", vec![0xff; 3]);
        assert_eq!((junk.topic.as_str(), junk.container), ("/tasks/exit", None));
    }
}
