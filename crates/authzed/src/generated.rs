//! What `cargo run -p xtask -- protos` makes of `proto/`; nothing below is written by hand.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

/// The messages of SpiceDB's API, package `authzed.api.v1`.
pub mod v1 {
    include!("generated/authzed.api.v1.rs");
}

/// The content of `grpc-status-details-bin`, package `google.rpc`.
#[cfg(feature = "client")]
pub(crate) mod rpc {
    include!("generated/google.rpc.rs");
}

/// Package `grpc.health.v1`.
#[cfg(feature = "client")]
pub(crate) mod health {
    include!("generated/grpc.health.v1.rs");
}

/// Package `grpc.reflection.v1`.
#[cfg(feature = "client")]
pub(crate) mod reflection {
    include!("generated/grpc.reflection.v1.rs");
}

/// The descriptors of everything in `proto/`: a serialized `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");
