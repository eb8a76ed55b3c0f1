"""How the runs of a sweep are carried out: in local processes, or by Ray Tune.

An engine is a function `(job, tasks, processes, done)`: it does the tasks, at most `processes` at a time, and calls
`done` in this process with the `Outcome` of each as soon as it is there.
"""

from __future__ import annotations

import base64
import functools
import multiprocessing
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tfmcu_prune.console import import_keras_quietly
from tfmcu_prune.sweeping.training import Job, Outcome, attempt
from tfmcu_prune.sweeping.values import Task

Engine = Callable[[Job, Sequence[Task], int, Callable[[Outcome], None]], None]

_GUARD = "A script has to call sweep under `if __name__ == '__main__':`, since each process imports it anew."


def local(job: Job, tasks: Sequence[Task], processes: int, done: Callable[[Outcome], None]) -> None:
    """Do each task in a fresh process of this machine; with `processes=0` one after the other in this very process.

    Raises:
        ValueError: A function that a process of its own cannot import.
    """
    if processes == 0:
        for task in tasks:
            done(attempt(job, task))
        return
    packed = _pickled(job)
    context = multiprocessing.get_context("spawn")  # TensorFlow does not survive a fork
    waiting, running = list(tasks), dict[Connection, tuple[Task, Any]]()
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                task = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, packed, task), name=task.name)
                process.start()
                sender.close()
                running[receiver] = task, process
            ready = wait(list(running))
            for receiver in [receiver for receiver in running if receiver in ready]:
                task, process = running[receiver]
                outcome = _received(receiver, task, process)
                process.join()
                del running[receiver]
                done(outcome)
    finally:
        for _, process in running.values():
            process.kill()
            process.join()


def ray_tune(
    job: Job,
    tasks: Sequence[Task],
    processes: int,
    done: Callable[[Outcome], None],
    *,
    resources: dict[str, float] | None = None,
) -> None:
    """Do each task as a trial of Ray Tune, on the cluster that `ray.init` connected to, or on this machine.

    Args:
        job: What the tasks share.
        tasks: What to do.
        processes: Trials at a time at most.
        done: Called with each outcome.
        resources: Of a trial, as `ray.tune.with_resources` takes them; default: one CPU. Where a trial needs another,
            pass `engine=functools.partial(tfmcu_prune.sweeping.engines.ray_tune, resources={"gpu": 1})`.

    Raises:
        ModuleNotFoundError: Ray Tune is not installed.
        ValueError: `processes` is 0.
    """
    try:
        from ray import tune
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"engine='ray' needs Ray Tune, and the package {error.name!r} is not installed: "
            "pip install 'tfmcu-prune[ray]', or leave engine out for processes of this machine",
            name=error.name,
        ) from error
    if processes == 0:
        raise ValueError("Expected processes from 1 up with engine='ray', the trials at a time. Received: 0")
    by_name = {task.name: task for task in tasks}

    def trainable(config: dict[str, Any], job: Job) -> None:
        outcome = attempt(job, by_name[config["task"]])
        tune.report({"outcome": base64.b64encode(pickle.dumps(outcome)).decode()})

    class Tell(tune.Callback):
        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: dict[str, Any], **_: Any) -> None:
            if "outcome" in result:
                done(pickle.loads(base64.b64decode(result["outcome"])))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **_: Any) -> None:
            failure = f"Ray's trial {trial.trial_id} died; {trial.error_file or 'its log'} says why."
            done(Outcome(by_name[trial.config["task"]], {}, error=failure))

    run_config = tune.RunConfig(callbacks=[Tell()], verbose=0)
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(trainable, job=job), resources or {"cpu": 1}),
        param_space={"task": tune.grid_search(list(by_name))},
        tune_config=tune.TuneConfig(max_concurrent_trials=processes),
        run_config=run_config,
    )
    tuner.fit()


ENGINES: dict[str, Engine] = {"local": local, "ray": ray_tune}
"""The engines by name."""


def _pickled(job: Job) -> bytes:
    for function in map(_inner, filter(None, (job.build_model, job.fit))):
        name = getattr(function, "__qualname__", repr(function))
        if function.__module__ == "__mp_main__":
            raise ValueError(f"sweep was called while a process of a sweep started. {_GUARD}")
        if function.__module__ == "__main__" and not Path(getattr(sys.modules["__main__"], "__file__", "")).is_file():
            raise _not_importable(name, "it was typed in, in a notebook or a console")
        try:
            pickle.dumps(function)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise _not_importable(name, str(error)) from error
    return pickle.dumps(job)


def _inner(function: Callable[..., Any]) -> Callable[..., Any]:
    return _inner(function.func) if isinstance(function, functools.partial) else function


def _not_importable(name: str, why: str) -> ValueError:
    return ValueError(
        f"Expected functions that another process can import, at the top level of a module. Received: {name} ({why}). "
        "Move it into a file, or pass processes=0 to train in this process."
    )


def _work(sender: Connection, packed: bytes, task: Task) -> None:
    """Do one task in a process of its own, which ends with the process that started it."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import_keras_quietly()
    sender.send(attempt(pickle.loads(packed), task))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # the main thread trains and would not hear of an exception


def _received(receiver: Connection, task: Task, process: Any) -> Outcome:
    """What a process sent, or how it died."""
    try:
        outcome: Outcome = receiver.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        ended = (
            f"was killed by {signal.Signals(-code).name}"
            if code < 0
            else f"ended with code {code}; its standard error says why. {_GUARD}"
        )
        return Outcome(task, {}, error=f"Its process {ended}")
    return outcome
