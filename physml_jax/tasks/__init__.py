"""What is learned: every module exports ``make_task``, which ties models, losses and an optimizer into four pure functions."""
