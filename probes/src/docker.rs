//! The Docker Engine API on its unix socket (<https://docs.docker.com/reference/api/engine/>): HTTP/1.1 with JSON.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use thiserror::Error;
use tokio::net::UnixStream;

/// Where dockerd listens when nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/docker.sock";

/// Why dockerd gave no answer.
#[derive(Debug, Error)]
pub enum DockerError {
    /// Nobody accepts connections on the socket, or we may not connect.
    #[error("cannot connect to `{}`", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The connection broke, or what came back is no HTTP.
    #[error("cannot call `{call}` on `{}`", socket.display())]
    Call {
        /// Method and path.
        call: String,
        /// The socket's path.
        socket: PathBuf,
        /// What the transport said.
        #[source]
        source: hyper::Error,
    },
    /// A path or header that HTTP cannot carry.
    #[error("cannot ask for `{call}`")]
    Request {
        /// Method and path.
        call: String,
        /// What is wrong with it.
        #[source]
        source: http::Error,
    },
    /// dockerd answered with an error.
    #[error("cannot call `{call}` on `{}`: dockerd answered {status}: {}", socket.display(), crate::escape::escape(message))]
    Refused {
        /// Method and path.
        call: String,
        /// The socket's path.
        socket: PathBuf,
        /// The status of HTTP.
        status: u16,
        /// dockerd's words.
        message: String,
    },
    /// The answer is not JSON.
    #[error("cannot parse the answer to `{call}`")]
    Json {
        /// Method and path.
        call: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// No answer within the time allowed.
    #[error("cannot wait longer for `{}`: no answer within {} ms", socket.display(), limit.as_millis())]
    Timeout {
        /// The socket's path.
        socket: PathBuf,
        /// The time allowed.
        limit: Duration,
    },
}

impl DockerError {
    /// Whether dockerd knows no such thing.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }
}

/// What dockerd says of itself (`GET /info`), as far as runtimes go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DockerInfo {
    /// `ServerVersion`.
    pub version: String,
    /// `DefaultRuntime` in force.
    pub default_runtime: String,
    /// `Runtimes` in force: the name, and the `path` where it has one.
    pub runtimes: BTreeMap<String, Option<String>>,
}

/// dockerd on its socket. Each call has a connection of its own.
#[derive(Debug, Clone)]
pub struct DockerChannel {
    socket: PathBuf,
    limit: Duration,
}

impl DockerChannel {
    /// Names the socket; `limit` bounds each call.
    #[must_use]
    pub fn new(socket: &Path, limit: Duration) -> Self {
        Self { socket: socket.to_owned(), limit }
    }

    /// `GET /info`.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn info(&self) -> Result<DockerInfo, DockerError> {
        Ok(parse_info(&self.get("/info").await?))
    }

    /// A `GET` whose answer is JSON.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn get(&self, path: &str) -> Result<Value, DockerError> {
        self.json(Method::GET, path, None).await
    }

    /// A `POST` of JSON (or of nothing) whose answer is JSON or empty.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, DockerError> {
        self.json(Method::POST, path, body).await
    }

    /// A `POST` of other bytes, with the bytes of the answer.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn post_bytes(
        &self,
        path: &str,
        content_type: &'static str,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, DockerError> {
        self.call(Method::POST, path, Some(content_type), body).await
    }

    /// A `DELETE`.
    ///
    /// # Errors
    /// [`DockerError`]
    pub async fn delete(&self, path: &str) -> Result<(), DockerError> {
        self.call(Method::DELETE, path, None, Vec::new()).await.map(|_answer| ())
    }

    async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, DockerError> {
        let call = format!("{method} {path}");
        let kind = body.map(|_| "application/json");
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let answer = self.call(method, path, kind, bytes).await?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&answer).map_err(|source| DockerError::Json { call, source })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: Option<&'static str>,
        body: Vec<u8>,
    ) -> Result<Vec<u8>, DockerError> {
        let call = format!("{method} {path}");
        // HTTP/1.1 wants a host; on a unix socket it has no meaning.
        let mut request = Request::builder().method(method).uri(path).header("host", "docker");
        if let Some(kind) = content_type {
            request = request.header("content-type", kind);
        }
        let request = request.body(Full::<Bytes>::from(body));
        let request = request.map_err(|source| DockerError::Request { call: call.clone(), source })?;
        let answer = tokio::time::timeout(self.limit, self.send(&call, request)).await;
        let (status, bytes) =
            answer.map_err(|_| DockerError::Timeout { socket: self.socket.clone(), limit: self.limit })??;
        // 304: it is so already.
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(bytes);
        }
        let said = serde_json::from_slice::<Value>(&bytes).unwrap_or_default();
        let message = said["message"].as_str().unwrap_or_default().to_owned();
        Err(DockerError::Refused { call, socket: self.socket.clone(), status: status.as_u16(), message })
    }

    async fn send(
        &self,
        call: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<(StatusCode, Vec<u8>), DockerError> {
        let broken =
            |source| DockerError::Call { call: call.to_owned(), socket: self.socket.clone(), source };
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| DockerError::Connect { socket: self.socket.clone(), source })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let bytes = response.into_body().collect().await?.to_bytes();
            Ok((status, bytes.to_vec()))
        };
        // The connection is driven while the exchange is waited for; what matters is the exchange.
        let mut exchange = std::pin::pin!(exchange);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            outcome = &mut exchange => outcome.map_err(broken),
            ended = &mut connection => match ended {
                Ok(()) => exchange.await.map_err(broken),
                Err(error) => Err(broken(error)),
            },
        }
    }
}

fn parse_info(answer: &Value) -> DockerInfo {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let runtimes = answer["Runtimes"].as_object().into_iter().flatten();
    DockerInfo {
        version: text(&answer["ServerVersion"]),
        default_runtime: text(&answer["DefaultRuntime"]),
        runtimes: runtimes
            .map(|(name, runtime)| (name.clone(), runtime["path"].as_str().map(str::to_owned)))
            .collect(),
    }
}

/// The standard output within a stream of an exec without a terminal: frames of a stream's number, three zeros, a length and bytes.
#[must_use]
pub fn standard_output(mut stream: &[u8]) -> Vec<u8> {
    let mut output = Vec::new();
    while let [number, _, _, _, a, b, c, d, rest @ ..] = stream {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let (frame, after) = rest.split_at(length.min(rest.len()));
        if *number == 1 {
            output.extend_from_slice(frame);
        }
        stream = after;
    }
    output
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runtimes_in_force_are_read() {
        let answer = serde_json::json!({
            "ServerVersion": "26.1.5", "DefaultRuntime": "crun",
            "Runtimes": {"crun": {"path": "/usr/bin/crun"}, "io.containerd.runc.v2": {}}
        });
        let info = parse_info(&answer);
        assert_eq!(info.default_runtime, "crun");
        assert_eq!(info.runtimes["crun"].as_deref(), Some("/usr/bin/crun"));
        assert_eq!(info.runtimes["io.containerd.runc.v2"], None);
        assert_eq!(parse_info(&Value::Null), DockerInfo::default());
    }

    #[test]
    fn frames_are_taken_apart_and_what_is_cut_off_harms_nothing() {
        let stream = b"\x01\0\0\0\0\0\0\x02ab\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\x09c";
        assert_eq!(standard_output(stream), b"abc");
        assert_eq!(standard_output(b"\x01\0"), b"");
    }
}
