//! The house's arrows inside and between packages: who may know whom, who may print, exit or be unsafe.
//!
//! Lints fence most of it; this reads the source for what no lint knows.

use std::fs;
use std::path::{Path, PathBuf};

/// A source file with its comments and strings left as they are: the patterns looked for stand in neither.
struct Source {
    path: String,
    text: String,
}

fn sources(below: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    collect(&root.join(below), &mut found);
    assert!(!found.is_empty(), "no source below `{below}`");
    found
        .into_iter()
        .map(|path| Source {
            text: fs::read_to_string(&path).expect("a source file is UTF-8"),
            path: path.strip_prefix(root).expect("found below the root").display().to_string(),
        })
        .collect()
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a source directory can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Code lines (comments left out) that contain one of the words, as `path:line: text`.
fn uses(below: &str, words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut hits = Vec::new();
    for source in sources(below) {
        if allowed.iter().any(|prefix| source.path.starts_with(prefix)) {
            continue;
        }
        for (number, line) in source.text.lines().enumerate() {
            // A quote inside a string is no start of one.
            let code = line.split("//").next().unwrap_or_default().replace("\\\"", "");
            if words.iter().any(|word| code.contains(word)) {
                hits.push(format!("{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    hits
}

fn assert_none(hits: &[String], rule: &str) {
    assert!(hits.is_empty(), "{rule}:\n{}", hits.join("\n"));
}

#[test]
fn probes_know_neither_the_cli_nor_the_runtime() {
    let hits = uses("probes/src", &["clap::", "comfy_table", "anyhow", "inspect_runtime"], &[]);
    assert_none(&hits, "`probes` never knows the command line, tables or the runtime");
}

#[test]
fn the_runtime_knows_neither_the_cli_nor_tables() {
    let hits = uses("runtime/src", &["clap::", "comfy_table", "anyhow", "std::thread"], &[]);
    assert_none(&hits, "`runtime` never knows the tool's command line, and starts no thread");
}

#[test]
fn only_sys_is_unsafe() {
    for below in ["src", "probes/src", "runtime/src"] {
        let hits =
            uses(below, &["unsafe {", "unsafe fn", "unsafe impl", "unsafe extern"], &["runtime/src/sys"]);
        assert_none(&hits, "`unsafe` lives in runtime/src/sys.rs and the modules below it alone");
    }
}

#[test]
fn only_output_writes_to_the_terminal() {
    let words = ["io::stdout()", "io::stderr()", "println!", "eprintln!", "print!("];
    let allowed = ["src/output.rs", "src/output/", "src/bin/"];
    assert_none(&uses("src", &words, &allowed), "only output.rs writes to the terminal");
    assert_none(&uses("probes/src", &words, &[]), "a probe never prints");
}

#[test]
fn renderers_do_no_io() {
    let words = ["std::fs", "fs::read", "File::open", "rustix::", "nix::", "UnixStream", "Host::live"];
    assert_none(&uses("src/render", &words, &[]), "a renderer gets values and gives text");
}

#[test]
fn probes_change_nothing() {
    let words = [
        "fs::write",
        "fs::remove",
        "fs::rename",
        "fs::create_dir",
        "File::create",
        "set_permissions",
        ".write(true)",
    ];
    let hits: Vec<String> =
        uses("probes/src", &words, &[]).into_iter().filter(|hit| !is_in_tests(hit)).collect();
    assert_none(&hits, "a probe never writes to the host");
}

/// Whether the hit stands below its file's `#[cfg(test)]`: tests make the files that they read.
fn is_in_tests(hit: &str) -> bool {
    let mut parts = hit.splitn(3, ':');
    let (Some(path), Some(Ok(line))) = (parts.next(), parts.next().map(str::parse::<usize>)) else {
        return false;
    };
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return true;
    }
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("a source file");
    text.lines().take(line).any(|line| line.trim() == "#[cfg(test)]")
}

#[test]
fn absolute_paths_of_the_host_live_in_one_place() {
    let words = ["\"/proc/", "\"/sys/fs", "\"/run/containerd", "\"/etc/containerd"];
    let hits: Vec<String> = uses("probes/src", &words, &["probes/src/host.rs"])
        .into_iter()
        .filter(|hit| !is_in_tests(hit) && !hit.contains("const "))
        .collect();
    assert_none(
        &hits,
        "every reader hangs from an injected `Host`; a path that is vocabulary is a named constant",
    );
}

#[test]
fn files_stop_at_600_lines() {
    let mut long = Vec::new();
    for below in ["src", "probes/src", "runtime/src", "image/src", "fuzz/src", "tests"] {
        for source in sources(below) {
            let lines = source.text.lines().count();
            if lines > 600 {
                long.push(format!("{}: {lines} lines", source.path));
            }
        }
    }
    assert_none(&long, "a file stops at 600 lines");
}
