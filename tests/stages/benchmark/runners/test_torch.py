from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import nn

from stages.benchmark.runners.torch import ready


def test_threads_with_requests_at_a_time_keep_no_gradients_and_answer_alike() -> None:
    module, arrays = nn.Linear(4, 2), {"input": np.random.default_rng(0).random((3, 4), np.float32)}
    loaded = ready(module, None, {"concurrency": 2})
    expected = module(torch.from_numpy(arrays["input"])).detach().numpy()
    with ThreadPoolExecutor(2) as pool:
        for outputs in pool.map(lambda step: step(), [loaded.prepare(arrays) for _ in range(2)]):
            assert not any(value.requires_grad for value in outputs.values())
            np.testing.assert_array_equal(loaded.answers(outputs)["output"], expected)
