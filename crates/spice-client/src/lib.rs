//! What one must know to work with a live SpiceDB.
//!
//! | module | holds |
//! |---|---|
//! | [`connect`](mod@connect) | connecting, with a diagnosis where that fails |
//! | [`datastore`] | which kind of datastore a server has |
//! | [`same_datastore`] | refuses a target that is the source |
//! | [`settle`] | `--settle`: when a revision may be trusted |
//! | [`schema`] | whether a server's schema is a given text |
//! | [`lookup`] | what a server holds of given relationships |
//! | [`touch`] | whether a TOUCH took effect where an expiry is in play |
//! | [`retry`] | the one policy of trying again |
//! | [`server`] | the calls that writing programs make, as a trait |
//! | [`write_engine`] | sends updates: retries, limits learned, bisection, skipped touches |
//! | [`unknown_fields`] | `--ignore-unknown-fields` |

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod connect;
pub mod datastore;
pub mod lookup;
pub mod retry;
pub mod same_datastore;
pub mod schema;
#[cfg(any(test, feature = "scripted"))]
pub mod scripted;
pub mod server;
pub mod settle;
pub mod touch;
pub mod unknown_fields;
pub mod write_engine;

pub use connect::connect;

#[cfg(test)]
mod tests {
    use authzed::DatastoreKind;
    use spice_cli::Connection;
    use spice_cli::connection::ConnectionArgs;
    use spice_cli::settings::Settings;

    /// Flags that declare this kind of datastore.
    pub(crate) async fn connection(datastore: Option<DatastoreKind>) -> Connection {
        let settings = Settings {
            endpoint: Some("test.invalid:50051".to_owned()),
            insecure: true,
            datastore,
            ..Settings::default()
        };
        let args = ConnectionArgs {
            context: None,
            settings,
        };
        args.resolve().await.unwrap()
    }
}
