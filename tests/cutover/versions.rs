//! SpiceDB of other versions as source and as target: what works, and what reports at once that it does not.
//!
//! What is found is a row of the table in docs/versions.md. `make versions` builds every version and finds all
//! rows; `make test` the oldest.

use super::{Migration, PATIENCE};
use crate::copy::{export, import};
use crate::support::oracle::{self, Precision};
use crate::support::pipe::Pipe;
use crate::support::program::Program;
use crate::support::refusing::Refusing;
use crate::support::spicedb::{Datastore, Server};
use crate::support::{figure, folder, root};

const OLDEST: &str = "v1.30.0";
const OTHERS: [&str; 4] = ["v1.35.0", "v1.40.0", "v1.45.4", "v1.57.1"];

/// A relationship with an expiry, as it is in a stream.
const EXPIRING: &str = r#"{"relationship":{"resource":{"objectType":"team","objectId":"t"},"relation":"member","subject":{"object":{"objectType":"user","objectId":"u"}},"optionalExpiresAt":"2999-01-01T00:00:00Z"}}"#;

/// As every version takes it.
const SCHEMA: &str = r#"caveat on_net(net ipaddress, cidr string) {
	net.in_cidr(cidr)
}

/**
* people
*/
definition user {}

definition team {
	relation member: user | team#member
}

/** a document */
definition tenant/doc {
	relation owner: user
	// who reads
	relation viewer: user | user:* | team#member | user with on_net
	permission view = (viewer + owner)
	permission edit = owner & viewer
}
"#;

/// A server of this version; `None`: the tests' own.
fn server(version: Option<&str>) -> Server {
    let builder = Server::builder(Datastore::Memory);
    match version {
        None => builder.start(),
        Some(version) => {
            let builder = builder.version(version);
            // Two versions have expiries as an experiment.
            let builder = match version {
                "v1.40.0" | "v1.45.4" => {
                    builder.flag("--enable-experimental-relationship-expiration")
                }
                _ => builder,
            };
            builder.start()
        }
    }
}

fn line(operation: &str, resource: &str, relation: &str, subject: &str) -> String {
    format!(
        "{{\"op\":\"{operation}\",\"resource\":\"{resource}\",\"relation\":\"{relation}\",\"subject\":\"{subject}\"}}\n"
    )
}

fn fill(server: &Server) {
    oracle::write_schema(server, SCHEMA);
    let mut lines = String::new();
    for number in 0..300 {
        let doc = format!("tenant/doc:d{number}");
        lines += &line("touch", &doc, "viewer", &format!("user:u{}", number % 7));
        lines += &line("touch", &doc, "owner", &format!("user:u{}", number % 5));
        lines += &line(
            "touch",
            &format!("team:t{}", number % 9),
            "member",
            &format!("user:u{number}"),
        );
    }
    let caveated = line("touch", "tenant/doc:net", "viewer", "user:u1");
    let caveat = r#","caveat":"on_net","context":{"cidr":"10.0.0.0/8"}}"#;
    lines += &caveated.replace('}', caveat);
    oracle::load(server, &lines);
}

/// How a migration from one end to the other goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Goes {
    Live,
    /// The source cannot be followed, and plan reports that.
    Fenced,
}

fn migrate(from: Server, to: Server) -> (Migration, Goes) {
    fill(&from);
    let migration = Migration::of(from, to).settling("500ms");
    let ends = [
        "plan",
        "--from",
        migration.from.context(),
        "--to",
        migration.to.context(),
    ];
    let plan = |more: &[&str]| migration.step(&[&ends[..], more].concat()).run();
    let planned = plan(&migration.settle);
    let goes = if planned.code() == Some(0) {
        let following = live(&migration);
        following.signal("INT");
        following.wait();
        Goes::Live
    } else {
        let refused = planned.expect_code(1).stderr;
        assert!(
            refused.contains("cannot be followed: its Watch has no checkpoints"),
            "{refused}"
        );
        assert!(refused.contains("plan --fenced"), "{refused}");
        let flags = [&["--fenced"][..], &migration.settle].concat();
        plan(&flags).expect_success();
        migration.step(&["copy"]).run().expect_success();
        migration.step(&["check"]).run().expect_success();
        Goes::Fenced
    };
    let held =
        oracle::assert_same_relationships(&migration.from, &migration.to, Precision::Nanoseconds);
    assert!(held > 500, "{held}");
    (migration, goes)
}

fn live(migration: &Migration) -> crate::support::running::Running {
    migration.step(&["copy"]).run().expect_success();
    let following = migration.follow();
    let gone = line("delete", "tenant/doc:d1", "viewer", "user:u1");
    let more = line("touch", "tenant/doc:new", "viewer", "user:*");
    oracle::load(&migration.from, &(gone + &more));
    let verify = migration.step(&["verify", "--check-sample", "100"]);
    verify.run().expect_success();
    migration
        .step(&["cutover"])
        .input("fenced\n")
        .run()
        .expect_success();
    following
}

fn check(server: &Server) -> Program {
    Program::new("spice-check").args(["--context", server.context()])
}

/// The same questions, the same answers.
fn answers_alike(migration: &Migration) {
    let folder = folder();
    let asked = folder.path().join("asked");
    let answer = check(&migration.from)
        .args(["--sample", "100"])
        .output_file(&asked);
    Pipe::from(export(&migration.from))
        .to(answer)
        .timeout(PATIENCE)
        .expect_success();
    let head = oracle::head(&migration.to);
    let compare = check(&migration.to).args(["--at", &head]).arg(&asked);
    let alike = compare.run().expect_success();
    assert!(
        alike.stderr.contains("gives the same answers"),
        "{}",
        alike.stderr
    );
}

/// Whether the server keeps an expiry. One that would drop it gets no such relationship.
fn keeps_expiries(version: &str) -> bool {
    let server = server(Some(version));
    let import_expiring = || {
        let import = import(&server).arg("--no-trailer");
        import.input(format!("{EXPIRING}\n")).run()
    };
    let schema = "use expiration
definition user {}
definition team {
	relation member: user with expiration
}
";
    if version == OLDEST || version == "v1.35.0" {
        oracle::write_schema(
            &server,
            "definition user {}
definition team {
	relation member: user
}
",
        );
        let refused = import_expiring().expect_code(1).stderr;
        assert!(
            refused.contains("this server does not know expiries"),
            "{refused}"
        );
        assert_eq!(oracle::dump(&server, Precision::Seconds), [""; 0]);
        let newer = self::server(None);
        oracle::write_schema(&newer, schema);
        let folder = folder();
        let stream = folder.path().join("stream");
        export(&newer).output_file(&stream).run().expect_success();
        let import = import(&server).arg("--dry-run");
        let refused = import.args(["--schema", "write"]).arg(&stream).run();
        let refused = refused.expect_code(1).stderr;
        assert!(
            refused.contains("does not know `use expiration`"),
            "{refused}"
        );
        return false;
    }
    oracle::write_schema(&server, schema);
    import_expiring().expect_success();
    assert!(oracle::dump(&server, Precision::Seconds)[0].contains("2999-01-01"));
    true
}

/// What is known of a version, in the form of the table.
fn row(version: &str) -> String {
    let (from, goes) = migrate(server(Some(version)), server(None));
    answers_alike(&from);
    let (to, follows) = migrate(server(None), server(Some(version)));
    answers_alike(&to);
    assert!(follows == Goes::Live, "a target needs no Watch");
    let source = match goes {
        Goes::Live => "yes | live",
        Goes::Fenced => "no: no checkpoints | fenced",
    };
    let expiry = if keeps_expiries(version) {
        "yes"
    } else {
        "refused"
    };
    format!("| {version} | yes | {source} | yes | yes | live | {expiry} | yes |")
}

fn is_documented(version: &str) {
    let row = row(version);
    figure(&row);
    let page = std::fs::read_to_string(root().join("docs/versions.md")).unwrap();
    assert!(
        page.lines().any(|line| line == row),
        "docs/versions.md has no line {row}"
    );
}

#[test]
fn the_oldest_version_is_left_and_reached() {
    is_documented(OLDEST);
}

#[test]
fn every_version_is_left_and_reached() {
    if std::env::var_os("SPICE_VERSIONS").is_none() {
        figure("skipped: make versions builds and tries them all");
        return;
    }
    for version in OTHERS {
        is_documented(version);
    }
}

/// Two servers of which nobody knows whether they are one.
#[test]
fn unnamed_datastores_are_asked_about() {
    let (from, to) = (server(Some(OLDEST)), server(Some(OLDEST)));
    fill(&from);
    let folder = folder();
    let stream = folder.path().join("stream");
    export(&from).output_file(&stream).run().expect_success();
    let import_stream = || import(&to).arg(&stream);
    let refused = import_stream().run().expect_code(2).stderr;
    assert!(
        refused.contains("cannot be known") && refused.contains("--same-datastore"),
        "{refused}"
    );
    import_stream()
        .arg("--same-datastore")
        .run()
        .expect_success();
    oracle::assert_same_relationships(&from, &to, Precision::Nanoseconds);
    // And a revision of which nobody knows what schema it had.
    let at = oracle::head(&from);
    let export = || Program::new("spice-export").args(["--context", from.context(), "--at", &at]);
    let refused = export().run().expect_code(2).stderr;
    assert!(refused.contains("does not report what schema"), "{refused}");
    export().arg("--no-schema").run().expect_success();
}

/// A gateway that does not pass reflection on: then the server is taken for the oldest, or for one of today if it has
/// what those have.
#[test]
fn server_that_cannot_be_asked_gets_nothing_that_it_might_drop() {
    let import = |server: &Server| {
        let gateway = Refusing::to(server, &["ServerReflectionInfo"]);
        let flags = server.flags_by(&gateway.endpoint());
        let import = Program::new("spice-import").args(flags).arg("--no-trailer");
        import.input(format!("{EXPIRING}\n")).run()
    };
    let old = server(Some(OLDEST));
    oracle::write_schema(
        &old,
        "definition user {}\ndefinition team {\n\trelation member: user\n}\n",
    );
    let refused = import(&old).expect_code(1).stderr;
    assert!(
        refused.contains("this server does not know expiries"),
        "{refused}"
    );
    // Its tokens name a datastore only once there is a schema.
    let new = server(None);
    let refused = import(&new).expect_code(1).stderr;
    assert!(!refused.contains("does not know expiries"), "{refused}");
}
