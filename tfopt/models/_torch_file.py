"""Reads the tensors of a file that `torch.save` wrote before PyTorch 1.6, without PyTorch.

Such a file is a chain of pickles (a magic number, a protocol version, facts about the machine, the object,
the keys of its storages) followed by the raw bytes of each storage. A pickle may name any function to be
called, so the unpickler here knows four names, all of which only describe tensors, and refuses every other.
"""

import collections
import math
import pathlib
import pickle
from typing import Any, BinaryIO

import numpy as np

_MAGIC = 0x1950A86A20F9469CFC6C  # torch/serialization.py, MAGIC_NUMBER
_PROTOCOL = 1001
_STORAGES = {"FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "LongStorage": "<i8"}


def read_torch_file(path: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a state dictionary, by name.

    Args:
        path: A file of `torch.save(model.state_dict())` in the format before the zip archives of 1.6.

    Raises:
        ValueError: If the file is damaged, in another format, or asks for anything but tensors.
    """
    with open(path, "rb") as file:
        try:
            return _read(file)
        except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError) as error:
            raise ValueError(
                f"{str(path)!r} must be a state dictionary in PyTorch's format before 1.6. {error}"
            ) from error


def _read(file: BinaryIO) -> dict[str, np.ndarray]:
    for expected in (_MAGIC, _PROTOCOL):
        if _TensorUnpickler(file).load() != expected:
            raise ValueError("It begins with other bytes.")
    if not _TensorUnpickler(file).load().get("little_endian", False):
        raise ValueError("It was written by a big-endian machine.")
    unpickler = _TensorUnpickler(file)
    tensors = unpickler.load()
    for key in _TensorUnpickler(file).load():
        unpickler.storages[key].fill(file)
    return {name: tensor.array() for name, tensor in tensors.items()}


class _Storage:
    """A one-dimensional array whose bytes come at the end of the file."""

    def __init__(self, dtype: str, size: int) -> None:
        self._dtype, self._size = dtype, size
        self.values: np.ndarray = np.empty(0, dtype)

    def fill(self, file: BinaryIO) -> None:
        """Reads the size, which repeats the one in the pickle, and the values."""
        if int.from_bytes(file.read(8), "little") != self._size:
            raise ValueError("The size of a storage differs from that of its tensor.")
        content = file.read(self._size * np.dtype(self._dtype).itemsize)
        self.values = np.frombuffer(content, self._dtype)
        if len(self.values) != self._size:
            raise ValueError("It ends in the middle of a storage.")


class _Tensor:
    """A view of a storage, which is read later; its axes may be in another order than the values."""

    def __init__(self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]):
        if len(shape) != len(strides) or min((offset, *shape, *strides)) < 0:
            raise ValueError("The shape of a tensor makes no sense.")
        self._storage, self._offset, self._shape, self._strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        """The values in their shape."""
        last = self._offset + sum(step * (size - 1) for size, step in zip(self._shape, self._strides))
        values = self._storage.values
        if math.prod(self._shape) and last >= len(values):
            raise ValueError("A tensor is larger than its storage.")
        strides = [step * values.itemsize for step in self._strides]
        view = np.lib.stride_tricks.as_strided(values[self._offset :], self._shape, strides, writeable=False)
        return view.copy()


def _rebuild_tensor(
    storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _TensorUnpickler(pickle.Unpickler):
    """Builds dictionaries and descriptions of tensors; refuses every other class and function."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """The four names that a state dictionary needs."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild_tensor
        if module == "torch" and name in _STORAGES:
            return name
        raise pickle.UnpicklingError(f"It asks for {module}.{name}, which is refused.")

    def persistent_load(self, reference: Any) -> _Storage:
        """A storage by its key: ("storage", type, key, device, size, view), where a view is unusual."""
        kind, storage_type, key, _, size, view = reference
        if kind != "storage" or view is not None:
            raise pickle.UnpicklingError("It refers to something that is not a whole storage.")
        return self.storages.setdefault(key, _Storage(_STORAGES[storage_type], size))
