"""Models side by side: how good they are, how much of them there is, and how fast they run."""
