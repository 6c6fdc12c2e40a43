//! Where the handles of a speaker leave what they want, until the task that owns the speaker takes all of it at
//! once. Leaving something is a few instructions: no round trip, no allocation per route, and one wake-up for
//! everything that is left before the task runs.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use spin::{
    Yield,
    mutex::spin::{SpinMutex, SpinMutexGuard},
};
use tokio::sync::oneshot;

use super::Error;
use crate::{
    config::{PeerConfig, PeerSetError, ShutdownMode},
    rib::changes::Changes,
    route::Route,
    types::Family,
};

/// Where the answer to a command goes; only a set of peers can be refused.
pub(super) type Answer = oneshot::Sender<Result<(), PeerSetError>>;

/// What is wanted.
#[derive(Debug)]
pub(super) enum Command {
    Change(Changes),
    ReplaceAll(Vec<Route>),
    Restarted(Vec<Family>),
    SetPeers(Vec<PeerConfig>, Answer),
    Barrier(Answer),
    Shutdown(ShutdownMode, Answer),
}

/// Commands in the order in which they were given, to be reported by [`Receiver::done`] when they were carried out.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) commands: Vec<Command>,
    number: u64,
}

/// Both ends of an inbox.
pub(super) fn inbox() -> (Sender, Receiver) {
    let inbox = Arc::new(Inbox::default());
    (Sender(Arc::clone(&inbox)), Receiver(inbox))
}

/// Locked for a few instructions at a time, which is less than it takes to put a thread to sleep; whoever comes meanwhile
/// lets others run. Letting go is a plain write, where a mutex has to ask in the same moment whether someone sleeps:
/// that would be half of what a call takes.
#[derive(Debug, Default)]
struct Inbox(SpinMutex<Queue, Yield>);

#[derive(Debug, Default)]
struct Queue {
    commands: Vec<Command>,
    /// How many batches have been taken, and carried out.
    taken: u64,
    done: u64,
    /// No handle is left.
    is_abandoned: bool,
    /// The task is gone.
    is_closed: bool,
    task: Option<Waker>,
    /// Who waits, each for the batch of this number.
    waiting: Vec<(u64, Waker)>,
}

impl Inbox {
    #[inline]
    fn lock(&self) -> SpinMutexGuard<'_, Queue, Yield> {
        self.0.lock()
    }

    fn close(&self) {
        let mut queue = self.lock();
        queue.is_closed = true;
        let (commands, waiting) = (std::mem::take(&mut queue.commands), std::mem::take(&mut queue.waiting));
        drop(queue);
        // Whose answers are dropped learn of it, too.
        drop(commands);
        waiting.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

/// The handles' end; when it is dropped, the task learns that nothing will come any more.
#[derive(Debug)]
pub(super) struct Sender(Arc<Inbox>);

impl Sender {
    /// Leaves changes of routes behind everything that was left before.
    pub(super) fn change(&self, write_down: impl FnOnce(&mut Changes)) -> Done<'_> {
        self.leave(|commands| {
            if !matches!(commands.last(), Some(Command::Change(_))) {
                commands.push(Command::Change(Changes::default()));
            }
            if let Some(Command::Change(changes)) = commands.last_mut() {
                write_down(changes);
            }
        })
    }

    /// Leaves a command behind everything that was left before.
    pub(super) fn send(&self, command: Command) -> Done<'_> {
        self.leave(|commands| commands.push(command))
    }

    #[inline]
    fn leave(&self, put: impl FnOnce(&mut Vec<Command>)) -> Done<'_> {
        let mut queue = self.0.lock();
        if queue.is_closed {
            return Done { inbox: &self.0, batch: u64::MAX };
        }
        put(&mut queue.commands);
        let (batch, task) = (queue.taken + 1, queue.task.take());
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
        Done { inbox: &self.0, batch }
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut queue = self.0.lock();
        queue.is_abandoned = true;
        let task = queue.task.take();
        drop(queue);
        if let Some(task) = task {
            task.wake();
        }
    }
}

/// The task's end; when it is dropped, whoever waits learns that the speaker has stopped.
#[derive(Debug)]
pub(super) struct Receiver(Arc<Inbox>);

impl Receiver {
    /// Everything that was left; `None` when no handle is there any more.
    pub(super) fn poll_take(&mut self, context: &mut Context<'_>) -> Poll<Option<Batch>> {
        let mut queue = self.0.lock();
        if !queue.commands.is_empty() {
            queue.taken += 1;
            let commands = std::mem::take(&mut queue.commands);
            return Poll::Ready(Some(Batch { commands, number: queue.taken }));
        }
        if queue.is_abandoned {
            return Poll::Ready(None);
        }
        if !queue.task.as_ref().is_some_and(|task| task.will_wake(context.waker())) {
            queue.task = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// A batch has been carried out, and so have all before it.
    pub(super) fn done(&mut self, batch: u64) {
        let mut queue = self.0.lock();
        queue.done = batch;
        let ready: Vec<_> = queue.waiting.extract_if(.., |(number, _)| *number <= batch).collect();
        drop(queue);
        ready.into_iter().for_each(|(_, waker)| waker.wake());
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Batch {
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// Waits until what was asked for is in the Loc-RIB. It is done whether this is awaited or not, so that many calls
/// can be made one after the other and only the last, or [`super::Handle::barrier`], be awaited.
#[derive(Debug)]
pub struct Done<'a> {
    inbox: &'a Inbox,
    /// `u64::MAX` where the speaker had stopped already.
    batch: u64,
}

impl Future for Done<'_> {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut queue = self.inbox.lock();
        if queue.done >= self.batch {
            return Poll::Ready(Ok(()));
        }
        if queue.is_closed {
            return Poll::Ready(Err(Error::Stopped));
        }
        // Polled again before its batch is done, one waits twice, which is harmless.
        let is_known =
            |(batch, waker): &(u64, Waker)| *batch == self.batch && waker.will_wake(context.waker());
        if !queue.waiting.last().is_some_and(is_known) {
            queue.waiting.push((self.batch, context.waker().clone()));
        }
        Poll::Pending
    }
}
