//! `inspect verify`: a canary container made through containerd's own API, the proof of which OCI runtime made it, and what the
//! kernel shows of it from inside and outside.
//!
//! Together with `swap` the only code of the tool that changes a node: it makes a containerd namespace, two containers and a
//! directory below `/run`, and removes them again whatever happens.

pub(crate) mod canary;
mod containers;
mod cri;
mod cri_api;
mod docker;
mod observe;
mod rootfs;
mod run;
mod sandbox_image;
mod spec;
mod tasks;

pub(crate) use self::cri::run_cri_canary;
pub(crate) use self::docker::run_docker_canary;
pub(crate) use self::run::{CanaryError, CanaryReport, Subject, run_canary};
