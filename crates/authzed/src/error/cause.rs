//! Causes that an operator can remove by changing the connection. Typed, so that the programs name
//! their own flags for each.

/// Why a call or a connection failed, where that is more than its [`Kind`](super::Kind).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// TLS was asked for, and the server answers without.
    ServerWithoutTls,
    /// TLS was not asked for, and the server requires it.
    ServerWithTls,
    /// The endpoint belongs to something that does not speak gRPC.
    NotGrpc,
    /// The server's certificate cannot be verified, because no authority is trusted here.
    NoAuthority,
    /// No trusted authority has signed the server's certificate.
    UnknownAuthority,
    /// The server's certificate is for another host name.
    OtherHostName,
    /// The server's certificate has expired.
    CertificateExpired,
    /// The server's certificate is not valid yet.
    CertificateNotYetValid,
    /// The server's certificate is marked as an authority's, and is not trusted itself.
    AuthorityAsServer,
    /// The server requires a client certificate.
    ClientCertificateRequired,
    /// A proxy in front of the server refused the call.
    RefusedByProxy,
    /// A proxy in front of the server cannot reach it.
    ProxyWithoutServer,
    /// The configured proxy requires a user name and password, or others than it was given.
    ProxyCredentials,
    /// The configured proxy cannot be reached, does not answer, is none, or makes no connections for its
    /// clients.
    NoTunnel,
    /// The configured proxy has connected, and then the connection ended or there was no answer: it is the
    /// proxy's fault, or the server's.
    BehindProxy,
    /// Who runs this may not open the server's Unix socket.
    SocketDenied,
    /// What the endpoint names is a file, and no Unix socket.
    NotSocket,
    /// The server uses fields of a newer API.
    NewerServer,
    /// A caveat's context, or a transaction's metadata, is nested deeper than a stream can hold.
    NestedTooDeep,
}
