//! Bundles for the built-in runtime without containerd: busybox, which Debian links statically, is all they need.
#![allow(dead_code, reason = "every suite is a crate of its own and uses what it needs")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::sh;

/// The runtime under test.
pub(crate) const RUNTIME: &str = "/usr/local/bin/inspect-runtime";
/// Where all bundles are.
pub(crate) const PLACE: &str = "/var/tmp/vm-stress";
/// What the ids of all containers begin with, and so the names of their cgroups.
pub(crate) const PREFIX: &str = "stress-";

/// A bundle with a root of its own: busybox, which Debian links statically.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Its directory.
    pub(crate) path: PathBuf,
    /// The container's ID.
    pub(crate) id: String,
}

impl Bundle {
    /// Makes one of the runtime's own `spec`, changed by a jq filter: `sleep 1000` without a terminal, below `/vm-stress`.
    #[track_caller]
    pub(crate) fn make(id: &str, filter: &str) -> Self {
        let id = format!("{PREFIX}{id}");
        let bundle = Bundle { path: Path::new(PLACE).join(&id), id: id.clone() };
        bundle.remove();
        let path = bundle.path.display();
        sh(&format!(
            "mkdir -p {path}/rootfs/bin && cp $(command -v busybox) {path}/rootfs/bin/busybox && \
             for name in sh true sleep cat id; do ln -s busybox {path}/rootfs/bin/$name; done && \
             {RUNTIME} spec -b {path} && jq '.process.terminal=false | .root.readonly=false | \
             .process.args=[\"sleep\",\"1000\"] | .linux.cgroupsPath=\"/vm-stress/{id}\" | {SECCOMP} | {filter}' \
             {path}/config.json >{path}/new && mv {path}/new {path}/config.json"
        ));
        bundle
    }

    /// The runtime's `--root`.
    pub(crate) fn root(&self) -> PathBuf {
        self.path.join("state")
    }

    /// The runtime's arguments: its root, a command with options, the bundle's id.
    pub(crate) fn arguments(&self, command: &[&str]) -> Vec<String> {
        let mut arguments = vec![RUNTIME.to_owned(), "--root".to_owned(), self.root().display().to_string()];
        arguments.extend(command.iter().map(|&one| one.to_owned()));
        arguments.push(self.id.clone());
        arguments
    }

    /// Runs a command of the runtime.
    pub(crate) fn output(&self, command: &[&str]) -> Output {
        self.output_with(&[], command)
    }

    /// Runs the runtime by way of another program. What it writes goes to a file: a pipe would be the container's, too.
    pub(crate) fn output_with(&self, by: &[&str], command: &[&str]) -> Output {
        let mut line: Vec<String> = by.iter().map(|&one| one.to_owned()).collect();
        line.extend(self.arguments(command));
        let errors = self.path.join("errors");
        let file = fs::File::create(&errors).expect("the bundle is the test's own");
        let status = Command::new(&line[0])
            .args(&line[1..])
            .current_dir(&self.path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .status()
            .expect("the program runs");
        Output { status, stdout: Vec::new(), stderr: fs::read(errors).expect("the test made it") }
    }

    /// Runs a command that has to succeed.
    #[track_caller]
    pub(crate) fn succeed(&self, command: &[&str]) {
        let output = self.output(command);
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Deletes the container, and the directory.
    pub(crate) fn remove(&self) {
        if self.path.exists() {
            self.output(&["delete", "--force"]);
            fs::remove_dir_all(&self.path).expect("the bundle is the test's own");
        }
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A jq filter that has the container run a line of shell.
pub(crate) fn shell(line: &str) -> String {
    format!(".process.args=[\"sh\",\"-c\",{}]", serde_json::Value::from(line))
}

/// A filter and device rules: two programs in the kernel for each container.
const SECCOMP: &str = r#".linux.seccomp={"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],"syscalls":[{"names":["swapon","kexec_load"],"action":"SCMP_ACT_ERRNO"}]} | .linux.seccomp.defaultAction="SCMP_ACT_ALLOW""#;
