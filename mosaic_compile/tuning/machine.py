"""What tuning asks of a kind of machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from mosaic_compile.artifact import Artifact

if TYPE_CHECKING:
    from .model import Rates

Run = tuple[Callable[[], None], Callable[[], None]]  # what comes before a launch, and the launch


class Machine(Protocol):
    """A device with memory, caches and a clock. Addresses are numbers; sizes are in bytes."""

    @property
    def about(self) -> Mapping[str, str]:
        """What decides how long kernels take here: the `device`'s name, a GPU's `driver`, a CPU's `threads`."""

    @property
    def cache_bytes(self) -> int:
        """The size of the last cache."""

    @property
    def rates(self) -> Rates | None:
        """What model.py asks; None where its model does not hold."""

    def load(self, artifact: Artifact) -> Any:
        """The program: its `prepare(bound)` gives what has `run(addresses, scalars)`; raises LaunchError."""

    def resources(self, program: Any) -> Mapping[str, int]:
        """What a loaded program takes of the machine, as far as it is known."""

    def memory(self, size: int) -> AbstractContextManager[int]:
        """The address of memory that is there inside; raises LaunchError where there is not as much."""

    def settle(self) -> None:
        """Waits until nothing is under way: other libraries may still compute the arrays."""

    def copy(self, to: int, source: int, size: int) -> None:
        """Copies memory to memory, in order with launches."""

    def time(self, runs: Iterable[Run]) -> list[float]:
        """Microseconds of each launch, without what comes before it; raises LaunchError where one fails."""

    def typical(self, times: Sequence[float]) -> float:
        """The one number for many launches."""
