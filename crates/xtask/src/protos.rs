//! `protos`: `crates/authzed/proto` becomes `crates/authzed/src/generated`.
//!
//! The files are parsed by protox, so no protoc is needed, and only client code is made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use prost::Message;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail where the checked-in files differ
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let authzed = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("authzed");
    let target = authzed.join("src/generated");
    let scratch = tempfile::tempdir()?;
    generate(&authzed.join("proto"), scratch.path())?;

    let fresh = read_files(scratch.path())?;
    let current = read_files(&target)?;
    if args.check {
        let stale = fresh
            .iter()
            .find(|(name, bytes)| current.get(*name) != Some(*bytes));
        let extra = current.keys().find(|name| !fresh.contains_key(*name));
        if let Some(name) = stale.map(|(name, _)| name).or(extra) {
            bail!(
                "{} is not what the .proto files say; run `cargo run -p xtask -- protos`",
                target.join(name).display()
            );
        }
        return Ok(());
    }

    fs::create_dir_all(&target)?;
    for name in current.keys().filter(|name| !fresh.contains_key(*name)) {
        fs::remove_file(target.join(name))?;
    }
    for (name, bytes) in &fresh {
        fs::write(target.join(name), bytes)?;
    }
    Ok(())
}

/// Compiles every .proto file below `protos` into `out`.
fn generate(protos: &Path, out: &Path) -> Result<()> {
    let mut files = Vec::new();
    find_protos(protos, &mut files)?;
    files.sort();

    let mut compiler = protox::Compiler::new([protos])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    let mut descriptors = compiler.file_descriptor_set();

    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        // The messages are also there without the calls.
        .client_mod_attribute(".", "#[cfg(feature = \"client\")]")
        // prost's own gives up at 32 levels.
        .extern_path(".google.protobuf.Struct", "crate::JsonObject")
        .out_dir(out)
        .compile_fds(descriptors.clone())
        .context("generating Rust code")?;

    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    fs::write(out.join("descriptor.bin"), descriptors.encode_to_vec())?;
    Ok(())
}

fn find_protos(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            find_protos(&path, found)?;
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            found.push(path);
        }
    }
    Ok(())
}

/// The files of a folder by name; none where it does not exist.
fn read_files(folder: &Path) -> Result<BTreeMap<OsString, Vec<u8>>> {
    let mut files = BTreeMap::new();
    if folder.exists() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            files.insert(entry.file_name(), fs::read(entry.path())?);
        }
    }
    Ok(files)
}
