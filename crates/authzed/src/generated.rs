//! What `cargo run -p xtask -- protos` makes of `proto/`; nothing below is written by hand.

#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

// Where a message of one package is a field in another one, the generated code refers to it by these
// paths.
pub mod authzed {
    pub mod api {
        /// The messages of SpiceDB's API, package `authzed.api.v1`.
        pub mod v1 {
            include!("generated/authzed.api.v1.rs");
        }
    }
}

pub mod google {
    /// An error inside an answer, and the content of `grpc-status-details-bin`: package `google.rpc`.
    pub mod rpc {
        include!("generated/google.rpc.rs");
    }
}

pub use self::authzed::api::v1;
pub use self::google::rpc;

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
