//! A client of [SpiceDB]'s v1 API, as far as moving authorization data needs it.
//!
//! It covers the schema, bulk export and import, reading and writing relationships, bulk checks, and Watch. The
//! `.proto` files in `proto/` hold only what is in use, and each message in them is complete:
//! a field that is left out would be data that is lost. [`compare_descriptors`] asks a server
//! whether that is still so.
//!
//! Without the feature `client` the messages, [`zedtoken`], [`DatastoreKind`], [`Config`] and [`Error`] remain, and
//! nothing that could open a connection.
//!
//! The facts about servers in this documentation were measured on SpiceDB v1.56.0.
//!
//! [SpiceDB]: https://authzed.com/docs

#![forbid(unsafe_code)]
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
mod config;
mod consistency;
mod datastore;
mod error;
mod generated;
mod json_object;
mod proxy;
pub mod zedtoken;

#[cfg(feature = "client")]
mod call;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod connector;
#[cfg(feature = "client")]
mod diagnose;
#[cfg(feature = "client")]
mod endpoint;
#[cfg(feature = "client")]
mod grpc_only;
#[cfg(feature = "client")]
mod import;
#[cfg(feature = "client")]
mod offers;
#[cfg(feature = "client")]
mod stream;
#[cfg(feature = "testing")]
mod testing;
#[cfg(feature = "client")]
mod tls;
#[cfg(feature = "client")]
mod tunnel;
#[cfg(feature = "client")]
mod wire;

pub use address::{ServerAddress, Socket};
pub use config::{Config, Identity, Pem, Security, TlsConfig};
pub use datastore::{DatastoreKind, HeadObserver};
pub use error::{Cause, Error, Kind, reason_of};
pub use generated::{FILE_DESCRIPTOR_SET, rpc, v1};
pub use json_object::{JsonObject, MAX_DEPTH};
pub use prost_types::Timestamp;
pub use proxy::Proxy;
pub use secrecy::SecretString;

#[cfg(feature = "client")]
pub use self::{
    client::{Client, Difference, Schema, Written, compare_descriptors},
    import::{EncodedRelationships, RelationshipsEncoder},
    offers::{Offers, check_about_nothing},
    stream::ResponseStream,
};
#[cfg(feature = "client")]
pub use tonic::Code;

/// The reason, in an error's details and without the prefix `ERROR_REASON_`, with which a server gives a
/// question up: it has followed the data to its `--dispatch-max-depth`.
pub const MAXIMUM_DEPTH_EXCEEDED: &str = "MAXIMUM_DEPTH_EXCEEDED";
