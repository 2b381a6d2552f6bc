//! A canary pod through the CRI plugin: what the kubelet and crictl would get from a runtime handler.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inspect_probes::containerd::{ApiError, CriStatus, DaemonChannel};
use inspect_probes::events::RuntimeExecWatch;
use inspect_probes::name::{ContainerId, ContainerdNamespace};
use inspect_probes::runtime_state::{RuntimeFamily, RuntimeState, read_runtime_state};
use inspect_probes::{Host, Node};

use super::canary::{END_OF_REPORT, EXEC_STATUS};
use super::cri_api::{self, CriMount};
use super::observe;
use super::rootfs::{CanaryDirectory, needs_host_libraries};
use super::run::{CanaryError, CanaryReport, NAMESPACE, Subject, empty_report, milliseconds};
use super::sandbox_image::import_sandbox_image;

/// Where the program is bound into the pod's container, whatever the image holds.
const PROGRAM_DIRECTORY: &str = "/.inspect";

/// Verifies a runtime handler of the CRI plugin with a pod of one container; an empty name is the default handler.
///
/// The pod shares the host's network, so it needs no CNI. Its image is the sandbox image; where the node lacks it, one of our own is
/// imported under that name and removed again.
pub(crate) async fn run_cri_canary(
    host: &Host,
    socket: &Path,
    handler: &str,
    expected: Option<RuntimeFamily>,
    limit: Duration,
) -> Result<CanaryReport, CanaryError> {
    let name = if handler.is_empty() { "CRI's default".to_owned() } else { format!("CRI handler {handler}") };
    let fail = |step| {
        let runtime = name.clone();
        move |source| CanaryError::Step { step, runtime, source }
    };
    let mut channel = DaemonChannel::connect(socket, limit).await.map_err(fail("reach the daemon"))?;
    let status = channel.cri_status().await.map_err(fail("ask the CRI plugin"))?;
    let status = status.ok_or_else(|| CanaryError::NoCri { socket: socket.to_path_buf() })?;
    let (binary, systemd_cgroup) = configured(&status, handler);
    let subject = Subject { name: name.clone(), binary, expected, systemd_cgroup };
    let id = ContainerId::new(format!("canary-{}-pod", std::process::id()));
    let directory = CanaryDirectory::create(&id)?;
    let mut pod = Pod {
        host,
        socket,
        channel,
        handler,
        subject: &subject,
        directory,
        sandbox: None,
        image: None,
        limit,
    };
    let mut report = CanaryReport { is_pod: true, ..empty_report(&subject) };
    let outcome = pod.verify(&id, &status, &mut report).await;
    pod.remove(&mut report).await;
    outcome?;
    judge(&mut report);
    Ok(report)
}

/// The binary and cgroup driver that the plugin itself says the handler has.
fn configured(status: &CriStatus, handler: &str) -> (Option<PathBuf>, bool) {
    let name = if handler.is_empty() { status.default_handler.as_deref().unwrap_or("runc") } else { handler };
    let found = status.handlers.iter().find(|configured| configured.name == name);
    let binary = found.and_then(|found| found.binary_name.as_deref()).filter(|name| name.starts_with('/'));
    (binary.map(PathBuf::from), found.is_some_and(|found| found.systemd_cgroup))
}

struct Pod<'a> {
    host: &'a Host,
    socket: &'a Path,
    channel: DaemonChannel,
    handler: &'a str,
    subject: &'a Subject,
    directory: CanaryDirectory,
    sandbox: Option<ContainerId>,
    image: Option<String>,
    limit: Duration,
}

impl Pod<'_> {
    fn failed(&self, step: &'static str) -> impl FnOnce(ApiError) -> CanaryError + use<> {
        let runtime = self.subject.name.clone();
        move |source| CanaryError::Step { step, runtime, source }
    }

    async fn verify(
        &mut self,
        id: &ContainerId,
        status: &CriStatus,
        report: &mut CanaryReport,
    ) -> Result<(), CanaryError> {
        let mut watch = RuntimeExecWatch::start(self.host).ok();
        let config = cri_api::pod_config(id.as_str(), self.subject.systemd_cgroup);
        let began = Instant::now();
        let image = self.run_sandbox(&config, status.sandbox_image.as_deref()).await?;
        report.steps.push(("run the sandbox".to_owned(), milliseconds(began)));
        let Some(sandbox) = self.sandbox.clone() else { return Ok(()) };
        let sandbox_state = self.state_of(&sandbox)?;
        let began = Instant::now();
        let command =
            |role: &str| vec![format!("{PROGRAM_DIRECTORY}/canary"), "canary".to_owned(), role.to_owned()];
        let mounts = self.mounts();
        let container = cri_api::create_container(
            &mut self.channel,
            &sandbox,
            &config,
            &image,
            command("observe"),
            mounts,
        )
        .await
        .map_err(self.failed("create the container"))?;
        cri_api::start_container(&mut self.channel, &container)
            .await
            .map_err(self.failed("start the container"))?;
        report.steps.push(("create and start the container".to_owned(), milliseconds(began)));
        let watched =
            watch.as_mut().and_then(|watch| watch.find_create(&container, Duration::from_millis(500)));
        let state = self.state_of(&container)?;
        compare_families(sandbox_state.as_ref(), state.as_ref(), report);
        report.take_proof(state, watched);
        let began = Instant::now();
        let seconds = i64::try_from(self.limit.as_secs()).unwrap_or(i64::MAX);
        let looked = cri_api::exec_sync(&mut self.channel, &container, command("exec"), seconds)
            .await
            .map_err(self.failed("execute in the container"))?;
        report.steps.push(("exec to its end".to_owned(), milliseconds(began)));
        report.facts.insert("exit status of exec".to_owned(), looked.exit_code.to_string());
        let text = String::from_utf8_lossy(&looked.stdout).into_owned();
        let facts =
            text.split_once(END_OF_REPORT).and_then(|(json, _)| serde_json::from_str(json.trim()).ok());
        let facts: std::collections::BTreeMap<String, String> = facts.unwrap_or_default();
        report.facts.extend(facts.into_iter().map(|(name, value)| (format!("pod {name}"), value)));
        Ok(())
    }

    /// Runs the sandbox; where its image is missing, imports one under the name that containerd asked for, and tries again.
    async fn run_sandbox(
        &mut self,
        config: &cri_api::PodConfig,
        known: Option<&str>,
    ) -> Result<String, CanaryError> {
        if let Some(image) = known
            && !cri_api::has_image(&mut self.channel, image)
                .await
                .map_err(self.failed("look for the sandbox image"))?
        {
            self.import(image)?;
        }
        match cri_api::run_pod_sandbox(&mut self.channel, config, self.handler).await {
            Ok(sandbox) => {
                self.sandbox = Some(sandbox);
                self.image_name(known)
            }
            Err(ApiError::Call { status, .. })
                if self.image.is_none() && missing_image(status.message()).is_some() =>
            {
                let image = missing_image(status.message()).unwrap_or_default().to_owned();
                self.import(&image)?;
                let sandbox = cri_api::run_pod_sandbox(&mut self.channel, config, self.handler)
                    .await
                    .map_err(self.failed("run the sandbox"))?;
                self.sandbox = Some(sandbox);
                Ok(image)
            }
            Err(error) => Err(self.failed("run the sandbox")(error)),
        }
    }

    fn import(&mut self, image: &str) -> Result<(), CanaryError> {
        import_sandbox_image(self.socket, image, self.directory.path())?;
        self.image = Some(image.to_owned());
        Ok(())
    }

    /// The image that the container may use: the sandbox's own, which is certain to be there. containerd 2.x does not say its name
    /// in the plugin's status; the sandbox's record does.
    fn image_name(&self, known: Option<&str>) -> Result<String, CanaryError> {
        if let Some(known) = known {
            return Ok(known.to_owned());
        }
        let node = Node::read(self.host).map_err(|source| CanaryError::Node { source })?;
        let bundle = node.bundles.iter().find(|bundle| Some(&bundle.id) == self.sandbox.as_ref());
        let spec = bundle
            .and_then(|bundle| inspect_probes::bundle::read_spec_excerpt(self.host, bundle).ok().flatten());
        Ok(spec.as_ref().and_then(|spec| spec.image()).unwrap_or_default().to_owned())
    }

    fn state_of(&self, id: &ContainerId) -> Result<Option<RuntimeState>, CanaryError> {
        let node = Node::read(self.host).map_err(|source| CanaryError::Node { source })?;
        let bundle = node.bundles.iter().find(|bundle| &bundle.id == id);
        Ok(bundle.and_then(|bundle| read_runtime_state(self.host, bundle).ok().flatten()))
    }

    fn mounts(&self) -> Vec<CriMount> {
        let mount = |host_path: String, container_path: &str| CriMount {
            container_path: container_path.to_owned(),
            host_path,
            readonly: true,
        };
        let mut mounts = vec![mount(self.directory.rootfs().display().to_string(), PROGRAM_DIRECTORY)];
        if needs_host_libraries() {
            mounts.extend(["/usr", "/lib", "/lib64"].map(|path| mount(path.to_owned(), path)));
        }
        mounts
    }

    async fn remove(mut self, report: &mut CanaryReport) {
        if let Some(sandbox) = &self.sandbox
            && let Err(error) = cri_api::remove_pod(&mut self.channel, sandbox).await
        {
            report.failures.push(format!("the canary pod could not be removed: {error}"));
        }
        if let Some(image) = &self.image
            && let Err(error) = cri_api::remove_image(&mut self.channel, image).await
        {
            report.failures.push(format!("the sandbox image could not be removed: {error}"));
        }
        observe::remove_parent_cgroup(self.host, &ContainerdNamespace::new(NAMESPACE));
        if let Err(error) = self.directory.remove() {
            report.failures.push(error.to_string());
        }
    }
}

/// The image that containerd's message says is missing.
fn missing_image(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("failed to get sandbox image \"")?;
    rest.split_once('"').map(|(image, _)| image)
}

fn compare_families(
    sandbox: Option<&RuntimeState>,
    container: Option<&RuntimeState>,
    report: &mut CanaryReport,
) {
    if let (Some(sandbox), Some(container)) = (sandbox, container)
        && sandbox.family != container.family
    {
        let (one, other) = (sandbox.family.as_str(), container.family.as_str());
        report.failures.push(format!("{one} made the sandbox, {other} its container"));
    }
}

fn judge(report: &mut CanaryReport) {
    report.judge_family();
    let wanted = EXEC_STATUS.to_string();
    let found = report.facts.get("exit status of exec").map_or("nothing", String::as_str);
    if found != wanted {
        report.failures.push(format!("exit status of exec: {wanted} was wanted, {found} was found"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use inspect_probes::containerd::CriHandler;

    #[test]
    fn the_missing_image_is_read_off_the_message() {
        let message = "failed to get sandbox image \"registry.k8s.io/pause:3.10\": failed to pull image";
        assert_eq!(missing_image(message), Some("registry.k8s.io/pause:3.10"));
        assert_eq!(missing_image("no"), None);
    }

    #[test]
    fn the_default_handler_is_the_one_in_force() {
        let crun = CriHandler {
            name: "crun".to_owned(),
            runtime_type: "io.containerd.runc.v2".to_owned(),
            binary_name: Some("/usr/bin/crun".to_owned()),
            systemd_cgroup: true,
        };
        let status = CriStatus {
            default_handler: Some("crun".to_owned()),
            handlers: vec![crun],
            ..CriStatus::default()
        };
        assert_eq!(configured(&status, ""), (Some(PathBuf::from("/usr/bin/crun")), true));
        assert_eq!(configured(&status, "runc"), (None, false));
    }
}
