"""The contracts and the machinery: models, tasks, stages, the chain that runs them, and the evidence it leaves."""
