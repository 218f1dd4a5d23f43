use super::policy::choose_task;
use super::*;
use crate::jobs::action::{Action, Digest};
use crate::jobs::index::ModuleIdentifier;
use crate::jobs::job::Job;
use std::time::Duration;

fn capacity(tasks: usize) -> Capacity {
    Capacity {
        tasks,
        undispatched_weight: weight_of(tasks),
    }
}

fn task(number: usize, size: u64) -> Task {
    let job = Job {
        number,
        identifier: ModuleIdentifier::new(format!("{number}.o").as_bytes()),
        inputs: Vec::new(),
        size,
        shard: Vec::new(),
        args: Vec::new(),
        expected: Default::default(),
        sources: Vec::new(),
    };
    let action = Action {
        digest: Digest::of(&[]),
        command: Digest::of(&[]),
        blobs: Default::default(),
    };
    Task::new(job, action)
}

fn board(jobs: usize) -> Board {
    let board = Board::new(false, true, capacity(jobs));
    for number in 0..jobs {
        board.add(task(number, 1 << 20));
    }
    board.close();
    board
}

fn remote(board: &Board) -> Option<(TaskId, RemoteStep)> {
    board.take_remote().map(|(id, _, step)| (id, step))
}

fn local(board: &Board) -> Option<TaskId> {
    board.take_local().map(|(id, _)| id)
}

#[test]
fn the_cache_is_asked_before_anyone_compiles() {
    let board = board(2);
    assert!(choose_task(&board.lock()).is_none());
    assert_eq!(remote(&board), Some((0, RemoteStep::LookUp)));
    assert_eq!(remote(&board), Some((1, RemoteStep::LookUp)));
    assert_eq!(remote(&board), None);
    assert!(choose_task(&board.lock()).is_none());
    // A hit, and a miss.
    assert!(board.finish(0));
    board.lookup_missed(1);
    assert_eq!(remote(&board), Some((1, RemoteStep::Execute)));
    assert!(board.wanted_remotely(1) && !board.finished());
    assert!(board.finish(1) && !board.finish(1));
    assert!(board.finished());
    assert_eq!(local(&board), None);
}

#[test]
fn slots_take_the_first_and_cores_the_last() {
    let board = board(4);
    while let Some((id, RemoteStep::LookUp)) = remote(&board) {
        board.lookup_missed(id);
    }
    // The loop above has sent the first.
    assert_eq!(local(&board), Some(3));
    assert_eq!(remote(&board), Some((1, RemoteStep::Execute)));
    assert_eq!(local(&board), Some(2));
    assert_eq!(remote(&board), None);
    // One that only waits on the server, the last of them.
    board.execution_started(0);
    assert_eq!(local(&board), Some(1));
    // What failed there goes first.
    board.remote_failed(0);
    assert_eq!(local(&board), Some(0));
    // Whoever is first wins.
    assert!(board.finish(1) && !board.finish(1));
}

#[test]
fn a_straggler_is_raced() {
    let board = board(3);
    for _ in 0..6 {
        if let Some((id, RemoteStep::LookUp)) = remote(&board) {
            board.lookup_missed(id);
        }
    }
    while remote(&board).is_some() {}
    for id in 0..3 {
        board.execution_started(id);
    }
    // Nothing is known of how long it takes.
    assert!(choose_task(&board.lock()).is_none());
    std::thread::sleep(Duration::from_millis(5));
    board.finish(0);
    board.finish(1);
    assert_eq!(local(&board), Some(2));
}

#[test]
fn an_execution_that_does_not_end_is_raced_after_a_cache_hit() {
    for clang_compiles in [false, true] {
        let board = Board::new(false, clang_compiles, capacity(3));
        for number in 0..3 {
            board.add(task(number, 3 << 20 >> number));
        }
        board.close();
        while let Some((id, step)) = remote(&board) {
            match (step, id) {
                (RemoteStep::LookUp, 0) => {
                    board.object_received();
                    assert!(board.finish(0));
                }
                (RemoteStep::LookUp, _) => board.lookup_missed(id),
                (RemoteStep::Execute, _) => board.execution_started(id),
            }
        }
        let waits = |number| WaitingLookup {
            job: Some(number),
            waited: Duration::ZERO,
        };
        let chosen = || match clang_compiles {
            true => choose_task(&board.lock()),
            false => board.choose_lookup(&[waits(1), waits(2)]).map(|at| at + 1),
        };
        assert_eq!(chosen(), None);
        for (id, seconds) in [(1, 4), (2, 3)] {
            let begun = Instant::now() - Duration::from_secs(seconds);
            let mut state = board.lock();
            state.update(id, |entry| entry.remote = RemoteState::Executing(begun));
        }
        // A process can be stopped, and takes the oldest; a thread takes the smallest.
        assert_eq!(chosen(), Some(if clang_compiles { 1 } else { 2 }));
    }
}

#[test]
fn more_small_tasks_wait_than_large_ones() {
    for (size, most) in [(1 << 20, 2), (48 << 10, 4), (0, 16)] {
        let board = Board::new(
            true,
            true,
            Capacity {
                tasks: 100,
                undispatched_weight: weight_of(2),
            },
        );
        for n in 0..most {
            assert!(!board.lock().is_full(), "{n} of {size} bytes");
            board.add(task(n, size));
        }
        assert!(board.lock().is_full());
        // One is looked up, and sent: there is room.
        let id = board.take_remote().unwrap().0;
        board.lookup_missed(id);
        assert!(board.lock().is_full());
        while board
            .take_remote()
            .is_some_and(|(_, _, step)| step == RemoteStep::LookUp)
        {}
        assert!(!board.lock().is_full());
        assert!(board.finish(id));
    }
}

#[test]
fn without_a_server_all_is_done_here() {
    let board = Board::new(true, true, capacity(2));
    let other = self::board(2);
    while let Some((_, task, _)) = other.take_remote() {
        other.finish(task.job.number);
        board.add(Arc::into_inner(task).unwrap());
    }
    assert!(choose_task(&board.lock()).is_none());
    board.abandon_remote();
    assert_eq!(local(&board), Some(0));
    assert_eq!(remote(&board), None);
    assert!(!board.wanted_remotely(1));
    board.stop();
    assert_eq!(local(&board), None);
}

#[test]
fn what_a_mere_cache_lacks_is_left_to_lld_without_its_inputs() {
    for fallback_only in [false, true] {
        let board = Board::new(fallback_only, false, capacity(2));
        board.expect_no_execution();
        let waits = |number| WaitingLookup {
            job: Some(number),
            waited: Duration::ZERO,
        };
        // More than there is room for at once.
        for number in 0..9 {
            let mut task = task(number, 1 << 20);
            task.job.shard = vec![0; 100];
            assert!(!board.lock().is_full(), "{number}");
            board.add(task);
            assert_eq!(board.choose_lookup(&[waits(number)]), None);
            assert_eq!(remote(&board), Some((number, RemoteStep::LookUp)));
            board.lookup_missed(number);
            // At once, and nothing is executed.
            assert_eq!(board.choose_lookup(&[waits(number)]), Some(0));
            assert_eq!(remote(&board), None);
            assert!(board.lock().tasks[&number].task.job.shard.is_empty());
        }
        board.close();
        // Whose object lld makes is known until then.
        for number in 0..9 {
            assert!(!board.finished());
            board.local_started(number);
            let (first, task) = board.local_finished(number);
            assert!(first && task.is_some_and(|task| task.job.number == number));
        }
        assert!(board.finished());
    }
}

#[test]
fn clang_compiles_what_a_mere_cache_lacks_from_its_inputs() {
    let board = Board::new(true, true, capacity(2));
    board.expect_no_execution();
    let mut task = task(0, 1 << 20);
    task.job.shard = vec![0; 100];
    board.add(task);
    board.close();
    assert_eq!(remote(&board), Some((0, RemoteStep::LookUp)));
    board.lookup_missed(0);
    let (id, task) = board.take_local().unwrap();
    assert_eq!((id, task.job.shard.len()), (0, 100));
}
