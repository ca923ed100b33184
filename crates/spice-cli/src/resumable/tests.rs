use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::*;

const CHOICES: [Option<Compression>; 3] =
    [None, Some(Compression::Zstd(3)), Some(Compression::Gzip(6))];

fn open(path: &Path, compression: Option<Compression>) -> ResumableFile {
    ResumableFile::open(path, compression).unwrap()
}

fn refused(path: &Path) -> CommandError {
    ResumableFile::open(path, None).err().expect("refused")
}

fn content(path: &Path) -> String {
    let mut text = String::new();
    let (mut reader, _) = crate::stdio::open(path).unwrap();
    reader.read_to_string(&mut text).unwrap();
    text
}

fn names(folder: &tempfile::TempDir) -> usize {
    fs::read_dir(folder.path()).unwrap().count()
}

#[test]
fn file_of_several_runs_is_one_file() {
    for compression in CHOICES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let mut file = open(&path, compression);
        file.write_all(b"one\n").unwrap();
        assert_eq!(file.written(), 4);
        let first = file.checkpoint().unwrap();
        assert_eq!(file.checkpoint().unwrap(), first, "nothing came");
        file.write_all(b"two\n").unwrap();
        let second = file.checkpoint().unwrap();
        file.write_all(b"torn").unwrap();
        file.flush().unwrap();
        drop(file);
        assert!(!path.exists());

        let mut file = open(&path, compression);
        assert!(file.length().unwrap() > second.bytes);
        assert!(file.continue_at(second).unwrap());
        assert_eq!(file.length().unwrap(), second.bytes);
        file.write_all(b"three\n").unwrap();
        file.finish().unwrap();
        assert_eq!(content(&path), "one\ntwo\nthree\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(names(&folder), 1);
    }
}

#[test]
fn damage_before_a_checkpoint_is_found_and_nothing_is_changed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut file = open(&path, None);
    file.write_all(&[b'x'; 1_000]).unwrap();
    let checkpoint = file.checkpoint().unwrap();
    let partial = file.partial().to_owned();
    drop(file);
    let intact = fs::read(&partial).unwrap();
    for at in [0, 500, 999] {
        let mut damaged = intact.clone();
        damaged[at] ^= 1;
        fs::write(&partial, &damaged).unwrap();
        assert!(!open(&path, None).continue_at(checkpoint).unwrap());
        assert_eq!(fs::read(&partial).unwrap(), damaged);
    }
    fs::write(&partial, &intact[..999]).unwrap();
    assert!(!open(&path, None).continue_at(checkpoint).unwrap());
    fs::write(&partial, &intact).unwrap();
    assert!(open(&path, None).continue_at(checkpoint).unwrap());
}

#[test]
fn file_without_a_checkpoint_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut file = open(&path, None);
    file.write_all(b"x").unwrap();
    drop(file);
    assert_eq!(names(&folder), 0);
    fs::write(beside(&path, ".partial"), "").unwrap();
    fs::set_permissions(beside(&path, ".partial"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut file = open(&path, None);
    file.write_all(b"x").unwrap();
    file.checkpoint().unwrap();
    file.restart().unwrap();
    assert_eq!(file.length().unwrap(), 0);
    drop(file);
    assert_eq!(names(&folder), 0);
}

#[test]
fn second_process_is_refused_until_the_first_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut first = open(&path, None);
    let failure = refused(&path);
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.message().contains("out.partial"), "{failure:?}");
    first.write_all(b"x").unwrap();
    // The second waits for the lock of a file that has its name by then.
    let second = std::thread::spawn({
        let path = path.clone();
        move || open(&path, None).length().unwrap()
    });
    std::thread::sleep(Duration::from_millis(100));
    first.finish().unwrap();
    assert_eq!(second.join().unwrap(), 0, "a file of its own");
    assert_eq!(content(&path), "x");
}

#[test]
fn links_and_files_that_others_can_read_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let partial = beside(&path, ".partial");
    let other = folder.path().join("other");
    fs::write(&other, "kept").unwrap();
    symlink(&other, &partial).unwrap();
    assert_eq!(refused(&path).exit, Exit::Failed);
    assert_eq!(fs::read(&other).unwrap(), b"kept");
    fs::remove_file(&partial).unwrap();
    fs::write(&partial, "").unwrap();
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o644)).unwrap();
    let failure = refused(&path);
    assert!(failure.message().contains("others can"), "{failure:?}");
    fs::remove_file(&partial).unwrap();
    fs::create_dir(&partial).unwrap();
    assert_eq!(refused(&path).exit, Exit::Failed);
    assert_eq!(refused(folder.path()).exit, Exit::Usage);
    assert_eq!(refused(Path::new("/dev/null")).exit, Exit::Usage);
}
