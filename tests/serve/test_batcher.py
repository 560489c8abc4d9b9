"""Jobs of many callers, in batches, in one thread."""

import asyncio
import threading
import time

import pytest

from cait.serve.batcher import Batcher, Job, deliver

pytestmark = pytest.mark.any_paddle


class Recorder:
    """A batch function that notes its batches and waits until it may go on."""

    def __init__(self):
        self.batches, self.threads = [], set()
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def __call__(self, batch):
        self.entered.set()
        self.go_on.wait(10)
        self.batches.append(batch)
        self.threads.add(threading.current_thread().name)
        if "bad" in batch:
            raise ValueError("a bad batch")
        return [10 * work for work in batch]


def run_jobs(record, works, max_batch, max_wait=0.05, before=None, put_from=1):
    """The outcomes of jobs that are put while the batcher waits, and the batches that were made of them."""

    async def main():
        batcher = Batcher(record, max_batch, max_wait)
        batcher.start()
        futures = [asyncio.get_running_loop().create_future() for _ in works]
        jobs = [Job(work, future) for work, future in zip(works, futures)]
        parts = [jobs[index::put_from] for index in range(put_from)]
        threads = [threading.Thread(target=lambda part=part: [batcher.put(job) for job in part]) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if before:
            before(futures)
        record.go_on.set()
        outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert batcher.alive
        batcher.stop()
        assert not batcher.alive
        return outcomes

    return asyncio.run(main())


def test_jobs_share_batches_and_get_their_own_results():
    record = Recorder()
    record.go_on.clear()  # the first batch is computed, the others gather
    assert run_jobs(record, list(range(20)), max_batch=8) == [10 * work for work in range(20)]
    assert record.batches == [list(range(8)), list(range(8, 16)), list(range(16, 20))]
    assert record.threads == {"batcher"}


def test_a_batch_of_one_stays_alone():
    record = Recorder()
    assert run_jobs(record, [1, 2, 3], max_batch=1) == [10, 20, 30]
    assert record.batches == [[1], [2], [3]]


def test_many_threads_may_put_jobs():
    record = Recorder()
    assert sorted(run_jobs(record, list(range(1000)), max_batch=8, max_wait=0.0, put_from=4)) == list(
        range(0, 10000, 10)
    )
    assert sorted(sum(record.batches, [])) == list(range(1000)) and max(map(len, record.batches)) <= 8


def test_an_error_is_told_to_its_batch_and_the_next_one_is_computed():
    record = Recorder()
    record.go_on.clear()
    outcomes = run_jobs(record, [1, "bad", 3, 4], max_batch=2)
    assert [str(outcome) for outcome in outcomes] == ["a bad batch", "a bad batch", "30", "40"]


def test_cancelled_jobs_are_passed_over():
    record = Recorder()
    record.go_on.clear()

    def cancel(futures):
        assert record.entered.wait(5)  # with the first two
        for future in futures[2:4]:
            future.cancel()

    outcomes = run_jobs(record, list(range(6)), max_batch=2, before=cancel)
    assert record.batches == [[0, 1], [4, 5]]
    assert [outcomes[index] for index in (0, 1, 4, 5)] == [0, 10, 40, 50]
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[2:4])


def test_a_lone_job_waits_for_others_no_longer_than_it_should():
    record = Recorder()
    started = time.perf_counter()
    assert run_jobs(record, [1], max_batch=8, max_wait=0.2) == [10]
    assert 0.2 <= time.perf_counter() - started < 2.0


def test_jobs_within_the_wait_join():
    async def main():
        batcher = Batcher(record, 3, 5.0)
        batcher.start()
        futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
        for work, future in enumerate(futures):
            batcher.put(Job(work, future))
            await asyncio.sleep(0.05)
        await asyncio.gather(*futures)  # at once: the batch is full
        batcher.stop()

    record = Recorder()
    started = time.perf_counter()
    asyncio.run(main())
    assert record.batches == [[0, 1, 2]] and time.perf_counter() - started < 3.0


def test_stopping_computes_what_was_put_before():
    async def main():
        batcher = Batcher(record, 4, 10.0)
        futures = [asyncio.get_running_loop().create_future() for _ in range(6)]
        for work, future in enumerate(futures):
            batcher.put(Job(work, future))
        batcher.start()
        batcher.stop()  # no waiting for the last two to become four
        return await asyncio.gather(*futures)

    record = Recorder()
    assert asyncio.run(main()) == [0, 10, 20, 30, 40, 50]
    assert record.batches == [[0, 1, 2, 3], [4, 5]]


def test_nobody_waits_any_more():
    async def main():
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        deliver([Job(None, future)], [1])
        await asyncio.sleep(0)

    asyncio.run(main())
