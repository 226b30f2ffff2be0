//! Looking at a database that belongs to somebody else, and is not changed.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};
use sqlx::{ConnectOptions as _, Connection as _};

use super::{connect_options, create_private, sync};
use crate::sql::error::{Failure, Result};

/// The bytes of a database file that SQLite locks (<https://www.sqlite.org/src/file/src/os.h>): whoever has opened a
/// database with a write-ahead log holds a shared lock on some of them until it is closed.
const LOCKED: std::ops::Range<u64> = 0x4000_0000..0x4000_0200;

/// Whether another process has the database open. This process must not: to close the file here would give up its locks.
pub(in crate::sql) fn is_in_use(path: &Path) -> io::Result<bool> {
    let mut lock = Flock::from(FlockType::WriteLock);
    lock.start = LOCKED.start;
    lock.length = LOCKED.end - LOCKED.start;
    lock.offset_type = FlockOffsetType::Set;
    Ok(fcntl_getlk(File::open(path)?, &lock)?.is_some())
}

/// Writes a consistent copy of the database `path` to `target`, which must not exist, whether or not others use it.
pub(in crate::sql) async fn snapshot(path: &Path, target: &Path) -> Result<()> {
    let text = target.to_str().ok_or_else(|| Failure::Unreadable("the path of the copy is not UTF-8".into()))?;
    create_private(target, true).await?;
    let options = connect_options(path).create_if_missing(false).read_only(true);
    let mut connection = options.connect().await?;
    sqlx::query("VACUUM INTO $1").bind(text).execute(&mut connection).await?;
    connection.close().await?;
    sync(target).await.map_err(|error| Failure::Database(error.into()))
}
