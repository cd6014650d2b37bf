"""ONNX files from outside: checked before a library opens them, and run in a process of their own.

What happens where:
    here, by our own reader      `check`: sizes, nesting, shapes against data, external data, operators
    in a child (`child`)         loading the file and every prediction of it, and of the files that stages make of it
    here, by libraries           what reads or rewrites the graph, after the child has loaded it and run it on the
                                 task's first examples: counting parameters and MACs, quantizing, logging it

`benchmark.latency` times each model in processes of its own, this one too.
"""
