//! Blobs of the server's content-addressable storage (CAS): which of them it has, uploads, downloads.
//!
//! An execution can begin when the last of its inputs is there, so what counts is not only that the line is
//! busy but in which order blobs are sent: with hundreds of transfers at once, each gets a part of the line,
//! and all end late. So jobs upload one after the other, and no more is on its way at once than keeps a
//! long line full. Which blobs the server lacks is found out ahead of that, for many jobs in one call.

mod download;
mod missing;
mod transfer;
mod upload;
mod upload_queue;

pub(super) use download::Downloader;
pub(super) use transfer::BlobLimits;
pub(super) use upload::Uploader;
