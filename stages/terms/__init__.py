"""Terms of a distillation's loss, a file a method: a pure loss of `stages.losses` and what it needs to see."""
