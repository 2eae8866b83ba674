"""What experiments share: tasks, data and cached runs."""
