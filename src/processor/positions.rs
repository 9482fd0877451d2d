//! Decides which position of a partition is committed, over seeks, without I/O.

use tokio::sync::oneshot;

use crate::error::Result;

/// The offset to commit, with the offsets completed above it as metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommitPosition {
    pub(super) offset: i64,
    pub(super) leader_epoch: Option<i32>,
    pub(super) metadata: String,
    /// Number of the seek that it follows; 0 before the first one.
    pub(super) seek: u64,
}

/// Resolves when the position of a seek is committed.
pub(super) type SeekReply = oneshot::Sender<Result<()>>;

/// Position and committed offset of a partition while it is assigned.
#[derive(Debug, Default)]
pub(super) struct Positions {
    position: Option<CommitPosition>,
    committed: Option<CommitPosition>,
    /// Number of seeks so far.
    seek: u64,
    /// Seeks whose position is not committed, by number.
    waiting: Vec<(u64, SeekReply)>,
}

impl Positions {
    /// Handles the position of the worker, unless a seek has overtaken it:
    /// 1. Record 500 is in its handler, 480 to 499 are completed.
    /// 2. A seek to 100: that is the position from now on, whose commit follows at once.
    /// 3. The handler of 500 succeeds. The worker, which has not seen the seek, sets position 501.
    ///
    /// Committed, 501 would undo the seek at the next rebalance. So each position has the number of
    /// the last seek that its worker has carried out, and those of an earlier number are ignored.
    pub(super) fn set_position(&mut self, position: CommitPosition) {
        if position.seek == self.seek {
            self.position = Some(position);
        }
    }

    /// Moves the position; returns the number of the seek.
    pub(super) fn seek(&mut self, offset: i64, reply: SeekReply) -> u64 {
        self.seek += 1;
        // Without metadata: what was completed above the old position is handled again.
        let (leader_epoch, metadata) = (None, String::new());
        self.position = Some(CommitPosition { offset, leader_epoch, metadata, seek: self.seek });
        self.waiting.retain(|(_, reply)| !reply.is_closed());
        self.waiting.push((self.seek, reply));
        self.seek
    }

    /// Returns the number of the last seek and the position that it has set, as long as the worker has
    /// set no other.
    pub(super) fn sought(&self) -> Option<(u64, i64)> {
        self.position.as_ref().filter(|p| p.seek > 0).map(|p| (p.seek, p.offset))
    }

    /// Returns the position if it is not committed.
    pub(super) fn uncommitted(&self) -> Option<CommitPosition> {
        self.position.clone().filter(|position| self.committed.as_ref() != Some(position))
    }

    /// Handles a successful commit; returns the seeks that it includes.
    ///
    /// A commit may have been in flight when its partition was moved:
    /// 1. The commit of 480 is sent.
    /// 2. A seek to 100. Its commit is sent when that of 480 has its response, as there is one
    ///    request at a time.
    /// 3. The response for 480: the seek is not committed yet, and 100 differs from 480, even if
    ///    both offsets were the same.
    pub(super) fn set_committed(&mut self, committed: CommitPosition) -> Vec<SeekReply> {
        let seek = committed.seek;
        if self.committed.as_ref().is_none_or(|before| before.seek <= seek) {
            self.committed = Some(committed);
        }
        let waiting = std::mem::take(&mut self.waiting);
        let (confirmed, waiting): (Vec<_>, _) = waiting.into_iter().partition(|(number, _)| *number <= seek);
        self.waiting = waiting;
        confirmed.into_iter().map(|(_, reply)| reply).collect()
    }

    /// Returns the committed offset.
    pub(super) fn committed(&self) -> Option<i64> {
        self.committed.as_ref().map(|committed| committed.offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64, seek: u64) -> CommitPosition {
        CommitPosition { offset, leader_epoch: Some(1), metadata: "above".into(), seek }
    }

    fn uncommitted(positions: &Positions) -> Option<i64> {
        positions.uncommitted().map(|p| p.offset)
    }

    fn seek(positions: &mut Positions, offset: i64) -> oneshot::Receiver<Result<()>> {
        let (reply, replied) = oneshot::channel();
        positions.seek(offset, reply);
        replied
    }

    fn commit(positions: &mut Positions, position: CommitPosition) {
        positions.set_committed(position).into_iter().for_each(|reply| _ = reply.send(Ok(())));
    }

    #[test]
    fn completions_behind_a_seek_do_not_move_its_position() {
        let mut positions = Positions::default();
        positions.set_position(at(480, 0));
        _ = seek(&mut positions, 100);
        positions.set_position(at(501, 0)); // a handler of the old position has finished
        let moved = positions.uncommitted();
        assert_eq!(moved.map(|p| (p.offset, p.leader_epoch, p.metadata)), Some((100, None, String::new())));
        positions.set_position(at(101, 1));
        assert_eq!(uncommitted(&positions), Some(101));
    }

    #[test]
    fn a_commit_in_flight_does_not_confirm_a_seek() {
        let mut positions = Positions::default();
        positions.set_position(at(100, 0));
        let in_flight = positions.uncommitted();
        let mut replied = seek(&mut positions, 100);
        in_flight.into_iter().for_each(|position| commit(&mut positions, position));
        assert!(
            matches!(replied.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
            "the old position was committed"
        );
        let moved = positions.uncommitted();
        assert_eq!(moved.as_ref().map(|p| p.seek), Some(1), "the same offset, of a seek");
        moved.into_iter().for_each(|position| commit(&mut positions, position));
        assert!(replied.try_recv().is_ok());
        assert_eq!((uncommitted(&positions), positions.committed()), (None, Some(100)));
    }

    #[test]
    fn the_last_of_several_seeks_is_committed_and_confirms_all() {
        let mut positions = Positions::default();
        let mut replies = [seek(&mut positions, 7), seek(&mut positions, 90)];
        positions.set_position(at(8, 1));
        assert_eq!(uncommitted(&positions), Some(90));
        commit(&mut positions, at(95, 2));
        assert!(replies.iter_mut().all(|reply| reply.try_recv().is_ok()));
    }

    #[test]
    fn seeks_of_a_partition_that_is_lost_end_without_confirmation() {
        let mut positions = Positions::default();
        let mut replied = seek(&mut positions, 7);
        drop(positions);
        assert!(matches!(replied.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
    }
}
