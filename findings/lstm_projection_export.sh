#!/usr/bin/env bash
# torch 2.13.0 with onnxscript 0.7.2: an LSTM with proj_size is exported, without a word, as an LSTM of another size.
#
# Behaviour: ONNX's LSTM has no projection of its hidden state. onnxscript's aten_lstm takes the hidden size from the
# initial hidden state, which has proj_size numbers: it cuts rows of that many from W and R for each gate, leaves the
# projection's weight out, and the export ends well. ONNX Runtime refuses the cell state when the file is run. torch's
# older exporter (dynamo=False) refuses the layer by name.
# Output seen:
#   proj_size 0: W [1, 40, 8], R [1, 40, 10], largest difference 6e-08
#   proj_size 5: W [1, 20, 8], R [1, 20, 5], does not run: Input initial_c must have shape {1,2,5}. Actual:{1,2,10}
#
# Shrinkline exports no such layer: the file's run fails and ends the stage.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/env"
"$folder/env/bin/pip" -q install torch==2.13.0 onnxscript==0.7.2 onnxruntime==1.31.1 onnx==1.23.2 numpy==2.4.6
cd "$folder"
"$folder/env/bin/python" 2> /dev/null - <<'PY'
import onnxruntime
import torch
from torch import nn

torch.manual_seed(0)
onnxruntime.set_default_logger_severity(4)


def outcome(size):
    """The weights' shapes in the file, and how far its output is from torch's."""
    layer, inputs = nn.LSTM(8, 10, proj_size=size, batch_first=True).eval(), torch.randn(2, 3, 8)
    program = torch.onnx.export(layer, (inputs,), dynamo=True, verbose=False)
    program.save("lstm.onnx")
    node = next(node for node in program.model.graph if node.op_type == "LSTM")
    shapes = ", ".join(f"{name} {[*value.shape]}" for name, value in zip("WR", node.inputs[1:3], strict=True))
    session = onnxruntime.InferenceSession("lstm.onnx", providers=["CPUExecutionProvider"])
    try:
        output = session.run(None, {session.get_inputs()[0].name: inputs.numpy()})[0]
    except Exception as error:
        return f"{shapes}, does not run: {str(error).rpartition('Message: ')[2]}"
    return f"{shapes}, largest difference {abs(output - layer(inputs)[0].detach().numpy()).max():.0e}"


for size in (0, 5):
    print(f"proj_size {size}: {outcome(size)}")
PY
