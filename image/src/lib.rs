//! Reads container images (OCI layouts, `ctr images export`, `docker save`) and unpacks them into OCI bundles.
//!
//! An image is foreign: nothing in it is believed. Every digest is checked, every size is bounded, and no path of an
//! image reaches the kernel but as one name below a descriptor that was resolved inside the root file system.
//! Reading is [`source`] → [`manifest`] → [`layer`] → [`tar`]; writing is [`bundle`] → [`unpack`]; what the container
//! is to run is [`spec`].

pub mod accounts;
pub mod blob;
pub mod bundle;
pub mod layer;
pub mod limits;
pub mod manifest;
pub mod source;
pub mod spec;
pub mod summary;
pub mod tar;
pub mod unpack;
