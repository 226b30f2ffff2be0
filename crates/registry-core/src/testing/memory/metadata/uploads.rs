//! Upload sessions.

use async_trait::async_trait;

use super::{Blob, MemoryMetadata, Object, State, lease};
use crate::digest::Digest;
use crate::error::{StoreError, StoreErrorKind};
use crate::ports::metadata::UploadStore;
use crate::ports::metadata::ledger::ObjectState;
use crate::ports::metadata::uploads::{
    BeginWrite, CheckpointStep, CommitOutcome, CreateUpload, NewUpload, SealOutcome, SealUpload, WriteStart,
};
use crate::registry::Repository;
use crate::time::Timestamp;
use crate::upload::{Epoch, UploadId, UploadSession, UploadState, UploadTarget};

impl State {
    /// Records a checkpoint, if the session is as its writer left it; the session then.
    fn record(&mut self, step: &CheckpointStep, now: Timestamp) -> Option<&mut UploadSession> {
        let session = self.uploads.get_mut(&step.id).filter(|session| {
            session.state == UploadState::Open && session.epoch == step.epoch && session.durable.offset == step.from
        })?;
        session.durable = step.to.clone();
        if step.tell {
            session.told = step.to.clone();
        }
        session.touched_at = now;
        Some(session)
    }

    /// Whether the target is a version that exists.
    fn is_taken(&self, target: &UploadTarget) -> bool {
        match target {
            UploadTarget::Version { registry, package, description } => {
                self.has_version(*registry, package, &description.version)
            }
            UploadTarget::Repository { .. } | UploadTarget::Unreferenced => false,
        }
    }

    /// Makes a stored blob visible where the upload goes.
    fn refer(
        &mut self,
        target: &UploadTarget,
        (digest, size): (&Digest, u64),
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        match target {
            UploadTarget::Repository { registry, repository } => {
                let repository = Repository { registry: *registry, name: repository.clone() };
                lease(self.repository(&repository)?, digest, lease_until);
            }
            UploadTarget::Version { registry, package, description } => {
                self.publish((*registry, package), description, (digest, size), now);
            }
            UploadTarget::Unreferenced => {}
        }
        Ok(())
    }

    /// The former answer, where the same writer has sealed the session with the same digest before.
    fn sealed_before(&self, seal: &SealUpload) -> SealOutcome {
        match self.uploads.get(&seal.step.id) {
            Some(session) if session.epoch == seal.step.epoch && session.durable.offset == seal.step.to.offset => {
                match &session.state {
                    UploadState::Finalising { digest, key, .. } if *digest == seal.digest => {
                        SealOutcome::Publish(key.clone())
                    }
                    UploadState::Done { digest } if *digest == seal.digest => {
                        SealOutcome::AlreadyStored(CommitOutcome::Committed)
                    }
                    _ => SealOutcome::Superseded,
                }
            }
            _ => SealOutcome::Superseded,
        }
    }
}

#[async_trait]
impl UploadStore for MemoryMetadata {
    async fn create_upload(&self, new: NewUpload, now: Timestamp) -> Result<CreateUpload, StoreError> {
        let mut state = self.state();
        if let UploadTarget::Repository { registry, repository } = &new.target {
            let repository = Repository { registry: *registry, name: repository.clone() };
            if !state.may_hold(&repository)? {
                return Ok(CreateUpload::NameTaken);
            }
        }
        if state.uploads.contains_key(&new.id) {
            let context = format!("there is an upload {} already", new.id);
            return Err(StoreError { kind: StoreErrorKind::Other, context, source: None });
        }
        if let UploadTarget::Repository { registry, repository } = &new.target {
            state.repository(&Repository { registry: *registry, name: repository.clone() })?;
        }
        let session = UploadSession {
            id: new.id,
            target: new.target,
            state: UploadState::Open,
            epoch: Epoch(i64::from(new.writing)),
            durable: new.start.clone(),
            told: new.start,
            touched_at: now,
        };
        state.uploads.insert(new.id, session.clone());
        Ok(CreateUpload::Created(session))
    }

    async fn find_upload(&self, id: UploadId) -> Result<Option<UploadSession>, StoreError> {
        Ok(self.state().uploads.get(&id).cloned())
    }

    async fn begin_write(&self, id: UploadId, start: WriteStart, now: Timestamp) -> Result<BeginWrite, StoreError> {
        let mut state = self.state();
        let Some(session) = state.uploads.get_mut(&id) else { return Ok(BeginWrite::Unknown) };
        if session.state != UploadState::Open {
            return Ok(BeginWrite::NotOpen(session.clone()));
        }
        session.touched_at = now;
        match start {
            WriteStart::At(offset) if offset != session.durable.offset => {
                session.told = session.durable.clone();
                return Ok(BeginWrite::OutOfOrder(session.clone()));
            }
            WriteStart::At(_) => {}
            WriteStart::AtTold => session.durable = session.told.clone(),
        }
        session.epoch.0 += 1;
        Ok(BeginWrite::Started(session.clone()))
    }

    async fn checkpoint_upload(&self, step: CheckpointStep, now: Timestamp) -> Result<bool, StoreError> {
        Ok(self.state().record(&step, now).is_some())
    }

    async fn tell_upload(&self, id: UploadId, now: Timestamp) -> Result<Option<UploadSession>, StoreError> {
        let mut state = self.state();
        let Some(session) = state.uploads.get_mut(&id) else { return Ok(None) };
        if session.state == UploadState::Open {
            session.told = session.durable.clone();
            session.touched_at = now;
        }
        Ok(Some(session.clone()))
    }

    async fn seal_upload(&self, seal: SealUpload, now: Timestamp) -> Result<SealOutcome, StoreError> {
        let mut state = self.state();
        let free = |state: &State| {
            let mut keys = (0..).map(|number| seal.candidates.nth(number));
            keys.find(|key| !state.objects.contains_key(key)).expect("there are more keys than rows")
        };
        let (is_stored, key) = (state.blobs.contains_key(&seal.digest), free(&state));
        let Some(session) = state.record(&seal.step, now) else { return Ok(state.sealed_before(&seal)) };
        let size = seal.step.to.offset;
        if !is_stored {
            session.state = UploadState::Finalising { digest: seal.digest, size, key: key.clone() };
            state.objects.insert(key.clone(), Object { state: ObjectState::Reserved, since: now });
            return Ok(SealOutcome::Publish(key));
        }
        session.state = UploadState::Done { digest: seal.digest.clone() };
        let target = session.target.clone();
        if state.is_taken(&target) {
            state.uploads.get_mut(&seal.step.id).expect("it was there a moment ago").state = UploadState::Ended;
            return Ok(SealOutcome::AlreadyStored(CommitOutcome::VersionExists));
        }
        state.refer(&target, (&seal.digest, size), seal.lease_until, now)?;
        Ok(SealOutcome::AlreadyStored(CommitOutcome::Committed))
    }

    async fn commit_upload(
        &self,
        id: UploadId,
        digest: &Digest,
        lease_until: Timestamp,
        now: Timestamp,
    ) -> Result<CommitOutcome, StoreError> {
        let mut state = self.state();
        let Some(session) = state.uploads.get_mut(&id) else { return Ok(CommitOutcome::Superseded) };
        let (size, key) = match &session.state {
            UploadState::Finalising { digest: sealed, size, key } if sealed == digest => (*size, key.clone()),
            UploadState::Done { digest: done } if done == digest => return Ok(CommitOutcome::Committed),
            _ => return Ok(CommitOutcome::Superseded),
        };
        session.touched_at = now;
        session.state = UploadState::Done { digest: digest.clone() };
        let target = session.target.clone();
        if state.is_taken(&target) {
            state.uploads.get_mut(&id).expect("it was there a moment ago").state = UploadState::Ended;
            state.doom(&key, now);
            return Ok(CommitOutcome::VersionExists);
        }
        if state.blobs.contains_key(digest) {
            state.doom(&key, now);
        } else {
            state.blobs.insert(digest.clone(), Blob { size, key: key.clone() });
            state.objects.insert(key, Object { state: ObjectState::Live, since: now });
        }
        state.refer(&target, (digest, size), lease_until, now)?;
        Ok(CommitOutcome::Committed)
    }

    async fn end_upload(
        &self,
        id: UploadId,
        idle_before: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<UploadSession>, StoreError> {
        let mut state = self.state();
        let Some(session) = state.uploads.get_mut(&id) else { return Ok(None) };
        let before = session.clone();
        let is_to_end = match (&before.state, idle_before) {
            (UploadState::Ended, _) => return Ok(Some(before)),
            (_, Some(idle_before)) => before.touched_at < idle_before,
            (UploadState::Done { .. }, None) => false,
            (UploadState::Open | UploadState::Finalising { .. }, None) => true,
        };
        if !is_to_end {
            return Ok(None);
        }
        session.state = UploadState::Ended;
        if let UploadState::Finalising { key, .. } = &before.state {
            state.doom(key, now);
        }
        Ok(Some(before))
    }

    async fn remove_upload(&self, id: UploadId) -> Result<(), StoreError> {
        let mut state = self.state();
        if state.uploads.get(&id).is_some_and(|session| session.state == UploadState::Ended) {
            state.uploads.remove(&id);
        }
        Ok(())
    }

    async fn idle_uploads(&self, idle_before: Timestamp, limit: usize) -> Result<Vec<UploadId>, StoreError> {
        let state = self.state();
        let is_idle =
            |session: &&UploadSession| session.state == UploadState::Ended || session.touched_at < idle_before;
        let mut idle: Vec<_> =
            state.uploads.values().filter(is_idle).map(|session| (session.touched_at, session.id)).collect();
        idle.sort();
        Ok(idle.into_iter().map(|(_, id)| id).take(limit).collect())
    }
}
