"""The user folder with a good ONNX file that the tests of the sandbox have."""

from tests.pipeline.forms.sandbox.conftest import folder, good  # noqa: F401
