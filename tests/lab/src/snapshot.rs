//! A node that has booted, kept as disk and memory, so that the next one takes seconds.
//!
//! What is kept is a node right after its boot, before anything was copied in. It fits the image it was booted from, the
//! virtual hardware, QEMU's version and the host's processor; its name says so, and another combination boots anew.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};

use crate::accelerator;
use crate::error::LabError;
use crate::image::Image;
use crate::machine::{self, Plan};
use crate::progress::Progress;
use crate::qemu::{self, Hardware};
use crate::store;

/// A kept node.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    directory: PathBuf,
}

impl Snapshot {
    /// Where the kept node of this image and hardware is, or would be.
    pub(crate) fn of(image: &Image, hardware: &Hardware) -> Self {
        let key = format!("{} {hardware:?} {}", accelerator::describe_host(), qemu::describe_machine());
        let digest = Sha256::digest(key.as_bytes());
        let name: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { directory: image.directory.join(format!("booted-{name}")) }
    }

    /// Its disk: a qcow2 overlay of the image's.
    pub(crate) fn disk(&self) -> PathBuf {
        self.directory.join("disk.qcow2")
    }

    /// Its memory and devices: QEMU's migration stream.
    pub(crate) fn memory(&self) -> PathBuf {
        self.directory.join("memory")
    }

    /// Whether it is there.
    pub(crate) fn exists(&self) -> bool {
        self.memory().exists()
    }

    /// A snapshot that does not come back is of no use.
    pub(crate) fn discard(&self) -> Result<(), LabError> {
        store::remove_directory(&self.directory)
    }
}

/// The kept node for `plan`; when there is none yet, boots one and keeps it.
pub(crate) fn obtain(plan: &Plan<'_>, progress: &Progress) -> Result<Snapshot, LabError> {
    let snapshot = Snapshot::of(plan.image, &plan.hardware);
    if snapshot.exists() {
        return Ok(snapshot);
    }
    let name = format!("boot-{}-{}", plan.recipe.name(), std::process::id());
    let key = snapshot.directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let _lock = plan.store.lock(&format!("{}-{key}", plan.recipe.name()), progress)?;
    if snapshot.exists() {
        return Ok(snapshot);
    }
    let step = progress.begin(format!("first boot of {}, kept for the next ones", plan.recipe.name()));
    let first = Plan { name: &name, hardware: plan.hardware.clone(), ..*plan };
    let owned = match machine::boot(&first, &step) {
        // Under emulation a kernel now and then dies in its first boot of what does not happen again.
        Err(LabError::NoBoot { .. }) => {
            step.update("booting once more");
            machine::boot(&first, &step)?
        }
        booted => booted?,
    };
    step.update("keeping it");
    let workplace = plan.image.directory.join(format!(".{key}"));
    store::remove_directory(&workplace)?;
    store::make_private_directory(&workplace)?;
    owned.save(&workplace)?;
    fs::rename(&workplace, &snapshot.directory).map_err(LabError::file("move into place", &workplace))?;
    let size = fs::metadata(snapshot.memory()).map_or(0, |metadata| metadata.len());
    step.done(&format!("{} MB of memory", size / 1_000_000));
    Ok(snapshot)
}
