//! What fuzzing starts from: the fixtures, and small documents that have everything a parser looks at.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::archive;

/// Specs.
pub const SPECS: [&str; 5] = [
    include_str!("../../fixtures/specs/phase1.json"),
    include_str!("../../fixtures/specs/weaker.json"),
    include_str!("../../fixtures/specs/reordered.json"),
    include_str!("../../fixtures/specs/seccomp.json"),
    include_str!("../../fixtures/specs/everything.json"),
];

/// Processes as `exec --process` takes them.
pub const PROCESSES: [&str; 2] = [
    r#"{"args":["sh","-c","id"],"cwd":"/","env":["PATH=/bin","TERM=xterm"],"user":{"uid":0,"gid":0,"additionalGids":[1]},
        "terminal":true,"consoleSize":{"height":24,"width":80},"noNewPrivileges":true,
        "capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"],"ambient":[]}}"#,
    r#"{"args":["/bin/true"],"cwd":"/tmp","user":{"uid":1000,"gid":1000,"umask":18},"oomScoreAdj":100,
        "rlimits":[{"type":"RLIMIT_NOFILE","soft":1024,"hard":4096}],"ioPriority":{"class":"IOPRIO_CLASS_BE","priority":4},
        "scheduler":{"policy":"SCHED_BATCH","nice":5},"apparmorProfile":"docker-default","selinuxLabel":"a:b:c:d"}"#,
];

/// State files: the built-in runtime's, runc's, crun's.
pub const STATES: [&str; 3] = [
    r#"{"runtime":"inspect-runtime","version":"0.1.0","ociVersion":"1.2.0","id":"web","init_process_pid":4711,
        "init_process_start":99,"bundle":"/run/b","rootfs":"/run/b/rootfs","created":"2026-11-23T11:53:49.409498Z",
        "cgroup_path":"/sys/fs/cgroup/a","cgroup_scope":{"unit":"a.scope","slice":"a.slice"},"annotations":{"a":"b"}}"#,
    r#"{"id":"web","init_process_pid":4711,"init_process_start":99,"created":"2026-11-23T11:53:49Z",
        "cgroup_paths":{"":"/sys/fs/cgroup/default/web"},"config":{"labels":["bundle=/run/b"]}}"#,
    r#"{"pid":462,"process-start-time":13428,"cgroup-path":"/default/c","scope":"","rootfs":"rootfs",
        "systemd-cgroup":false,"bundle":"/run/b","created":"2026-11-23T11:53:49.409498Z","owner":"root"}"#,
];

/// Seccomp profiles.
pub const PROFILES: [&str; 2] = [
    r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
        "syscalls":[{"names":["read","write","socketcall","ipc"],"action":"SCMP_ACT_ALLOW"},
        {"names":["personality","accept"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":8,"op":"SCMP_CMP_EQ"}]},
        {"names":["clone"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#,
    r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"],"architectures":["SCMP_ARCH_AARCH64","SCMP_ARCH_ARM"],
        "syscalls":[{"names":["openat"],"action":"SCMP_ACT_ERRNO","errnoRet":1,
        "args":[{"index":1,"value":4294967296,"op":"SCMP_CMP_GT"},{"index":2,"value":3,"op":"SCMP_CMP_LE"}]},
        {"names":["kill","tgkill"],"action":"SCMP_ACT_KILL_PROCESS"},{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}"#,
];

const INDEX: &str = r#"{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json",
    "digest":"MANIFEST_DIGEST","size":MANIFEST_SIZE,"platform":{"os":"linux","architecture":"amd64"},
    "annotations":{"io.containerd.image.name":"docker.io/library/test:latest"}}]}"#;
const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
    "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"CONFIG_DIGEST","size":CONFIG_SIZE},
    "layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"LAYER_DIGEST","size":LAYER_SIZE}]}"#;
const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"Env":["PATH=/bin"],"User":"a:b"},
    "rootfs":{"type":"layers","diff_ids":["LAYER_DIGEST"]},"history":[{"created_by":"x"},{"empty_layer":true}]}"#;

/// The seeds of a target, from the checkout at `root`.
pub fn seeds_of(target: &str, root: &Path) -> Vec<Vec<u8>> {
    match target {
        "containerd_config" => configs(root),
        "image_archive" => archives(),
        "image_documents" => vec![parts(&[INDEX.into(), MANIFEST.into(), CONFIG.into()], &layers()[0])],
        "image_tar" => layers(),
        "image_unpack" => vec![parts(&layers(), b""), parts(&[compressed()[0].clone()], b"")],
        "kernel_text" => kernel_texts(root),
        "proc_events" => vec![datagram(1), datagram(2), datagram(0x8000_0000), datagram(4), datagram(0x200)],
        "runtime_config" => texts(&SPECS).into_iter().chain(edits()).collect(),
        "runtime_process" => texts(&PROCESSES).into_iter().chain(edits()).collect(),
        "runtime_state" => texts(&STATES).into_iter().chain(edits()).collect(),
        "seccomp" => texts(&PROFILES).into_iter().chain(profiles()).chain(edits()).collect(),
        "spec_bytes" => {
            texts(&SPECS).into_iter().chain([[SPECS[3], SPECS[4]].join("\u{0}").into_bytes()]).collect()
        }
        "spec_edits" => edits(),
        other => panic!("the target `{other}` has no seeds"),
    }
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Some lists of edits of every kind.
fn edits() -> Vec<Vec<u8>> {
    (0..32_u8).map(|first| (0..first).map(|index| index.wrapping_mul(37) ^ first).collect()).collect()
}

/// The filters of the specs.
fn profiles() -> Vec<Vec<u8>> {
    let parsed = SPECS.iter().filter_map(|text| serde_json::from_str::<Value>(text).ok());
    parsed.filter_map(|spec| Some(spec.pointer("/linux/seccomp")?.to_string().into_bytes())).collect()
}

/// Every config of the fixtures, for each containerd.
fn configs(root: &Path) -> Vec<Vec<u8>> {
    let mut found: Vec<_> = files_below(&root.join("fixtures/config"));
    found.retain(|path| path.ends_with("in.toml"));
    let texts = found.iter().filter_map(|path| fs::read(path).ok());
    texts
        .flat_map(|text| (0..3).map(move |version| [&[version, version * 8], text.as_slice()].concat()))
        .collect()
}

/// Files of the captured hosts, each for the parser that reads it.
fn kernel_texts(root: &Path) -> Vec<Vec<u8>> {
    const PARSERS: [(&str, u8); 8] = [
        ("/stat", 0),
        ("/status", 1),
        ("/mountinfo", 2),
        ("/cmdline", 3),
        ("/net/unix", 4),
        ("/etc/passwd", 5),
        ("/cgroup", 9),
        ("/memory.stat", 10),
    ];
    let log = "6,1,100,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=web,mems_allowed=0,oom_memcg=/default/web,\
        task_memcg=/default/web,task=a,b,pid=7,uid=0\n3,2,101,-;Memory cgroup out of memory: Killed process 7 (a,b) \
        total-vm:4kB, anon-rss:4kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:4kB oom_score_adj:0\n SUBSYSTEM=x\n";
    let other = [
        (6, log),
        (
            7,
            "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=x,pid=1,uid=0",
        ),
        (
            8,
            "failed to create shim task: OCI runtime create failed: runc create failed: exec: \"nope\": executable file not found",
        ),
        (
            10,
            "some avg10=0.00 avg60=1.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=1\n",
        ),
        (10, "max\n"),
        (11, "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
    ];
    let files = files_below(&root.join("fixtures/hosts"));
    let captured = files.iter().filter_map(|path| {
        let name = path.to_string_lossy();
        let (_, parser) = PARSERS.iter().find(|(end, _)| name.ends_with(end))?;
        Some([&[*parser], fs::read(path).ok()?.as_slice()].concat())
    });
    let other = other.iter().map(|(parser, text)| [&[*parser], text.as_bytes()].concat());
    // Many processes look alike: a few of each kind are enough.
    captured.step_by(7).chain(other).collect()
}

fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(directory).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// Parts behind their lengths, and what is left.
fn parts(parts: &[Vec<u8>], rest: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts {
        bytes.extend(u16::try_from(part.len()).expect("a seed is small").to_le_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(rest);
    bytes
}

fn header(kind: tar::EntryType, path: &str, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if kind == tar::EntryType::Directory { 0o755 } else { 0o644 });
    header.set_size(size);
    // As it is, however hostile: `set_path` would refuse.
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.name[..path.len()].copy_from_slice(path.as_bytes());
    }
    header.set_cksum();
    header
}

fn with_link(kind: tar::EntryType, path: &str, target: &str) -> tar::Header {
    let mut header = header(kind, path, 0);
    if let Some(gnu) = header.as_gnu_mut() {
        gnu.linkname[..target.len()].copy_from_slice(target.as_bytes());
    }
    header.set_cksum();
    header
}

/// Layers with every kind of entry, whiteouts, and names that would leave the root file system.
fn layers() -> Vec<Vec<u8>> {
    use tar::EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};
    let mut first = tar::Builder::new(Vec::new());
    let mut second = tar::Builder::new(Vec::new());
    let put = |layer: &mut tar::Builder<Vec<u8>>, header: tar::Header, data: &[u8]| {
        layer.append(&header, data).expect("memory takes the bytes");
    };
    for path in ["a", "a/b", "old"] {
        put(&mut first, header(Directory, path, 0), b"");
    }
    put(&mut first, header(Regular, "a/b/file", 5), b"hello");
    put(&mut first, with_link(Symlink, "out", "../../beside"), b"");
    put(&mut first, with_link(Symlink, "root", "/"), b"");
    put(&mut first, with_link(Link, "hard", "a/b/file"), b"");
    put(&mut first, header(Fifo, "pipe", 0), b"");
    put(&mut first, header(Char, "null", 0), b"");
    let records: [(&str, &[u8]); 3] =
        [("path", b"long/name"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"\0value")];
    first.append_pax_extensions(records).expect("memory takes the bytes");
    put(&mut first, header(Regular, "short", 1), b"x");
    for (path, data) in
        [("old/.wh.x", ""), ("a/.wh..wh..opq", ""), (".wh.old", ""), ("../beside", "x"), ("out", "y")]
    {
        put(&mut second, header(Regular, path, data.len() as u64), data.as_bytes());
    }
    put(&mut second, header(Regular, "root/x", 1), b"x");
    put(&mut second, header(Regular, "a", 1), b"x");
    let sparse: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", b"4096"),
    ];
    second.append_pax_extensions(sparse).expect("memory takes the bytes");
    let mut map = b"1\n1024\n4\n".to_vec();
    map.resize(512, 0);
    map.extend(b"data");
    put(&mut second, header(Regular, "holes", map.len() as u64), &map);
    [first, second].map(|layer| layer.into_inner().expect("memory takes the bytes")).into()
}

/// The first layer in each compression.
fn compressed() -> Vec<Vec<u8>> {
    use std::io::Write as _;
    let layer = &layers()[0];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(layer).expect("memory takes the bytes");
    let gzip = gzip.finish().expect("memory takes the bytes");
    let zstd =
        ruzstd::encoding::compress_to_vec(layer.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    vec![gzip, zstd]
}

/// Whole images: as `ctr images export` and as `docker save` write them, and compressed as a whole.
fn archives() -> Vec<Vec<u8>> {
    let mut archives = Vec::new();
    for layer in [layers()[0].clone(), compressed()[0].clone(), compressed()[1].clone()] {
        let layer = archive::Blob::of(layer);
        let config = archive::Blob::of(layer.fill(CONFIG.as_bytes(), "LAYER"));
        let manifest = archive::Blob::of(config.fill(&layer.fill(MANIFEST.as_bytes(), "LAYER"), "CONFIG"));
        archives.push(archive::write(&[
            ("index.json".to_owned(), manifest.fill(INDEX.as_bytes(), "MANIFEST")),
            (manifest.name(), manifest.bytes.clone()),
            (config.name(), config.bytes.clone()),
            (layer.name(), layer.bytes.clone()),
        ]));
        let docker = format!(
            r#"[{{"Config":"config.json","RepoTags":["test:latest"],"Layers":["{}"]}}]"#,
            layer.name()
        );
        archives.push(archive::write(&[
            ("manifest.json".to_owned(), docker.into_bytes()),
            ("config.json".to_owned(), config.bytes.clone()),
            (layer.name(), layer.bytes),
        ]));
    }
    archives
}

/// A message of the process events connector: netlink header, connector header, event.
fn datagram(what: u32) -> Vec<u8> {
    let event: Vec<u32> = vec![what, 0, 1, 0, 4, 4, 5, 5, 0, 0];
    let connector: Vec<u32> = vec![1, 1, 7, 0, u32::try_from(event.len() * 4).unwrap_or_default()];
    let words = 4 + connector.len() + event.len();
    let netlink = [u32::try_from(words * 4).unwrap_or_default(), 3, 0, 0];
    netlink.into_iter().chain(connector).chain(event).flat_map(u32::to_ne_bytes).collect()
}

/// A libFuzzer dictionary of what stands in the JSON seeds: names and words.
pub fn dictionary() -> String {
    let mut words = std::collections::BTreeSet::new();
    let images = [INDEX, MANIFEST, CONFIG].map(|text| text.replace("_SIZE", "").replace(":MANIFEST", ":1"));
    let texts = SPECS.iter().chain(&PROCESSES).chain(&STATES).chain(&PROFILES).copied();
    for text in texts.chain(images.iter().map(String::as_str)) {
        for word in text.split('"').skip(1).step_by(2) {
            words.insert(word.to_owned());
        }
    }
    words.retain(|word| {
        (2..60).contains(&word.len()) && word.bytes().all(|byte| (0x20..0x7f).contains(&byte))
    });
    words.iter().map(|word| format!("\"{}\"\n", word.replace('\\', "\\\\"))).collect()
}
