"""What worker processes run in tests: functions that `tfopt.distribute.spawn` calls, and scripts."""
