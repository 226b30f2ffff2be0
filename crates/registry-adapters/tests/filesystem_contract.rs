//! The file store keeps the contract of the port, and what only files can promise.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use registry_adapters::blob::filesystem::{FilesystemBlobStore, FilesystemOptions};
use registry_core::digest::{Algorithm, Digest};
use registry_core::error::StoreErrorKind;
use registry_core::ports::blob_store::{AppendError, BlobStore, ObjectKey, Published};
use registry_core::testing::blob_store_suite::{Staged, Subject, assert_same, bytes, contents, object};
use tempfile::TempDir;

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn object(&self, key: &ObjectKey) -> PathBuf {
        self.path().join("blobs").join(key.as_str())
    }

    fn staged(&self, staged: &Staged) -> PathBuf {
        self.path().join("uploads").join(staged.id.to_string())
    }
}

impl Subject for Files {
    fn store(&self) -> Arc<dyn BlobStore> {
        let options = FilesystemOptions { lock_wait: Duration::from_millis(150), ..Default::default() };
        Arc::new(FilesystemBlobStore::open(self.path(), options).expect("open the store"))
    }
}

registry_core::blob_store_suite!(Files::new());

#[tokio::test]
async fn files_lie_where_the_layout_says_and_nobody_else_may_read_them() {
    let files = Files::new();
    let data = files.path().join("deep/data");
    let store = FilesystemBlobStore::open(&data, FilesystemOptions::default()).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    for folder in ["", "blobs", "uploads"] {
        assert_eq!(mode(&data.join(folder)), 0o700, "{folder}");
    }
    for (number, algorithm) in [(1, Algorithm::Sha256), (2, Algorithm::Sha512)] {
        let staged = Staged::of(&store, number, b"content").await;
        let path = data.join("uploads").join(staged.id.to_string());
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"content".to_vec(), 0o600));
        let digest = Digest::of(algorithm, b"content");
        let key = staged.candidates(&store, &digest).nth(0);
        assert_eq!(staged.publish(&store, &key).await, Published::Yes);
        let hex = digest.encoded();
        let folder = if number == 1 { "blobs".into() } else { format!("blobs/{}", algorithm.name()) };
        let object = data.join(folder).join(&hex[..2]).join(hex);
        assert_eq!((fs::read(&object).unwrap(), mode(&object)), (b"content".to_vec(), 0o440));
        assert_eq!(mode(object.parent().unwrap()), 0o700);
        assert!(!path.exists(), "publishing moves, it does not copy");
    }
}

#[tokio::test]
async fn a_data_folder_that_was_there_keeps_its_mode() {
    let files = Files::new();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let _store = files.store();
    assert_eq!(fs::metadata(files.path()).unwrap().permissions().mode() & 0o7777, 0o750);
}

#[tokio::test]
async fn the_probe_leaves_no_file_behind() {
    let files = Files::new();
    files.store().probe().await.unwrap();
    for folder in ["blobs", "uploads"] {
        assert_eq!(fs::read_dir(files.path().join(folder)).unwrap().count(), 0, "{folder}");
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_said_at_once() {
    let files = Files::new();
    fs::write(files.path().join("blobs"), b"a file").unwrap();
    let error = FilesystemBlobStore::open(files.path(), FilesystemOptions::default()).unwrap_err().chain();
    assert!(error.contains(files.path().to_str().unwrap()) && error.contains("blobs"), "{error}");
}

/// Only the session's row says who is the right writer, and that is asked for after the lock was got. Until its first
/// byte or checkpoint a writer must therefore not have changed anything.
#[tokio::test]
async fn a_writer_changes_nothing_before_its_first_byte() {
    let files = Files::new();
    let store = files.store();
    let staged = Staged::of(store.as_ref(), 1, &bytes(1, 1000)).await;
    let overtaken = store.append(staged.id, 0, &Default::default()).await.unwrap();
    drop(overtaken);
    assert_eq!(staged.bytes(store.as_ref()).await, bytes(1, 1000));
}

#[tokio::test]
async fn a_writer_that_waited_while_the_file_was_published_has_lost_it() {
    let files = Files::new();
    let store = files.store();
    let staged = Staged::of(store.as_ref(), 1, b"content").await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(b"content")).nth(0);
    let holder = store.append(staged.id, 7, &staged.staging).await.unwrap();
    let moves = async {
        tokio::task::yield_now().await;
        // What a publisher on another replica does, without its waiting for the lock.
        fs::create_dir_all(files.object(&key).parent().unwrap()).unwrap();
        fs::rename(files.staged(&staged), files.object(&key)).unwrap();
        drop(holder);
    };
    let (waiter, ()) = futures_util::future::join(store.append(staged.id, 7, &staged.staging), moves).await;
    assert!(matches!(waiter, Err(AppendError::Lost)));
    assert_eq!(fs::read(files.object(&key)).unwrap(), b"content");
}

/// A writer that was told of its checkpoint has nothing under way: dropping it ends the lock at that moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_publishes_after_the_last_checkpoint_need_not_wait() {
    let files = Files::new();
    let options = FilesystemOptions { lock_wait: Duration::ZERO, ..Default::default() };
    let store = FilesystemBlobStore::open(files.path(), options).unwrap();
    for round in 0..200 {
        object(&store, round, &[round]).await;
    }
}

#[tokio::test]
async fn what_a_late_writer_staged_beside_the_object_is_tidied_up_by_the_next_publish() {
    let files = Files::new();
    let store = files.store();
    let staged = Staged::of(store.as_ref(), 1, b"content").await;
    let key = staged.candidates(store.as_ref(), &Digest::sha256(b"content")).nth(0);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    let late = Staged::of(store.as_ref(), 1, b"something else").await;
    assert_eq!(store.list_staged().await.unwrap(), [late.id]);
    assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
    assert_eq!(store.list_staged().await.unwrap(), []);
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), b"content");
}

/// A restore that did not end, or a loss of power in the middle of one, leaves files that no row knows.
#[tokio::test]
async fn a_strangers_file_at_the_place_of_an_object_is_not_taken_for_it() {
    let files = Files::new();
    let store = files.store();
    for (number, algorithm) in [(1, Algorithm::Sha256), (2, Algorithm::Sha512)] {
        let original = bytes(u64::from(number), 5000);
        let staged = Staged::of(store.as_ref(), number, &original).await;
        let key = staged.candidates(store.as_ref(), &Digest::of(algorithm, &original)).nth(u32::from(number) - 1);
        fs::create_dir_all(files.object(&key).parent().unwrap()).unwrap();
        fs::write(files.object(&key), [0; 5000]).unwrap();
        assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
        assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);
        assert_eq!(staged.publish(store.as_ref(), &key).await, Published::Yes);
        assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), original);
    }
    assert_eq!(store.list_staged().await.unwrap(), []);
}

#[tokio::test]
async fn other_files_in_the_folders_are_neither_listed_nor_touched() {
    let files = Files::new();
    let store = files.store();
    let key = object(store.as_ref(), 1, b"content").await;
    let hex = key.as_str().split_once('/').unwrap().1;
    let shard = files.object(&key).parent().unwrap().to_owned();
    let strangers = [
        shard.join("README"),
        shard.join(&hex[..60]),
        shard.join(format!("{hex}-01")),
        files.path().join("blobs").join(hex),
        files.path().join("blobs/lost+found"),
        files.path().join("blobs/.hidden"),
        files.path().join("uploads/not-an-upload"),
        files.path().join("uploads").join(Staged::new(0xab).id.to_string().to_uppercase()),
    ];
    for stranger in &strangers {
        fs::write(stranger, b"mine").unwrap();
    }
    fs::create_dir(files.path().join("uploads").join(Staged::new(8).id.to_string())).unwrap();
    fs::create_dir(files.path().join("blobs/zz")).unwrap();
    assert_eq!(store.list_objects(None, 100).await.unwrap(), [(key, 7)]);
    assert_eq!(store.list_staged().await.unwrap(), []);
    assert!(strangers.iter().all(|stranger| fs::read(stranger).unwrap() == b"mine"));
}

#[tokio::test]
async fn no_key_leads_out_of_the_folder() {
    let files = Files::new();
    let store = files.store();
    fs::write(files.path().join("secret"), b"secret").unwrap();
    let staged = Staged::of(store.as_ref(), 1, b"content").await;
    for key in ["../secret", "/etc/hostname", "", "ab", "uploads"] {
        let key = ObjectKey(key.into());
        let kinds = [
            store.open(&key).await.map(|_| ()),
            store.size_of(&key).await.map(|_| ()),
            store.claim_deletion(&key).await.map(|_| ()),
            store.publish(staged.id, 7, &staged.staging, &key).await.map(|_| ()),
        ]
        .map(|outcome| outcome.unwrap_err().kind);
        assert_eq!(kinds, [StoreErrorKind::Corrupt; 4], "{key}");
    }
    assert_eq!(staged.bytes(store.as_ref()).await, b"content");
}

#[tokio::test]
async fn a_claim_permits_to_delete_its_own_key_only() {
    let files = Files::new();
    let store = files.store();
    let [one, other] = [object(store.as_ref(), 1, b"one").await, object(store.as_ref(), 2, b"other").await];
    let claim = store.claim_deletion(&one).await.unwrap().unwrap();
    assert!(store.delete(claim.as_ref(), &other).await.is_err());
    assert_eq!(contents(store.as_ref(), &other).await.unwrap().unwrap(), b"other");
}

#[tokio::test]
async fn a_shard_that_somebody_tidied_up_is_made_again() {
    let files = Files::new();
    let store = files.store();
    let key = object(store.as_ref(), 1, b"content").await;
    fs::remove_file(files.object(&key)).unwrap();
    fs::remove_dir(files.object(&key).parent().unwrap()).unwrap();
    let claim = store.claim_deletion(&key).await.unwrap().unwrap();
    store.delete(claim.as_ref(), &key).await.unwrap();
    assert_eq!(object(store.as_ref(), 2, b"content").await, key);
    assert_eq!(contents(store.as_ref(), &key).await.unwrap().unwrap(), b"content");
}

#[tokio::test]
async fn whoever_has_an_object_open_reads_it_to_its_end_though_it_is_deleted() {
    let files = Files::new();
    let store = files.store();
    let original = bytes(1, 1_000_000);
    let key = object(store.as_ref(), 1, &original).await;
    let mut stream = store.open(&key).await.unwrap().unwrap().stream(0..1_000_000);
    let mut read = stream.next().await.unwrap().unwrap().to_vec();
    let claim = store.claim_deletion(&key).await.unwrap().unwrap();
    store.delete(claim.as_ref(), &key).await.unwrap();
    while let Some(piece) = stream.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert_same(&read, &original, "a deleted object");
}

#[tokio::test]
async fn an_object_that_became_shorter_ends_in_an_error() {
    let files = Files::new();
    let store = files.store();
    let key = object(store.as_ref(), 1, &bytes(1, 1_000_000)).await;
    for (length, range) in [(600_000, 0..1_000_000), (600_000, 700_000..700_001), (0, 0..1)] {
        let reader = store.open(&key).await.unwrap().unwrap();
        fs::set_permissions(files.object(&key), fs::Permissions::from_mode(0o600)).unwrap();
        fs::OpenOptions::new().write(true).open(files.object(&key)).unwrap().set_len(length).unwrap();
        let mut stream = reader.stream(range.clone());
        let (mut read, mut failure) = (0, None);
        while let Some(piece) = stream.next().await {
            assert!(failure.is_none(), "nothing comes after the error");
            match piece {
                Ok(piece) => {
                    assert!(!piece.is_empty(), "an empty piece, and no end");
                    read += piece.len() as u64;
                }
                Err(error) => failure = Some(error.kind),
            }
        }
        assert_eq!(failure, Some(StoreErrorKind::Corrupt), "{range:?}");
        assert_eq!(read, length.saturating_sub(range.start));
    }
}

#[tokio::test]
async fn an_object_that_is_not_in_memory_is_read_from_disk() {
    let files = Files::new();
    let store = files.store();
    let original = bytes(1, 5_000_000);
    let key = object(store.as_ref(), 1, &original).await;
    let reader = store.open(&key).await.unwrap().unwrap();
    let file = reader.file().unwrap();
    for range in [0..5_000_000u64, 2_500_000..2_500_001, 1_000_000..4_000_000] {
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let pieces: Vec<Bytes> = Arc::clone(&reader).stream(range.clone()).try_collect().await.unwrap();
        let (start, end) = (usize::try_from(range.start).unwrap(), usize::try_from(range.end).unwrap());
        assert_same(&pieces.concat(), &original[start..end], &format!("{range:?}"));
    }
}

/// A file system of a few megabytes.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None`, said aloud, where this user may not mount.
    fn mount(megabytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder)),
            other => {
                registry_test_postgres::skip("a full disk", &format!("nobody may mount a tmpfs: {other:?}"));
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_harms_nothing_and_is_used_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(6) else { return };
    let options = FilesystemOptions { min_free_bytes: 1_000_000, ..Default::default() };
    let store = FilesystemBlobStore::open(disk.0.path(), options).unwrap();
    let kept = object(&store, 1, &bytes(1, 500_000)).await;
    let mut resumed = Staged::of(&store, 2, &bytes(2, 1_000_000)).await;
    store.probe().await.unwrap();

    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 4_000_000]).unwrap();
    assert_eq!(store.probe().await.unwrap_err().kind, StoreErrorKind::Full);
    let mut writer = store.append(resumed.id, resumed.offset, &resumed.staging).await.unwrap();
    let mut failure = None;
    for _ in 0..64 {
        if let Err(error) = writer.write(bytes(3, 100_000).into()).await {
            failure = Some(error);
            break;
        }
    }
    let failure = failure.expect("6.4 MB do not fit, and a writer that is told so only at the end fills memory first");
    assert_eq!(failure.kind, StoreErrorKind::Full, "{}", failure.chain());
    assert!(writer.checkpoint().await.is_err(), "a writer that failed stays failed");
    drop(writer);
    assert_same(&contents(&store, &kept).await.unwrap().unwrap(), &bytes(1, 500_000), "what was there before");

    fs::remove_file(&ballast).unwrap();
    resumed.append(&store, &bytes(4, 1_000_000)).await;
    store.probe().await.unwrap();
    assert_same(&resumed.bytes(&store).await, &[bytes(2, 1_000_000), bytes(4, 1_000_000)].concat(), "the upload");
}
