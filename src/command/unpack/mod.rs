//! `inspect unpack`: an image becomes a bundle, and every step says what it did with which file.

mod ids;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use inspect_image::accounts::{Account, Accounts};
use inspect_image::bundle::{BundleError, StagedBundle};
use inspect_image::limits::Limits;
use inspect_image::manifest::Image;
use inspect_image::source::ImageSource;
use inspect_image::spec::{ImageProcess, apply_image, default_spec, make_rootless, to_config};
use inspect_image::tar::TarError;
use inspect_image::unpack::{EntryError, Ownership, UnpackError, UnpackOptions, Unpacked, unpack};
use inspect_probes::Host;
use serde_json::Value;

use self::ids::Identity;
use super::image::{ChoiceArgs, LimitArgs, layer_refused, load, with_hint};
use super::spec::{LikeArgs, SpecOptionArgs, spec_refused};
use crate::error::CommandError;
use crate::output::{Output, Status};
use crate::render::style::Style;
use crate::render::unpack::{UnpackReport, render_unpack};

/// Unpack an image into a bundle: rootfs from its layers, config.json from its config
#[derive(Debug, Args)]
#[command(after_help = "\
FILE is what `ctr images export` or `docker save` wrote, or a directory with an OCI layout.
BUNDLE is made beside its place and renamed when complete: it is all there or not there.

Examples:
  inspect unpack busybox.tar mycontainer
  inspect unpack busybox.tar mycontainer --like runc --memory 64M --cpu-shares 512
  inspect unpack app.tar app --args -- /bin/sh -c 'echo hello'")]
pub(crate) struct UnpackArgs {
    /// The image: a tar archive or a directory
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The bundle to make
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Replace a bundle that is there
    #[arg(long)]
    force: bool,
    /// Say nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    choice: ChoiceArgs,
    #[command(flatten)]
    like: LikeArgs,
    /// Run exactly COMMAND, without the image's entrypoint
    #[arg(long, requires = "command")]
    args: bool,
    /// What to run in place of the image's cmd (with --args: of entrypoint and cmd)
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    options: SpecOptionArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

impl UnpackArgs {
    fn process(&self) -> ImageProcess {
        match (self.command.is_empty(), self.args) {
            (true, _) => ImageProcess::AsIs,
            (false, true) => ImageProcess::Whole(self.command.clone()),
            (false, false) => ImageProcess::Arguments(self.command.clone()),
        }
    }
}

/// Makes the bundle.
pub(crate) fn run(args: &UnpackArgs, host: &Host, output: &mut Output) -> Result<Status, CommandError> {
    let limits = args.limits.limits();
    let interrupted = stop_flag()?;
    let (source, image) = load(&args.file, &args.choice, &limits)?;
    let identity = ids::enter(host)?;
    let staged = StagedBundle::create(&args.bundle, args.force).map_err(bundle_refused)?;
    let options = UnpackOptions { limits, ownership: identity.ownership(), interrupted };
    let unpacked = unpack_layers(&source, &image, &staged, &options, output)?;
    let (account, spec) = make_spec(args, &image, &staged, &identity)?;
    staged.write_config(to_config(&spec).map_err(spec_refused)?.as_bytes()).map_err(bundle_refused)?;
    staged.commit().map_err(bundle_refused)?;
    if !args.quiet {
        let report = UnpackReport {
            file: &args.file,
            bundle: &args.bundle,
            image: &image,
            unpacked: &unpacked,
            account: &account,
            spec: &spec,
            like: args.like.like(),
            identity: identity.describe(),
        };
        output.print(&render_unpack(&report, Style::new(output.color()), output.width()))?;
    }
    Ok(Status::Success)
}

fn unpack_layers(
    source: &Arc<ImageSource>,
    image: &Image,
    staged: &StagedBundle,
    options: &UnpackOptions,
    output: &Output,
) -> Result<Unpacked, CommandError> {
    let rootfs = staged.open_rootfs().map_err(bundle_refused)?;
    let progress = output.progress(image.blob_bytes(), "unpacking");
    unpack(Arc::clone(source), &image.layers, rootfs, options, &mut |bytes| progress.set(bytes))
        .map_err(|error| unpack_refused(error, options.limits))
}

fn make_spec(
    args: &UnpackArgs,
    image: &Image,
    staged: &StagedBundle,
    identity: &Identity,
) -> Result<(Account, Value), CommandError> {
    let rootfs = staged.open_rootfs().map_err(bundle_refused)?;
    let accounts = Accounts::read(&rootfs).map_err(CommandError::trouble)?;
    let wanted = image.config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let account = accounts.resolve(&wanted).map_err(CommandError::trouble)?;
    let mut spec = default_spec(args.like.like());
    apply_image(&mut spec, &image.config, &account, &args.process()).map_err(spec_refused)?;
    args.options.options().apply(&mut spec).map_err(spec_refused)?;
    if args.like.rootless || identity.is_plain_user() {
        make_rootless(&mut spec, &identity.uids, &identity.gids).map_err(spec_refused)?;
    }
    Ok((account, spec))
}

/// Ctrl-C and SIGTERM end the work between two entries, so that nothing half-made stays.
fn stop_flag() -> Result<Arc<AtomicBool>, CommandError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(CommandError::trouble)?;
    }
    Ok(flag)
}

fn bundle_refused(error: BundleError) -> CommandError {
    let hint = match &error {
        BundleError::Exists { .. } => Some("choose another place, or replace the bundle with `--force`"),
        _ => None,
    };
    with_hint(CommandError::trouble(error), hint)
}

fn unpack_refused(error: UnpackError, limits: Limits) -> CommandError {
    let hint = match &error {
        UnpackError::Entry { source: EntryError::TooDeep { .. }, .. } => {
            Some(format!("if you trust the image, raise `--max-depth` above {}", limits.depth))
        }
        UnpackError::Archive { source: TarError::TooManyEntries { .. }, .. } => {
            Some(format!("if you trust the image, raise `--max-entries` above {}", limits.entries))
        }
        _ => None,
    };
    match error {
        UnpackError::Layer(error) => layer_refused(error),
        error => with_hint(CommandError::trouble(error), hint.as_deref()),
    }
}

/// Whether the files belong to whom the image says.
impl Identity {
    fn ownership(&self) -> Ownership {
        if self.can_own() { Ownership::Kept } else { Ownership::Lost }
    }
}
