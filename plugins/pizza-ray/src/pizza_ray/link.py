# SPDX-License-Identifier: Apache-2.0
"""The way to a coordinator that is a Ray actor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pizza_ray.wire import LinkError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pizza_ray.wire import Batch, Delivery, Fault, Terms


class ActorLink:
    """Calls a coordinator's methods on an actor that has them.

    Ray is imported by whoever made the handle; here only its errors are, when there is one.

    Args:
        handle: The actor's handle.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def register(self, worker: str, incarnation: int) -> Terms:
        """See `Coordinator.register`."""
        terms: Terms = await self._called("register", worker, incarnation)
        return terms

    async def exchange(
        self, worker: str, incarnation: int, batch: Batch, hold_s: float
    ) -> Delivery:
        """See `Coordinator.exchange`."""
        delivery: Delivery = await self._called("exchange", worker, incarnation, batch, hold_s)
        return delivery

    async def lost(self, worker: str, incarnation: int | None = None) -> None:
        """See `Coordinator.lost`."""
        await self._called("lost", worker, incarnation)

    async def get_many(self, keys: Sequence[str]) -> tuple[dict[str, bytes], Fault | None]:
        """See `Coordinator.get_many`."""
        found: tuple[dict[str, bytes], Fault | None] = await self._called("get_many", keys)
        return found

    async def put_many(self, values: Mapping[str, bytes]) -> Fault | None:
        """See `Coordinator.put_many`."""
        fault: Fault | None = await self._called("put_many", values)
        return fault

    async def _called(self, method: str, *arguments: Any) -> Any:
        from ray.exceptions import RayError, RayTaskError

        try:
            return await getattr(self._handle, method).remote(*arguments)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, LinkError):
                raise LinkError(str(cause)) from None
            raise LinkError(
                f"the coordinator failed in {method}: {type(cause).__name__}: {cause}"
            ) from error
        except RayError as error:
            raise LinkError(
                f"the coordinator of this run cannot be reached ({type(error).__name__}): the "
                "program that started the run has ended, or the network to it is down. Start the "
                "same run again: what was answered is kept."
            ) from error
