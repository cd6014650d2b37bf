"""Terms of a distillation's loss, a file a method: a pure loss of `stages.kd.losses` and what it needs to see."""
