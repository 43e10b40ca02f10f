//! Data: the known sets, where their files come from, and how files become images; pictures become images like them.

pub mod sets;

pub mod download;
pub mod synthetic;

pub mod augment;
pub mod dataset;
pub mod file_digest;
pub mod idx;
pub mod idx_file;
pub mod places;

pub mod picture;
