//! The reading calls of the CRI runtime service (kubernetes/cri-api, runtime.v1), which containerd's CRI plugin serves on its socket.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::channel::{ApiError, DaemonChannel};

/// What the CRI plugin says of itself and of its runtimes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CriStatus {
    /// `RuntimeReady`.
    pub runtime_ready: bool,
    /// `default_runtime_name` in force.
    pub default_handler: Option<String>,
    /// The configured handlers.
    pub handlers: Vec<CriHandler>,
    /// `sandbox_image` in force; containerd 2.x does not say.
    pub sandbox_image: Option<String>,
}

/// A runtime handler of the CRI plugin as it is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CriHandler {
    /// Its name.
    pub name: String,
    /// `runtime_type`.
    pub runtime_type: String,
    /// `BinaryName`; `None` leaves it to the shim.
    pub binary_name: Option<String>,
    /// `SystemdCgroup`.
    pub systemd_cgroup: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
}

/// What the plugin answers to all but `Version` until it has read its pods and containers (1.6.20 to 2.1). containerd 1.6 serves
/// and tells systemd that it is ready before that; later ones wait for the plugin.
const NOT_INITIALIZED: &str = "server is not initialized yet";
/// How often it is asked again.
const POLL: Duration = Duration::from_millis(100);

impl DaemonChannel {
    /// `RuntimeService/Status` with everything that the plugin tells; `None` when no CRI plugin serves. A plugin that is not
    /// initialized yet is waited for as long as the channel's calls may take.
    ///
    /// # Errors
    /// [`ApiError`] when the daemon refuses otherwise or does not answer in time.
    pub async fn cri_status(&mut self) -> Result<Option<CriStatus>, ApiError> {
        let deadline = Instant::now() + self.limit();
        loop {
            let request = StatusRequest { verbose: true };
            match self.unary::<_, StatusResponse>("/runtime.v1.RuntimeService/Status", None, request).await {
                Ok(response) => return Ok(Some(read_status(response))),
                Err(error) if error.is_unimplemented() => return Ok(None),
                Err(error) if is_not_initialized(&error) && Instant::now() < deadline => sleep(POLL).await,
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_not_initialized(error: &ApiError) -> bool {
    matches!(error, ApiError::Call { status, .. } if status.message().contains(NOT_INITIALIZED))
}

fn read_status(response: StatusResponse) -> CriStatus {
    let conditions = response.status.unwrap_or_default().conditions;
    let runtime_ready =
        conditions.iter().any(|condition| condition.kind == "RuntimeReady" && condition.status);
    let config = response.info.get("config").map(String::as_str).unwrap_or_default();
    CriStatus { runtime_ready, ..parse_config(config) }
}

/// The plugin's config as JSON: the parts that every generation from 1.6 to 2.1 has.
fn parse_config(json: &str) -> CriStatus {
    let config: Value = serde_json::from_str(json).unwrap_or_default();
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let runtimes = config["containerd"]["runtimes"].as_object();
    let handlers = runtimes.into_iter().flatten().map(|(name, table)| CriHandler {
        name: name.clone(),
        runtime_type: text(&table["runtimeType"]).unwrap_or_default(),
        binary_name: text(&table["options"]["BinaryName"]),
        systemd_cgroup: table["options"]["SystemdCgroup"].as_bool().unwrap_or(false),
    });
    CriStatus {
        runtime_ready: false,
        default_handler: text(&config["containerd"]["defaultRuntimeName"]),
        handlers: handlers.collect(),
        sandbox_image: text(&config["sandboxImage"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plugins_config_names_handlers_and_the_default() {
        let json = r#"{"containerd":{"defaultRuntimeName":"crun","runtimes":{"crun":{"runtimeType":"io.containerd.runc.v2",
            "options":{"BinaryName":"/usr/bin/crun","SystemdCgroup":true}},"runc":{"runtimeType":"io.containerd.runc.v2","options":null}}},
            "sandboxImage":"registry.k8s.io/pause:3.8"}"#;
        let status = parse_config(json);
        assert_eq!(status.default_handler.as_deref(), Some("crun"));
        assert_eq!(status.sandbox_image.as_deref(), Some("registry.k8s.io/pause:3.8"));
        let crun = status.handlers.iter().find(|handler| handler.name == "crun").unwrap();
        assert_eq!((crun.binary_name.as_deref(), crun.systemd_cgroup), (Some("/usr/bin/crun"), true));
        assert!(
            status.handlers.iter().any(|handler| handler.name == "runc" && handler.binary_name.is_none())
        );
    }

    #[test]
    fn what_is_not_json_tells_nothing() {
        assert_eq!(parse_config("{"), CriStatus::default());
    }
}
