//! What is in the packages, and that it is the same each time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::unpack;
use super::{VERSION, dist, files};
use crate::support::program::Program;
use crate::support::{folder, root};

#[test]
fn checksums_are_those_of_the_files() {
    let Some(dist) = dist() else { return };
    let check = Program::at("sha256sum".as_ref()).args(["--check", "--strict", "SHA256SUMS"]);
    let checked = check.current_folder(&dist).run().expect_success();
    assert_eq!(checked.text().lines().count(), 3, "{}", checked.text());
    let mut names = files(&dist);
    names.retain(|name| !checked.text().contains(name.to_str().unwrap()));
    assert_eq!(names, [PathBuf::from("SHA256SUMS")]);
}

/// The list of parts names each crate that the lock file has for the programs.
#[test]
fn list_of_parts_is_complete_and_names_no_folder_of_this_machine() {
    let Some(dist) = dist() else { return };
    let text = fs::read_to_string(dist.join(format!("spice-pipes-{VERSION}.cdx.json"))).unwrap();
    let list: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(list["bomFormat"], "CycloneDX");
    assert_eq!(list["metadata"]["component"]["version"], VERSION);
    let mut listed: Vec<String> = list["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|part| {
            format!(
                "{} {}",
                part["name"].as_str().unwrap(),
                part["version"].as_str().unwrap()
            )
        })
        .collect();
    listed.sort();
    let tree = super::cargo()
        .args([
            "tree",
            "--offline",
            "--locked",
            "-p",
            "spice-pipes",
            "-e",
            "normal",
            "--prefix",
            "none",
        ])
        .args(["--target", "x86_64-unknown-linux-musl", "--format", "{p}"])
        .output()
        .unwrap();
    let mut missing: Vec<String> = std::str::from_utf8(&tree.stdout)
        .unwrap()
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some(format!(
                "{} {}",
                words.next()?,
                words.next()?.trim_start_matches('v')
            ))
        })
        .filter(|part| listed.binary_search(part).is_err())
        .collect();
    missing.dedup();
    assert!(listed.len() > 100, "{listed:?}");
    assert_eq!(missing, Vec::<String>::new());
    for folder in private_folders() {
        assert!(!text.contains(&folder), "{folder} is in the list of parts");
    }
}

#[test]
fn programs_name_no_folder_of_this_machine() {
    let Some(dist) = dist() else { return };
    let unpacked = folder();
    let bin = unpack(&dist, unpacked.path()).join("bin");
    for folder in private_folders() {
        let grep = Command::new("grep")
            .args(["-rlF", "--", &folder])
            .arg(&bin)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "{folder}");
    }
}

/// Where the sources and the crates are on this machine.
fn private_folders() -> Vec<String> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let cargo =
        std::env::var_os("CARGO_HOME").map_or(Path::new(&home).join(".cargo"), PathBuf::from);
    [root().to_owned(), cargo]
        .map(|path| path.to_str().unwrap().to_owned())
        .to_vec()
}

#[test]
fn packing_again_gives_the_same_bytes() {
    let Some(dist) = dist() else { return };
    let again = folder();
    let packed = Command::new(root().join("scripts/dist"))
        .arg(again.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&packed.stderr);
    assert!(packed.status.success(), "{stderr}");
    let sums = |folder: &Path| fs::read_to_string(folder.join("SHA256SUMS")).unwrap();
    assert_eq!(sums(again.path()), sums(&dist));
}
