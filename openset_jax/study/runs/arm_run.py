"""Trains arms, one alone or many at once, each in its folder and with its own log.txt."""

import contextlib
import pathlib
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import IO, Any

from openset_jax import lock, train
from openset_jax.errors import Stopped
from openset_jax.spec import RunSpec
from openset_jax.study.runs import arm_folder
from openset_jax.study.runs.check import Phases
from openset_jax.study.runs.grid import Arm
from openset_jax.training import together, training_loop
from openset_jax.training.pace import Pace
from openset_jax.training.run_cache import RunCache


def units(
    arms: Sequence[Arm], phases: Mapping[Arm, Phases], alone: Callable[[Arm], bool], cache: RunCache
) -> list[list[Arm]]:
    """Returns the arms in the order in which they are trained: the arms of one list at once.

    Args:
      alone: True for an arm that must train alone, because it starts from another arm.
    """
    found: list[list[Arm]] = []
    open_group: dict[Any, list[Arm]] = {}
    most = dict[Any, int]()
    for arm in arms:
        *earlier, spec = phases[arm]
        shared = None if earlier or alone(arm) else together.shared_by(spec, cache)
        group = open_group.get(shared)
        if shared is None or group is None or len(group) >= most[shared]:
            group = [arm]
            found.append(group)
            if shared is not None:
                open_group[shared], most[shared] = group, together.most_at_once(spec, cache)
        else:
            group.append(arm)
    return found


class ArmRuns:
    """Arms while they train. Their folders are locked; what they print goes to their log.txt.

    Attributes:
      failed: arm -> its exception, which is Stopped if it was asked to stop and has saved its state.
      skipped: arms that another process is running.
    """

    def __init__(self, folder: Mapping[Arm, pathlib.Path], stop_requested: Callable[[], str], cache: RunCache):
        self.failed: dict[Arm, Exception] = {}
        self.skipped: list[Arm] = []
        self._folder, self._stop_requested, self._cache = folder, stop_requested, cache

    def run(self, arms: Sequence[Arm], phases: Mapping[Arm, Phases]) -> None:
        """Trains or resumes arms, and saves their outcomes: several arms at once, see `units`."""
        with contextlib.ExitStack() as stack:
            logs = {arm: log for arm in arms if (log := self._claimed(arm, stack)) is not None}
            if len(arms) == 1:
                for arm, log in logs.items():
                    with self._logged(arm, log):
                        arm_folder.save_outcome(train.fit(phases[arm], self._stop_requested, self._cache), self._cache)
                return
            try:
                self._train_at_once(logs, phases, stack)
            except Exception as error:  # of the group, such as too little memory: it fails all arms that have not ended
                for arm, log in logs.items():
                    if arm not in self.failed and not (self._folder[arm] / arm_folder.OUTCOME).exists():
                        with self._logged(arm, log):
                            raise error

    def _claimed(self, arm: Arm, stack: contextlib.ExitStack) -> IO[str] | None:
        """Locks the folder of an arm and opens its log; None if the arm is finished, or is running in another process."""
        folder = self._folder[arm]
        try:
            stack.enter_context(lock.claimed(folder))
        except lock.FolderInUse:
            self.skipped.append(arm)
            return None
        if (folder / arm_folder.OUTCOME).exists():  # another process finished it in the meantime
            return None
        return stack.enter_context((folder / "log.txt").open("a", encoding="utf-8", errors="backslashreplace"))

    @contextlib.contextmanager
    def _logged(self, arm: Arm, log: IO[str]) -> Generator[None]:
        """Prints to the log of an arm; notes its exception instead of raising it."""
        with contextlib.redirect_stdout(log):
            try:
                yield
            except Exception as error:  # the other arms still run
                self.failed[arm] = error
                if not isinstance(error, Stopped):
                    traceback.print_exc(file=log)

    def _train_at_once(self, logs: Mapping[Arm, IO[str]], phases: Mapping[Arm, Phases], stack: contextlib.ExitStack) -> None:
        steps = {arm: self._steps(phases[arm][-1]) for arm in logs}
        for each in steps.values():
            stack.enter_context(contextlib.closing(each))

        def resume(answers: Mapping[Arm, Any]) -> dict[Arm, Any]:
            """Lets arms go on; returns what they ask for next, without those that have ended."""
            asked = {}
            for arm, answer in answers.items():
                with self._logged(arm, logs[arm]), contextlib.suppress(StopIteration):
                    asked[arm] = steps[arm].send(answer)
            return asked

        group, arms = together.Group(), list[Arm]()
        for arm in steps:
            for prepared in resume({arm: None}).values():
                group.add(*prepared)
                arms.append(arm)
        if not arms:
            return
        batches, calls = resume(dict(zip(arms, group.begin(), strict=True))), 0
        pace = Pace("    steps of these arms:", group.steps)
        while batches:
            metrics = dict(zip(arms, group.step([batches.get(arm) for arm in arms]), strict=True))
            batches, calls = resume({arm: metrics[arm] for arm in batches}), calls + 1
            pace.at(calls * group.steps_per_call)

    def _steps(self, spec: RunSpec) -> Generator[Any, Any, None]:
        """An arm in a group: yields what `training_loop.prepare` returns, for a trainer; then as `Training.loop`."""
        prepared = training_loop.prepare(spec, self._stop_requested, self._cache)
        with contextlib.closing(prepared[0].checkpoints):
            trainer = yield prepared
            loop = prepared[0].loop(trainer)
            del prepared
            arm_folder.save_outcome((yield from loop), self._cache)
