"""Where channels go, by values: what is marked with NaN at a layer's output shows at the inputs that it reaches."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from pipeline.base.batches import Inputs
from pipeline.errors import StageError, blame
from pipeline.forms.tracing import slow_path
from pipeline.model import call
from stages.prune.coupling.cells import Cell, State, given, tensors
from stages.prune.coupling.parts import LAYERS, Place, axis_of, is_depthwise, is_norm, known, loose

NONE, SEVERAL = -1, -2
"""In place of the one channel that a column reads."""

Marks = Mapping[Place, Tensor]
"""Place -> (channels,) bool, those that are NaN."""

Columns = dict[str, Tensor]
"""Reader -> (columns,) of what it reads; END -> (1,) whether an output of the module, or attention, reads any."""

END = ""


class Flow:
    """A copy of a module whose layers give what they gave once: a mark goes no further than to those that read it.

    What one layer's channel is added to, multiplied with, moved to or hidden behind does not matter, and neither do
    the weights: NaN goes through. Layers that run in training alone, such as auxiliary heads, are readers too.

    Args:
        module: in evaluation mode; it is not changed.
        example: a batch of its inputs.

    Raises:
        StageError: the module does not run on the example.
    """

    def __init__(self, module: nn.Module, example: Inputs) -> None:
        with blame(StageError, "a copy of the model"):
            self.module, self.example = copy.deepcopy(module).requires_grad_(False).eval(), example
        self.parts = known(self.module)
        self._modules = {name: part for name, part in self.parts.items() if isinstance(part, nn.Module)}
        self.loose = loose(self.module)
        self._outputs: dict[tuple[bool, str], list[Any]] = {}
        self._turns: dict[str, Iterator[Any]] = {}
        self._marks: Marks = {}
        self._seen: Columns = {}
        self.apart: dict[Place, Columns] = {}
        """What a place's own channels give to read, once that is known."""
        self.modes = [False]
        with blame(StageError, "the model on its example"), Shuffles() as shuffles:
            self._record(training=False)
        self.shuffled = shuffles.factors
        """By what numbers pixels are shuffled, by a module or a function."""
        if self.unproven():
            self._record_training()
        for name, part in self._modules.items():
            part.forward = partial(self._forward, name, part, part.forward)
            if isinstance(part, nn.RNNBase):
                part.forward = partial(self._recurrent, name, part)

    def ran(self) -> list[str]:
        """Names of the parts that have run, in the module's order."""
        names = {name for _, name in self._outputs}
        owners = {name: part.owner for name, part in self.parts.items() if isinstance(part, Cell | State)}
        return [name for name in self.parts if owners.get(name, name) in names]

    def unproven(self) -> list[str]:
        """Names of the layers that may read something and do not in evaluation mode, where values are compared."""
        silent = [name for name, part in self.parts.items() if isinstance(part, LAYERS)]
        silent = [name for name in silent if (False, name) not in self._outputs]
        return [name for name in silent if len(self.modes) == 1 or (True, name) in self._outputs]

    def reached(self, marks: Marks) -> Columns:
        """Which columns hold a mark, of the readers that see any."""
        self._marks, self._seen = marks, {}
        with blame(StageError, "the model on its example, with values that are not finite"), self._marked():
            for training in self.modes:
                self._turns = {name: iter(o) for (mode, name), o in self._outputs.items() if mode == training}
                outputs = self._run(training)
                self._see(END, torch.stack([value.isnan().any() for value in outputs.values()]).any()[None])
        return {name: columns for name, columns in self._seen.items() if columns.any()}

    def read(self, index: Mapping[Place, Tensor]) -> Columns:
        """For each column the index of the channels that it reads, NONE or SEVERAL.

        Args:
            index: place -> (channels,) from 0; as many forwards are needed as it has bits, twice.
        """
        bits = max(int(numbers.max()) for numbers in index.values()).bit_length()
        columns: Columns = {}
        for bit in range(max(bits, 1)):
            on, off = ({p: (n >> bit & 1) == value for p, n in index.items()} for value in (1, 0))
            ones, zeros = self.reached(on), self.reached(off)
            for name in ones | zeros:
                either = ones[name] if name in ones else zeros[name]
                one, zero = (seen.get(name, torch.zeros_like(either)) for seen in (ones, zeros))
                before = columns.setdefault(name, torch.where(one | zero, 0, NONE))
                columns[name] = torch.where(one & zero | (before == SEVERAL), SEVERAL, before + (one.long() << bit))
        return columns

    def _record_training(self) -> None:
        """Run in training mode too, where the module does on these inputs alone."""
        try:
            with blame(StageError, ""):
                self._record(training=True)
        except StageError:
            self._outputs = {key: value for key, value in self._outputs.items() if not key[0]}
        else:
            self.modes = [False, True]

    def _record(self, training: bool) -> None:
        def keep(name: str, part: nn.Module, args: Any, output: Any) -> None:
            self._outputs.setdefault((training, name), []).append(_copied(output))

        handles = [part.register_forward_hook(partial(keep, name)) for name, part in self._modules.items()]
        try:
            self._run(training)
        finally:
            for handle in handles:
                handle.remove()

    def _run(self, training: bool) -> dict[str, Tensor]:
        if self.module.training != training:  # it takes its time
            self.module.train(training)
        # Attention as plain products: the CPU's fused kernel gives zeros for queries that are NaN.
        plain = sdpa_kernel(SDPBackend.MATH)
        with torch.random.fork_rng(devices=[]), torch.no_grad(), slow_path(), plain:
            torch.default_generator.manual_seed(0)  # not torch.manual_seed: it would reset the GPU's
            return call(self.module, self.example)

    @contextmanager
    def _marked(self) -> Iterator[None]:
        """Marks in the loose tensors, for as long as the block lasts."""
        before = {place.name: self.loose[place.name].clone() for place in self._marks if place.name in self.loose}
        for place in self._marks:
            if place.name in before:
                _mark(self.loose[place.name], int(place.side), self._marks[place])
        try:
            yield
        finally:
            for name, values in before.items():
                self.loose[name].copy_(values)

    def _forward(self, name: str, part: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a part gives in place of its forward: what it gave before, with marks."""
        values = [getattr(value, "data", value) for value in (*args, *kwargs.values())]  # of packed sequences too
        values = [value for value in values if isinstance(value, Tensor) and value.is_floating_point()]
        if values and isinstance(part, nn.MultiheadAttention):
            self._see(END, torch.stack([value.isnan().any() for value in values]).any()[None])
        elif values and not isinstance(part, nn.Embedding):
            self._see(name, _columns(values[0], axis_of(part, values[0])))
        if is_depthwise(part):
            next(self._turns[name])
            return forward(*args, **kwargs)
        output = _copied(next(self._turns[name]))
        if is_norm(part):
            return output.masked_fill(values[0].isnan(), torch.nan)
        if (mark := self._marks.get(Place(name, "out"))) is not None:
            _mark(output, axis_of(part, output), mark)
        return output

    def _recurrent(self, name: str, rnn: nn.RNNBase, input: Any, hx: Any = None) -> Any:
        """The same of a recurrent layer: each layer in it reads the one before, and a cell the state it begins with."""
        output = copy.deepcopy(next(self._turns[name]))
        units, across = given(rnn, output), 1 + rnn.bidirectional
        nothing = torch.zeros(rnn.proj_size or rnn.hidden_size, dtype=torch.bool)
        marks = [self._marks.get(Place(f"{name}.{end}", "out"), nothing) for end in units]
        read = _columns(getattr(input, "data", input), -1)
        for i, (end, values) in enumerate(units.items()):
            read = torch.cat(marks[i - across : i]) if i and i % across == 0 else read
            self._see(f"{name}.{end}", read)
            begun = [_columns(state[i], -1) for state in tensors(hx)]
            if begun and rnn.proj_size:
                self._see(END, torch.cat(begun).any()[None])
            elif begun:
                self._see(f"{name}.{end}.state", torch.stack([marks[i], *begun]).any(0))
            for value in values:
                _mark(value, -1, marks[i])
        return output

    def _see(self, name: str, columns: Tensor) -> None:
        self._seen[name] = self._seen[name] | columns if name in self._seen else columns


class Shuffles(TorchFunctionMode):
    """While it is on, it notes by what numbers `torch.pixel_shuffle` moves channels to pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.factors = set[int]()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function of torch."""
        kwargs = kwargs or {}
        if function is torch.pixel_shuffle:
            self.factors.add(kwargs["upscale_factor"] if len(args) < 2 else args[1])
        return function(*args, **kwargs)


def _columns(values: Tensor, axis: int) -> Tensor:
    """(columns,) bool, those of an axis that have a mark."""
    return values.isnan().movedim(axis, 0).flatten(1).any(1)


def _copied(output: Any) -> Any:
    """What a part gave, apart from what follows and may write into it; NaN of its own is no mark."""
    is_plain = isinstance(output, Tensor) and output.is_floating_point()
    return output.nan_to_num(0.0, torch.inf, -torch.inf) if is_plain else copy.deepcopy(output)


def _mark(values: Tensor, axis: int, channels: Tensor) -> None:
    values.index_fill_(axis, channels.nonzero().flatten(), torch.nan)
