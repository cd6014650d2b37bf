"""ONNX files from outside: checked before a library opens them, and worked on in processes of their own.

What happens where:
    here, by our own reader      `check`: sizes, nesting, shapes against data, external data, operators
    in a child (`child`)         loading the file and every prediction of it, and of the files that stages make of it
    in another                   quantizing it (`stages.quantize.quantizing.child`): optimizing, shapes, calibrating,
                                 rewriting; what that process writes is checked again
    here, by libraries           what reads or rewrites the graph and makes no session of it, after the child has
                                 loaded it and run it on the task's first examples: counting parameters and MACs,
                                 naming nodes, shortening names, logging it

`process` is our end of the pipes to a child, `parent` the child's end, `frames` what goes through.
`benchmark.latency` times each model in processes of its own, this one too.
"""
