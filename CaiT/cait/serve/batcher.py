"""Combines work that arrives at the same time: a queue, and one thread that takes batches from it. Knows no HTTP."""

import asyncio
import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any


@dataclasses.dataclass(slots=True)
class Job:
    """Something to be done, and where its result goes.

    Attributes:
        work: what the batch function takes.
        future: of the event loop that the batcher delivers to; once it is cancelled, the job is passed over.
    """

    work: Any
    future: asyncio.Future


class Batcher:
    """Calls a function for jobs in batches, in a thread of its own.

    A batch begins with the first job there is, and is closed when it has `max_batch` jobs or that first one has waited
    for `max_wait` seconds. While a batch is computed, the next jobs gather.

    Args:
        run: the `work` of a batch -> as many results, in order. What it raises is the result of the whole batch.
        max_batch: jobs in a batch, at most.
        max_wait: seconds, may be 0.

    Attributes:
        waiting: jobs in the queue, roughly.
    """

    def __init__(self, run: Callable[[list[Any]], Sequence[Any]], max_batch: int, max_wait: float):
        self._run, self._max_batch, self._max_wait = run, max_batch, max_wait
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="batcher", daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Waits until all jobs are done that were put before, and ends the thread."""
        self._jobs.put(None)
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def waiting(self) -> int:
        return self._jobs.qsize()

    def put(self, job: Job) -> None:
        """Adds a job, from any thread."""
        self._jobs.put(job)

    def _work(self) -> None:
        ended = False
        while not ended:
            batch, ended = self._collect()
            batch = [job for job in batch if not job.future.cancelled()]
            if not batch:
                continue
            try:
                results: Sequence[Any] = self._run([job.work for job in batch])
            except Exception as error:  # it is told to those who wait, and the thread goes on
                results = [error] * len(batch)
            deliver(batch, results)

    def _collect(self) -> tuple[list[Job], bool]:
        """The next batch, and whether it is the last."""
        job = self._jobs.get()
        batch, deadline = [], time.monotonic() + self._max_wait
        while job is not None:
            batch.append(job)
            if len(batch) == self._max_batch:
                return batch, False
            try:
                job = self._jobs.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                return batch, False
        return batch, True


def deliver(jobs: Sequence[Job], results: Sequence[Any]) -> None:
    """Hands results or exceptions to those who wait for the jobs; from any thread."""

    def set_results() -> None:
        for job, result in zip(jobs, results, strict=True):
            if job.future.done():  # nobody waits any more
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)

    jobs[0].future.get_loop().call_soon_threadsafe(set_results)
