//! A canary container through dockerd's own API: what `docker run` would get from a runtime of daemon.json.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inspect_probes::docker::{DockerChannel, DockerError, standard_output};
use inspect_probes::events::RuntimeExecWatch;
use inspect_probes::name::{ContainerId, Pid};
use inspect_probes::runtime_state::{RuntimeFamily, RuntimeState, read_runtime_state};
use inspect_probes::{Host, Node};
use serde_json::{Value, json};

use super::canary::{END_OF_REPORT, EXEC_STATUS, TERMINATED_STATUS};
use super::rootfs::{CanaryDirectory, needs_host_libraries};
use super::run::{CanaryError, CanaryReport, Subject, empty_report, milliseconds};

/// Where the program is bound into the container, whose image is empty.
const PROGRAM_DIRECTORY: &str = "/.inspect";
/// The image that is made and removed; its tag is our pid.
const IMAGE: &str = "inspect-canary";
/// The label of canaries; its value is the pid of the inspect that made one.
const LABEL: &str = "inspect.canary";
/// `filters={"label":["inspect.canary"]}`, as a URL carries it.
const OURS: &str = "filters=%7B%22label%22%3A%5B%22inspect.canary%22%5D%7D";

/// Verifies a runtime of dockerd's; `None` is its default. `binary` is the file that must run.
pub(crate) async fn run_docker_canary(
    host: &Host,
    socket: &Path,
    runtime: Option<&str>,
    binary: Option<PathBuf>,
    expected: Option<RuntimeFamily>,
    limit: Duration,
) -> Result<CanaryReport, CanaryError> {
    let name = runtime.map_or_else(|| "Docker's default".to_owned(), |name| format!("Docker runtime {name}"));
    let subject = Subject { name, binary, expected, systemd_cgroup: false };
    let channel = DockerChannel::new(socket, limit);
    let directory =
        CanaryDirectory::create(&ContainerId::new(format!("canary-{}-docker", std::process::id())))?;
    let mut canary = Canary { host, channel, subject: &subject, directory, container: None };
    canary.remove_leftovers().await;
    let mut report = empty_report(&subject);
    let outcome = canary.verify(runtime, &mut report).await;
    canary.remove(&mut report).await;
    outcome?;
    judge(&mut report);
    Ok(report)
}

struct Canary<'a> {
    host: &'a Host,
    channel: DockerChannel,
    subject: &'a Subject,
    directory: CanaryDirectory,
    container: Option<ContainerId>,
}

impl Canary<'_> {
    fn failed(&self, step: &'static str) -> impl FnOnce(DockerError) -> CanaryError + use<> {
        let runtime = self.subject.name.clone();
        move |source| CanaryError::Docker { step, runtime, source }
    }

    async fn verify(&mut self, runtime: Option<&str>, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let began = Instant::now();
        let id = self.create(runtime).await?;
        report.steps.push(("image and container".to_owned(), milliseconds(began)));
        let mut watch = RuntimeExecWatch::start(self.host).ok();
        let began = Instant::now();
        let path = format!("/containers/{}/start", id.as_str());
        self.channel.post(&path, None).await.map_err(self.failed("start the container"))?;
        report.steps.push(("create and start".to_owned(), milliseconds(began)));
        let watched = watch.as_mut().and_then(|watch| watch.find_create(&id, Duration::from_millis(500)));
        report.take_proof(self.state_of(&id)?, watched);
        self.exec(&id, report).await?;
        let began = Instant::now();
        let kill = format!("/containers/{}/kill?signal=SIGTERM", id.as_str());
        self.channel.post(&kill, None).await.map_err(self.failed("signal the init"))?;
        let wait = format!("/containers/{}/wait", id.as_str());
        let ended = self.channel.post(&wait, None).await.map_err(self.failed("wait for the end"))?;
        report.steps.push(("SIGTERM to end".to_owned(), milliseconds(began)));
        report.facts.insert("exit status after SIGTERM".to_owned(), ended["StatusCode"].to_string());
        Ok(())
    }

    /// An image without a file in it, and a container of it into which the program is bound.
    async fn create(&mut self, runtime: Option<&str>) -> Result<ContainerId, CanaryError> {
        let pid = std::process::id();
        let import = format!("/images/create?fromSrc=-&repo={IMAGE}&tag={pid}");
        // A tar archive of nothing is its end: two blocks of zeros.
        self.channel
            .post_bytes(&import, "application/x-tar", vec![0; 1024])
            .await
            .map_err(self.failed("import an empty image"))?;
        let mut binds = vec![format!("{}:{PROGRAM_DIRECTORY}:ro", self.directory.rootfs().display())];
        if needs_host_libraries() {
            binds.extend(["/usr", "/lib", "/lib64"].map(|path| format!("{path}:{path}:ro")));
        }
        let mut body = json!({
            "Image": format!("{IMAGE}:{pid}"),
            "Entrypoint": [format!("{PROGRAM_DIRECTORY}/canary")],
            "Cmd": ["canary", "observe"],
            "Labels": {LABEL: pid.to_string()},
            "HostConfig": {"NetworkMode": "none", "Binds": binds}
        });
        if let Some(runtime) = runtime {
            body["HostConfig"]["Runtime"] = Value::String(runtime.to_owned());
        }
        let create = format!("/containers/create?name=inspect-canary-{pid}");
        let made =
            self.channel.post(&create, Some(&body)).await.map_err(self.failed("create the container"))?;
        let id = ContainerId::new(made["Id"].as_str().unwrap_or_default());
        self.container = Some(id.clone());
        Ok(id)
    }

    async fn exec(&self, id: &ContainerId, report: &mut CanaryReport) -> Result<(), CanaryError> {
        let began = Instant::now();
        let body = json!({
            "Cmd": [format!("{PROGRAM_DIRECTORY}/canary"), "canary", "exec"],
            "AttachStdout": true, "AttachStderr": true
        });
        let path = format!("/containers/{}/exec", id.as_str());
        let exec = self.channel.post(&path, Some(&body)).await.map_err(self.failed("add an exec"))?;
        let exec = exec["Id"].as_str().unwrap_or_default();
        let body = json!({"Detach": false, "Tty": false}).to_string().into_bytes();
        let stream = self
            .channel
            .post_bytes(&format!("/exec/{exec}/start"), "application/json", body)
            .await
            .map_err(self.failed("execute in the container"))?;
        let looked = self.channel.get(&format!("/exec/{exec}/json")).await;
        let status = looked.map_err(self.failed("ask how the exec ended"))?["ExitCode"].to_string();
        report.steps.push(("exec to its end".to_owned(), milliseconds(began)));
        report.facts.insert("exit status of exec".to_owned(), status);
        let text = String::from_utf8_lossy(&standard_output(&stream)).into_owned();
        let facts =
            text.split_once(END_OF_REPORT).and_then(|(json, _)| serde_json::from_str(json.trim()).ok());
        let facts: BTreeMap<String, String> = facts.unwrap_or_default();
        report.facts.extend(facts.into_iter().map(|(name, value)| (format!("docker {name}"), value)));
        Ok(())
    }

    fn state_of(&self, id: &ContainerId) -> Result<Option<RuntimeState>, CanaryError> {
        let node = Node::read(self.host).map_err(|source| CanaryError::Node { source })?;
        let bundle = node.bundles.iter().find(|bundle| &bundle.id == id);
        Ok(bundle.and_then(|bundle| read_runtime_state(self.host, bundle).ok().flatten()))
    }

    /// Removes canaries whose inspect is gone: it was killed.
    async fn remove_leftovers(&self) {
        let known = self.channel.get(&format!("/containers/json?all=true&{OURS}")).await.unwrap_or_default();
        for container in known.as_array().into_iter().flatten() {
            let owner = container["Labels"][LABEL].as_str().and_then(|pid| pid.parse().ok()).map(Pid::new);
            if owner.is_some_and(|pid| self.host.proc().join(pid.to_string()).exists()) {
                continue;
            }
            let id = container["Id"].as_str().unwrap_or_default();
            let image = container["Image"].as_str().unwrap_or_default();
            for path in [format!("/containers/{id}?force=true&v=true"), format!("/images/{image}")] {
                // What is not there any more needs no removal.
                match self.channel.delete(&path).await {
                    Ok(()) | Err(_) => {}
                }
            }
        }
    }

    async fn remove(self, report: &mut CanaryReport) {
        let mut paths = vec![format!("/images/{IMAGE}:{}", std::process::id())];
        if let Some(id) = &self.container {
            paths.insert(0, format!("/containers/{}?force=true&v=true", id.as_str()));
        }
        for path in paths {
            match self.channel.delete(&path).await {
                Err(error) if !error.is_not_found() => {
                    report.failures.push(format!("the canary could not be removed: {error}"));
                }
                Ok(()) | Err(_) => {}
            }
        }
        if let Err(error) = self.directory.remove() {
            report.failures.push(error.to_string());
        }
    }
}

fn judge(report: &mut CanaryReport) {
    report.judge_family();
    for (fact, wanted) in
        [("exit status of exec", EXEC_STATUS), ("exit status after SIGTERM", TERMINATED_STATUS)]
    {
        let found = report.facts.get(fact).map_or("nothing", String::as_str);
        if found != wanted.to_string() {
            report.failures.push(format!("{fact}: {wanted} was wanted, {found} was found"));
        }
    }
}
