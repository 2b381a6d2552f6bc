//! What the user asks for on top of a default or of a bundle's own spec.

use std::str::FromStr;

use serde_json::{Value, json};

use super::SpecError;
use super::capability::capability_names;
use super::value::{get, put, texts};

/// The CFS period that `--cpus` is counted in, in microseconds: the kernel's and everybody's default.
const PERIOD: u64 = 100_000;

/// Changes to a spec; what is `None` or empty changes nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SpecOptions {
    /// Bytes of memory. Swap is not given on top, as with Kubernetes.
    pub memory: Option<u64>,
    /// The share of the processor under contention: 1024 is the default weight.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time in each period of 100 000.
    pub cpu_quota: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Capabilities to give, `CAP_` may be left out; `ALL` is all.
    pub cap_add: Vec<String>,
    /// Capabilities to take away; taken before others are given.
    pub cap_drop: Vec<String>,
    /// More mounts.
    pub mounts: Vec<MountOption>,
    /// The hostname in the container.
    pub hostname: Option<String>,
    /// Whether the process gets a terminal.
    pub terminal: Option<bool>,
}

impl SpecOptions {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Changes the spec.
    ///
    /// # Errors
    /// Where a capability is unknown, or the spec has another shape than the runtime spec says.
    pub fn apply(&self, spec: &mut Value) -> Result<(), SpecError> {
        self.apply_resources(spec)?;
        self.apply_capabilities(spec)?;
        if !self.mounts.is_empty() {
            let mut mounts = get(spec, &["mounts"]).and_then(Value::as_array).cloned().unwrap_or_default();
            mounts.extend(self.mounts.iter().map(MountOption::to_json));
            put(spec, &["mounts"], Value::Array(mounts))?;
        }
        if let Some(hostname) = &self.hostname {
            put(spec, &["hostname"], json!(hostname))?;
        }
        if let Some(terminal) = self.terminal {
            put(spec, &["process", "terminal"], json!(terminal))?;
            let mut env = texts(spec, &["process", "env"]);
            if terminal && !env.iter().any(|variable| variable.starts_with("TERM=")) {
                env.push("TERM=xterm".to_owned());
                put(spec, &["process", "env"], json!(env))?;
            }
        }
        Ok(())
    }

    fn apply_resources(&self, spec: &mut Value) -> Result<(), SpecError> {
        let mut set = |path: &[&str], value: Value| {
            let path = [&["linux", "resources"], path].concat();
            put(spec, &path, value)
        };
        if let Some(memory) = self.memory {
            set(&["memory", "limit"], json!(memory))?;
            set(&["memory", "swap"], json!(memory))?;
        }
        if let Some(shares) = self.cpu_shares {
            set(&["cpu", "shares"], json!(shares))?;
        }
        if let Some(quota) = self.cpu_quota {
            set(&["cpu", "quota"], json!(quota))?;
            set(&["cpu", "period"], json!(PERIOD))?;
        }
        if let Some(pids) = self.pids {
            set(&["pids", "limit"], json!(pids))?;
        }
        Ok(())
    }

    fn apply_capabilities(&self, spec: &mut Value) -> Result<(), SpecError> {
        let (add, drop) = (capability_names(&self.cap_add)?, capability_names(&self.cap_drop)?);
        if add.is_empty() && drop.is_empty() {
            return Ok(());
        }
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            let path = ["process", "capabilities", set];
            let mut names = texts(spec, &path);
            names.retain(|name| !drop.contains(name));
            // The sets that a root process starts from; inheritable and ambient ones are another matter.
            if matches!(set, "bounding" | "effective" | "permitted") {
                let missing: Vec<_> = add.iter().filter(|name| !names.contains(name)).cloned().collect();
                names.extend(missing);
            }
            if get(spec, &path).is_some() || !names.is_empty() {
                put(spec, &path, json!(names))?;
            }
        }
        Ok(())
    }
}

/// A mount as it is typed: `type=bind,src=/host,dst=/inside,ro` or with `options=rbind:ro`, as ctr takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOption {
    kind: String,
    source: String,
    destination: String,
    options: Vec<String>,
}

impl FromStr for MountOption {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = |what| SpecError::Mount { text: text.to_owned(), what };
        let empty = String::new;
        let mut mount = Self { kind: empty(), source: empty(), destination: empty(), options: Vec::new() };
        for part in text.split(',') {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            match key {
                "type" => value.clone_into(&mut mount.kind),
                "src" | "source" => value.clone_into(&mut mount.source),
                "dst" | "destination" | "target" => value.clone_into(&mut mount.destination),
                "options" => mount.options.extend(value.split(':').map(str::to_owned)),
                "ro" | "readonly" if value.is_empty() => mount.options.push("ro".to_owned()),
                _ => return Err(wrong("it knows type=, src=, dst=, options=A:B and ro")),
            }
        }
        if mount.kind.is_empty() {
            "bind".clone_into(&mut mount.kind);
        }
        if !mount.destination.starts_with('/') {
            return Err(wrong("dst= must be an absolute path"));
        }
        if mount.kind == "bind" {
            if mount.source.is_empty() {
                return Err(wrong("src= is missing"));
            }
            if !mount.options.iter().any(|option| option == "bind" || option == "rbind") {
                mount.options.insert(0, "rbind".to_owned());
            }
        }
        Ok(mount)
    }
}

impl MountOption {
    fn to_json(&self) -> Value {
        let source = if self.source.is_empty() { &self.kind } else { &self.source };
        let mut mount = json!({"destination": self.destination, "type": self.kind, "source": source});
        if !self.options.is_empty() {
            mount["options"] = json!(self.options);
        }
        mount
    }
}

/// `64M`, `1g`, `4096`: bytes, in powers of 1024 as Docker and ctr count them.
///
/// # Errors
/// Where it is no number, or zero.
pub fn parse_size(text: &str) -> Result<u64, SpecError> {
    let wrong = || SpecError::Number { text: text.to_owned(), kind: "size (64M, 1G)" };
    let lower = text.to_ascii_lowercase();
    let lower = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let unit = |suffix| lower.strip_suffix(suffix);
    let (digits, shift) = if let Some(digits) = unit('k') {
        (digits, 10)
    } else if let Some(digits) = unit('m') {
        (digits, 20)
    } else if let Some(digits) = unit('g') {
        (digits, 30)
    } else if let Some(digits) = unit('t') {
        (digits, 40)
    } else {
        (lower, 0)
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|size| *size > 0 && i64::try_from(*size).is_ok()).ok_or_else(wrong)
}

/// `1.5` processors → microseconds of each period.
///
/// # Errors
/// Where it is no number, or less than the kernel's least quota of one millisecond.
pub fn parse_cpus(text: &str) -> Result<u64, SpecError> {
    let wrong = || SpecError::Number { text: text.to_owned(), kind: "number of processors (1.5)" };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 5 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let whole = if whole.is_empty() && !fraction.is_empty() { "0" } else { whole };
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let fraction: u64 = format!("{fraction:0<5}").parse().map_err(|_| wrong())?;
    let quota = whole.checked_mul(PERIOD).and_then(|quota| quota.checked_add(fraction));
    quota.filter(|quota| *quota >= 1000).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Like, default_spec};

    #[test]
    fn sizes_and_processors() {
        assert_eq!(parse_size("64M").unwrap(), 64 << 20);
        assert_eq!(parse_size("64MiB").unwrap(), 64 << 20);
        assert_eq!(parse_size("4096").unwrap(), 4096);
        for bad in ["", "0", "-1", "M", "x", "9999999999T", "1.5G"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_cpus("1.5").unwrap(), 150_000);
        assert_eq!(parse_cpus(".25").unwrap(), 25_000);
        for bad in ["", "0", "0.001", "x", "1.x", "-1", "."] {
            assert!(parse_cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn capabilities_are_dropped_then_added() {
        let mut spec = default_spec(Like::Runc);
        let options = SpecOptions {
            cap_drop: vec!["ALL".to_owned()],
            cap_add: vec!["net_admin".to_owned()],
            ..SpecOptions::default()
        };
        options.apply(&mut spec).unwrap();
        assert_eq!(spec["process"]["capabilities"]["bounding"], json!(["CAP_NET_ADMIN"]));
        assert!(spec["process"]["capabilities"].get("ambient").is_none());
    }

    #[test]
    fn limits_land_where_runtimes_look() {
        let mut spec = default_spec(Like::Runc);
        let mut options = SpecOptions { memory: Some(64 << 20), pids: Some(9), ..SpecOptions::default() };
        options.cpu_quota = Some(50_000);
        options.apply(&mut spec).unwrap();
        let resources = &spec["linux"]["resources"];
        assert_eq!(resources["memory"], json!({"limit": 64 << 20, "swap": 64 << 20}));
        assert_eq!(resources["cpu"], json!({"quota": 50_000, "period": 100_000}));
        assert_eq!(resources["pids"]["limit"], 9);
    }

    #[test]
    fn mounts_are_typed_as_with_docker_and_ctr() {
        let mount: MountOption = "type=bind,src=/a,dst=/b,options=rbind:ro".parse().unwrap();
        assert_eq!(mount.options, ["rbind", "ro"]);
        let mount: MountOption = "src=/a,dst=/b,ro".parse().unwrap();
        assert_eq!(mount.options, ["rbind", "ro"]);
        let mount: MountOption = "type=tmpfs,dst=/t".parse().unwrap();
        assert_eq!(mount.to_json()["source"], "tmpfs");
        for bad in ["dst=/b", "src=/a", "src=/a,dst=b", "src=/a,dst=/b,x=1"] {
            assert!(bad.parse::<MountOption>().is_err(), "{bad}");
        }
    }
}
