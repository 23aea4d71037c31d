"""What every way of steering traffic has in common."""

from __future__ import annotations

from typing import Any, Protocol

Manifest = dict[str, Any]


class Traffic(Protocol):
    """Writes the objects that share the users of a ModelDeployment out to its revisions."""

    async def read(self, namespace: str, name: str) -> Manifest | None:
        """The live object that carries the weights, None when there is none.

        Raises:
            KubeError: It cannot be read.
        """
        ...

    async def write(self, desired: Manifest, live: Manifest | None) -> Manifest | None:
        """Set the weights, if the live object is still the one that was read.

        Args:
            desired: The object as it must be.
            live: As it was read; None when there was none.

        Returns:
            The object as it is then; None when nothing had to be written.

        Raises:
            ConflictError: Somebody wrote it in the meantime; read it again.
            NotOursError: Somebody else has an object of that name.
            KubeError: It cannot be written.
        """
        ...
