"""A KV cache with room for what will be written: each step writes its column in place.

transformers' dynamic cache joins old and new columns by copying both, in every layer at every step: with 2,000 columns
and eight rows that is most of the time of writing a chain. Its static cache has room, but lets attention read the
empty columns too, and makes masks for all of them.

Knows shapes of keys and values; knows nothing of models.

Shapes: R rows, H heads, T columns, D width of a head."""

from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


def with_room(prefill: DynamicCache, *, samples: int, room: int) -> Cache:
    """The prefill's columns, each row `samples` times, and `room` columns to write to. The prefill is emptied as it is
    read, a layer at a time, so that there is never a second copy of the whole."""
    layers = []
    for layer in prefill.layers:
        assert type(layer) is DynamicLayer, "a layer that forgets columns needs a room of its own"
        layers.append(_RoomyLayer(layer.keys, layer.values, samples=samples, room=room))
        layer.reset()
    return Cache(layers=layers)


class _RoomyLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """`keys` and `values` are views of the columns written so far, of buffers that are longer."""

    def __init__(self, keys_BHTD: Tensor, values_BHTD: Tensor, *, samples: int, room: int) -> None:
        super().__init__()
        self.lazy_initialization(keys_BHTD, values_BHTD)
        self._key_room, self._value_room = (_roomy(x, samples, room) for x in (keys_BHTD, values_BHTD))
        self._show(keys_BHTD.shape[2])

    def update(
        self,
        key_states: Tensor,
        value_states: Tensor,
        *args: object,  # noqa: ARG002  # transformers' signature
        **kwargs: object,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """Write new columns behind the old, and give all of them."""
        start = self.keys.shape[2]
        self._show(start + key_states.shape[2])
        self.keys[:, :, start:] = key_states
        self.values[:, :, start:] = value_states
        return self.keys, self.values

    def _show(self, columns: int) -> None:
        assert columns <= self._key_room.shape[2], "more columns than the cache has room for"
        self.keys, self.values = self._key_room[:, :, :columns], self._value_room[:, :, :columns]


def _roomy(states_BHTD: Tensor, samples: int, room: int) -> Tensor:
    rows, heads, columns, width = states_BHTD.shape
    buffer = states_BHTD.new_empty(rows * samples, heads, columns + room, width)
    buffer.view(rows, samples, heads, -1, width)[..., :columns, :] = states_BHTD[:, None]
    return buffer
