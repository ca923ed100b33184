//! Our messages are those of the real server: a field that we did not know would be data that is lost.

use authzed::{Client, Config, Security, compare_descriptors};

use crate::support::spicedb::{Datastore, Server};

#[tokio::test]
async fn messages_are_those_of_the_real_server() {
    let server = Server::start(Datastore::Memory);
    let config = Config {
        token: Some(server.token().trim().to_owned().into()),
        security: Security::Plaintext,
        ..Config::new(server.endpoint())
    };
    let client = Client::connect(&config).await.unwrap();
    let differences = compare_descriptors(&client).await.unwrap();
    let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{shown:#?}");
}
