//! A spec that a plain user can run: a user namespace, and nothing that takes privileges of the host.

use serde_json::{Value, json};

use super::SpecError;
use super::value::{get, put, remove};

/// Ids of the container and the host's ids that they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// First id in the container.
    pub container: u32,
    /// First id on the host.
    pub host: u32,
    /// How many.
    pub size: u32,
}

impl IdRange {
    fn to_json(self) -> Value {
        json!({"containerID": self.container, "hostID": self.host, "size": self.size})
    }
}

/// Changes the spec as `runc spec --rootless` does: a user namespace with these ids, the host's network, no cgroup
/// limits (a plain user owns no cgroup), the host's `/sys` and no mount option that names an id.
///
/// # Errors
/// [`SpecError::Shape`] where the spec has another shape than the runtime spec says.
pub fn make_rootless(spec: &mut Value, uids: &[IdRange], gids: &[IdRange]) -> Result<(), SpecError> {
    let mut namespaces = array(spec, &["linux", "namespaces"]);
    namespaces.retain(|namespace| !matches!(namespace["type"].as_str(), Some("network" | "user")));
    namespaces.push(json!({"type": "user"}));
    put(spec, &["linux", "namespaces"], Value::Array(namespaces))?;
    let ranges = |ranges: &[IdRange]| ranges.iter().map(|range| range.to_json()).collect::<Value>();
    put(spec, &["linux", "uidMappings"], ranges(uids))?;
    put(spec, &["linux", "gidMappings"], ranges(gids))?;
    remove(spec, &["linux", "resources"]);
    remove(spec, &["linux", "cgroupsPath"]);
    let mut mounts = array(spec, &["mounts"]);
    mounts.retain(|mount| !mount["destination"].as_str().is_some_and(|path| path.starts_with("/sys")));
    mounts.iter_mut().for_each(drop_ids);
    mounts.push(json!({"destination": "/sys", "type": "none", "source": "/sys",
        "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}));
    put(spec, &["mounts"], Value::Array(mounts))?;
    // setgroups(2) is refused in a user namespace of a plain user without ids of its own.
    if gids.len() < 2 {
        remove(spec, &["process", "user", "additionalGids"]);
    }
    Ok(())
}

fn array(spec: &Value, path: &[&str]) -> Vec<Value> {
    get(spec, path).and_then(Value::as_array).cloned().unwrap_or_default()
}

fn drop_ids(mount: &mut Value) {
    if let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) {
        let names_id = |text: &str| text.starts_with("gid=") || text.starts_with("uid=");
        options.retain(|option| !option.as_str().is_some_and(names_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Like, default_spec, to_config};

    #[test]
    fn a_rootless_spec_has_a_user_namespace_and_no_limits() {
        let mut spec = default_spec(Like::Runc);
        let own = [IdRange { container: 0, host: 1000, size: 1 }];
        make_rootless(&mut spec, &own, &own).unwrap();
        let text = to_config(&spec).unwrap();
        assert!(
            text.contains("\"user\"") && !text.contains("\"network\"") && !text.contains("gid=5"),
            "{text}"
        );
        assert!(get(&spec, &["linux", "resources"]).is_none());
        assert_eq!(spec["linux"]["uidMappings"][0]["hostID"], 1000);
    }
}
