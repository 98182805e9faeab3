# SPDX-License-Identifier: MIT
from _typeshed import ReadableBuffer, WriteableBuffer
from asyncio import Future
from typing import SupportsIndex
from typing_extensions import Self

from weft import _weft
from weft._weft import (
    NORMAL as NORMAL,
    RANDOM as RANDOM,
    Error as Error,
    Map as Map,
    MapStats as MapStats,
    __version__ as __version__,
)

__all__ = ["NORMAL", "RANDOM", "Error", "Map", "MapStats", "Region"]

class Region(_weft.Region):
    def __enter__(self) -> Self: ...
    def __exit__(self, *exception: object) -> None: ...
    def close(self) -> None: ...
    def aio_pread(self, size: SupportsIndex, offset: SupportsIndex) -> Future[bytes]: ...
    def aio_pread_into(
        self, buffer: WriteableBuffer, offset: SupportsIndex
    ) -> Future[None]: ...
    def aio_pwrite(self, data: ReadableBuffer, offset: SupportsIndex) -> Future[None]: ...
    def aio_flush(self) -> Future[None]: ...
