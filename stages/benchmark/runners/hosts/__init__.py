"""How a process begins where it is not just started: within limits, or on another machine."""
