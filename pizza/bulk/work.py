# SPDX-License-Identifier: Apache-2.0
"""`Work`: the rows of a run as its engine sees them, and whom it tells what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import time
import warnings
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pizza._plugins import Registry
from pizza.bulk.census import contains
from pizza.bulk.directory import RunDirectory
from pizza.bulk.progress import Counts, Standing
from pizza.bulk.rows import Row
from pizza.bulk.settings import Settings
from pizza.bulk.troubles import Troubles
from pizza.errors import PizzaError
from pizza.events import Event, Pace, PartWritten, RowStarted
from pizza.specs import BackendSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

_READ = 64
_LOG_PACE = 60
_TICK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A row without a result.

    Attributes:
        row: The row.
        place: Its position in the input, from 0.
        index: Its position among the rows of this run, from 0.
    """

    row: Row
    place: int
    index: int


class Work:
    """What an engine is to do; belongs to one run, is lent to its engine.

    Everything is called on the event loop.

    Attributes:
        settings: How the run is made.
        directory: Where everything of the run is.
        standing: Counts, for the display.
        troubles: What became of failures.

    Args:
        settings: How the run is made.
        directory: The open directory.
        standing: Counts so far.
        troubles: Decides over failures.
        skipped: 64 bits of the id of every row that needs no work, sorted.
        listen: Called with every event.
    """

    def __init__(
        self,
        settings: Settings,
        directory: RunDirectory,
        *,
        standing: Standing,
        troubles: Troubles,
        skipped: NDArray[Any],
        listen: Callable[[Event], None],
    ) -> None:
        self.settings = settings
        self.directory = directory
        self.standing = standing
        self.troubles = troubles
        self._skipped = skipped
        self._listen = listen
        self._ticks = 0

    @functools.cached_property
    def backend(self) -> BackendSpec:
        """What its plugin says of the backend that a model's name means.

        Raises:
            ConfigError: No plugin offers it.
        """
        session = self.settings.session
        registry = Registry(session.get("plugins", ()), discover=session.get("discover", True))
        found = registry.spec("backend", self.settings.model.partition(":")[0])
        assert isinstance(found, BackendSpec)  # noqa: S101 - the registry checks it
        return found

    # --- what is to be done -------------------------------------------------------------------

    @property
    def stopping(self) -> bool:
        """Whether no further row is to be begun; those under way go on."""
        return self.troubles.reason != "finished"

    @property
    def hopeless(self) -> bool:
        """Whether rows under way are to be given up as well."""
        return self.troubles.hopeless

    async def rows(self) -> AsyncGenerator[Pending, None]:
        """Rows without a result, read in pieces on a thread; ends when the run is stopping."""
        rows = self._pending()
        index = 0
        while not self.stopping:
            piece = await asyncio.to_thread(lambda: list(itertools.islice(rows, _READ)))
            if not piece:
                return
            for row, place in piece:
                if self.stopping:
                    return
                yield Pending(row=row, place=place, index=index)
                index += 1

    def _pending(self) -> Iterator[tuple[Row, int]]:
        place = 0
        for row in self.settings.source.rows():
            if isinstance(row, Row):
                if not contains(self._skipped, row.hash):
                    yield row, place
                place += 1

    # --- what became of it --------------------------------------------------------------------

    def opened(self, identity: str, plugins: Sequence[Mapping[str, str]]) -> None:
        """It is known who answers; told before the first row.

        Args:
            identity: The backend's.
            plugins: Name, distribution and version of each that is installed.

        Raises:
            ConfigError: Another model answers than in the runs before.
        """
        changed = self.directory.note_model(identity, plugins)
        if changed:
            warnings.warn(
                f"results in {self.directory.path} were begun with other versions: "
                f"{', '.join(changed)}.",
                stacklevel=2,
            )

    def succeeded(self) -> None:
        """A row has a result; it stands in a part now, or will."""
        self.standing.done += 1
        with self._noting():
            self.troubles.succeeded()

    def lost(self, rows: int) -> None:
        """So many results went before they stood in a part: their rows are explained again."""
        self.standing.done -= rows

    def failed(self, pending: Pending, error: PizzaError) -> None:
        """There is no result for a row."""
        with self._noting():
            self.standing.failed += self.troubles.failed(pending.row, pending.place, error)

    def written(self, path: Path, rows: int) -> None:
        """A part stands under its name."""
        self.tell(PartWritten(at=time.time(), name=path.name, rows=rows))

    def no_room(self, error: OSError) -> None:
        """Something cannot be written: the run stops."""
        self.troubles.no_room(error)

    def over(self) -> None:
        """The engine is done: failures that were held back are noted."""
        if not self.hopeless:
            with self._noting():
                self.troubles.note()

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.no_room(error)

    # --- telling ------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Pass an event on to whoever listens, and into the log."""
        self._listen(event)
        if isinstance(event, Pace):
            self._ticks += 1
            if self._ticks % _LOG_PACE:
                return
        if isinstance(event, RowStarted):
            return
        with self._noting():
            self.directory.log(event.to_dict())

    @contextlib.asynccontextmanager
    async def pacing(self, count: Callable[[], Awaitable[Counts]]) -> AsyncIterator[None]:
        """Tell the pace about once a second while the block runs.

        Args:
            count: What was sent and found so far in this run. Must not fail.
        """

        async def tick() -> None:
            while True:
                self.tell(self.standing.pace(await count(), self.directory.tally.spent))
                await asyncio.sleep(_TICK_S)

        task = asyncio.create_task(tick(), name="pizza-pace")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait((task,))
