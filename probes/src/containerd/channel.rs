//! gRPC over a unix socket, with a bound on every wait: a daemon that hangs must not hang us.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

use crate::name::ContainerdNamespace;

/// The metadata key that names the containerd namespace of a call.
const NAMESPACE_KEY: &str = "containerd-namespace";
/// A list of containers carries every one's spec: 15 KB each.
const MESSAGE_LIMIT: usize = 256 << 20;

/// Why the daemon gave no answer.
#[derive(Debug, Error)]
pub enum ApiError {
    /// Nobody accepts connections on the socket, or we may not connect.
    #[error("cannot connect to `{}`", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// What the transport said.
        #[source]
        source: tonic::transport::Error,
    },
    /// The daemon answered with a gRPC status that is not OK.
    #[error("cannot call `{method}` on `{}`: {}", socket.display(), crate::escape::escape(status.message()))]
    Call {
        /// The socket's path.
        socket: PathBuf,
        /// `/PACKAGE.SERVICE/METHOD`.
        method: &'static str,
        /// The status.
        status: Box<tonic::Status>,
    },
    /// No answer within the time allowed.
    #[error("cannot wait longer for `{}`: no answer within {} ms", socket.display(), limit.as_millis())]
    Timeout {
        /// The socket's path.
        socket: PathBuf,
        /// The time allowed.
        limit: Duration,
    },
    /// A containerd namespace that cannot be sent: metadata is printable ASCII.
    #[error("cannot ask for containerd namespace `{name}`: it is not printable ASCII")]
    Namespace {
        /// The name.
        name: ContainerdNamespace,
    },
}

impl ApiError {
    /// Whether the daemon does not know the service: a plugin that is off or failed (`UNIMPLEMENTED`).
    #[must_use]
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == tonic::Code::Unimplemented)
    }

    /// Whether the daemon knows no such thing (`NOT_FOUND`).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Call { status, .. } if status.code() == tonic::Code::NotFound)
    }
}

/// A stream that has not begun yet.
pub(super) type PendingStream<R> = Pin<Box<dyn Future<Output = Result<Streaming<R>, tonic::Status>> + Send>>;

/// A connection to one daemon. Cheap to clone; calls of clones share the connection.
#[derive(Clone)]
pub struct DaemonChannel {
    grpc: Grpc<Channel>,
    socket: PathBuf,
    limit: Duration,
}

impl DaemonChannel {
    /// Connects to the daemon that listens on `socket`. `limit` bounds this and each unary call.
    ///
    /// # Errors
    /// [`ApiError`] when nobody listens, or not within `limit`.
    pub async fn connect(socket: &Path, limit: Duration) -> Result<Self, ApiError> {
        let target = socket.to_path_buf();
        let connector = tower::service_fn(move |_| {
            let target = target.clone();
            async move { UnixStream::connect(target).await.map(TokioIo::new) }
        });
        // The authority must be one that a server accepts: grpc-go refuses an empty one.
        let endpoint = Endpoint::from_static("http://localhost").connect_timeout(limit);
        let connected = timeout(limit, endpoint.connect_with_connector(connector)).await;
        let channel = connected
            .map_err(|_| ApiError::Timeout { socket: socket.to_path_buf(), limit })?
            .map_err(|source| ApiError::Connect { socket: socket.to_path_buf(), source })?;
        let grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_LIMIT);
        Ok(Self { grpc, socket: socket.to_path_buf(), limit })
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// How long a call may take.
    pub(super) const fn limit(&self) -> Duration {
        self.limit
    }

    /// Calls `method` (`/PACKAGE.SERVICE/METHOD`) in a containerd namespace, or in none.
    ///
    /// # Errors
    /// [`ApiError`] when the daemon refuses or does not answer in time.
    pub async fn unary<M, R>(
        &mut self,
        method: &'static str,
        namespace: Option<&ContainerdNamespace>,
        message: M,
    ) -> Result<R, ApiError>
    where
        M: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let request = in_namespace(message, namespace)?;
        let call = async {
            self.grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<M, R>::default();
            self.grpc.unary(request, PathAndQuery::from_static(method), codec).await
        };
        match timeout(self.limit, call).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failed(method, status)),
            Err(_) => Err(ApiError::Timeout { socket: self.socket.clone(), limit: self.limit }),
        }
    }

    /// Calls a method that answers with a stream. Nothing is bounded: a server of Go's sends the beginning of its answer with
    /// the first message, which may be long in coming. The call is sent when the future is first polled.
    pub(super) fn begin_stream<M, R>(&self, method: &'static str, message: M) -> PendingStream<R>
    where
        M: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc.clone();
        Box::pin(async move {
            grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = ProstCodec::<M, R>::default();
            let path = PathAndQuery::from_static(method);
            grpc.server_streaming(Request::new(message), path, codec).await.map(tonic::Response::into_inner)
        })
    }

    pub(super) fn failed(&self, method: &'static str, status: tonic::Status) -> ApiError {
        ApiError::Call { socket: self.socket.clone(), method, status: Box::new(status) }
    }
}

fn in_namespace<M>(message: M, namespace: Option<&ContainerdNamespace>) -> Result<Request<M>, ApiError> {
    let mut request = Request::new(message);
    if let Some(name) = namespace {
        let value = AsciiMetadataValue::try_from(name.as_str())
            .map_err(|_| ApiError::Namespace { name: name.clone() })?;
        request.metadata_mut().insert(NAMESPACE_KEY, value);
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn nobody_listening_is_said_with_the_socket() {
        let limit = Duration::from_secs(5);
        let error = block_on(DaemonChannel::connect(Path::new("/nonexistent.sock"), limit)).err().unwrap();
        assert_eq!(error.to_string(), "cannot connect to `/nonexistent.sock`");
    }

    #[test]
    fn a_daemon_that_hangs_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("hung.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = block_on(async {
            let mut channel = DaemonChannel::connect(&socket, Duration::from_millis(200)).await?;
            channel.unary::<(), ()>("/containerd.services.version.v1.Version/Version", None, ()).await
        });
        assert!(matches!(error, Err(ApiError::Timeout { .. })), "{error:?}");
    }

    #[test]
    fn a_namespace_that_is_no_metadata_is_refused() {
        assert!(in_namespace((), Some(&ContainerdNamespace::new("a\nb"))).is_err());
        assert!(in_namespace((), Some(&ContainerdNamespace::new("k8s.io"))).is_ok());
    }
}
