"""Which weights of a model zeros come into, and why they do not come into others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import Note, ShrinkError
from pipeline.model import TorchModel
from stages.prune.coupling.telling import counted
from stages.prune.ignored import ignored, is_in
from stages.prune.sparse.layers import Weight, calls_of, weights_of
from stages.prune.sparse.masks import Pattern


@dataclass(frozen=True)
class Choice:
    """The weights that zeros come into.

    Args:
        weights: they.
        unmet: names of those whose inputs are not seen, by which they could be chosen.
        ends: names of the first and the last layer, where these stay as they are.
        nonlinear: names of layers that compute with something else than their weight.
        others: names of parameters with several axes that no layer has that is known here.
    """

    weights: list[Weight]
    unmet: list[str]
    ends: list[str]
    nonlinear: list[str]
    others: list[str]

    @property
    def names(self) -> list[str]:
        """Names of the weights."""
        return [weight.name for weight in self.weights]

    def notes(self, by_inputs: bool) -> Iterator[Note]:
        """What to say of them before work; `by_inputs` where zeros are chosen by these."""
        yield Note(f"zeros come into {counted(self.names, 'weight')}")
        for names, why in (
            (self.ends, "the first and the last stay dense without `first_last: true`"),
            (self.nonlinear, "what is computed with is made of the weight at each call"),
        ):
            if names:
                yield Note(f"no zeros come into {counted(names)}: {why}")
        if self.others:
            yield Note(f"no zeros come into {counted(self.others, 'weight')} of other kinds of layers")
        if by_inputs and self.unmet:
            yield by_magnitude(self.unmet)


def by_magnitude(names: Sequence[str]) -> Note:
    """Says which weights have their zeros by magnitude, whatever the method."""
    return Note(
        f"zeros of {counted(names, 'weight')} are chosen by magnitude: what is multiplied with them is not seen"
    )


def chosen(
    model: TorchModel,
    ignore: Sequence[str],
    first_last: bool,
    pattern: Pattern | None,
    error: type[ShrinkError],
) -> Choice:
    """The weights of a model that zeros come into.

    Args:
        model: with plain weights.
        ignore: patterns of the names of layers, or of parts with layers.
        first_last: whether the first and the last layer that are called are among them.
        pattern: it fits where its length divides the inputs.
        error: raised where none is left, a pattern does not fit, or `ignore` names nothing.
    """
    calls, names = calls_of(model, error), ignored(model.module, ignore, error)
    ends = [*dict.fromkeys((*calls.layers[:1], *calls.layers[-1:]))] if not first_last else []
    weights = weights_of(model.module)
    kept = [w for w in weights if not any(is_in(layer, (*names, *ends, *calls.nonlinear)) for layer in w.layers)]
    if not kept:
        problem = "all weights stay as they are: there is none outside `ignore`"
        problem += " and the first and the last layer" if ends else ""
        fix = "Set `first_last: true`, or name less in `ignore`" if ends else "Name less in `ignore`"
        raise error(problem, expected="a convolution, linear or recurrent layer, or attention", fix=fix)
    if pattern:
        _check_pattern(kept, pattern, error)
    unmet = [w.name for w in kept if not w.is_met or {*w.layers}.isdisjoint(calls.layers)]
    own = {id(model.module.get_parameter(w.name)) for w in weights}
    return Choice(
        kept,
        unmet,
        [end for end in ends if not is_in(end, names)],
        [*dict.fromkeys(calls.nonlinear)],
        [name for name, p in model.module.named_parameters() if p.dim() > 1 and id(p) not in own],
    )


def _check_pattern(weights: Sequence[Weight], pattern: Pattern, error: type[ShrinkError]) -> None:
    """Raise `error` where the length of a pattern does not divide the inputs of a weight."""
    wrong = [weight for weight in weights if weight.channels % pattern.of]
    if not wrong:
        return
    some = ", ".join(f"`{weight.name}` ({weight.channels})" for weight in wrong)
    layers = ", ".join(dict.fromkeys(layer for weight in wrong for layer in weight.layers))
    raise error(
        f"`pattern: {pattern.kept}:{pattern.of}` does not fit the inputs of {some}",
        expected=f"a multiple of {pattern.of} inputs",
        fix=f"Leave them as they are: `ignore: [{layers}]`",
    )
