//! `tests/servers/spicedb`, which starts the servers of all other tests.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::support::program::Program;
use crate::support::{folder, root};

/// The server that would be started with these folders first on PATH.
fn binary(folders: &[&std::path::Path]) -> String {
    let rest = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.iter().map(|folder| folder.to_path_buf());
    let path = std::env::join_paths(folders.chain(std::env::split_paths(&rest)));
    let binary = Program::script("tests/servers/spicedb").arg("binary");
    let binary = binary.env("PATH", path.unwrap()).run().expect_success();
    binary.text().trim().to_owned()
}

#[test]
fn script_does_not_take_itself_for_the_server() {
    let usual = binary(&[]);
    let scripts = root().join("tests/servers");
    let (links, programs) = (folder(), folder());
    symlink(scripts.join("spicedb"), links.path().join("spicedb")).unwrap();
    let [links, programs] = [links.path(), programs.path()];
    assert_eq!(binary(&[&scripts, links]), usual);
    let server = programs.join("spicedb");
    std::fs::write(&server, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&server, std::fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(
        binary(&[&scripts, links, programs]),
        server.to_str().unwrap()
    );
}
