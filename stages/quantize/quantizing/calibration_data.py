"""The calibration data as ONNX Runtime reads them; light, for the stages are imported where nothing is quantized."""

from collections.abc import Callable, Iterator

from pipeline.forms.sandbox.frames import Arrays


class CalibrationData:
    """Batches of inputs as ONNX Runtime's calibrators ask for them: in order, once, one in memory at a time.

    Args:
        batches: name -> array (B, ...), by the graph's names.
        count: how many.
    """

    def __init__(self, batches: Iterator[Arrays], count: int) -> None:
        self.batches, self.count = batches, count
        self.first: Arrays = {}
        self.is_next = False
        self.also: Callable[[Arrays], None] | None = None
        """Is handed each batch that is read."""

    def __len__(self) -> int:
        """Number of batches."""
        return self.count

    def allow(self) -> None:
        """Allow one further batch."""
        self.is_next = True

    def read(self) -> None:
        """Read all batches, for who is handed them."""
        for _ in range(len(self)):
            self.allow()
            self.get_next()

    def get_next(self) -> Arrays | None:
        """The next batch, None where none is allowed."""
        if not self.is_next:
            return None
        self.is_next = False
        batch = next(self.batches)
        self.first = self.first or batch
        if self.also:
            self.also(batch)
        return batch
