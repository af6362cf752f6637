"""What operators are told of by themselves: the event log."""
