//! The few parts of a bundle's config.json that say which container it is. The whole spec is another module's.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::files::{Bundle, BundleError};
use crate::Host;
use crate::process::read_present;

/// Parts of config.json (runtime-spec).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecExcerpt {
    /// `annotations`; hostile.
    pub annotations: BTreeMap<String, String>,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<String>,
    /// `linux.namespaces`.
    pub namespaces: Vec<SpecNamespace>,
    /// `process.terminal`.
    pub terminal: bool,
    /// `process.args`; hostile.
    pub arguments: Vec<String>,
    /// `hostname`.
    pub hostname: Option<String>,
}

/// An entry of `linux.namespaces`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SpecNamespace {
    /// `pid`, `network`, `mount`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The namespace to join; without it a new one is made.
    pub path: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    hostname: Option<String>,
    #[serde(default)]
    process: Option<Process>,
    #[serde(default)]
    linux: Option<Linux>,
}

#[derive(Deserialize, Default)]
struct Process {
    #[serde(default)]
    terminal: bool,
    #[serde(default)]
    args: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
struct Linux {
    #[serde(default)]
    cgroups_path: Option<String>,
    #[serde(default)]
    namespaces: Option<Vec<SpecNamespace>>,
}

impl SpecExcerpt {
    /// Parses config.json.
    ///
    /// # Errors
    /// What serde_json says where it is no JSON or of another shape.
    pub fn parse(json: &[u8]) -> Result<Self, serde_json::Error> {
        let document: Document = serde_json::from_slice(json)?;
        let process = document.process.unwrap_or_default();
        let linux = document.linux.unwrap_or_default();
        Ok(Self {
            annotations: document.annotations.unwrap_or_default(),
            cgroups_path: linux.cgroups_path.filter(|path| !path.is_empty()),
            namespaces: linux.namespaces.unwrap_or_default(),
            terminal: process.terminal,
            arguments: process.args.unwrap_or_default(),
            hostname: document.hostname,
        })
    }

    /// The container's name in its pod: the CRI plugin's annotation, or nerdctl's.
    #[must_use]
    pub fn container_name(&self) -> Option<&str> {
        self.annotation("io.kubernetes.cri.container-name").or_else(|| self.annotation("nerdctl/name"))
    }

    /// The pod's name.
    #[must_use]
    pub fn pod_name(&self) -> Option<&str> {
        self.annotation("io.kubernetes.cri.sandbox-name")
    }

    /// The pod's Kubernetes namespace.
    #[must_use]
    pub fn pod_namespace(&self) -> Option<&str> {
        self.annotation("io.kubernetes.cri.sandbox-namespace")
    }

    /// The id of the pod's sandbox; the sandbox's own annotation names itself.
    #[must_use]
    pub fn sandbox_id(&self) -> Option<&str> {
        self.annotation("io.kubernetes.cri.sandbox-id")
    }

    /// Whether this is a pod's sandbox (its pause container).
    #[must_use]
    pub fn is_sandbox(&self) -> bool {
        self.annotation("io.kubernetes.cri.container-type") == Some("sandbox")
    }

    /// The image's name, where an annotation carries it.
    #[must_use]
    pub fn image(&self) -> Option<&str> {
        self.annotation("io.kubernetes.cri.image-name")
            .or_else(|| self.annotation("io.kubernetes.cri.podsandbox.image-name"))
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// Reads the bundle's config.json; `None` while or after it is there.
///
/// # Errors
/// [`BundleError`] when the file cannot be read or is not a spec.
pub fn read_spec_excerpt(host: &Host, bundle: &Bundle) -> Result<Option<SpecExcerpt>, BundleError> {
    let path = bundle.path.join("config.json");
    let Some(json) = read_present(&host.resolve(&path))? else { return Ok(None) };
    SpecExcerpt::parse(&json).map(Some).map_err(|source| BundleError::Json { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_name_pod_and_container() {
        let json = br#"{"ociVersion":"1.2.0","process":{"terminal":true,"args":["sleep","1"]},"annotations":{
            "io.kubernetes.cri.container-name":"web","io.kubernetes.cri.sandbox-name":"shop",
            "io.kubernetes.cri.container-type":"container","io.kubernetes.cri.image-name":"nginx:1"},
            "linux":{"cgroupsPath":"/default/web","namespaces":[{"type":"pid"},{"type":"network","path":"/proc/7/ns/net"}]}}"#;
        let excerpt = SpecExcerpt::parse(json).unwrap();
        assert_eq!((excerpt.container_name(), excerpt.pod_name()), (Some("web"), Some("shop")));
        assert!(!excerpt.is_sandbox() && excerpt.terminal);
        assert_eq!(
            (excerpt.image(), excerpt.cgroups_path.as_deref()),
            (Some("nginx:1"), Some("/default/web"))
        );
        assert_eq!(excerpt.namespaces[1].path.as_deref(), Some("/proc/7/ns/net"));
    }

    #[test]
    fn a_spec_with_nothing_in_it_is_fine_and_half_a_spec_is_not() {
        assert_eq!(SpecExcerpt::parse(b"{\"annotations\":null}").unwrap(), SpecExcerpt::default());
        assert!(SpecExcerpt::parse(b"{\"process\":").is_err());
        assert!(SpecExcerpt::parse(b"{\"annotations\":7}").is_err());
    }
}
