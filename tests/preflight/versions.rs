//! Older servers at either end. Their heads show that nothing was written: v1.30 has no Watch with checkpoints.

use testdata::Sample;

use super::{Pair, has, unchanged};
use crate::copy::holding;
use crate::support::oracle;
use crate::support::spicedb::{Datastore, Server};

#[test]
fn old_source_is_copied_and_not_followed() {
    let old = Server::builder(Datastore::Memory)
        .version("v1.30.0")
        .start();
    oracle::write_schema(&old, "definition user {}");
    let pair = Pair::of(old, Server::start(Datastore::Memory));
    let found = pair.check(&[], 1);
    assert!(
        has(&found, ("fails", "source", "watch", "has no checkpoints")),
        "{found:#?}"
    );
    let found = pair.check(&["--for", "copy"], 3);
    assert!(has(
        &found,
        ("warns", "source", "version", "do not name their datastore")
    ));
    assert!(!has(&found, ("fails", "source", "watch", "")));
}

#[test]
fn old_target_is_not_asked_what_it_parses() {
    let old = Server::start(Datastore::Memory);
    oracle::write_schema(&old, "definition user {}");
    let new = Server::builder(Datastore::Memory)
        .version("v1.30.0")
        .start();
    let pair = Pair::of(old, new);
    let found = pair.check(&["--for", "copy"], 3);
    let untried = (
        "warns",
        "target",
        "schema",
        "cannot be asked without DiffSchema",
    );
    assert!(has(&found, untried), "{found:#?}");
}

#[test]
fn schema_that_an_older_target_does_not_parse_fails() {
    let old = Server::start(Datastore::Memory);
    let schema = "use self\n\ndefinition user {\n\trelation viewer: user\n\tpermission view = viewer + self\n}\n";
    oracle::write_schema(&old, schema);
    let new = Server::builder(Datastore::Memory)
        .version("v1.45.4")
        .start();
    let pair = Pair::of(old, new);
    let found = unchanged(&pair.old, || pair.check(&[], 1));
    let refused = ("fails", "target", "schema", "does not take the schema");
    assert!(has(&found, refused), "{found:#?}");
}

#[test]
fn old_target_without_expiries_fails() {
    let new = Server::builder(Datastore::Memory)
        .version("v1.30.0")
        .start();
    let pair = Pair::of(holding(Sample::portable(100), Datastore::Memory), new);
    let found = pair.check(&[], 1);
    let refused = (
        "fails",
        "target",
        "schema",
        "does not know `use expiration`",
    );
    assert!(has(&found, refused), "{found:#?}");
    assert!(has(
        &found,
        ("fails", "target", "expiry", "does not know expiries")
    ));
}

/// v1.45 has expiries only with a flag.
#[test]
fn old_target_with_expiries_switched_off_fails() {
    let version = || Server::builder(Datastore::Memory).version("v1.45.4");
    let old = holding(Sample::portable(100), Datastore::Memory);
    let mut pair = Pair::of(old, version().start());
    let found = pair.check(&[], 1);
    let off = ("fails", "target", "expiry", "has expiries switched off");
    assert!(has(&found, off), "{found:#?}");
    let flag = "--enable-experimental-relationship-expiration";
    pair.new = version().flag(flag).start();
    pair.connect(None, None);
    let found = pair.check(&[], 3);
    let unnamed = ("warns", "target", "version", "do not name their datastore");
    assert!(has(&found, unnamed), "{found:#?}");
}
