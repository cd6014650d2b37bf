"""The calibration data as ONNX Runtime reads them; light, for the stages are imported where nothing is quantized."""

from collections.abc import Iterator

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

    def __len__(self) -> int:
        """Number of batches."""
        return self.count

    def allow(self) -> None:
        """Allow one further batch."""
        self.is_next = True

    def get_next(self) -> Arrays | None:
        """The next batch, None where none is allowed."""
        if not self.is_next:
            return None
        self.is_next = False
        batch = next(self.batches)
        self.first = self.first or batch
        return batch
