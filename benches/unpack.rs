//! What `inspect unpack` costs beside `umoci unpack` and `ctr images import` + mount, and whether the trees are equal.
//!
//! `cargo bench --bench unpack [-- ROUNDS [INSPECT]]` (root, Linux; mmdebstrap, umoci, containerd and ctr installed; whatever is
//! not is left out with a word). Makes an image of three layers from a Debian root of more than 250 MB, once: it is
//! kept. A containerd of its own, with its own directories and socket, runs in a mount namespace of its own. First the
//! trees are compared by a listing of types, modes, owners, link counts, extended attributes, times and contents; then
//! each round runs every subject once, one after the other. Medians are printed with their ratio to `inspect unpack`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run stops")]

#[path = "../image/tests/support/mod.rs"]
mod image_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image_support::{Image, difference, listing};

const ROUNDS: usize = 7;
/// Given to the copy of ourselves that runs in the private mount namespace.
const INSIDE: &str = "--inside";
const NAME: &str = "test:latest";

/// The root of a Debian with enough in it, and the archives of three layers: most of it, the rest of it, and changes
/// with a whiteout and an opaque directory.
const MAKE_LAYERS: &str = r#"
set -eu
[ -e root.tar ] || mmdebstrap --variant=minbase --include=python3-minimal,perl,iputils-ping,git,dbus trixie root.tar
rm -rf root third
mkdir -p root third/etc third/usr/share/man
tar --numeric-owner --xattrs --xattrs-include='*' -xpf root.tar -C root
pack() { tar --format=pax --pax-option=delete=atime,delete=ctime --numeric-owner --xattrs --xattrs-include='*' --sort=name "$@"; }
pack -C root --exclude=./usr/share --exclude=./usr/lib/git-core -cf 1.tar .
# Every layer lists the directories that it passes through, as those of the usual builders do.
pack -C root -cf 2.tar --no-recursion ./usr ./usr/lib --recursion ./usr/share ./usr/lib/git-core
echo changed >third/etc/motd
ln third/etc/motd third/etc/motd.again
: >third/usr/share/.wh.doc
: >third/usr/share/man/.wh..wh..opq
echo new >third/usr/share/man/README
pack -C third -cf 3.tar .
gzip -n -k -f 1.tar 2.tar 3.tar
rm -rf root third
"#;

const CONFIG: &str = r#"
version = 2
root = "DIR/root"
state = "DIR/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "DIR/containerd.sock"
[ttrpc]
  address = "DIR/containerd.ttrpc"
"#;

/// Something that makes a tree of the image, and where the tree is.
struct Subject {
    name: &'static str,
    make: String,
    tree: PathBuf,
    /// Takes the tree away again, outside of the time.
    clean: String,
}

/// A containerd that ends with the benchmark.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().map(String::as_str) != Some(INSIDE) {
        let own = std::env::current_exe().unwrap();
        let mut command = Command::new("unshare");
        let error = command.args(["-m", "--"]).arg(own).arg(INSIDE).args(arguments).exec();
        panic!("unshare(1) is needed, and root: {error}");
    }
    let rounds = arguments.get(1).and_then(|argument| argument.parse().ok()).unwrap_or(ROUNDS);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unpack-bench");
    fs::create_dir_all(&directory).unwrap();
    if !directory.join("layout/index.json").exists() {
        if !has("mmdebstrap") {
            return eprintln!("skipped: mmdebstrap is not installed, which makes the image");
        }
        make_image(&directory);
    }
    let work = tempfile::Builder::new().prefix("run-").tempdir_in(&directory).unwrap();
    let program = arguments.get(2).map_or(env!("CARGO_BIN_EXE_inspect"), String::as_str);
    let mut subjects: Vec<Subject> =
        ["image.tar", "layout"].map(|image| inspect(program, &directory, work.path(), image)).into();
    subjects.extend(umoci(&directory, work.path()));
    let daemon = start_containerd(work.path());
    subjects.extend(daemon.as_ref().map(|_| containerd(&directory, work.path())));
    compare(&subjects);
    measure(&subjects, rounds);
}

fn has(program: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    found.unwrap().success()
}

fn sh(line: &str) {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "`{line}`: {}", String::from_utf8_lossy(&output.stderr));
}

fn make_image(directory: &Path) {
    let status = Command::new("sh").args(["-c", MAKE_LAYERS]).current_dir(directory).status().unwrap();
    assert!(status.success(), "the layers could not be made");
    let mut image = Image::new();
    for layer in ["1.tar", "2.tar", "3.tar"] {
        let (archive, compressed) = (directory.join(layer), directory.join(format!("{layer}.gz")));
        image = image.blob(fs::read(&compressed).unwrap(), &fs::read(&archive).unwrap());
        fs::remove_file(archive).unwrap();
        fs::remove_file(compressed).unwrap();
    }
    image.write_archive(&directory.join("image.tar"));
    image.write_layout(&directory.join("layout"));
}

fn inspect(program: &str, directory: &Path, work: &Path, image: &str) -> Subject {
    let bundle = work.join("inspect");
    Subject {
        name: if image == "layout" { "inspect unpack (directory)" } else { "inspect unpack (archive)" },
        make: format!("{program} unpack -q {} {}", directory.join(image).display(), bundle.display()),
        tree: bundle.join("rootfs"),
        clean: format!("rm -rf {}", bundle.display()),
    }
}

fn umoci(directory: &Path, work: &Path) -> Option<Subject> {
    if !has("umoci") {
        eprintln!("umoci is left out: it is not installed");
        return None;
    }
    let bundle = work.join("umoci");
    Some(Subject {
        name: "umoci unpack (directory)",
        make: format!(
            "umoci unpack --image {}:latest {}",
            directory.join("layout").display(),
            bundle.display()
        ),
        tree: bundle.join("rootfs"),
        clean: format!("rm -rf {}", bundle.display()),
    })
}

fn start_containerd(work: &Path) -> Option<Daemon> {
    if !has("containerd") || !has("ctr") {
        eprintln!("containerd is left out: it is not installed");
        return None;
    }
    let own = work.join("containerd");
    fs::create_dir(&own).unwrap();
    fs::create_dir(work.join("mounted")).unwrap();
    let config = own.join("config.toml");
    fs::write(&config, CONFIG.replace("DIR", &own.display().to_string())).unwrap();
    let log = fs::File::create(own.join("log")).unwrap();
    let child =
        Command::new("containerd").arg("-c").arg(config).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let daemon = Daemon(child);
    let deadline = Instant::now() + Duration::from_secs(60);
    let answers = format!("ctr --address {}/containerd.sock version >/dev/null 2>&1", own.display());
    while !Command::new("sh").args(["-c", &answers]).status().unwrap().success() {
        if Instant::now() > deadline {
            eprintln!("containerd is left out: it does not answer within 60 s, see {}/log", own.display());
            return None;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Some(daemon)
}

fn containerd(directory: &Path, work: &Path) -> Subject {
    let ctr = format!("ctr --address {}/containerd/containerd.sock images", work.display());
    let mounted = work.join("mounted");
    Subject {
        name: "ctr images import + mount",
        make: format!(
            "{ctr} import {} && {ctr} mount {NAME} {}",
            directory.join("image.tar").display(),
            mounted.display()
        ),
        tree: mounted.clone(),
        clean: format!("{ctr} unmount --rm {0} && {ctr} rm --sync {NAME}", mounted.display()),
    }
}

/// Every tree against that of the first subject.
fn compare(subjects: &[Subject]) {
    let mut first: Option<(&Subject, BTreeMap<String, String>)> = None;
    for subject in subjects {
        sh(&subject.make);
        let mut lines = listing(&subject.tree);
        sh(&subject.clean);
        let root = lines.remove("").unwrap();
        let Some((first, expected)) = &first else {
            println!("{}: {} entries, the root is {root}", subject.name, lines.len());
            first = Some((subject, lines));
            continue;
        };
        let names = expected.keys().chain(lines.keys().filter(|name| !expected.contains_key(*name)));
        let differ = names.filter(|name| expected.get(*name) != lines.get(*name)).count();
        println!("{}: {} entries, {differ} differ, the root is {root}", subject.name, lines.len());
        assert!(differ == 0, "{} -, {} +\n{}", first.name, subject.name, difference(expected, &lines));
    }
}

fn measure(subjects: &[Subject], rounds: usize) {
    let mut times: Vec<Vec<Duration>> = vec![Vec::new(); subjects.len()];
    for _ in 0..rounds {
        for (subject, times) in subjects.iter().zip(&mut times) {
            // What the one before has yet to write is not to slow this one down.
            sh("sync");
            let start = Instant::now();
            sh(&subject.make);
            times.push(start.elapsed());
            sh(&subject.clean);
        }
    }
    println!("\nmedians of {rounds} rounds");
    let mut base = None;
    for (subject, times) in subjects.iter().zip(&mut times) {
        times.sort_unstable();
        let (least, median) = (times[0], times[times.len() / 2]);
        let base = *base.get_or_insert(median);
        let ratio = median.as_secs_f64() / base.as_secs_f64();
        println!(
            "{:<28} {:>7.0} ms  {ratio:>5.2} × the first  (least {:.0} ms)",
            subject.name,
            median.as_secs_f64() * 1000.0,
            least.as_secs_f64() * 1000.0
        );
    }
}
