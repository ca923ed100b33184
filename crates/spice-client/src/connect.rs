//! Connects to a server.

use authzed::{Client, Config, Security};
use spice_cli::connection::unblocked;
use spice_cli::{CommandError, Connection};
use tokio::runtime::Handle;

/// Connects and makes first contact, for whoever has to look at the error itself.
///
/// # Errors
///
/// Outside, exit 1 where the attempt panicked; inside, that of [`Client::connect`].
pub async fn first_contact(
    connection: &Connection,
) -> Result<Result<Client, authzed::Error>, CommandError> {
    // Certificates are read from files, which may be pipes that nobody opens.
    let (config, runtime) = (connection.config().clone(), Handle::current());
    unblocked(move || Ok::<_, CommandError>(runtime.block_on(Client::connect(&config)))).await
}

/// Connects and makes first contact: within 5 s it is known whether the server is there, speaks
/// TLS or not, and takes the token.
///
/// # Errors
///
/// Exit 75 or 77, saying which of these it was.
pub async fn connect(connection: &Connection) -> Result<Client, CommandError> {
    let client = first_contact(connection).await??;
    let Config {
        endpoint,
        token,
        security,
        proxy,
        ..
    } = connection.config();
    let tls = match security {
        Security::Plaintext => "without TLS",
        Security::Tls(tls) if tls.verify => "with TLS",
        Security::Tls(_) => "with TLS, certificate not verified",
    };
    let token = if token.is_some() { "with" } else { "without" };
    let proxy = proxy.as_ref();
    let proxy = proxy.map_or_else(String::new, |proxy| format!(" through the proxy {proxy}"));
    tracing::debug!("connected to {endpoint}{proxy} {tls}, {token} a token");
    Ok(client)
}
