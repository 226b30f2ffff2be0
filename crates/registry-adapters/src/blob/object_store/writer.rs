//! Appending: full parts go out as they fill, the rest at a checkpoint.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use object_store::PutPayload;
use object_store::multipart::PartId;
use registry_core::error::{StoreError, StoreErrorKind};
use registry_core::ports::blob_store::{AppendError, StagingWriter};
use registry_core::ports::entropy::Entropy;
use registry_core::upload::{StagingState, UploadId};
use tokio::task::JoinSet;

use super::Inner;
use super::errors::{failure, is_absent};
use super::memory::Room;
use super::staged::{Multipart, Staged, Tail, key};
use crate::entropy::OsEntropy;

/// How many parts of one upload are on their way at once; one at a time leaves the network idle between two.
const PARTS_IN_FLIGHT: usize = 4;
/// How much of a part is kept in memory without a permit: small blobs never wait for large ones.
const FREE_BYTES: usize = 64 * 1024;
/// Bytes are copied into pieces of this length, so that what a part occupies is its length, and not that of the network
/// buffers that its bytes came in.
const PIECE_BYTES: usize = 256 * 1024;
/// How many parts S3 takes.
pub(super) const MAX_PARTS: u64 = 10_000;

type SentPart = (usize, Result<PartId, StoreError>);

/// A name that nobody else has chosen or will choose.
fn unique_name() -> String {
    let mut bytes = [0; 16];
    OsEntropy.fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().simple().to_string()
}

/// Appends to one upload.
///
/// Nobody is excluded: another writer of this upload may put other bytes in the place of a part. The store notices when
/// the upload is completed, because each part is named there by its contents.
pub(super) struct Writer {
    store: Arc<Inner>,
    id: UploadId,
    /// What the last checkpoint says; its parts and the multipart upload are ahead of it.
    staged: Staged,
    /// Parts under way.
    sending: JoinSet<SentPart>,
    /// What comes after the last full part, unless it was put away.
    buffer: Buffer,
    room: Option<Room>,
    /// The object that holds what the buffer held, while its room is another's. No row names it, unless it is the tail.
    put_away: Option<Tail>,
    /// Whether the buffer is not what the tail is.
    is_dirty: bool,
    has_failed: bool,
}

impl Writer {
    /// Begins after what is staged; the tail is read, because it has to become part of something longer.
    pub(super) async fn open(store: Arc<Inner>, id: UploadId, mut staged: Staged) -> Result<Self, AppendError> {
        staged.superseded.clear();
        let (mut buffer, mut room) = (Buffer::default(), None);
        if let Some(tail) = &staged.tail {
            room = store.room_for(tail.size).await;
            let bytes = store.read_tail(id, tail).await?.ok_or(AppendError::Lost)?;
            buffer.push(&bytes);
        }
        let sending = JoinSet::new();
        let put_away = None;
        Ok(Self { store, id, staged, sending, buffer, room, put_away, is_dirty: false, has_failed: false })
    }

    fn part_bytes(&self) -> usize {
        usize::try_from(self.staged.part_bytes).expect("a part fits into memory")
    }

    async fn take(&mut self, mut bytes: Bytes) -> Result<(), StoreError> {
        // A client that sends a little at a time would never be found at rest.
        self.make_room().await;
        while !bytes.is_empty() {
            self.fetch_back().await?;
            let piece = bytes.split_to(bytes.len().min(self.part_bytes() - self.buffer.length));
            let length = self.buffer.length + piece.len();
            if self.room.is_none() && length > FREE_BYTES {
                // Nothing is held here that others wait for: parts under way and clients at rest give their room back.
                self.room = self.store.room_for(length as u64).await;
            }
            self.buffer.push(&piece);
            self.is_dirty = true;
            if self.buffer.length == self.part_bytes() {
                self.send_part().await?;
            }
        }
        Ok(())
    }

    /// Sends the buffer as the next part.
    async fn send_part(&mut self) -> Result<(), StoreError> {
        let multipart = match &self.staged.multipart {
            Some(multipart) => multipart.clone(),
            None => {
                let name = unique_name();
                let path = self.store.path(&key(self.id, &name))?;
                let id = self.store.backend.multipart.create_multipart(&path).await;
                Multipart { name, id: id.map_err(failure(format!("begin the parts of the upload {}", self.id)))? }
            }
        };
        self.staged.multipart = Some(multipart.clone());
        let index = self.staged.parts.len();
        if index as u64 >= MAX_PARTS {
            let context = format!("the upload {} has more than {MAX_PARTS} parts", self.id);
            return Err(StoreError { kind: StoreErrorKind::Other, context, source: None });
        }
        self.staged.parts.push(String::new());
        while self.sending.len() >= PARTS_IN_FLIGHT {
            self.receive_part().await?;
        }
        let (payload, room) = (self.buffer.take(), self.room.take());
        let (store, id) = (Arc::clone(&self.store), self.id);
        self.sending.spawn(async move {
            let sent = store.put_part(id, &multipart, index, payload).await;
            drop(room);
            (index, sent)
        });
        Ok(())
    }

    /// Waits for one of the parts under way.
    async fn receive_part(&mut self) -> Result<(), StoreError> {
        let Some(sent) = self.sending.join_next().await else { return Ok(()) };
        let (index, part) = sent.map_err(|error| {
            StoreError::new(StoreErrorKind::Other, format!("send a part of the upload {}", self.id), error)
        })?;
        self.staged.parts[index] = part?.content_id;
        Ok(())
    }

    /// Puts the buffer away if its turn is over and others wait for memory. May be dropped at any time: then the buffer is
    /// still there.
    async fn make_room(&mut self) {
        let Some(room) = &self.room else { return };
        let (store, id) = (&self.store, self.id);
        let put_away = async {
            match &self.staged.tail {
                Some(tail) if !self.is_dirty => Ok(tail.clone()),
                _ => {
                    let tail = Tail { name: unique_name(), size: self.buffer.length as u64 };
                    store.put_tail(id, &tail, self.buffer.payload()).await.map(|()| tail)
                }
            }
        };
        match store.memory.give_up_after_turn(room, put_away).await {
            None => {}
            Some(Ok(tail)) => {
                self.put_away = Some(tail);
                self.buffer = Buffer::default();
                self.room = None;
            }
            Some(Err(error)) => tracing::debug!(upload = %id, error = error.chain(), "a part stays in memory"),
        }
    }

    /// Reads what was put away.
    async fn fetch_back(&mut self) -> Result<(), StoreError> {
        let Some(tail) = &self.put_away else { return Ok(()) };
        let room = self.store.room_for(tail.size).await;
        let lost = || StoreError::corrupt(format!("what was put away of the upload {} is not there", self.id));
        self.buffer.push(&self.store.read_tail(self.id, tail).await?.ok_or_else(lost)?);
        self.room = room;
        let tail = self.put_away.take().expect("it was there a moment ago");
        if self.staged.tail.as_ref() != Some(&tail) {
            // No row names it. What cannot be removed now goes when the session ends.
            let _ = self.store.delete(&key(self.id, &tail.name)).await;
        }
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), StoreError> {
        while !self.sending.is_empty() {
            self.receive_part().await?;
        }
        // No bytes at all are an upload, too.
        let is_nothing = self.staged.parts.is_empty() && self.staged.tail.is_none();
        if !self.is_dirty && !is_nothing {
            return Ok(());
        }
        let old = if let Some(tail) = &self.put_away {
            self.staged.tail.replace(tail.clone())
        } else if self.buffer.length > 0 || is_nothing {
            let tail = Tail { name: unique_name(), size: self.buffer.length as u64 };
            self.store.put_tail(self.id, &tail, self.buffer.payload()).await?;
            self.staged.tail.replace(tail)
        } else {
            self.staged.tail.take()
        };
        self.staged.superseded.extend(old.map(|tail| tail.name));
        self.is_dirty = false;
        Ok(())
    }
}

#[async_trait]
impl StagingWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        self.refuse_after_failure()?;
        // Until the end of this call, so that one that is dropped in the middle leaves a writer that is of no use.
        self.has_failed = true;
        self.take(bytes).await?;
        self.has_failed = false;
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<StagingState, StoreError> {
        self.refuse_after_failure()?;
        self.has_failed = true;
        self.settle().await?;
        self.has_failed = false;
        Ok(self.staged.write())
    }

    async fn rest(&mut self) {
        while let Some(room) = &self.room {
            self.store.memory.turn_ends(room).await;
            self.make_room().await;
        }
        std::future::pending().await
    }
}

impl Writer {
    fn refuse_after_failure(&self) -> Result<(), StoreError> {
        if !self.has_failed {
            return Ok(());
        }
        let context = format!("the writer of the upload {} has failed before", self.id);
        Err(StoreError { kind: StoreErrorKind::Other, context, source: None })
    }
}

impl Inner {
    /// Room for a part in memory, once others have done with theirs; a few bytes need none.
    pub(super) async fn room_for(&self, length: u64) -> Option<Room> {
        if length <= FREE_BYTES as u64 { None } else { Some(self.memory.room().await) }
    }

    /// Stores a part. A multipart upload that is not there any more was ended, or the upload is lost.
    pub(super) async fn put_part(
        &self,
        id: UploadId,
        multipart: &Multipart,
        index: usize,
        payload: PutPayload,
    ) -> Result<PartId, StoreError> {
        let path = self.path(&key(id, &multipart.name))?;
        let context = || format!("send part {index} of the upload {id}");
        match self.backend.multipart.put_part(&path, &multipart.id, index, payload).await {
            Err(error) if is_absent(&error) => Err(StoreError::new(StoreErrorKind::Corrupt, context(), error)),
            other => other.map_err(failure(context())),
        }
    }

    async fn put_tail(&self, id: UploadId, tail: &Tail, payload: PutPayload) -> Result<(), StoreError> {
        let key = key(id, &tail.name);
        let put = self.backend.objects.put_opts(&self.path(&key)?, payload, Default::default()).await;
        put.map_err(failure(format!("store the tail {key}")))?;
        self.acknowledged().insert(key);
        Ok(())
    }
}

/// The bytes that are to become a part, or a tail.
#[derive(Default)]
struct Buffer {
    pieces: Vec<Bytes>,
    open: BytesMut,
    length: usize,
}

impl Buffer {
    fn push(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len();
        while !bytes.is_empty() {
            if self.open.capacity() == self.open.len() {
                self.close();
                self.open.reserve(PIECE_BYTES);
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.open.capacity() - self.open.len()));
            self.open.extend_from_slice(now);
            bytes = later;
        }
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push(self.open.split().freeze());
        }
    }

    /// All of it, which stays.
    fn payload(&mut self) -> PutPayload {
        self.close();
        self.pieces.iter().cloned().collect()
    }

    /// All of it, which goes.
    fn take(&mut self) -> PutPayload {
        self.close();
        self.open = BytesMut::new();
        self.length = 0;
        std::mem::take(&mut self.pieces).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_keeps_what_it_was_given_in_its_order() {
        let mut buffer = Buffer::default();
        let mut expected = Vec::new();
        for (number, length) in [0, 1, PIECE_BYTES - 1, 1, PIECE_BYTES, 3 * PIECE_BYTES + 7, 5].into_iter().enumerate()
        {
            let bytes = vec![u8::try_from(number).unwrap(); length];
            buffer.push(&bytes);
            expected.extend_from_slice(&bytes);
            assert_eq!(buffer.length, expected.len());
            assert_eq!(Bytes::from(buffer.payload()), expected);
        }
        assert_eq!(Bytes::from(buffer.take()), expected);
        assert_eq!((buffer.length, buffer.payload().content_length()), (0, 0));
        buffer.push(b"again");
        assert_eq!(Bytes::from(buffer.payload()), b"again"[..]);
    }
}
