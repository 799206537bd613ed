"""What is learned: every module exports ``make_task``, which ties models, losses and an optimizer together."""
