"""What is given from Python as objects in place of names: modules, tasks, data, stages."""
